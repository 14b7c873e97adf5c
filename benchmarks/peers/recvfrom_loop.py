"""Echo over UDP with two blocking system calls: the least that Python can do."""

import socket
import sys


def main() -> None:
    """Serve until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("127.0.0.1", int(sys.argv[1])))
        while True:
            data, peer = endpoint.recvfrom(65536)
            endpoint.sendto(data, peer)


if __name__ == "__main__":
    main()
