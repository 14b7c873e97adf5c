"""``makefile`` beside the standard library's, and beside ``io`` for any chunking."""

from __future__ import annotations

import gc
import io
import socket
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, within
from hypothesis import given, settings
from hypothesis import strategies as st
from side_by_side import Net, side_by_side
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twistedsock.transports.awaited.readiness import loop_of
from twistedsock.transports.awaited.waiting import CALLS_A_TURN
from twistedsock.transports.socket import socketpair

ensure = pytest_twisted.ensureDeferred
TEXT = "one\ntwo\r\nthree\rfour\n\n\r\r\nfünf €\nlast"
NEWLINES = [None, "", "\n", "\r", "\r\n"]


@pytest.mark.parametrize("buffering", [0, 4, 8192, None])
@ensure
async def test_binary_reading(buffering: int | None) -> None:
    """Every way of reading bytes."""

    async def script(net: Net) -> None:
        a, b = await net.pair("unix")
        await a.sendall(TEXT.encode() * 3)
        a.shutdown(socket.SHUT_WR)
        file = b.makefile("rb", buffering)
        net.tell(file.readable(), file.writable(), file.seekable(), file.mode, file.closed)
        net.tell(file.fileno() == b.fileno(), file.name == b.fileno(), file.isatty())
        await net.outcome(lambda: file.read(2))
        await net.outcome(lambda: file.read(0))
        await net.outcome(lambda: file.readline())
        await net.outcome(lambda: file.readline(2))
        await net.outcome(lambda: file.readline(0))
        await net.outcome(lambda: file.readline(None))
        buffer = bytearray(7)
        await net.outcome(lambda: file.readinto(buffer))
        net.tell(bytes(buffer))
        if buffering != 0:
            data = await file.peek()
            net.tell(bool(data), (await file.read(len(data))).startswith(data))
            net.tell(bool(await file.read1(3)))
            await net.outcome(lambda: file.read1(0))
            await net.outcome(lambda: file.readinto1(bytearray(1)))
            await net.outcome(lambda: file.read(-2))
        await net.outcome(lambda: file.readlines(5))
        await net.outcome(lambda: file.write(b"x"))
        await net.outcome(lambda: file.seek(0))
        await net.outcome(lambda: file.tell())
        rest = await file.read()
        net.tell(rest[-4:])
        await net.outcome(lambda: file.read(5))
        await net.outcome(lambda: file.readline())
        await net.outcome(lambda: file.readlines())
        await net.outcome(lambda: file.close())
        await net.outcome(lambda: file.close())
        net.tell(file.closed)
        await net.outcome(lambda: b.send(b"still open"))

    await side_by_side(script)


@pytest.mark.parametrize("buffering", [0, 4, 8192, None])
@ensure
async def test_binary_writing(buffering: int | None) -> None:
    """Every way of writing bytes."""

    async def script(net: Net) -> None:
        a, b = await net.pair("unix")
        file = a.makefile("wb", buffering)
        net.tell(file.readable(), file.writable(), file.mode)
        for data in b"a", b"bcd", bytearray(b"ef"), b"", b"long" * 10, memoryview(b"view"):
            await net.outcome(lambda d=data: file.write(d))
        await net.outcome(lambda: file.flush())
        await net.outcome(lambda: b.recv(1000))
        await net.outcome(lambda: file.writelines([b"1", b"2"]))
        await net.outcome(lambda: file.read(1))
        await net.outcome(lambda: file.readline())
        await net.outcome(lambda: file.write("text"))
        await net.outcome(lambda: file.write(5))
        a.close()
        await net.outcome(lambda: file.write(b"open as long as the file is"))
        await net.outcome(lambda: file.close())
        await net.outcome(lambda: b.recv(1000))
        await net.outcome(lambda: b.recv(1000))
        net.tell(a.fileno(), file.closed)

    await side_by_side(script)


@pytest.mark.parametrize("newline", NEWLINES)
@ensure
async def test_text(newline: str | None) -> None:
    """Text is encoded, decoded and cut into lines alike."""

    async def script(net: Net) -> None:
        a, b = await net.pair("tcp4")
        writer = a.makefile("w", encoding="utf-8", newline=newline)
        reader = b.makefile("r", encoding="utf-8", newline=newline)
        net.tell(writer.encoding, writer.errors, reader.mode, writer.readable(), writer.writable())
        await net.outcome(lambda: writer.write(TEXT))
        await net.outcome(lambda: writer.writelines(["x\n", "ü"]))
        await net.outcome(lambda: writer.write(b"bytes"))
        await net.outcome(lambda: writer.read())
        await net.outcome(lambda: writer.readline())
        await net.outcome(lambda: reader.write("x"))
        await writer.flush()
        await writer.close()
        a.close()
        await net.outcome(lambda: reader.read(2))
        await net.outcome(lambda: reader.read(0))
        await net.outcome(lambda: reader.readline(1))
        await net.outcome(lambda: reader.readline())
        await net.outcome(lambda: reader.readlines(3))
        await net.outcome(lambda: reader.readline(0))
        await net.outcome(lambda: reader.read())
        await net.outcome(lambda: reader.read())
        await net.outcome(lambda: reader.readline())
        net.tell(reader.newlines)
        await net.outcome(lambda: reader.close())
        await net.outcome(lambda: reader.readline())
        await net.outcome(lambda: reader.readable())

    await side_by_side(script)


@ensure
async def test_wrong_bytes_and_encodings() -> None:
    """What cannot be decoded or encoded is an error, or treated as asked."""

    async def script(net: Net) -> None:
        for errors in None, "replace", "nonsense":
            a, b = await net.pair("unix")
            await a.sendall(b"caf\xe9\n\xff")
            a.shutdown(socket.SHUT_WR)
            file = await net.outcome(lambda b=b, e=errors: told(b.makefile(errors=e)))
            if errors != "nonsense":
                file = b.makefile(encoding="utf-8", errors=errors)
                await net.outcome(lambda f=file: f.readline())
                await file.close()
        for encoding in "latin-1", "utf-16", "nonsense", 5:
            a, b = await net.pair("unix")
            await net.outcome(lambda a=a, e=encoding: told(a.makefile("w", encoding=e)))
            if encoding in ("latin-1", "utf-16"):
                file = a.makefile("w", encoding=encoding)
                await net.outcome(lambda f=file: f.write("€"))
                await net.outcome(lambda f=file: f.write("é"))
                await net.outcome(lambda f=file: f.close())
                await net.outcome(lambda b=b: b.recv(100))
        a, _ = await net.pair("unix")
        await net.outcome(lambda: told(a.makefile(newline="x")))

    def told(file: Any) -> str:
        return str(file.mode)

    await side_by_side(script)


@pytest.mark.parametrize("mode", ["rwb", "rw"])
@ensure
async def test_both_directions(mode: str) -> None:
    """One file for reading and writing."""

    async def script(net: Net) -> None:
        a, b = await net.pair("unix")
        file = a.makefile(mode)
        message: Any = b"hello\n" if "b" in mode else "hello\n"
        net.tell(file.readable(), file.writable())
        await net.outcome(lambda: file.write(message))
        await net.outcome(lambda: file.flush())
        await net.outcome(lambda: b.recv(100))
        await b.send(b"answer\nand more")
        await net.outcome(lambda: file.readline())
        await net.outcome(lambda: file.read(3))
        await net.outcome(lambda: file.close())
        await net.outcome(lambda: file.write(message))
        await net.outcome(lambda: file.flush())

    await side_by_side(script)


@pytest.mark.parametrize("buffering", [0, None])
@ensure
async def test_time_outs_and_the_non_waiting_mode(buffering: int | None) -> None:
    """A file that has timed out is not read again; one that may not wait has None."""

    async def script(net: Net) -> None:
        a, _b = await net.pair("unix")
        a.settimeout(0.05)
        file = a.makefile("rb", buffering)
        await net.outcome(lambda: file.read(5))
        await net.outcome(lambda: file.read(5))
        await net.outcome(lambda: file.readline())
        await file.close()
        a.setblocking(False)
        file = a.makefile("rwb", buffering)
        await net.outcome(lambda: file.read(5))
        await net.outcome(lambda: file.read())
        await net.outcome(lambda: file.readinto(bytearray(3)))
        await file.close()

    await side_by_side(script)


@ensure
async def test_a_peer_that_is_gone() -> None:
    """Writing to it fails, at the latest in close, which closes all the same."""

    async def script(net: Net) -> None:
        for work in "flush", "close":
            a, b = await net.pair("unix")
            file = a.makefile("wb")
            b.close()
            await net.outcome(lambda f=file: f.write(b"x"))
            if work == "flush":
                await net.outcome(lambda f=file: f.flush())
            await net.outcome(lambda f=file: f.close())
            net.tell(file.closed)

    await side_by_side(script)


def turn() -> None:
    """Serve what is ready: hypothesis cannot wait for the reactor."""
    from twisted.internet import reactor

    loop: Any = loop_of(reactor)
    loop.calls_left = CALLS_A_TURN
    if loop.fileno() >= 0:
        loop.doRead()


def result_of(work: Deferred[Any]) -> Any:
    """Return what *work* fires with, in a few turns."""
    results: list[Any] = []
    work.addBoth(results.append)
    for _ in range(100):
        if results:
            break
        turn()
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def chunked(pieces: list[bytes], use: Callable[[Any], Any], **how: Any) -> Any:
    """Return what *use* has of a file of a socket that gets *pieces* one after the other."""
    a, b = socketpair()
    with a, b:
        file = b.makefile(**how)
        using = Deferred.fromCoroutine(use(file))
        for piece in pieces:
            result_of(a.sendall(piece))
            turn()
        a.shutdown(socket.SHUT_WR)
        result = result_of(using)
        result_of(file.close())
        return result


async def all_lines(file: Any) -> list[Any]:
    return [line async for line in file]


pieces = st.lists(
    st.text("ab\r\nü€", min_size=1, max_size=8).map(str.encode), max_size=6
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(pieces, st.sampled_from([1, 3, 8192]))
def test_lines_of_bytes_in_any_chunking(pieces: list[bytes], size: int) -> None:
    """However the bytes come, the lines are those of io.BytesIO."""
    expected = list(io.BytesIO(b"".join(pieces)))
    assert chunked(pieces, all_lines, mode="rb", buffering=size) == expected


@settings(max_examples=80, deadline=None)
@given(pieces, st.integers(1, 5), st.sampled_from(NEWLINES))
def test_lines_of_text_in_any_chunking(pieces: list[bytes], size: int, newline: str | None) -> None:
    """However the bytes come, even in half characters, the lines are those of io's text file."""
    data = b"".join(pieces)
    cut = [data[at : at + size] for at in range(0, len(data), size)]
    expected = list(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=newline))
    how = {"mode": "r", "encoding": "utf-8", "newline": newline}
    assert chunked(cut, all_lines, **how) == expected


@settings(max_examples=40, deadline=None)
@given(pieces, st.lists(st.tuples(st.booleans(), st.integers(-1, 9)), max_size=6))
def test_reads_and_lines_mixed(pieces: list[bytes], steps: list[tuple[bool, int]]) -> None:
    """Reads and lines of any size, mixed, are those of io's text file."""

    async def use(file: Any) -> list[str]:
        return [
            await (file.read(size) if is_read else file.readline(size)) for is_read, size in steps
        ]

    file = io.TextIOWrapper(io.BytesIO(b"".join(pieces)), "utf-8", newline="")
    expected = [file.read(size) if is_read else file.readline(size) for is_read, size in steps]
    assert chunked(pieces, use, mode="r", encoding="utf-8", newline="") == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab\r\nü", max_size=9), max_size=6), st.sampled_from(NEWLINES))
def test_what_is_written_is_what_io_writes(texts: list[str], newline: str | None) -> None:
    """However it is written, the bytes are those of io's text file."""

    async def work() -> bytes:
        a, b = socketpair()
        with a, b:
            async with a.makefile("w", encoding="utf-8", newline=newline) as file:
                for text in texts:
                    await file.write(text)
            a.close()
            async with b.makefile("rb") as file:
                return await file.read()  # type: ignore[no-any-return]

    raw = io.BytesIO()
    expected = io.TextIOWrapper(raw, "utf-8", newline=newline)
    for text in texts:
        expected.write(text)
    expected.flush()
    assert result_of(Deferred.fromCoroutine(work())) == raw.getvalue()


@ensure
async def test_a_cancelled_read_loses_nothing() -> None:
    """What had come stays in the file, for a buffered one and for text."""
    for mode in "rb", "r":
        a, b = socketpair()
        with a, b:
            file = b.makefile(mode)
            for read in lambda f: f.readline(), lambda f: f.read(99), lambda f: f.read():
                await a.send(b"half ")
                work = read(file)
                await pause(0.01)
                work.cancel()
                with pytest.raises(CancelledError):
                    await work
            await a.send(b"line\nnext")
            line = await within(file.readline())
            assert line in (b"half half half line\n", "half half half line\n")
            reads = [file.read(1) for _ in range(4)]
            assert [await within(each) for each in reads] in ([b"n", b"e", b"x", b"t"], [*"next"])
            await file.close()


@ensure
async def test_a_file_keeps_its_socket_open() -> None:
    """The socket is closed when the last of its files is, even one that is only forgotten."""
    a, b = socketpair()
    first, second = a.makefile("rb"), a.makefile("wb")
    a.close()
    assert a.fileno() >= 0
    await first.close()
    assert a.fileno() >= 0
    await second.write(b"lost")
    with pytest.warns(ResourceWarning, match="4 bytes are lost"):  # noqa: PT031
        del second
        gc.collect()
    assert a.fileno() == -1
    assert await b.recv(10) == b""
    b.close()


@ensure
async def test_reads_and_writes_take_turns() -> None:
    """Lines asked for at once come in order; a write does not wait for a read."""
    a, b = socketpair()
    with a, b:
        async with a.makefile("rw") as file:
            lines = [file.readline() for _ in range(3)]
            await within(file.write("question\n"))
            await within(file.flush())
            assert await within(b.recv(100)) == b"question\n"
            await b.sendall(b"1\n2\n3\n")
            assert [await within(line) for line in lines] == ["1\n", "2\n", "3\n"]
            assert "TextFile" in repr(file)
            assert "BinaryFile" in repr(file.buffer)
            assert "RawFile" in repr(file.buffer.raw)
