"""Send lists and tuples, and print the values that come back."""

import sys

from twistedsock import connect_blocking

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with connect_blocking(f"tcp:127.0.0.1:{PORT}", framing="line", codec="literal") as peer:
    for numbers in [1, 2, 3], (0.5, 0.25):
        peer.send(numbers)
        answer = peer.receive()
        print(answer["count"], "numbers, together", answer["sum"])
