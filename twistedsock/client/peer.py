"""The reactor's client: every call that waits returns a Deferred, to await or to call back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from twistedsock.addresses import Address, FiveTuple
from twistedsock.client.conversation import Conversation, is_end
from twistedsock.client.dialling import in_turns
from twistedsock.client.failures import too_late
from twistedsock.client.links import DatagramLink, Link
from twistedsock.client.local import is_local
from twistedsock.client.local_links import open_link
from twistedsock.client.options import Options, check
from twistedsock.client.racing import Race
from twistedsock.client.resolving import raiser, resolve
from twistedsock.errors import ClientError
from twistedsock.sockopts import Report
from twistedsock.wire.framing import MAX_MESSAGE_BYTES


def connect(
    reactor: Any,
    address: str | Address,
    *,
    framing: str = "chunk",
    codec: str = "bytes",
    timeout_s: float | None = None,
    max_message: int = MAX_MESSAGE_BYTES,
    options: Mapping[str, object] | None = None,
) -> Deferred[Peer]:
    """Connect to *address*; fire with the peer. ``async with await connect(...)`` closes it.

    Args:
        reactor: Runs it.
        address: Such as ``tcp:localhost:8888`` or ``udp:[::1]:8888``. The addresses of a name
            are tried after RFC 8305.
        framing: How messages are cut from a stream: a key of ``wire.framing.FRAMINGS``.
        codec: What messages say: a key of ``wire.codecs.CODECS``.
        timeout_s: How long to wait, in seconds: for the connection, and later for each message
            to come. None waits without end.
        max_message: The largest message, in bytes, that the peer may send.
        options: Socket options by name, such as ``{"TCP_USER_TIMEOUT": "10s"}``, set before the
            socket is connected.

    Raises:
        AddressError: *address* is not of the grammar, or nothing that can be connected to.
        CannotResolve, Refused, Unreachable, TimedOut: There is no connection.
        PeerClosed: It was reset at once.
        ValueError: No framing, or no codec, has that name.
        OptionError: An option is wrong, or the kernel refused it.
    """

    def new_talk() -> Conversation:
        return Conversation(address, framing, codec, max_message)

    first = new_talk()
    checked = check(first.address, options)
    return Deferred.fromCoroutine(_open(reactor, first, new_talk, timeout_s, checked))


async def _open(
    reactor: Any,
    talk: Conversation,
    new_talk: Callable[[], Conversation],
    timeout_s: float | None,
    options: Options,
) -> Peer:
    if is_local(talk.address):
        return Peer(reactor, await open_link(reactor, talk, timeout_s, options), timeout_s)
    started = reactor.seconds()
    names = in_turns(await resolve(reactor, talk.address, timeout_s), lambda name: ":" in name[0])
    link: Link
    if talk.address.kind == "datagram":
        link = DatagramLink.open(reactor, talk, names, options)
    else:
        done = Race(reactor, talk.address, names, new_talk, options).start()
        if timeout_s is not None:
            late = raiser(too_late(talk.address, "no connection", timeout_s))
            left = started + timeout_s - reactor.seconds()
            done.addTimeout(max(left, 0), reactor, onTimeoutCancel=late)
        link = await done
    return Peer(reactor, link, timeout_s)


class Peer:
    """A connected peer. ``async for`` goes over its messages until it has finished sending.

    Attributes:
        address: Who it is, as the caller wrote it.
        five_tuple: Protocol, local and peer address and port.
        timeout_s: How long ``receive`` waits where it is given no time of its own.
        options: What became of the socket's options.
    """

    def __init__(self, reactor: Any, link: Link, timeout_s: float | None = None) -> None:
        self._reactor = reactor
        self._talk = link.talk
        self._link = link
        self._waiters: deque[Deferred[Any]] = deque()
        self.address = link.talk.address
        self.timeout_s = timeout_s
        self.five_tuple: FiveTuple = link.five_tuple
        self.options: Report = link.options
        link.on_input = self._wake

    def send(self, message: Any) -> None:
        """Send *message*; neither block nor wait. What the kernel does not take is kept.

        Raises:
            CannotSend: Our side is over, or the connection is gone.
            CodecError, FrameError: *message* cannot be written; nothing was sent.
        """
        self._link.send(self._talk.encode(message))

    def drained(self) -> Deferred[None]:
        """Wait until the peer keeps up with what was sent, or is gone; at once where it does."""
        return self._link.drained()

    def receive(self, timeout_s: float | None = None) -> Deferred[Any]:
        """Return the next message. Several waiters are served in order; one may be cancelled.

        Raises:
            PeerClosed: The peer has finished sending (``code`` is empty), or reset.
            TimedOut: It sent nothing in time; try again as you like.
            PeerProtocolError, CodecError: It sent what cannot be read; nothing more is.
        """
        if self._talk.ready and not self._waiters:
            return self._take()
        waiter: Deferred[Any] = Deferred(self._forget)
        self._waiters.append(waiter)
        limit = self.timeout_s if timeout_s is None else timeout_s
        if limit is not None:
            late = raiser(too_late(self.address, "nothing received", limit))
            waiter.addTimeout(max(limit, 0), self._reactor, onTimeoutCancel=late)
        return waiter

    def _take(self) -> Deferred[Any]:
        try:
            message = self._talk.take()
        except Exception as error:
            return fail(error)
        finally:
            self._link.adjust_reading()
        return succeed(message)

    def _forget(self, waiter: Deferred[Any]) -> None:
        self._waiters.remove(waiter)

    def _wake(self) -> None:
        """Serve who waits, as far as there is something to be had."""
        while self._waiters and self._talk.ready:
            self._take().chainDeferred(self._waiters.popleft())

    def half_close(self) -> None:
        """Tell the peer that we have finished sending; go on receiving."""
        if self._talk.sends:
            self._talk.stop_sending("our side has finished sending")
            self._link.half_close()

    def close(self) -> Deferred[None]:
        """Send what is unsent, then close; fires once the connection is gone.

        A peer that does not read has five seconds, and one that does not end its side, too, has
        one. Who still waits for a message is told PeerClosed.
        """
        self._talk.close()
        self._wake()
        return self._link.close(self._reactor)

    def __aiter__(self) -> Peer:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except ClientError as error:
            if is_end(error):
                raise StopAsyncIteration from None
            raise

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Peer {self.five_tuple}>"
