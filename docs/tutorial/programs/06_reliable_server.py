"""Answer each request with "OK..." and the same: once, however often it comes."""

import sys

from twisted.internet import reactor

from twistedsock import EchoReply, ServiceDatagramProtocol, reliable

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888

service = reliable(EchoReply)()
reactor.listenUDP(PORT, ServiceDatagramProtocol(service), interface="127.0.0.1")
print("listening on port", PORT, flush=True)
reactor.run()
