"""twistedsock: the application server for socket protocols, on Twisted.

The public names, each imported when it is first used. To read the house, start at the ground:
errors, units, addresses; wire, policy, sockopts; service (the contract); protocols (the way of
a byte); services and transports (the two wings); host (the way of a config value); client;
endpoints; tap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twistedsock import sockopts
    from twistedsock.client.blocking import BlockingPeer, connect_blocking
    from twistedsock.client.capture import capture
    from twistedsock.client.datagram import DatagramClient, connect_datagram
    from twistedsock.client.datagram_blocking import (
        BlockingDatagramClient,
        connect_datagram_blocking,
    )
    from twistedsock.client.echo_reply import EchoReplyClientFactory
    from twistedsock.client.peer import Peer, connect
    from twistedsock.client.ping import ping
    from twistedsock.client.probe import probe
    from twistedsock.client.trace import trace
    from twistedsock.client.transmission import ExchangeCounts, TransmissionParameters
    from twistedsock.errors import (
        AddressError,
        BindError,
        CannotResolve,
        CannotSend,
        ClientError,
        CloseReason,
        CodecError,
        ConfigError,
        FilterError,
        FrameError,
        OptionError,
        PacketError,
        PeerClosed,
        PeerProtocolError,
        PluginError,
        Refused,
        SessionClosed,
        TimedOut,
        TwistedsockError,
        UnitError,
        Unreachable,
    )
    from twistedsock.protocols.datagram import ServiceDatagramProtocol
    from twistedsock.protocols.stream import ServiceFactory
    from twistedsock.service import ServiceSettings, Session, SocketService
    from twistedsock.services.echo_reply import EchoReply
    from twistedsock.services.reliable import ReliableAnswers, reliable
    from twistedsock.transports.awaited.awaitable import Socket

_HOMES = {
    "AddressError": "errors",
    "BindError": "errors",
    "BlockingDatagramClient": "client.datagram_blocking",
    "BlockingPeer": "client.blocking",
    "CannotResolve": "errors",
    "CannotSend": "errors",
    "ClientError": "errors",
    "CloseReason": "errors",
    "CodecError": "errors",
    "ConfigError": "errors",
    "DatagramClient": "client.datagram",
    "EchoReply": "services.echo_reply",
    "EchoReplyClientFactory": "client.echo_reply",
    "ExchangeCounts": "client.transmission",
    "FilterError": "errors",
    "FrameError": "errors",
    "OptionError": "errors",
    "PacketError": "errors",
    "Peer": "client.peer",
    "PeerClosed": "errors",
    "PeerProtocolError": "errors",
    "PluginError": "errors",
    "Refused": "errors",
    "ReliableAnswers": "services.reliable",
    "ServiceDatagramProtocol": "protocols.datagram",
    "ServiceFactory": "protocols.stream",
    "ServiceSettings": "service",
    "Session": "service",
    "SessionClosed": "errors",
    "Socket": "transports.awaited.awaitable",
    "SocketService": "service",
    "TimedOut": "errors",
    "TransmissionParameters": "client.transmission",
    "TwistedsockError": "errors",
    "UnitError": "errors",
    "Unreachable": "errors",
    "capture": "client.capture",
    "connect": "client.peer",
    "connect_blocking": "client.blocking",
    "connect_datagram": "client.datagram",
    "connect_datagram_blocking": "client.datagram_blocking",
    "ping": "client.ping",
    "probe": "client.probe",
    "reliable": "services.reliable",
    "trace": "client.trace",
}

__all__ = [
    "AddressError",
    "BindError",
    "BlockingDatagramClient",
    "BlockingPeer",
    "CannotResolve",
    "CannotSend",
    "ClientError",
    "CloseReason",
    "CodecError",
    "ConfigError",
    "DatagramClient",
    "EchoReply",
    "EchoReplyClientFactory",
    "ExchangeCounts",
    "FilterError",
    "FrameError",
    "OptionError",
    "PacketError",
    "Peer",
    "PeerClosed",
    "PeerProtocolError",
    "PluginError",
    "Refused",
    "ReliableAnswers",
    "ServiceDatagramProtocol",
    "ServiceFactory",
    "ServiceSettings",
    "Session",
    "SessionClosed",
    "Socket",
    "SocketService",
    "TimedOut",
    "TransmissionParameters",
    "TwistedsockError",
    "UnitError",
    "Unreachable",
    "capture",
    "connect",
    "connect_blocking",
    "connect_datagram",
    "connect_datagram_blocking",
    "ping",
    "probe",
    "reliable",
    "sockopts",
    "trace",
]


def __getattr__(name: str) -> object:
    if name == "sockopts":
        return importlib.import_module("twistedsock.sockopts")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"twistedsock.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
