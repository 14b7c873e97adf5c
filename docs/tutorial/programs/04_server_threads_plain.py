"""Serve many clients at once, with a thread for each of them."""

import socket
import sys
from contextlib import suppress
from threading import Thread

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
GREETING = b"Welcome to the server. Type something and hit enter\n"


def serve(sock):
    """Serve one client to its end."""
    with sock, suppress(ConnectionError):
        sock.sendall(GREETING)
        while message := sock.recv(1024):
            sock.sendall(b"OK..." + message)


with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", PORT)) as listener:
    print("listening on port", PORT, flush=True)
    while True:
        sock, _ = listener.accept()
        Thread(target=serve, args=(sock,), daemon=True).start()
