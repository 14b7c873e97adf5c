"""Serve many clients at once, in one thread that asks the kernel who has sent something."""

import selectors
import socket
import sys
from contextlib import suppress

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
GREETING = b"Welcome to the server. Type something and hit enter\n"


def serve(sock):
    """Answer what one client has sent; return whether there may be more."""
    with suppress(ConnectionError):
        if message := sock.recv(1024):
            sock.sendall(b"OK..." + message)
            return True
    return False


with (
    suppress(KeyboardInterrupt),
    socket.create_server(("127.0.0.1", PORT)) as listener,
    selectors.DefaultSelector() as selector,
):
    selector.register(listener, selectors.EVENT_READ)
    print("listening on port", PORT, flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                sock, _ = listener.accept()
                sock.sendall(GREETING)
                selector.register(sock, selectors.EVENT_READ)
            elif not serve(key.fileobj):
                selector.unregister(key.fileobj)
                key.fileobj.close()
