"""Send three messages as lines, and print each message that comes."""

import sys

from twistedsock import connect_blocking

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with connect_blocking(f"tcp:127.0.0.1:{PORT}", framing="line") as peer:
    for message in b"one", b"two", b"three":
        peer.send(message)
    peer.half_close()
    for message in peer:
        print(message)
