"""``Socket`` on every reactor, with epoll and without, in processes of their own."""

from __future__ import annotations

import sys

import pytest
from conftest import run

PROGRAM = '''
import atexit, gc, select, socket, sys, warnings
warnings.simplefilter("error")
name, has_epoll = sys.argv[1:]
if name == "asyncio":
    import asyncio
    from twisted.internet import asyncioreactor
    asyncioreactor.install(asyncio.new_event_loop())
else:
    __import__(f"twisted.internet.{name}reactor", fromlist=["install"]).install()
if has_epoll == "no":
    del select.epoll
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater, react
from twistedsock import Socket
from twistedsock.transports.socket import create_connection, create_server, socketpair


async def main(reactor):
    await deferLater(reactor, 0)  # it runs, and has its own descriptors
    before = set(reactor.getReaders()), set(reactor.getWriters())
    server = await create_server(("localhost", 0))
    size = 2_000_000

    async def serve():
        for _ in range(20):
            peer, _ = await server.accept()
            Deferred.fromCoroutine(echo(peer))

    async def echo(peer):
        async with peer:
            while data := await peer.recv(65536):
                await peer.sendall(data)

    async def ask(number):
        async with await create_connection(server.getsockname(), 20) as sock:
            sent = sock.sendall(bytes([number]) * size)
            got = bytearray()
            while len(got) < size:
                got += await sock.recv(65536)
            assert got == bytes([number]) * size
            await sent

    await gatherResults([Deferred.fromCoroutine(w) for w in [serve(), *map(ask, range(20))]])
    with Socket() as sock:  # nobody listens
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            assert await sock.connect_ex(free.getsockname()) == 111
    a, b = socketpair()
    a.settimeout(0.05)
    try:
        await a.recv(1)
        raise AssertionError
    except TimeoutError as error:
        assert str(error) == "timed out"
    a.settimeout(None)
    cancelled, kept = a.recv(1), a.recv(1)
    cancelled.cancel()
    await cancelled.addErrback(lambda failure: failure.trap(CancelledError))
    await b.send(b"x")
    assert await kept == b"x"
    with Socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:  # an ICMP error is nobody's end
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            await udp.connect(free.getsockname())
        reading = udp.recv(10)
        await udp.send(b"lost")
        try:
            await reading
            raise AssertionError
        except ConnectionRefusedError:
            pass
    with Socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:  # nor is an error queue
        udp.setsockopt(socket.IPPROTO_IP, 11, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            udp.settimeout(10)
            errors = udp.recvmsg(100, 500, socket.MSG_ERRQUEUE)
            name = free.getsockname()
        await udp.sendto(b"lost", name)
        assert (await errors)[0] == b"lost"
    waiting = a.recv(1)
    a.close(), b.close(), server.close()
    try:
        await waiting
        raise AssertionError
    except OSError as error:
        assert error.errno == 9
    for _ in range(100):
        await deferLater(reactor, 0.01)
        if (set(reactor.getReaders()), set(reactor.getWriters())) == before:
            break
    assert (set(reactor.getReaders()), set(reactor.getWriters())) == before
    assert not reactor.getDelayedCalls()
    gc.collect()
    kept, other = socketpair()  # waits when the reactor stops
    kept.recv(1).addErrback(lambda failure: failure.trap(OSError))
    atexit.register(lambda: (kept.close(), other.close()))
    print("all is well")

react(main)
'''  # fmt: skip


@pytest.mark.parametrize("has_epoll", ["yes", "no"])
@pytest.mark.parametrize("name", ["epoll", "poll", "select", "asyncio"])
def test_every_reactor(name: str, has_epoll: str) -> None:
    """Transfers, time-outs, cancellation, errors and ends are the same under each."""
    if (name, has_epoll) == ("epoll", "no"):
        pytest.skip("that reactor is made of epoll")
    done = run(sys.executable, "-c", PROGRAM, name, has_epoll)
    assert (done.stdout, done.returncode) == ("all is well\n", 0), done.stderr
    if name != "asyncio":  # whose event loop Twisted leaves open
        assert done.stderr == ""
