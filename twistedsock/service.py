"""The stair between the wings: what a service and a session owe each other.

A service plug-in subclasses SocketService; a Session is one peer. Nothing here knows a
transport: ``protocols`` gives sessions their bodies, ``host`` finds and configures services.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twistedsock.addresses import KINDS, Credentials, FiveTuple, Kind, format_host_port
from twistedsock.errors import CloseReason, PluginError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory


class ServiceSettings(pydantic.BaseModel):
    """The base of a plug-in's own settings: frozen, and unknown keys are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Metadata:
    """What the kernel told of the message last handed over. All None on streams.

    Attributes:
        received_at: When it arrived, in seconds of the Unix epoch.
        destination: The numeric address that it was sent to.
        broadcast: Whether that was an IPv4 broadcast address.
        interface: The index of the interface that it came in by.
        ttl_hops: The TTL or hop limit that was left.
        dscp: The differentiated services code point, 0 to 63 (RFC 2474).
        truncated: Whether the message was longer than the receive buffer.
        credentials: Who sent it, over a UNIX socket.
        header: The IPv4 header, of a raw packet.
        outgoing: Whether this machine itself sent it, of a packet listener's frame.
        descriptors: What came with it over a UNIX socket (SCM_RIGHTS), to a service that
            ``takes_descriptors``: open until the next message is handed over or the session ends,
            and for longer if they are taken.
    """

    descriptors: tuple[int, ...] = ()

    __slots__ = (
        "broadcast",
        "credentials",
        "destination",
        "dscp",
        "header",
        "interface",
        "outgoing",
        "received_at",
        "truncated",
        "ttl_hops",
    )

    def __init__(
        self,
        *,
        received_at: float | None = None,
        destination: str | None = None,
        broadcast: bool | None = None,
        interface: int | None = None,
        ttl_hops: int | None = None,
        dscp: int | None = None,
        truncated: bool | None = None,
        credentials: Credentials | None = None,
        header: bytes | None = None,
        outgoing: bool | None = None,
    ) -> None:
        self.received_at = received_at
        self.destination = destination
        self.broadcast = broadcast
        self.interface = interface
        self.ttl_hops = ttl_hops
        self.dscp = dscp
        self.truncated = truncated
        self.credentials = credentials
        self.header = header
        self.outgoing = outgoing

    def take_descriptors(self) -> tuple[int, ...]:
        """Return ``descriptors``, which are the caller's to close from here on."""
        return ()

    def __repr__(self) -> str:
        known = {name: getattr(self, name) for name in Metadata.__slots__}
        told = ", ".join(f"{name}={value!r}" for name, value in known.items() if value is not None)
        return f"Metadata({told})"


NO_METADATA = Metadata()


class Accompanied(Metadata):
    """What is told of a message that *descriptors* came with: closes those that nobody takes."""

    __slots__ = ("__weakref__", "descriptors")

    def __init__(self, descriptors: tuple[int, ...], **told: Any) -> None:
        super().__init__(**told)
        self.descriptors = descriptors

    def take_descriptors(self) -> tuple[int, ...]:
        """Return ``descriptors``, which are the caller's to close from here on."""
        taken, self.descriptors = self.descriptors, ()
        return taken

    def close(self) -> None:
        """Close what was not taken."""
        for fd in self.take_descriptors():
            os.close(fd)

    __del__ = close  # with the last message that it belongs to, or its session


class Session(abc.ABC):
    """One peer of a service: a connection, or a datagram peer that is remembered for a while.

    Attributes:
        id: A number of its own within the service object.
        five_tuple: Protocol, local and peer address and port.
        transport: What carries it: stream, datagram, seqpacket, raw or packet.
        opened_at: When it opened, by the reactor's clock, in seconds.
        bytes_in, bytes_out: Bytes read from and handed to the transport, frames included.
        messages_in, messages_out: Messages handed to the service and sent by it.
        dropped: Messages that ``send`` did not send, and datagrams that found the inbox full.
        reason: Why it ended; None while it is open.
        metadata: What the kernel told of the message last handed over.
        data: A place for whatever the service wants to keep with this peer.
    """

    __slots__ = (
        "__weakref__",
        "bytes_in",
        "bytes_out",
        "data",
        "dropped",
        "five_tuple",
        "id",
        "messages_in",
        "messages_out",
        "metadata",
        "opened_at",
        "reason",
    )

    transport: ClassVar[Kind] = "stream"

    def __init__(self, number: int, five_tuple: FiveTuple, opened_at: float) -> None:
        self.id = number
        self.five_tuple = five_tuple
        self.opened_at = opened_at
        self.bytes_in = self.bytes_out = 0
        self.messages_in = self.messages_out = 0
        self.dropped = 0
        self.reason: CloseReason | None = None
        self.metadata = NO_METADATA
        self.data: Any = None  # the plug-in's own; its type is the plug-in's affair

    @property
    def peer(self) -> str:
        """The peer's address and port, such as ``127.0.0.1:50000`` or ``[::1]:50000``."""
        return format_host_port(self.five_tuple.peer_host, self.five_tuple.peer_port)

    @property
    def local(self) -> str:
        """The local address and port that the peer reached."""
        return format_host_port(self.five_tuple.local_host, self.five_tuple.local_port)

    @property
    def credentials(self) -> Credentials | None:
        """Who a UNIX peer is: process, user and group; None for others."""
        return None

    @property
    @abc.abstractmethod
    def congested(self) -> bool:
        """True while more than ``write_high_water`` bytes wait for the peer to read them."""

    @property
    @abc.abstractmethod
    def budget(self) -> int | None:
        """The largest message, in bytes, that may be sent now; None where nothing limits it."""

    @abc.abstractmethod
    def send(self, message: Any) -> bool:
        """Send *message* in the session's framing; neither block nor wait.

        Args:
            message: Bytes; under a codec (``codec =``) the values that it knows.

        Returns:
            False where it was dropped and counted: after the session ended, or over the budget
            of an unproven datagram peer.

        Raises:
            FrameError: The framing cannot carry *message*.
            CodecError: The codec cannot write *message*.
        """

    def send_with_descriptors(self, message: Any, descriptors: Sequence[int]) -> bool:
        """Send *message*, as ``send`` does, with copies of *descriptors* (SCM_RIGHTS).

        A stream may deliver them before the message, never after its first byte. A datagram
        with descriptors is not kept for a peer whose queue is full, but dropped.

        Raises:
            TypeError: The session is over no UNIX socket.
            ValueError: There are more than 253, or a stream has no byte for them to go with.
            OSError: One is not open.
        """
        raise TypeError(f"descriptors go over UNIX sockets alone, not {self.five_tuple.protocol}")

    @abc.abstractmethod
    def close(self) -> None:
        """End the session: flush, half-close, read on to a deadline, then abort."""

    @abc.abstractmethod
    def abort(self) -> None:
        """End the session at once; what is unsent is lost."""

    @abc.abstractmethod
    def drained(self) -> Deferred[None]:
        """Wait until the session is not congested.

        Raises:
            SessionClosed: The session ended first.
        """

    @abc.abstractmethod
    def prove(self) -> None:
        """Lift the datagram budget: the protocol knows that the peer is really there."""

    def __aiter__(self) -> Session:
        """Return the iterator over this session's messages, for ``converse``."""
        return self

    @abc.abstractmethod
    def __anext__(self) -> Awaitable[Any]:
        """Return the next message.

        Raises:
            StopAsyncIteration: The peer has finished sending.
            SessionClosed: The session ended any other way.
        """

    def __repr__(self) -> str:
        state = self.reason or "open"
        return f"<Session #{self.id} {self.five_tuple} {state}>"


class SocketService:
    """A service: subclass it, override what you need, name it as an entry point.

    Write the message hooks (``received`` and its neighbours), or one coroutine ``converse``,
    or hand over a Twisted factory by ``stream_factory``. There is one object per configured
    service and process; make what you need in ``start``, not in ``__init__``.

    Attributes:
        settings: An instance of ``Settings``, the plug-in's own keys.
        name: The name it is configured under.
        codec: The codec that its messages are in.
        log: A logger of the service's own.
        sessions: The sessions that are open.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("stream", "datagram", "seqpacket")
    """The kinds of socket that it can serve; ``raw`` and ``packet`` are opted in."""

    Settings: ClassVar[type[pydantic.BaseModel]] = ServiceSettings
    """The model of its own settings: ``[services.NAME.settings]``."""

    codecs: ClassVar[tuple[str, ...]] = ("bytes", "text", "json", "literal")
    """The codecs that its messages may be in; ``("bytes",)`` where it knows only bytes."""

    client_speaks_first: ClassVar[bool] = False
    """True lets ``first_byte_timeout`` apply."""

    metadata: ClassVar[bool] = False
    """True where it wants all of ``Metadata`` with each UDP datagram: raw and packet listeners
    tell it always, and a UDP one otherwise no more than the guard needs."""

    symmetric: ClassVar[bool] = False
    """True where both ends use one port or a privileged one: lifts the guard's port rules."""

    takes_descriptors: ClassVar[bool] = False
    """True lets UNIX peers send it descriptors (``session.metadata.descriptors``)."""

    def __init__(
        self,
        settings: pydantic.BaseModel | None = None,
        *,
        name: str | None = None,
        reactor: Any = None,
    ) -> None:
        # `settings` is Any to plug-ins: each declares its own model, which mypy cannot follow
        # through a class attribute.
        self.settings: Any = settings if settings is not None else self.Settings()
        self.name = name or type(self).__name__
        self.codec = "bytes"
        self.log = Logger(namespace=f"twistedsock.service.{self.name}", source=self)
        self.sessions: set[Session] = set()
        self._reactor = reactor

    @property
    def reactor(self) -> Any:
        """The reactor that runs this service: the one given, else the global one."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def start(self) -> Awaitable[None] | None:
        """Get ready; accepting waits for it. An exception keeps the daemon from starting."""
        return None

    def stop(self) -> Awaitable[None] | None:
        """Clean up; every session has ended."""
        return None

    def opened(self, session: Session) -> Awaitable[None] | None:
        """Welcome a peer whose identity is final."""
        return None

    def received(self, session: Session, message: Any) -> Awaitable[None] | None:
        """Handle *message*. The next one of this session waits for what is returned.

        Args:
            session: The peer it came from.
            message: Bytes; under a codec the value that they say.
        """
        return None

    def ended(self, session: Session) -> Awaitable[None] | None:
        """Handle that the peer has finished sending. By default the session is closed."""
        session.close()
        return None

    def closed(self, session: Session, reason: CloseReason) -> Awaitable[None] | None:
        """Learn that the session is over: once for each, never from inside a call on it."""
        return None

    def drain(self, deadline_s: float) -> Awaitable[None] | None:
        """Say goodbye: the daemon stops, and sessions have *deadline_s* seconds to end."""
        return None

    async def converse(self, session: Session) -> None:
        """Hold the whole conversation, in place of the message hooks."""

    def stream_factory(self) -> IProtocolFactory | None:
        """Return a Twisted factory that serves streams in place of the message hooks."""
        return None

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Return whether this class has a *hook* of its own."""
        return getattr(cls, hook) is not getattr(SocketService, hook)

    @classmethod
    def served_codecs(cls) -> tuple[str, ...]:
        """Return the codecs it can serve: the keys of ``wire.codecs.CODECS`` in ``codecs``."""
        if not cls.overrides("received") and not cls.overrides("converse"):
            return ("bytes",)  # its messages never pass through a codec
        return cls.codecs

    @classmethod
    def served_kinds(cls) -> tuple[Kind, ...]:
        """Return the kinds it can serve; one that only hands over a factory serves streams.

        Raises:
            PluginError: The class breaks the contract.
        """
        speaks = cls.overrides("received") or cls.overrides("converse")
        if not speaks and not cls.overrides("stream_factory"):
            raise PluginError(
                f"{cls.__name__} must define one of received(), converse() or stream_factory()"
            )
        if cls.overrides("received") and cls.overrides("converse"):
            raise PluginError(f"{cls.__name__} defines both received() and converse()")
        if not (isinstance(cls.Settings, type) and issubclass(cls.Settings, pydantic.BaseModel)):
            raise PluginError(f"{cls.__name__}.Settings must be a pydantic model")
        kinds: object = cls.kinds
        if not (isinstance(kinds, tuple) and kinds and all(kind in KINDS for kind in kinds)):
            known = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
            raise PluginError(f"{cls.__name__}.kinds must be a tuple of {known}, got {kinds!r}")
        if cls.overrides("stream_factory") and not speaks:
            return ("stream",)
        return tuple(cls.kinds)
