"""The same client on a socket that never blocks: it waits in select() alone."""

import os
import select
import socket
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

with socket.socket() as sock:
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", PORT))  # returns at once: the answer comes later
    select.select([], [sock], [])  # writable: connected, or failed
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        sys.exit(os.strerror(number))
    select.select([sock], [], [])  # readable
    print(sock.recv(1024))
    sock.send(b"hello")
    select.select([sock], [], [])
    print(sock.recv(1024))
