"""Set options on a listening socket, and see which its connections have."""

import socket
import sys

from twistedsock import sockopts

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
OPTIONS = {
    "SO_REUSEADDR": True,
    "SO_KEEPALIVE": True,
    "TCP_NODELAY": True,
    "TCP_USER_TIMEOUT": "30s",
}

with socket.socket() as listener:
    report = sockopts.apply(listener, OPTIONS)
    listener.bind(("127.0.0.1", PORT))
    listener.listen()
    with socket.create_connection(("127.0.0.1", PORT)) as client:
        server, _ = listener.accept()
        with server:
            for outcome in report:
                name = outcome.name
                print(name, sockopts.read(server, name), sockopts.read(client, name))
