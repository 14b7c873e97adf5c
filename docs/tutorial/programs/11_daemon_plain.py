"""Become a daemon: leave the terminal, keep a pid file and a log, and end on SIGTERM."""

import logging
import os
import signal
import socket
import sys
from pathlib import Path
from threading import Thread

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
HERE = Path.cwd()


def serve(sock, peer):
    """Serve one client to its end."""
    with sock:
        while message := sock.recv(1024):
            sock.sendall(message.upper())
    logging.info("%s:%s has left", *peer)


listener = socket.create_server(("127.0.0.1", PORT))  # a failure is still seen in the terminal
if os.fork():
    os._exit(0)
os.setsid()  # a session of our own, without a terminal
if os.fork():  # whoever is not the session's leader can get none again
    os._exit(0)
for standard in 0, 1, 2:
    os.dup2(os.open(os.devnull, os.O_RDWR), standard)
logging.basicConfig(filename=HERE / "shout.log", level=logging.INFO)
(HERE / "shout.pid").write_text(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    logging.info("listening on port %s", PORT)
    while True:
        Thread(target=serve, args=listener.accept(), daemon=True).start()
finally:
    (HERE / "shout.pid").unlink()
    logging.info("stopped")
