"""The landing: the Twisted Protocol, Factory and DatagramProtocol classes that carry a service.

Reading order: awaiting, carrier (what a service's listeners share), delivery (messages in
order), stream, foreign, origins (who sends datagrams), datagram.
"""

from twistedsock.protocols.carrier import Carrier
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.protocols.stream import ServiceFactory, ServiceProtocol

__all__ = ["Carrier", "ServiceDatagramProtocol", "ServiceFactory", "ServiceProtocol"]
