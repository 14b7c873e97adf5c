"""Take lists of numbers, and answer each with a dict: literals on lines."""

import socket
import sys
from ast import literal_eval
from contextlib import suppress
from threading import Thread

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


def serve(sock):
    """Serve one client to its end, or to the first line that is no literal."""
    with sock, sock.makefile("rb") as lines, suppress(ConnectionError, ValueError, SyntaxError):
        for line in lines:
            numbers = literal_eval(line.decode().strip())
            answer = {"count": len(numbers), "sum": sum(numbers)}
            sock.sendall(repr(answer).encode() + b"\n")


with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", PORT)) as listener:
    print("listening on port", PORT, flush=True)
    while True:
        sock, _ = listener.accept()
        Thread(target=serve, args=(sock,), daemon=True).start()
