"""Take lists of numbers, and answer each with a dict: literals on lines."""

import sys

from twisted.internet import reactor

from twistedsock import ServiceFactory, SocketService

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


class Total(SocketService):
    """Is handed values, and sends values."""

    def received(self, session, numbers):
        """Answer a list of numbers."""
        session.send({"count": len(numbers), "sum": sum(numbers)})


factory = ServiceFactory(Total(), framing="line", codec="literal")
reactor.listenTCP(PORT, factory, interface="127.0.0.1")
print("listening on port", PORT, flush=True)
reactor.run()
