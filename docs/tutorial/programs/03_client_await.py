"""The same client as a coroutine: while it awaits, the reactor does other work."""

import sys

from twisted.internet.task import react

from twistedsock import connect

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


async def main(reactor):
    """Hear the greeting, send a message, and hear the answer."""
    async with await connect(reactor, f"tcp:127.0.0.1:{PORT}") as peer:
        print(await peer.receive())
        peer.send(b"hello")
        print(await peer.receive())


react(main)
