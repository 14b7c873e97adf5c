"""Answer each datagram with "OK..." and the same."""

import socket
import sys
from contextlib import suppress

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with suppress(KeyboardInterrupt), socket.socket(type=socket.SOCK_DGRAM) as sock:
    sock.bind(("127.0.0.1", PORT))
    print("listening on port", PORT, flush=True)
    while True:
        message, peer = sock.recvfrom(65535)
        sock.sendto(b"OK..." + message, peer)
