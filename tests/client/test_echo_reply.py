"""The echo-reply client, in memory."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twistedsock.client.echo_reply import EchoReplyClientFactory
from twistedsock.errors import FrameError


class Rig:
    """A client on a transport in memory, and what its owner is told."""

    def __init__(self, framing: str = "chunk", **more: Any) -> None:
        self.told: list[Any] = []
        self.factory = EchoReplyClientFactory(
            lambda client, message: self.told.append(message),
            framing,
            on_connect=lambda client: self.told.append("connected"),
            on_close=lambda client, why: self.told.append(why.type),
            **more,
        )
        self.client = self.factory.buildProtocol(None)
        self.wire = StringTransport()
        self.client.makeConnection(self.wire)


def test_messages_are_framed_both_ways() -> None:
    """What is sent goes out in the framing, and each whole message is called back."""
    rig = Rig("netstring")
    rig.client.send(b"hello")
    assert rig.wire.value() == b"5:hello,"
    rig.client.dataReceived(b"8:greeting,10:OK..")
    rig.client.dataReceived(b".hello,")
    assert rig.told == ["connected", b"greeting", b"OK...hello"]


def test_a_server_that_breaks_the_framing_is_left() -> None:
    """Messages before the fault are called back; then the connection is closed."""
    rig = Rig("netstring")
    rig.client.dataReceived(b"2:ok,nonsense")
    assert rig.told == ["connected", b"ok"]
    assert rig.wire.disconnecting


def test_values_go_both_ways() -> None:
    """Under a codec values are sent and called back; the first that is none ends it."""
    rig = Rig("line", codec="json")
    rig.client.send({"a": [1, None]})
    assert rig.wire.value() == b'{"a":[1,null]}\n'
    rig.client.dataReceived(b'"ok"\nnonsense\n2\n')
    rig.client.dataReceived(b"3\n")
    assert rig.told == ["connected", "ok"]
    assert rig.wire.disconnecting
    with pytest.raises(ValueError, match="codec must be one of"):
        Rig(codec="xml")


def test_a_message_that_does_not_fit_is_refused() -> None:
    """A line feed inside a line is an error of the caller; nothing is sent."""
    rig = Rig("line")
    with pytest.raises(FrameError, match="line feed inside"):
        rig.client.send(b"a\nb")
    assert rig.wire.value() == b""


def test_the_owner_is_told_of_the_end() -> None:
    """on_close gets the reason, and close() asks the transport to flush and close."""
    rig = Rig()
    rig.client.close()
    assert rig.wire.disconnecting
    rig.client.connectionLost(Failure(ConnectionLost()))
    assert rig.told == ["connected", ConnectionLost]


def test_a_failed_connection_is_logged_where_nobody_asks(logged_failures: Any) -> None:
    """Without on_fail the reason is logged."""
    factory = EchoReplyClientFactory(lambda client, message: None)
    factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
    (event,) = logged_failures
    assert "refused" in event["error"]
    logged_failures.clear()


def test_a_wrong_framing_is_refused_at_once() -> None:
    """A framing that does not exist is an error before any connection."""
    with pytest.raises(ValueError, match="framing must be one of"):
        EchoReplyClientFactory(lambda client, message: None, framing="lines")
