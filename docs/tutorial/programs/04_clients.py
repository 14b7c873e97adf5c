"""Be many clients: connect them all, send from each, and count who is answered."""

import sys

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from twistedsock import TimedOut, connect

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 200


async def is_answered(peer, message):
    """Return whether *peer* sends the answer to *message* within a second each time."""
    try:
        await peer.receive(timeout_s=1)  # the greeting
        peer.send(message)
        return await peer.receive(timeout_s=1) == b"OK..." + message
    except TimedOut:
        return False


async def main(reactor):
    """Connect one after the other; then talk to all of them at once."""
    peers = [await connect(reactor, f"tcp:127.0.0.1:{PORT}") for _ in range(COUNT)]
    talks = [is_answered(peer, b"client %d" % number) for number, peer in enumerate(peers)]
    answered = await gatherResults([Deferred.fromCoroutine(talk) for talk in talks])
    print(sum(answered), "of", COUNT, "clients were answered")
    await gatherResults([peer.close() for peer in peers])


react(main)
