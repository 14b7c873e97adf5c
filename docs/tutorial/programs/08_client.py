"""Resolve, connect, receive, send, receive, send once more; tell each failure apart."""

import sys

from twistedsock import ClientError, connect_blocking

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
HOST = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"


def attempt(step, *arguments, **more):
    """Return what *step* gives; tell a failure."""
    try:
        return step(*arguments, **more)
    except ClientError as error:
        print(f"{type(error).__name__}: {error.text} ({error.code})")


peer = attempt(connect_blocking, f"tcp:{HOST}:{PORT}", timeout_s=0.5)
if peer:
    with peer:
        attempt(peer.receive)
        attempt(peer.send, b"hello")
        attempt(peer.receive)
        attempt(peer.send, b"are you there?")
