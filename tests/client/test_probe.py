"""A probe on real sockets of loopback: every transport, and peers that do it wrong."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import DEADLINE_S, free_port, pause, until, within
from daemons import eventually
from locals import Local
from relays import Relay
from servers import Deaf, Server, black_hole, echo, flood, reset, silent, udp_socket
from twisted.internet.defer import CancelledError, Deferred

from twistedsock.client import probe as probe_module
from twistedsock.client.probe import Probe, probe, settle
from twistedsock.client.probing import ProbeResult
from twistedsock.errors import (
    AddressError,
    CannotResolve,
    CannotSend,
    FrameError,
    OptionError,
    PeerClosed,
    PeerProtocolError,
    Refused,
    TimedOut,
    UnitError,
)
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.protocols.stream import ServiceFactory
from twistedsock.services.echo import Echo
from twistedsock.services.echo_reply import EchoReply

QUICK = {"count": 20, "rate": "500/s"}


def probed(address: str, **more: Any) -> Deferred[ProbeResult]:
    """Fire with the result, within the deadline."""
    from twisted.internet import reactor

    return within(probe(reactor, address, **{**QUICK, **more}))


def counts(result: ProbeResult) -> tuple[int, int, int, int, int]:
    """Return what was sent, received, lost, duplicated and corrupt."""
    summary = result.summary
    return (
        summary.sent,
        summary.received,
        summary.lost,
        summary.duplicates,
        result.corrupt,
    )


@asynccontextmanager
async def serving(scheme: str, service: Any, folder: Path, **more: Any) -> AsyncIterator[str]:
    """Give the address where *service* is."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    if scheme not in ("tcp", "udp"):
        address = f"{scheme}:{folder / 'echo.sock'}"
        async with Local(address, service, **more):
            yield address
        return
    service._reactor = reactor
    what: Any
    if scheme == "tcp":
        what = ServiceFactory(service, **more)
        what.noisy = False
        port = reactor.listenTCP(0, what, interface="127.0.0.1")
    else:
        what = ServiceDatagramProtocol(service, **more)
        what.noisy = False
        port = reactor.listenUDP(0, what, interface="127.0.0.1", maxPacketSize=65_536)
    try:
        yield f"{scheme}:127.0.0.1:{port.getHost().port}"
    finally:
        await within(port.stopListening())
        what.carrier.cut_off()
        await within(what.carrier.when_empty())


@contextmanager
def answering(answer: Callable[[bytes, int], list[bytes]]) -> Any:
    """Give the address of a datagram server that sends what *answer* makes of the n-th one."""
    with udp_socket() as sock:
        stops = threading.Event()

        def serve() -> None:
            number = 0
            while not stops.is_set():
                data, peer = sock.recvfrom(65_536)
                if stops.is_set():
                    return
                for each in answer(data, number):
                    sock.sendto(each, peer)
                number += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"udp:127.0.0.1:{sock.getsockname()[1]}"
        finally:
            stops.set()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", sock.getsockname())
            thread.join(DEADLINE_S)


# -- every transport --


@pytest.mark.parametrize("scheme", ["tcp", "udp", "unix", "unixgram", "seqpacket"])
@pytest.mark.parametrize("service", [Echo, EchoReply])
@pytest.mark.parametrize("size", [22, 1000])
@pytest_twisted.ensureDeferred
async def test_our_services_answer_everything(
    scheme: str, service: Any, size: int, tmp_path: Path
) -> None:
    """echo and echo-reply count alike; a greeting is stray, and no loss, on connections."""
    async with serving(scheme, service(), tmp_path) as address:
        result = await probed(address, size_bytes=size)
    assert counts(result) == (20, 20, 0, 0, 0)
    greets = service is EchoReply and scheme not in ("udp", "unixgram")
    assert (result.stray, result.errors, result.ended_by) == (int(greets), {}, None)
    assert (result.transport, result.size_bytes, result.rate) == (scheme, size, "500/s")
    summary = result.summary
    assert summary.min_s is not None
    assert summary.max_s is not None
    assert 0 < summary.min_s <= summary.max_s < 1
    assert len(result.samples_s) == 20
    assert 0.037 < result.duration_s < 5  # the last one is due at 38 ms


@pytest.mark.parametrize("framing", ["line", "netstring", "uint8", "uint16", "uint32"])
@pytest_twisted.ensureDeferred
async def test_every_framing(framing: str, tmp_path: Path) -> None:
    """Requests go in frames, answers are taken out of them."""
    async with serving("tcp", EchoReply(), tmp_path, framing=framing) as address:
        result = await probed(address, framing=framing)
    assert counts(result) == (20, 20, 0, 0, 0)
    assert result.stray == 1


@pytest_twisted.ensureDeferred
async def test_the_largest_datagram(tmp_path: Path) -> None:
    """65,507 bytes go over UDP, as the RFCs have it."""
    async with serving("udp", Echo(), tmp_path) as address:
        result = await probed(address, size_bytes=65_507, count=3)
    assert counts(result) == (3, 3, 0, 0, 0)


@pytest_twisted.ensureDeferred
async def test_a_megabyte_over_a_stream() -> None:
    """What does not fit the kernel's buffers goes out in part, and comes back whole."""
    with Server(echo) as server:
        result = await probed(server.address, size_bytes=2**20, count=3, rate="max", timeout_s=9.0)
    assert counts(result) == (3, 3, 0, 0, 0)


@pytest_twisted.ensureDeferred
async def test_answers_in_single_bytes_and_all_at_once() -> None:
    """However a stream brings them, each is found once."""

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while data.count(b"\n") < 20:
            data += sock.recv(65_536)
        for byte in data[:640]:
            sock.send(bytes([byte]))
        sock.sendall(data[640:])
        silent(sock)

    with Server(serve) as server:
        result = await probed(server.address, timeout_s=DEADLINE_S)
    assert counts(result) == (20, 20, 0, 0, 0)


@pytest_twisted.ensureDeferred
async def test_names_and_ipv6() -> None:
    """Addresses are as connect takes them."""
    with Server(echo, "::1") as server:
        assert counts(await probed(server.address, count=3)) == (3, 3, 0, 0, 0)
    with Server(echo) as server:
        result = await probed(f"tcp:localhost:{server.port}", count=3)
        assert counts(result) == (3, 3, 0, 0, 0)


@pytest_twisted.ensureDeferred
async def test_one_after_the_other() -> None:
    """With the rate max there is never more than one request in flight."""
    asked: list[int] = []

    def serve(sock: socket.socket) -> None:
        while data := sock.recv(65_536):
            asked.append(data.count(b"\n"))
            sock.sendall(data)

    with Server(serve) as server:
        result = await probed(server.address, rate="max", count=200)
    assert counts(result) == (200, 200, 0, 0, 0)
    assert asked == [1] * 200
    assert (result.rate, result.behind) == ("max", 0)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("lost", [[0], [1, 2], [3], [0, 1, 2, 3]])
async def test_with_the_rate_max_a_loss_is_followed_by_the_next_request(lost: list[int]) -> None:
    """Whatever is lost, the next one goes when the time-out is over."""
    with answering(lambda data, number: [] if number in lost else [data]) as address:
        result = await probed(address, rate="max", count=4, timeout_s=0.1)
    assert counts(result) == (4, 4 - len(lost), len(lost), 0, 0)
    assert 0.1 * len(lost) < result.duration_s < 0.1 * len(lost) + 1


@pytest_twisted.ensureDeferred
async def test_a_duration_ends_it(tmp_path: Path) -> None:
    """So many as are due within it are sent."""
    async with serving("udp", Echo(), tmp_path) as address:
        result = await probed(address, count=None, duration_s=0.25, rate="100/s")
        assert result.summary.sent == 25
        result = await probed(address, count=None, duration_s=0.1, rate="max")
        assert result.summary.sent == result.summary.received > 5
    assert 0.1 <= result.duration_s < 2


@pytest.mark.parametrize(
    ("command", "scheme", "package"),
    [
        (["socat", "TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr", "EXEC:cat"], "tcp", "socat"),
        (["socat", "UDP4-RECVFROM:{port},bind=127.0.0.1,fork", "EXEC:cat"], "udp", "socat"),
        (["ncat", "-l", "127.0.0.1", "{port}", "--exec", "/bin/cat"], "tcp", "ncat"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_echo_servers_of_others(command: list[str], scheme: str, package: str) -> None:
    """socat and ncat echo by cat, and every request is answered once."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs the Debian package {package}")
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    port = free_port(kind)
    table = Path(f"/proc/net/{scheme}")
    process = subprocess.Popen(
        [word.format(port=port) for word in command], stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: f"0100007F:{port:04X} " in table.read_text())
        # Each datagram starts a process: slowly, so that none is in another's way.
        result = await probed(f"{scheme}:127.0.0.1:{port}", count=5, rate="20/s", timeout_s=10.0)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
    assert counts(result) == (5, 5, 0, 0, 0)


# -- what networks do --


@pytest_twisted.ensureDeferred
async def test_loss_is_what_the_relay_lost(tmp_path: Path) -> None:
    """Each datagram lost on either way is one request lost: no more, no less."""
    async with serving("udp", Echo(), tmp_path) as address:
        with Relay(int(address.rpartition(":")[2]), seed=3, loss=0.2) as relay:
            result = await probed(
                f"udp:127.0.0.1:{relay.port}", count=300, rate="2000/s", timeout_s=0.5
            )
            assert relay.lost > 20
            assert counts(result) == (300, 300 - relay.lost, relay.lost, 0, 0)
    assert result.summary.loss == relay.lost / 300
    assert (result.late, result.stray) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_duplicates_are_what_the_relay_repeated(tmp_path: Path) -> None:
    """A request or an answer that is repeated is one duplicate."""
    async with serving("udp", Echo(), tmp_path) as address:
        with Relay(int(address.rpartition(":")[2]), seed=4, repeat=0.2) as relay:
            result = await probed(f"udp:127.0.0.1:{relay.port}", count=300, rate="2000/s")
            # Copies of the last answer come when it is over: three at most.
            assert 0 <= relay.repeated - result.summary.duplicates <= 3
            assert relay.repeated > 40
    assert counts(result)[:3] == (300, 300, 0)


@pytest_twisted.ensureDeferred
async def test_reordering_is_what_the_relay_held_back(tmp_path: Path) -> None:
    """What was held back came late and is told; nothing else is."""
    async with serving("udp", Echo(), tmp_path) as address:
        with Relay(int(address.rpartition(":")[2]), seed=5, reorder=0.1) as relay:
            result = await probed(f"udp:127.0.0.1:{relay.port}", count=400, rate="2000/s")
            assert relay.reordered // 2 < result.summary.reordered <= relay.reordered
    assert counts(result) == (400, 400, 0, 0, 0)


@pytest_twisted.ensureDeferred
async def test_answers_after_the_timeout_are_late() -> None:
    """They are lost, whatever comes of them later, and told as late."""
    held: list[bytes] = []

    def answer(data: bytes, number: int) -> list[bytes]:
        held.append(data)
        return held if number == 9 else []

    with answering(answer) as address:
        result = await probed(address, count=10, rate="50/s", timeout_s=0.05)
    assert counts(result)[:2] == (10, result.summary.received)
    assert result.summary.received + result.late == 10
    assert result.late >= 6


@pytest_twisted.ensureDeferred
async def test_altered_cut_and_foreign_answers() -> None:
    """Each is told apart: corrupt, stray, or a duplicate; and none is an answer."""

    def answer(data: bytes, number: int) -> list[bytes]:
        kinds = [
            [data],
            [data[:-10]],
            [data[:30] + b"?" + data[31:]],
            [b"no such thing"],
            [data, data],
            [],
        ]
        return kinds[number % 6]

    with answering(answer) as address:
        result = await probed(address, count=12, timeout_s=0.3)
    assert counts(result) == (12, 4, 8, 2, 4)
    assert (result.stray, result.stray_bytes) == (2, 26)


# -- peers that do it wrong --


@pytest_twisted.ensureDeferred
async def test_nobody_at_a_datagram_port_is_told_and_goes_on() -> None:
    """Every request is lost, ECONNREFUSED is counted, and the probe runs to its end."""
    port = free_port(socket.SOCK_DGRAM)
    result = await probed(f"udp:127.0.0.1:{port}", count=10, rate="100/s", timeout_s=0.1)
    assert counts(result) == (10, 0, 10, 0, 0)
    assert set(result.errors) == {"ECONNREFUSED"}
    assert 8 <= result.errors["ECONNREFUSED"] <= 12
    assert result.ended_by is None


@pytest_twisted.ensureDeferred
async def test_a_datagram_service_that_comes_back_is_heard(tmp_path: Path) -> None:
    """After refusals the answers count again, on the same socket."""
    port = free_port(socket.SOCK_DGRAM)
    running = probed(f"udp:127.0.0.1:{port}", count=30, rate="100/s", timeout_s=0.2)
    await pause(0.1)
    with udp_socket(port=port) as sock:
        sock.setblocking(False)
        while not running.called:
            await pause(0.002)
            try:
                data, peer = sock.recvfrom(1000)
            except BlockingIOError:
                continue
            sock.sendto(data, peer)
    result = await running
    assert result.errors["ECONNREFUSED"] > 2
    assert 5 < result.summary.received < 30


@pytest_twisted.ensureDeferred
async def test_a_peer_that_closes_in_the_middle() -> None:
    """What is unanswered is lost, the result is there, and says how it ended."""

    def serve(sock: socket.socket) -> None:
        for _ in range(5):
            sock.sendall(sock.recv(64))
        sock.recv(64)

    with Server(serve) as server:
        result = await probed(server.address, count=1000, rate="max")
    assert counts(result) == (6, 5, 1, 0, 0)
    assert isinstance(result.ended_by, PeerClosed)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_resets() -> None:
    """The error's name is told."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(sock.recv(64))
        sock.recv(1)  # the next request: the answer was heard
        reset(sock)

    with Server(serve) as server:
        result = await probed(server.address, count=1000, rate="max")
    assert result.summary.received == 1
    assert isinstance(result.ended_by, PeerClosed)
    assert result.ended_by.code == "ECONNRESET"
    assert "ECONNRESET" in str(result.as_json()["ended_by"])


@pytest_twisted.ensureDeferred
async def test_a_peer_that_closes_with_the_last_answer() -> None:
    """Nothing was missing: it ended in order."""

    def serve(sock: socket.socket) -> None:
        data = b""
        while data.count(b"\n") < 3:
            data += sock.recv(65_536)
        sock.sendall(data)

    with Server(serve) as server:
        result = await probed(server.address, count=3)
    assert counts(result) == (3, 3, 0, 0, 0)
    assert result.ended_by is None


@pytest_twisted.ensureDeferred
async def test_a_peer_that_never_answers() -> None:
    """Each request is lost after the time-out, and then it is over."""
    with Server(silent) as server:
        result = await probed(server.address, count=10, timeout_s=0.2)
    assert counts(result) == (10, 0, 10, 0, 0)
    assert result.summary.percentiles_s is None
    assert 0.2 < result.duration_s < 2


@pytest_twisted.ensureDeferred
async def test_a_peer_that_never_reads_is_told_as_behind() -> None:
    """Requests wait, held nowhere, and what could not be sent is told."""
    deaf = Deaf()
    with Server(deaf) as server:
        result = await probed(
            server.address, count=400, rate="1000/s", size_bytes=60_000, timeout_s=0.2
        )
        deaf.may_read.set()
    assert result.summary.received == 0
    assert result.unsent > 100
    assert result.summary.sent + result.unsent == 400
    assert result.behind >= result.unsent
    assert result.behind_s > 0.2


@pytest_twisted.ensureDeferred
async def test_a_peer_that_reads_late_gets_what_was_due() -> None:
    """What waited is sent then; nothing is lost, and it is told how far behind it was."""

    def serve(sock: socket.socket) -> None:
        threading.Event().wait(0.5)
        echo(sock)

    with Server(serve) as server:
        result = await probed(
            server.address, count=300, rate="1000/s", size_bytes=60_000, timeout_s=10.0
        )
    assert counts(result) == (300, 300, 0, 0, 0)
    assert result.behind > 50
    assert result.unsent == 0


@pytest_twisted.ensureDeferred
async def test_a_flood_of_garbage_is_counted_and_kept_nowhere() -> None:
    """A peer that only talks does not keep the probe from its end."""
    with Server(flood) as server:
        result = await probed(server.address, count=5, rate="100/s", timeout_s=0.1)
    assert counts(result) == (5, 0, 5, 0, 0)
    assert result.stray == 1
    assert result.stray_bytes > 100_000


@pytest_twisted.ensureDeferred
async def test_what_is_not_of_the_framing_is_told() -> None:
    """The peer is named, and what was wrong."""

    def serve(sock: socket.socket) -> None:
        sock.recv(10)
        sock.sendall(b"garbage")
        silent(sock)

    with Server(serve) as server:
        with pytest.raises(PeerProtocolError) as caught:
            await probed(server.address, framing="netstring")
        told = f"{server.address}: netstring length is not a decimal number"
    assert str(caught.value) == told


# -- no connection --


@pytest_twisted.ensureDeferred
async def test_there_is_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, not resolved and too late are told as connect does."""
    monkeypatch.setattr(probe_module, "CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(Refused):
        await probed(f"tcp:127.0.0.1:{free_port()}")
    for scheme in ("unix", "unixgram", "seqpacket"):
        with pytest.raises(Refused):
            await probed(f"{scheme}:{tmp_path}/nobody")
    with pytest.raises(CannotResolve):
        await probed("udp:" + "a" * 64 + ".invalid:7")
    with black_hole() as port, pytest.raises(TimedOut, match=r"no connection within 0\.2 s"):
        await probed(f"tcp:127.0.0.1:{port}", timeout_s=0.1)


@pytest_twisted.ensureDeferred
async def test_a_request_that_the_kernel_does_not_take(tmp_path: Path) -> None:
    """A record above the send buffer is an error of its own, not a loss."""
    async with serving("seqpacket", Echo(), tmp_path) as address:
        with pytest.raises(CannotSend, match="EMSGSIZE"):
            await probed(address, size_bytes=2**20)


# -- what a caller may ask --


@pytest.mark.parametrize(
    ("more", "kind", "text"),
    [
        ({"address": "tcp:*:7"}, AddressError, "a peer has one host"),
        ({"address": "sctp:h:7"}, AddressError, "starting with one of"),
        ({"address": "packet:lo"}, AddressError, "frames are not echoed"),
        ({"size_bytes": 21}, UnitError, "size: must be 22 to 65507 bytes for udp, got 21"),
        ({"size_bytes": 65_508}, UnitError, "size: must be 22 to 65507 bytes for udp, got 65508"),
        (
            {"address": "tcp:h:7", "size_bytes": 2**20 + 1},
            UnitError,
            "size: must be 22 to 1048576 bytes for tcp, got 1048577",
        ),
        ({"rate": "fast"}, UnitError, "rate: must be a rate such as"),
        ({"rate": "2000000/s"}, UnitError, "rate: must be at most 1000000/s, got 2000000/s"),
        ({"count": 0}, UnitError, "count: must be 1 or more, got 0"),
        ({"duration_s": 0.0}, UnitError, r"duration: must be above zero, got 0\.0"),
        ({"timeout_s": float("nan")}, UnitError, "timeout: must be above zero, got nan"),
        ({"framing": "lines"}, ValueError, "framing must be one of"),
        ({"address": "tcp:h:7", "framing": "uint8", "size_bytes": 256}, FrameError, "allows 255"),
        ({"options": {"SO_NONE": 1}}, OptionError, "SO_NONE"),
    ],
)
def test_a_wrong_argument_is_told(more: dict[str, Any], kind: type[Exception], text: str) -> None:
    """Before anything is sent, with what would be right."""
    with pytest.raises(kind, match=text):
        settle(**{"address": "udp:127.0.0.1:7", "count": 1, **more})


def test_a_program_s_probe_has_an_end() -> None:
    """Nobody presses Ctrl-C there."""
    with pytest.raises(ValueError, match="needs a count or a duration_s"):
        probe(None, "udp:127.0.0.1:7", count=None)


@pytest_twisted.ensureDeferred
async def test_options_are_on_the_socket(tmp_path: Path) -> None:
    """They are set before it connects: a tiny send buffer refuses a large datagram."""
    async with serving("unixgram", Echo(), tmp_path) as address:
        with pytest.raises(CannotSend, match="EMSGSIZE"):
            await probed(address, size_bytes=60_000, options={"SO_SNDBUF": 4096})


@pytest.mark.parametrize("scheme", ["tcp", "udp", "unix"])
@pytest_twisted.ensureDeferred
async def test_cancelling_closes_everything(scheme: str, tmp_path: Path) -> None:
    """Timers, readers and descriptors are gone once it has failed with CancelledError."""
    async with serving(scheme, Echo(), tmp_path) as address:
        running = probed(address, count=1_000_000, rate="1000/s")
        await pause(0.1)
        running.cancel()
        with pytest.raises(CancelledError):
            await running


@pytest_twisted.ensureDeferred
async def test_cancelling_while_it_connects() -> None:
    """Nothing is left of the attempt."""
    with black_hole() as port:
        running = probed(f"tcp:127.0.0.1:{port}")
        await pause(0.05)
        running.cancel()
        with pytest.raises(CancelledError):
            await running


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_answers_and_a_second_time_does_not() -> None:
    """The first stop sends nothing more; the second ends it."""
    from twisted.internet import reactor

    with Server(silent) as server:
        made = Probe(reactor, settle(server.address, rate="100/s", timeout_s=DEADLINE_S))
        running = within(made.start())
        await until(lambda: made.core.round_trips.sent > 3)
        made.stop()
        sent = made.core.round_trips.sent
        await pause(0.1)
        assert not running.called
        made.stop()
        result = await running
    assert (result.summary.sent, result.summary.received) == (sent, 0)
    assert result.unsent == 0


@pytest_twisted.ensureDeferred
async def test_stopping_waits_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the time-out is, who wants the end gets it; what is unanswered is lost."""
    from twisted.internet import reactor

    monkeypatch.setattr(probe_module, "STOP_PATIENCE_S", 0.1)
    with Server(silent) as server:
        made = Probe(reactor, settle(server.address, rate="100/s", timeout_s=60.0))
        running = within(made.start())
        await until(lambda: made.core.round_trips.sent > 3)
        made.stop()
        result = await running
    assert result.summary.lost == result.summary.sent > 3


# -- its figures --


@pytest_twisted.ensureDeferred
async def test_a_round_trip_is_what_the_peer_took() -> None:
    """An answer that is held back for 50 ms took 50 ms and little more, on either kind."""

    def slow(sock: socket.socket) -> None:
        while data := sock.recv(65_536):
            time.sleep(0.05)
            sock.sendall(data)

    def answer(data: bytes, _: int) -> list[bytes]:
        time.sleep(0.05)
        return [data]

    with Server(slow) as server, answering(answer) as datagrams:
        for address in (server.address, datagrams):
            result = await probed(address, count=5, rate="max")
            assert result.summary.min_s is not None
            assert 0.05 <= result.summary.min_s < 0.08


@pytest_twisted.ensureDeferred
async def test_the_kernel_s_receive_time_is_not_delayed_by_our_own_work() -> None:
    """A reactor that is busy for 100 ms reads datagrams late; their round trips are as short."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    with answering(lambda data, _: [data]) as address:
        reactor.callLater(0.05, time.sleep, 0.1)
        # Sent just before the reactor sleeps, answered while it does.
        result = await probed(address, count=40, rate="400/s")
    assert result.summary.max_s is not None
    assert result.summary.max_s < 0.05
    assert result.behind > 0


@pytest_twisted.ensureDeferred
async def test_loss_in_our_own_buffer_is_told() -> None:
    """A reactor that is too busy to read loses answers itself: the kernel counts them."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    with answering(lambda data, _: [data] * 50) as address:
        reactor.callLater(0.05, time.sleep, 0.1)
        busy = await probed(address, count=60, rate="400/s", options={"SO_RCVBUF": 4096})
        idle = await probed(address, count=5, rate="50/s", options={"SO_RCVBUF": "128KiB"})
    assert busy.dropped > 0
    assert busy.as_json()["dropped"] == busy.dropped
    assert idle.dropped == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tcp", "udp"])
@pytest_twisted.ensureDeferred
async def test_ten_thousand_a_second(scheme: str, start: Callable[..., Any]) -> None:
    """It is sound there: all are sent, answered and in time, but for a machine that is busy."""
    daemon = start("--port=0", "--service=echo").ready()
    result = await probed(f"{scheme}:127.0.0.1:{daemon.port(scheme)}", count=20_000, rate="10000/s")
    assert result.summary.sent == 20_000
    assert result.summary.received > 19_900
    assert result.duration_s < 3.5
    assert daemon.stop() == 0
