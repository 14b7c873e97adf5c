"""Answer each datagram with "OK..." and the same."""

import sys

from twisted.internet import reactor

from twistedsock import EchoReply, ServiceDatagramProtocol

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

reactor.listenUDP(PORT, ServiceDatagramProtocol(EchoReply()), interface="127.0.0.1")
print("listening on port", PORT, flush=True)
reactor.run()
