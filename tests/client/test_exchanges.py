"""The datagram client's core, with a clock and a network that the test turns."""

from __future__ import annotations

import heapq
import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.client.exchanges import Exchanges, Outcome
from twistedsock.client.transmission import TransmissionParameters
from twistedsock.services.answers import AnswerMemory, Fate
from twistedsock.wire.exchange import (
    ID_MASK,
    MAX_SPAN,
    ExchangeDatagram,
    ExchangeType,
    parse_exchange,
)


def machine(seed: int = 1, first_id: int | None = None, **parameters: float) -> Exchanges:
    """Return a client's core with a random generator of the test's."""
    made = Exchanges(TransmissionParameters(**parameters), Random(seed))  # type: ignore[arg-type]
    if first_id is not None:
        made._next_id = first_id
    return made


def sent(exchanges: Exchanges, now: float) -> list[ExchangeDatagram]:
    """Return what is sent at *now*."""
    return [parse_exchange(data) for _, data in exchanges.due(now).datagrams]


def answer(request: ExchangeDatagram, payload: bytes | None = None) -> bytes:
    """Return a server's answer."""
    payload = request.payload if payload is None else payload
    kind = ExchangeType.ANSWER
    return ExchangeDatagram(kind, request.id, request.attempt, payload=payload).to_bytes()


def run_out(exchanges: Exchanges) -> tuple[list[float], list[Outcome]]:
    """Return when something is sent where nothing ever comes back, and how it ends."""
    times, ended, now = [], [], 0.0
    while True:
        todo = exchanges.due(now)
        times += [now] * len(todo.datagrams)
        ended += todo.timed_out
        when = exchanges.next_due
        if when is None:
            return times, ended
        assert when > now
        now = when


def test_a_request_is_answered() -> None:
    """A request goes out at once, its answer comes back, and nothing is left to do."""
    exchanges = machine()
    number = exchanges.request(b"hello", 10.0)
    (request,) = sent(exchanges, 10.0)
    assert (request.type, request.id, request.attempt) == (ExchangeType.REQUEST, number, 1)
    assert exchanges.received(answer(request, b"OK"), 10.25) == Outcome(
        number, "answered", b"OK", 0.25
    )
    assert exchanges.next_due is None
    assert exchanges.round_trip_s == 0.25
    assert (exchanges.counts.requests, exchanges.counts.answered) == (1, 1)


@given(st.integers())
def test_the_back_off_is_rfc_7252s(seed: int) -> None:
    """Section 4.2: 2 to 3 s, doubled four times; given up within MAX_TRANSMIT_WAIT, 93 s."""
    exchanges = machine(seed)
    number = exchanges.request(b"", 0.0)
    times, ended = run_out(exchanges)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 5
    assert 2 <= waits[0] <= 3
    assert waits == pytest.approx([waits[0] * factor for factor in (1, 2, 4, 8)])
    assert times[-1] <= 45  # MAX_TRANSMIT_SPAN
    (outcome,) = ended
    assert (outcome.id, outcome.kind) == (number, "timed_out")
    assert outcome.waited_s == pytest.approx(31 * waits[0])
    assert 62 <= outcome.waited_s <= 93
    counts = exchanges.counts
    assert (counts.retransmitted, counts.lost, counts.timed_out) == (4, 5, 1)


def test_the_waits_are_spread() -> None:
    """Clients do not keep in step: first waits differ over the whole of their range."""
    firsts = []
    for seed in range(200):
        exchanges = machine(seed)
        exchanges.request(b"", 0.0)
        firsts.append(run_out(exchanges)[0][1])
    assert min(firsts) < 2.1
    assert max(firsts) > 2.9


def test_the_back_off_stops_growing_at_its_limit() -> None:
    """No wait is longer than max_backoff_s."""
    exchanges = machine(ack_timeout_s=1, ack_random_factor=1, max_backoff_s=4, max_retransmit=5)
    exchanges.request(b"", 0.0)
    assert run_out(exchanges)[0] == [0, 1, 3, 7, 11, 15]


def test_the_time_out_ends_a_request_first() -> None:
    """A request of its own time-out ends then, whether it was sent or queued."""
    exchanges = machine(window=1)
    first, second = (exchanges.request(b"", 0.0, 1.5) for _ in range(2))
    times, ended = run_out(exchanges)
    assert times == [0.0]
    assert [(outcome.id, outcome.waited_s) for outcome in ended] == [(first, 1.5), (second, 1.5)]
    assert (exchanges.counts.lost, exchanges.counts.timed_out) == (1, 2)


def test_the_window_bounds_what_is_open() -> None:
    """What does not fit into the window queues, in order, and follows as answers come."""
    exchanges = machine(window=2)
    for number in range(4):
        exchanges.request(bytes([number]), 0.0)
    first, second = sent(exchanges, 0.0)
    assert sent(exchanges, 0.0) == []
    exchanges.received(answer(second), 0.1)
    (third,) = sent(exchanges, 0.1)
    assert [first.payload, second.payload, third.payload] == [b"\0", b"\1", b"\2"]
    assert third.behind == 2  # the first is still open
    exchanges.received(answer(first), 0.2)
    (fourth,) = sent(exchanges, 0.2)
    assert fourth.behind == 1


def test_no_request_is_further_behind_than_a_server_remembers() -> None:
    """With one request stuck, the ids go on to the span and stop there until it has ended."""
    exchanges = machine(first_id=ID_MASK - 10)
    for _ in range(2 * MAX_SPAN):
        exchanges.request(b"", 0.0)
    stuck, *rest = sent(exchanges, 0.0)
    seen = 1
    while rest:
        seen += len(rest)
        for request in rest:
            assert request.behind == (request.id - stuck.id) & ID_MASK < MAX_SPAN
            exchanges.received(answer(request), 0.0)
        rest = sent(exchanges, 0.0)
    assert seen == MAX_SPAN
    exchanges.received(answer(stuck), 0.0)
    assert len(sent(exchanges, 0.0)) == 64


def test_ids_wrap() -> None:
    """After 2**32 - 1 comes 0, and answers find their requests."""
    exchanges = machine(first_id=ID_MASK)
    assert [exchanges.request(b"", 0.0) for _ in range(2)] == [ID_MASK, 0]
    for request in sent(exchanges, 0.0):
        assert exchanges.received(answer(request), 0.0) is not None
    assert exchanges.counts.answered == 2


def test_first_ids_are_random() -> None:
    """A client that starts anew at the same port is not taken for the one before."""
    assert len({machine(seed).request(b"", 0.0) for seed in range(100)}) == 100


def test_a_repeated_answer_is_counted_and_told_once() -> None:
    """The second answer to a request is no outcome."""
    exchanges = machine()
    exchanges.request(b"", 0.0)
    (request,) = sent(exchanges, 0.0)
    assert exchanges.received(answer(request), 0.1) is not None
    assert exchanges.received(answer(request), 0.2) is None
    assert (exchanges.counts.answered, exchanges.counts.repeated) == (1, 1)


def test_the_answer_to_a_lost_cause_is_late() -> None:
    """An answer after the time-out, or after forget, is no outcome and counts as late."""
    exchanges = machine()
    exchanges.request(b"", 0.0, 1.0)
    given_up = exchanges.request(b"", 0.0)
    first, second = sent(exchanges, 0.0)
    assert len(exchanges.due(1.0).timed_out) == 1
    exchanges.forget(given_up)
    assert exchanges.received(answer(first), 1.1) is None
    assert exchanges.received(answer(second), 1.1) is None
    assert (exchanges.counts.late, exchanges.counts.repeated) == (2, 0)


def test_reordering_is_counted_by_transmission() -> None:
    """RFC 4737: an answer overtaken by that to a later transmission; a loss is none."""
    exchanges = machine(ack_timeout_s=1, ack_random_factor=1)
    for _ in range(3):
        exchanges.request(b"", 0.0)
    first, second, third = sent(exchanges, 0.0)
    exchanges.received(answer(second), 0.1)
    exchanges.received(answer(first), 0.1)
    assert exchanges.counts.reordered == 1
    (again,) = sent(exchanges, 1.0)  # the third was lost: answered last, and not overtaken
    assert (again.id, again.attempt) == (third.id, 2)
    exchanges.received(answer(again), 1.2)
    assert exchanges.counts.reordered == 1


def test_a_round_trip_is_of_the_transmission_that_was_answered() -> None:
    """The attempt tells which: no guess of Karn's is needed."""
    exchanges = machine(ack_timeout_s=1, ack_random_factor=1)
    exchanges.request(b"", 0.0)
    (first,) = sent(exchanges, 0.0)
    sent(exchanges, 1.0)
    exchanges.received(answer(first), 1.5)
    assert exchanges.round_trip_s == 1.5


def test_a_refusal_ends_a_request() -> None:
    """What the server will not answer is told at once."""
    exchanges = machine()
    number = exchanges.request(b"", 0.0)
    sent(exchanges, 0.0)
    outcome = exchanges.received(ExchangeDatagram(ExchangeType.REFUSAL, number).to_bytes(), 0.5)
    assert outcome == Outcome(number, "refused", b"", 0.5)
    assert exchanges.counts.refused == 1


def test_a_challenge_is_sent_back() -> None:
    """The server learns that the address is real; the request stays open."""
    exchanges = machine()
    number = exchanges.request(b"", 0.0)
    sent(exchanges, 0.0)
    challenge = ExchangeDatagram(ExchangeType.CHALLENGE, number, payload=b"12345678")
    assert exchanges.received(challenge.to_bytes(), 0.1) is None
    assert sent(exchanges, 0.1) == [
        ExchangeDatagram(ExchangeType.PROOF, number, payload=b"12345678")
    ]
    assert exchanges.outstanding == (number,)


def test_strays_are_counted_and_change_nothing() -> None:
    """Garbage, other ids, requests, answers to what was not sent yet: unreadable."""
    exchanges = machine(window=1)
    number = exchanges.request(b"", 0.0)
    queued = exchanges.request(b"", 0.0)
    sent(exchanges, 0.0)
    strays = [
        b"",
        b"garbage",
        ExchangeDatagram(ExchangeType.ANSWER, number + 77 & ID_MASK).to_bytes(),
        ExchangeDatagram(ExchangeType.ANSWER, number - 1 & ID_MASK).to_bytes(),
        ExchangeDatagram(ExchangeType.ANSWER, queued).to_bytes(),
        ExchangeDatagram(ExchangeType.ANSWER, number, attempt=2).to_bytes(),
        ExchangeDatagram(ExchangeType.REQUEST, number).to_bytes(),
    ]
    for stray in strays:
        assert exchanges.received(stray, 0.1) is None
    assert exchanges.counts.unreadable == len(strays)
    assert exchanges.outstanding == (number,)


@given(st.lists(st.binary(max_size=30)))
def test_nothing_that_comes_raises(datagrams: list[bytes]) -> None:
    """Any bytes are taken."""
    exchanges = machine()
    exchanges.request(b"", 0.0)
    exchanges.due(0.0)
    for datagram in datagrams:
        exchanges.received(datagram, 0.0)


def test_the_agenda_does_not_grow_with_what_is_over() -> None:
    """Requests that were cancelled leave nothing behind, though an older one is still open."""
    exchanges = machine(window=1)
    exchanges.request(b"", 0.0)
    exchanges.due(0.0)
    for _ in range(5000):
        exchanges.forget(exchanges.request(b"", 0.0, 30.0))
    assert len(exchanges._agenda) < 1000
    assert exchanges.next_due is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 0}, "window: must be 1 to 1024, got 0"),
        ({"ack_timeout_s": 0}, "ack_timeout_s: must be 0.001 to 3600, got 0"),
        ({"ack_random_factor": 0.5}, "ack_random_factor: must be 1 to 10, got 0.5"),
        ({"max_retransmit": 255}, "max_retransmit: must be 0 to 254, got 255"),
        ({"max_backoff_s": float("nan")}, "max_backoff_s: must be 0.001 to 3600, got nan"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    """Each says what is right."""
    with pytest.raises(ValueError, match="must be") as told:
        TransmissionParameters(**wrong)  # type: ignore[arg-type]
    assert str(told.value) == message


class Net:
    """A client's core and a server's memory, on a network in no time."""

    def __init__(self, exchanges: Exchanges, seed: int, loss: float, repeat: float, reorder: float):
        self.exchanges = exchanges
        self.memory = AnswerMemory()
        self.random = Random(seed)
        self.loss, self.repeat, self.reorder = loss, repeat, reorder
        self.flying: list[tuple[float, int, bool, bytes]] = []
        self.order = itertools.count()
        self.handled: list[bytes] = []
        self.outcomes: list[Outcome] = []
        self.now = 0.0

    def fly(self, to_server: bool, data: bytes) -> None:
        draw = self.random.random
        for _ in range(2 if draw() < self.repeat else 1):
            if draw() >= self.loss:
                delay = 0.01 + (draw() * 0.2 if draw() < self.reorder else 0)
                entry = (self.now + delay, next(self.order), to_server, data)
                heapq.heappush(self.flying, entry)

    def serve(self, data: bytes) -> None:
        request = parse_exchange(data)
        fate = self.memory.judge(request)
        if fate is Fate.NEW:
            self.handled.append(request.payload)
            self.memory.settle(request.id, ExchangeType.ANSWER, b"re:" + request.payload)
        found = self.memory.answer(request.id)
        if fate in (Fate.NEW, Fate.ANSWERED) and found is not None:
            self.fly(False, found.to_bytes())
        assert len(self.memory._kept) <= MAX_SPAN

    def run(self) -> None:
        while True:
            todo = self.exchanges.due(self.now)
            self.outcomes += todo.timed_out
            for _, data in todo.datagrams:
                self.fly(True, data)
            when = [each for each in (self.exchanges.next_due,) if each is not None]
            when += [entry[0] for entry in self.flying[:1]]
            if not when:
                return
            self.now = max(self.now, min(when))
            while self.flying and self.flying[0][0] <= self.now:
                _, _, to_server, data = heapq.heappop(self.flying)
                if to_server:
                    self.serve(data)
                elif (outcome := self.exchanges.received(data, self.now)) is not None:
                    self.outcomes.append(outcome)


@settings(deadline=None)
@given(
    seed=st.integers(),
    first_id=st.sampled_from([0, ID_MASK - 20, 2**31]),
    window=st.integers(1, 64),
    loss=st.floats(0, 1),
    repeat=st.floats(0, 1),
    reorder=st.floats(0, 1),
)
def test_any_network_ends_each_request_once(
    seed: int, first_id: int, window: int, loss: float, repeat: float, reorder: float
) -> None:
    """Whatever is lost, repeated or reordered: one outcome each, the right one, handled once."""
    exchanges = machine(seed, first_id, window=window, ack_timeout_s=0.1, max_retransmit=3)
    asked = {exchanges.request(b"%d" % number, 0.0): b"%d" % number for number in range(50)}
    net = Net(exchanges, seed, loss, repeat, reorder)
    net.run()
    assert sorted(outcome.id for outcome in net.outcomes) == sorted(asked)
    assert len(net.handled) == len(set(net.handled))
    for outcome in net.outcomes:
        if outcome.kind == "answered":
            assert outcome.payload == b"re:" + asked[outcome.id]
            assert asked[outcome.id] in net.handled
    counts = exchanges.counts
    assert counts.requests == counts.answered + counts.timed_out == 50
    assert counts.unreadable == counts.refused == 0
    assert counts.lost == counts.retransmitted + counts.timed_out


def test_ten_thousand_requests_on_a_bad_network() -> None:
    """20 % lost, 5 % repeated, 10 % reordered each way: all answered, each handled once."""
    exchanges = machine(max_retransmit=30)
    asked = {exchanges.request(b"%d" % number, 0.0): b"%d" % number for number in range(10_000)}
    net = Net(exchanges, 1, 0.2, 0.05, 0.1)
    net.run()
    answers = {outcome.id: outcome.payload for outcome in net.outcomes}
    assert len(net.outcomes) == 10_000
    assert answers == {number: b"re:" + payload for number, payload in asked.items()}
    assert sorted(net.handled) == sorted(asked.values())
    counts = exchanges.counts
    assert counts.reordered > 100
    assert counts.repeated > 100
    assert counts.late == counts.timed_out == 0


def test_the_defaults_give_up_what_is_too_unlucky() -> None:
    """One request in 165 on that network, as TransmissionParameters says: nothing is hidden."""
    exchanges = machine()
    for _ in range(10_000):
        exchanges.request(b"", 0.0)
    net = Net(exchanges, 1, 0.2, 0, 0)
    net.run()
    assert exchanges.counts.answered + exchanges.counts.timed_out == 10_000
    assert 30 < exchanges.counts.timed_out < 100
