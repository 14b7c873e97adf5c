"""Send lists and tuples, and print the values that come back."""

import socket
import sys
from ast import literal_eval

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with (
    socket.create_connection(("127.0.0.1", PORT)) as sock,
    sock.makefile("rw", encoding="utf-8") as file,
):
    for numbers in [1, 2, 3], (0.5, 0.25):
        file.write(repr(numbers) + "\n")
        file.flush()
        answer = literal_eval(file.readline())
        print(answer["count"], "numbers, together", answer["sum"])
