"""Echo over TCP and UDP on stock Twisted, its default reactor and nothing else."""

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

reactor: Any = installed_reactor  # its interfaces are zope's, which mypy cannot read


class Echo(Protocol):
    """Answers every read with the same bytes."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        """Echo *data*."""
        self.transport.write(data)


class EchoDatagrams(DatagramProtocol):
    """Answers every datagram with itself."""

    transport: Any

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Echo *datagram* to *addr*."""
        self.transport.write(datagram, addr)


def main() -> None:
    """Serve until killed."""
    port = int(sys.argv[1])
    reactor.listenUDP(port, EchoDatagrams(), interface="127.0.0.1", maxPacketSize=65536)
    reactor.listenTCP(port, Factory.forProtocol(Echo), backlog=1024, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
