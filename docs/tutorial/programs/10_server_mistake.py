"""The mistake: the work is done in the reactor's own thread, and everybody waits for it."""

import sys
import time

from twisted.internet import reactor

from twistedsock import ServiceFactory, SocketService

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


def work(message):
    """Stand for a database, a disk or a long computation: return the answer, later."""
    time.sleep(0.3)
    return b"OK..." + message


class Worker(SocketService):
    """Does the work itself, and serves nobody meanwhile."""

    def received(self, session, message):
        """Answer, once the work is done."""
        session.send(work(message))


factory = ServiceFactory(Worker(), framing="line")
reactor.listenTCP(PORT, factory, interface="127.0.0.1")
print("listening on port", PORT, flush=True)
reactor.run()
