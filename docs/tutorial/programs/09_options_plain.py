"""Set options on a listening socket, and see which its connections have."""

import socket
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
OPTIONS = {
    "SO_REUSEADDR": (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "TCP_NODELAY": (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),  # milliseconds
}

with socket.socket() as listener:
    for level, number, value in OPTIONS.values():
        listener.setsockopt(level, number, value)
    listener.bind(("127.0.0.1", PORT))
    listener.listen()
    with socket.create_connection(("127.0.0.1", PORT)) as client:
        server, _ = listener.accept()
        with server:
            for name, (level, number, _) in OPTIONS.items():
                print(name, server.getsockopt(level, number), client.getsockopt(level, number))
