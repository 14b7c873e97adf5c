"""twistedsock: the application server for socket protocols, on Twisted.

The public names, each imported when it is first used. To read the house, start at the ground:
errors, units, addresses; wire, policy, sockopts; service (the contract); protocols (the way of
a byte); services and transports (the two wings); host (the way of a config value); tap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twistedsock import sockopts
    from twistedsock.client.echo_reply import EchoReplyClientFactory
    from twistedsock.errors import (
        AddressError,
        BindError,
        CloseReason,
        ConfigError,
        FrameError,
        OptionError,
        PeerProtocolError,
        PluginError,
        SessionClosed,
        TwistedsockError,
        UnitError,
    )
    from twistedsock.protocols.datagram import ServiceDatagramProtocol
    from twistedsock.protocols.stream import ServiceFactory
    from twistedsock.service import ServiceSettings, Session, SocketService
    from twistedsock.services.echo_reply import EchoReply

_HOMES = {
    "AddressError": "errors",
    "BindError": "errors",
    "CloseReason": "errors",
    "ConfigError": "errors",
    "EchoReply": "services.echo_reply",
    "EchoReplyClientFactory": "client.echo_reply",
    "FrameError": "errors",
    "OptionError": "errors",
    "PeerProtocolError": "errors",
    "PluginError": "errors",
    "ServiceDatagramProtocol": "protocols.datagram",
    "ServiceFactory": "protocols.stream",
    "ServiceSettings": "service",
    "Session": "service",
    "SessionClosed": "errors",
    "SocketService": "service",
    "TwistedsockError": "errors",
    "UnitError": "errors",
}

__all__ = [
    "AddressError",
    "BindError",
    "CloseReason",
    "ConfigError",
    "EchoReply",
    "EchoReplyClientFactory",
    "FrameError",
    "OptionError",
    "PeerProtocolError",
    "PluginError",
    "ServiceDatagramProtocol",
    "ServiceFactory",
    "ServiceSettings",
    "Session",
    "SessionClosed",
    "SocketService",
    "TwistedsockError",
    "UnitError",
    "sockopts",
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
