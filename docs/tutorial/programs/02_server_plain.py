"""Greet a client, and answer what it sends with "OK..." and the same: one client at a time."""

import socket
import sys
from contextlib import suppress

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
GREETING = b"Welcome to the server. Type something and hit enter\n"

with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", PORT)) as listener:
    print("listening on port", PORT, flush=True)
    while True:
        sock, _ = listener.accept()
        with sock, suppress(ConnectionError):
            sock.sendall(GREETING)
            while message := sock.recv(1024):
                sock.sendall(b"OK..." + message)
