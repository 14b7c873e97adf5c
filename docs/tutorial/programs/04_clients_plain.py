"""Be many clients: connect them all, send from each, and count who is answered."""

import socket
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 200


def is_answered(sock, message):
    """Return whether *sock* receives the answer to *message* within a second each time."""
    sock.settimeout(1)
    try:
        sock.recv(1024)  # the greeting
        sock.sendall(message)
        return sock.recv(1024) == b"OK..." + message
    except TimeoutError:
        return False


socks = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(COUNT)]
answered = [is_answered(sock, b"client %d" % number) for number, sock in enumerate(socks)]
print(sum(answered), "of", COUNT, "clients were answered")
for sock in socks:
    sock.close()
