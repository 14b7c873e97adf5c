"""Be five clients that ask at once; say how long all answers took."""

import socket
import sys
import time

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

socks = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(5)]
started = time.monotonic()
for sock in socks:
    sock.sendall(b"work\n")
answers = [sock.recv(1024) for sock in socks]
seconds = time.monotonic() - started
print(answers.count(b"OK...work\n"), f"answers in {seconds:.1f} seconds")
for sock in socks:
    sock.close()
