"""reliable: any datagram service, answering each request once over a network that loses some.

The server half of ``client.datagram``, in the format of ``wire.exchange``: a mixin to put in
front of a service class, or a function that does.

    ReliableThing = reliable(Thing)                    # my-thing = "module:ReliableThing"
    class ReliableThing(ReliableAnswers, Thing): ...   # the same, spelled out

Each request reaches the service once while its session lasts. What the service sends first
while it handles a request is the answer, and is kept: a request that comes again gets it again.
"""

from __future__ import annotations

import inspect
import secrets
from collections import Counter
from collections.abc import Awaitable
from typing import Any, ClassVar, Final, cast

import pydantic
from twisted.internet.defer import CancelledError

from twistedsock.addresses import Kind
from twistedsock.errors import (
    CloseReason,
    FrameError,
    PeerProtocolError,
    PluginError,
    SessionClosed,
)
from twistedsock.service import Session, SocketService
from twistedsock.services.answers import AnswerMemory, Fate
from twistedsock.wire.exchange import (
    MAX_PAYLOAD_BYTES,
    TOKEN_BYTES,
    ExchangeDatagram,
    ExchangeType,
    parse_exchange,
)

NO_REQUEST: Final = -1  # no message id: outside a request nothing can be answered


@Session.register
class RequestSession:
    """The session as one request sees it: the peer's own, but ``send`` answers this request.

    Equal to the session and to its other requests' views of it. ``send`` takes one answer:
    another is dropped and counted, as is one that no request asked for.
    """

    __slots__ = ("_memory", "_number", "_session")

    def __init__(self, session: Session, memory: AnswerMemory, number: int = NO_REQUEST) -> None:
        put = super().__setattr__
        put("_session", session)
        put("_memory", memory)
        put("_number", number)

    def send(self, message: bytes) -> bool:
        """Answer the request; False, counted, where it has its answer or nobody waits for one.

        Raises:
            FrameError: It does not fit a datagram; the request may still be answered.
        """
        if len(message) > MAX_PAYLOAD_BYTES:
            size, limit = len(message), MAX_PAYLOAD_BYTES
            raise FrameError(f"an answer of {size} bytes does not fit; the limit is {limit}")
        return self._settle(ExchangeType.ANSWER, bytes(message))

    def _settle(self, kind: ExchangeType, answer: bytes) -> bool:
        if not self._memory.settle(self._number, kind, answer):
            self._session.dropped += 1
            return False
        return send_answer(self._session, self._memory, self._number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._session, name, value)

    def __eq__(self, other: object) -> bool:
        return other is self._session or (
            isinstance(other, RequestSession) and other._session is self._session
        )

    def __hash__(self) -> int:
        return hash(self._session)

    def __repr__(self) -> str:
        return f"<RequestSession {self._number:#010x} of {self._session!r}>"


def send_answer(session: Session, memory: AnswerMemory, number: int) -> bool:
    """Send the answer that is kept; a challenge in its place, where the guard has it so.

    An address that may be forged is sent at most three times what it sent. An answer above
    that waits until the peer has sent the challenge back, which one that is not there cannot
    (as RFC 9175 section 2 and QUIC's Retry do it).
    """
    answer = memory.answer(number)
    if answer is None:
        return False
    datagram, budget = answer.to_bytes(), session.budget
    if budget is None or len(datagram) <= budget:
        return session.send(datagram)
    memory.token = memory.token or secrets.token_bytes(TOKEN_BYTES)
    kind = ExchangeType.CHALLENGE
    return session.send(
        ExchangeDatagram(kind, number, answer.attempt, payload=memory.token).to_bytes()
    )


class ReliableAnswers(SocketService):
    """Put in front of a service's class, it answers the requests of a datagram client.

    A service that sends nothing while it handles a request has an empty answer sent for it, so
    that its client knows that the request arrived; where what it returns is awaited, after
    that. What it raises is logged, and the request refused: the session and its memory stay.
    Closing the session forgets its requests, so that one which comes again is a new one. What
    is sent outside a request is dropped: the client would not know what it answers.

    Attributes:
        counters: Totals by word: ``requests`` handed to the service, ``repeated`` ones that
            were answered again, ``working`` and ``stale`` ones that were ignored, ``failed``
            ones that the service raised at, and ``malformed`` datagrams, which are dropped.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("datagram",)
    codecs: ClassVar[tuple[str, ...]] = ("bytes",)

    answers_later: ClassVar[bool] = False
    """True where the service may keep the session and send the answer after ``received``."""

    def __init__(
        self,
        settings: pydantic.BaseModel | None = None,
        *,
        name: str | None = None,
        reactor: Any = None,
    ) -> None:
        super().__init__(settings, name=name, reactor=reactor)
        self.counters: Counter[str] = Counter()
        self._memories: dict[Session, AnswerMemory] = {}

    @classmethod
    def served_kinds(cls) -> tuple[Kind, ...]:
        """Return datagram.

        Raises:
            PluginError: The class breaks the contract, or this is not in front.
        """
        if cls.overrides("converse"):
            raise PluginError(f"{cls.__name__}: a service with converse() cannot be made reliable")
        if cls.received is not ReliableAnswers.received:
            raise PluginError(f"{cls.__name__} must name ReliableAnswers before its other bases")
        return super().served_kinds()

    def opened(self, session: Session) -> Awaitable[None] | None:
        """Hand it on; nothing can be sent yet."""
        memory = self._memories.setdefault(session, AnswerMemory())
        return super().opened(cast(Session, RequestSession(session, memory)))

    def closed(self, session: Session, reason: CloseReason) -> Awaitable[None] | None:
        """Forget the peer's requests."""
        self._memories.pop(session, None)
        return super().closed(session, reason)

    def received(self, session: Session, message: bytes) -> Awaitable[None] | None:
        """Hand a new request on, answer one that came again, drop what is none."""
        memory = self._memories[session]
        try:
            heard = parse_exchange(message)
        except PeerProtocolError:
            self.counters["malformed"] += 1
            return None
        if heard.type is ExchangeType.REQUEST:
            return self._judge(session, memory, heard)
        if heard.type is ExchangeType.PROOF and memory.token is not None:
            if secrets.compare_digest(heard.payload, memory.token):
                session.prove()
                send_answer(session, memory, heard.id)
            return None
        self.counters["malformed"] += 1
        return None

    def _judge(
        self, session: Session, memory: AnswerMemory, request: ExchangeDatagram
    ) -> Awaitable[None] | None:
        fate = memory.judge(request)
        if fate is Fate.NEW:
            self.counters["requests"] += 1
            return self._handle(RequestSession(session, memory, request.id), request.payload)
        if fate is Fate.ANSWERED:
            self.counters["repeated"] += 1
            send_answer(session, memory, request.id)
        else:
            self.counters[fate.name.lower()] += 1
        return None

    def _handle(self, request: RequestSession, payload: bytes) -> Awaitable[None] | None:
        try:
            # Typed Any: third parties' hooks return what they like.
            result: Any = super().received(cast(Session, request), payload)
        except Exception:  # a plug-in is called
            self._refuse(request)
            return None
        if inspect.isawaitable(result):
            return self._finish(request, result)
        self._acknowledge(request)
        return None

    async def _finish(self, request: RequestSession, work: Awaitable[None]) -> None:
        try:
            await work
        except (CancelledError, SessionClosed):  # the session has ended; its carrier judges
            raise
        except Exception:  # a plug-in is called
            self._refuse(request)
        else:
            self._acknowledge(request)

    def _acknowledge(self, request: RequestSession) -> None:
        if not self.answers_later and not request._memory.is_settled(request._number):
            request._settle(ExchangeType.ANSWER, b"")

    def _refuse(self, request: RequestSession) -> None:
        self.counters["failed"] += 1
        self.log.failure("{name} failed at a request of {peer}", name=self.name, peer=request.peer)
        if not request._memory.is_settled(request._number):
            request._settle(ExchangeType.REFUSAL, b"")


def reliable(service_class: type[SocketService]) -> type[SocketService]:
    """Return *service_class* as a reliable datagram service, with its settings and hooks.

    Raises:
        PluginError: It cannot serve datagrams, has ``converse``, or breaks the contract.
    """
    if "datagram" not in service_class.served_kinds():
        raise PluginError(f"{service_class.__name__} does not serve datagrams")
    about = {"__doc__": service_class.__doc__, "__module__": service_class.__module__}
    name = f"Reliable{service_class.__name__}"
    made: type[SocketService] = type(name, (ReliableAnswers, service_class), about)
    made.served_kinds()
    return made
