"""Greet each client, and answer what it sends with "OK..." and the same."""

import sys

from twisted.internet import reactor

from twistedsock import ServiceFactory, SocketService

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
GREETING = b"Welcome to the server. Type something and hit enter\n"


class EchoReply(SocketService):
    """The whole service. It comes with twistedsock, too: `from twistedsock import EchoReply`."""

    def opened(self, session):
        """Greet."""
        session.send(GREETING)

    def received(self, session, message):
        """Answer."""
        session.send(b"OK..." + message)


reactor.listenTCP(PORT, ServiceFactory(EchoReply()), interface="127.0.0.1")
print("listening on port", PORT, flush=True)
reactor.run()
