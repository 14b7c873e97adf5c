"""Answer each line after work that takes a while; a thread for each client."""

import socket
import sys
import time
from contextlib import suppress
from threading import Thread

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


def work(message):
    """Stand for a database, a disk or a long computation: return the answer, later."""
    time.sleep(0.3)
    return b"OK..." + message


def serve(sock):
    """Serve one client to its end."""
    with sock, sock.makefile("rb") as lines, suppress(ConnectionError):
        for line in lines:
            sock.sendall(work(line.rstrip(b"\r\n")) + b"\n")


with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", PORT)) as listener:
    print("listening on port", PORT, flush=True)
    while True:
        sock, _ = listener.accept()
        Thread(target=serve, args=(sock,), daemon=True).start()
