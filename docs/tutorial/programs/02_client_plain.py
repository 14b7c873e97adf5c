"""Hear the greeting, send a message, and hear the answer."""

import socket
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with socket.create_connection(("127.0.0.1", PORT)) as sock:
    print(sock.recv(1024))
    sock.sendall(b"hello")
    print(sock.recv(1024))
