"""Echo over TCP with gevent: one greenlet a connection."""

import sys

from gevent.server import StreamServer
from gevent.socket import socket


def echo(connection: socket, address: tuple[str, int]) -> None:
    """Answer every read with the same bytes until the peer ends."""
    while data := connection.recv(65536):
        connection.sendall(data)


if __name__ == "__main__":
    StreamServer(("127.0.0.1", int(sys.argv[1])), echo, backlog=1024).serve_forever()
