"""Hear the greeting, send a message, and hear the answer."""

import sys

from twistedsock import connect_blocking

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with connect_blocking(f"tcp:127.0.0.1:{PORT}") as peer:
    print(peer.receive())
    peer.send(b"hello")
    print(peer.receive())
