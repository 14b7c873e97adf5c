"""Resolve, connect, receive, send, receive, send once more; tell each failure apart."""

import errno
import socket
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
HOST = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
FAILURES = [  # the first that fits: all are OSErrors
    (socket.gaierror, "cannot resolve"),
    (ConnectionRefusedError, "refused"),
    (TimeoutError, "timed out"),
    (ConnectionResetError, "closed by the peer"),
    (BrokenPipeError, "cannot send"),
    (OSError, "unreachable"),
]


def attempt(step, *arguments, **more):
    """Return what *step* gives; tell a failure."""
    try:
        return step(*arguments, **more)
    except OSError as error:
        what = next(what for kind, what in FAILURES if isinstance(error, kind))
        code = errno.errorcode.get(error.errno, error.errno)
        print(f"{what}: {error.strerror or error} ({code})")


sock = attempt(socket.create_connection, (HOST, PORT), timeout=0.5)
if sock:
    with sock:
        attempt(sock.recv, 1024)
        attempt(sock.sendall, b"hello")
        if attempt(sock.recv, 1024) == b"":
            print("closed by the peer: it has finished sending")
        attempt(sock.sendall, b"are you there?")
