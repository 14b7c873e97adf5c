"""Open one connection, and print the five-tuple of each of its two ends."""

import socket
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with (
    socket.create_server(("127.0.0.1", PORT)) as listener,
    socket.create_connection(("127.0.0.1", PORT)) as client,
):
    server, _ = listener.accept()
    with server:
        for end, sock in ("server", server), ("client", client):
            print(end, "tcp", *sock.getsockname(), *sock.getpeername())
