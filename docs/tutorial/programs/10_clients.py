"""Be five clients that ask at once; say how long all answers took."""

import sys

from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from twistedsock import connect

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


async def main(reactor):
    """Connect, ask, and wait for everything."""
    address = f"tcp:127.0.0.1:{PORT}"
    peers = await gatherResults([connect(reactor, address, framing="line") for _ in range(5)])
    started = reactor.seconds()
    for peer in peers:
        peer.send(b"work")
    answers = await gatherResults([peer.receive() for peer in peers])
    seconds = reactor.seconds() - started
    print(answers.count(b"OK...work"), f"answers in {seconds:.1f} seconds")
    await gatherResults([peer.close() for peer in peers])


react(main)
