"""Open one connection, and print the five-tuple of each of its two ends."""

import sys

from twisted.internet.task import react

from twistedsock import EchoReply, ServiceFactory, connect

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


class Introduce(EchoReply):
    """Prints who has come, before it greets them."""

    def opened(self, session):
        """Print the session's five-tuple."""
        print("server", *session.five_tuple)
        super().opened(session)


async def main(reactor):
    """Serve, connect, and wait for the greeting."""
    port = reactor.listenTCP(PORT, ServiceFactory(Introduce()), interface="127.0.0.1")
    async with await connect(reactor, f"tcp:127.0.0.1:{PORT}") as peer:
        await peer.receive()
        print("client", *peer.five_tuple)
    await port.stopListening()


react(main)
