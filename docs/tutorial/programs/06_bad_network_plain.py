"""Stand between a client and a server, as a network does on a bad day."""

import select
import socket
import sys
from contextlib import suppress

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
HERE = int(sys.argv[2]) if len(sys.argv) > 2 else 8889
fates = ["lost", "repeated", "held back"]  # of the first datagrams from the client
held = []
client = None

with (
    suppress(KeyboardInterrupt),
    socket.socket(type=socket.SOCK_DGRAM) as inner,
    socket.socket(type=socket.SOCK_DGRAM) as outer,
):
    inner.bind(("127.0.0.1", HERE))
    outer.connect(("127.0.0.1", PORT))
    print("listening on port", HERE, flush=True)
    while True:
        ready, _, _ = select.select([inner, outer], [], [])
        if outer in ready:
            inner.sendto(outer.recv(65535), client)
        if inner in ready:
            message, client = inner.recvfrom(65535)
            fate = fates.pop(0) if fates else "delivered"
            print(fate, message, flush=True)
            if fate == "held back":
                held.append(message)
            elif fate != "lost":
                copies = 2 if fate == "repeated" else 1
                for each in [message] * copies + held:
                    outer.send(each)
                held.clear()
