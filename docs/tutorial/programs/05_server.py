"""Answer each line with "OK..." and the line."""

import sys

from twisted.internet import reactor

from twistedsock import EchoReply, ServiceFactory

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

factory = ServiceFactory(EchoReply(), framing="line")
reactor.listenTCP(PORT, factory, interface="127.0.0.1")
print("listening on port", PORT, flush=True)
reactor.run()
