"""Answer each line with "OK..." and the line; a thread for each client."""

import socket
import sys
from contextlib import suppress
from threading import Thread

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
GREETING = b"Welcome to the server. Type something and hit enter\n"


def serve(sock):
    """Serve one client to its end; its file puts lines together again."""
    with sock, sock.makefile("rb") as lines, suppress(ConnectionError):
        sock.sendall(GREETING)
        for line in lines:
            sock.sendall(b"OK..." + line.rstrip(b"\r\n") + b"\n")


with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", PORT)) as listener:
    print("listening on port", PORT, flush=True)
    while True:
        sock, _ = listener.accept()
        Thread(target=serve, args=(sock,), daemon=True).start()
