"""Send three lines in two pieces, cut at the wrong place, and print each line that comes."""

import socket
import sys
import time

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with socket.create_connection(("127.0.0.1", PORT)) as sock:
    sock.sendall(b"one\ntwo\nthr")
    time.sleep(0.3)  # so that they are sent in two pieces, and not joined again
    sock.sendall(b"ee\n")
    sock.shutdown(socket.SHUT_WR)
    buffer = b""
    while data := sock.recv(1024):
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            print(line)
