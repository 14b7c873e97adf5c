"""Answer each line after work that takes a while; the work alone is done in threads."""

import sys
import time

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from twistedsock import ServiceFactory, SocketService

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


def work(message):
    """Stand for a database, a disk or a long computation: return the answer, later."""
    time.sleep(0.3)
    return b"OK..." + message


class Worker(SocketService):
    """Has the work done elsewhere, and goes on serving."""

    def received(self, session, message):
        """Return what is to be waited for before this session's next message."""
        return deferToThread(work, message).addCallback(session.send)


factory = ServiceFactory(Worker(), framing="line")
reactor.listenTCP(PORT, factory, interface="127.0.0.1")
print("listening on port", PORT, flush=True)
reactor.run()
