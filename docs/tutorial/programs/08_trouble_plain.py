"""Be a server that makes one kind of trouble: silent, full, closes or resets."""

import signal
import socket
import struct
import sys
from contextlib import suppress

KIND = sys.argv[1]
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 8888
GREETING = b"Welcome to the server. Type something and hit enter\n"
kept = []


def make_trouble(sock):
    """Greet one client, hear it, and leave it."""
    with sock, suppress(ConnectionError):
        sock.sendall(GREETING)
        sock.recv(1024)
        if KIND == "resets":  # a close that lingers for no time throws the connection away
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", PORT), backlog=0) as listener:
    if KIND == "full":  # one waits to be accepted, for ever: there is no room for another
        kept.append(socket.create_connection(("127.0.0.1", PORT)))
    print("listening on port", PORT, flush=True)
    if KIND == "full":
        signal.pause()
    while True:
        sock, _ = listener.accept()
        if KIND == "silent":
            kept.append(sock)
        else:
            make_trouble(sock)
