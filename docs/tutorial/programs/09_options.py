"""Set options on a listening socket, and see which its connections have."""

import socket
import sys

from twistedsock import sockopts
from twistedsock.addresses import parse_address

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
OPTIONS = {
    "SO_REUSEADDR": True,
    "SO_KEEPALIVE": True,
    "TCP_NODELAY": True,
    "TCP_USER_TIMEOUT": "30s",
}

plans = sockopts.plan_options(OPTIONS, parse_address(f"tcp:127.0.0.1:{PORT}"))
with socket.socket() as listener:
    sockopts.apply(listener, plans)
    listener.bind(("127.0.0.1", PORT))
    listener.listen()
    with socket.create_connection(("127.0.0.1", PORT)) as client:
        server, _ = listener.accept()
        with server:
            for option in [plan.option for plan in plans]:
                ends = [sock.getsockopt(option.level, option.number) for sock in (server, client)]
                print(option.name, *ends)
