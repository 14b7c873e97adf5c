"""``twistedsock capture``: show or record the packets of an interface, or of a file."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import click

from twistedsock.cli.capture_lines import json_of, line_of
from twistedsock.cli.exits import EX_CANTCREAT, EX_DATAERR, EX_NOINPUT, EX_NOPERM, EX_UNAVAILABLE
from twistedsock.client.capture_file import CaptureFile, FileError, open_capture_file
from twistedsock.client.capture_loop import follow
from twistedsock.client.capture_source import compile_text, is_taken, open_source, parse_interface
from twistedsock.client.recording import Recorder
from twistedsock.errors import (
    AddressError,
    BindError,
    FilterError,
    PacketError,
    UnitError,
)
from twistedsock.transports.packet_ring import (
    Block,
    Counters,
    Interface,
    InterfaceLost,
    Ring,
    find_interface,
)
from twistedsock.units import parse_size
from twistedsock.wire.capture_files import Reader
from twistedsock.wire.captured import DEFAULT_SNAP_BYTES, LINKTYPE_ETHERNET, Captured

# sysexits.h; the meanings stand in the help below
READ_BYTES = 256 * 1024
LAST_WORDS_S = 1.0  # after a signal, for a pipe's reader to take what there is
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Show = Callable[[Captured], str]


def _size(_: click.Context, __: click.Parameter, text: str) -> int:
    """Return *text*, such as ``96`` or ``64KiB``, in bytes."""
    try:
        size = parse_size(text)
    except UnitError as error:
        raise click.BadParameter(str(error)) from None
    if not 1 <= size <= DEFAULT_SNAP_BYTES:
        raise click.BadParameter(f"must be 1 to {DEFAULT_SNAP_BYTES} bytes, got {text!r}")
    return size


@click.command()
@click.argument("words", nargs=-1, metavar="INTERFACE [FILTER]...")
@click.option(
    "-w", "--write", metavar="FILE", help="Record packets in FILE, as pcapng; - is the output."
)
@click.option(
    "-r",
    "--read",
    metavar="FILE",
    help="Show FILE, pcap or pcapng, and no interface; - is the input.",
)
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="End after N packets.")
@click.option(
    "--snap",
    "snap_bytes",
    default=str(DEFAULT_SNAP_BYTES),
    callback=_size,
    metavar="BYTES",
    help="Keep at most so many bytes of a packet. [all]",
)
@click.option("--promiscuous", is_flag=True, help="Take what is not for this machine, too.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object a packet.")
@click.pass_context
def command(
    context: click.Context,
    words: tuple[str, ...],
    write: str | None,
    read: str | None,
    count: int | None,
    snap_bytes: int,
    promiscuous: bool,
    in_json: bool,
) -> None:
    """Show the packets of INTERFACE, such as packet:lo or eth0, one in a line, or record them.

    FILTER is an expression in the manner of tcpdump, such as `udp port 53 and not host
    192.0.2.1`. It ends with --count, or when it is interrupted, and then tells how many packets
    there were, and how many the kernel has dropped because we were too slow.

    \b
    Exit status:
       0  in order: interrupted or terminated as well, or nobody reads the output any more
      64  wrong command line or filter
      65  the file to be read is no capture, or ends in the middle
      66  the file cannot be read
      69  no such interface; or it is down, went away, or is of a kind that cannot be captured
      73  the file or the output cannot be written
      77  no right: needs CAP_NET_RAW
    """
    show = json_of if in_json else line_of
    try:
        if read is not None:
            if write is not None or promiscuous:
                raise click.UsageError("--read goes with neither --write nor --promiscuous")
            code = _show_file(read, " ".join(words), count, show)
        elif not words:
            raise click.UsageError("an interface is missing, such as packet:lo")
        elif write is not None and in_json:
            raise click.UsageError("--json goes with lines, not with --write")
        else:
            live = _Live(" ".join(words[1:]), count, snap_bytes, promiscuous)
            code = live.run(find_interface(parse_interface(words[0])), write, show)
    except (AddressError, FilterError) as error:
        raise click.UsageError(str(error)) from None
    except BindError as error:
        text = _grant(error) if error.is_permission else str(error)
        code = _tell(text, EX_NOPERM if error.is_permission else EX_UNAVAILABLE)
    except InterfaceLost as error:
        code = _tell(str(error), EX_UNAVAILABLE)
    except FileError as error:  # EPIPE: whoever read our output has had enough
        code = 0 if error.errno == errno.EPIPE else _tell(str(error), EX_CANTCREAT)
    except KeyboardInterrupt:
        code = 0
    context.exit(code)


def _tell(text: str, code: int) -> int:
    click.echo(f"twistedsock capture: {text}", err=True)
    return code


def _grant(error: BindError) -> str:
    """Return what would allow a capture, for whoever has typed the command."""
    code = errno.errorcode[error.errno or errno.EPERM]
    python = os.path.realpath(sys.executable)
    grant = f"run it as root, or give Python the right: setcap cap_net_raw+ep {python}"
    return f"{error.address}: needs CAP_NET_RAW ({code}): {grant}"


class _Signals:
    """Whether a signal has asked for the end. A second one ends the process at once."""

    def __init__(self) -> None:
        self.stopped_at_s = 0.0
        self.wake = -1  # readable when one has come

    @property
    def is_stopping(self) -> bool:
        return bool(self.stopped_at_s)

    def is_patient(self) -> bool:
        """Return whether a pipe's reader is still waited for."""
        return not self.stopped_at_s or time.monotonic() < self.stopped_at_s + LAST_WORDS_S

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within it they are noted."""
        self.wake, written = os.pipe()
        os.set_blocking(written, False)
        before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        ours = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        handlers = {each: signal.signal(each, self._note) for each in ours}
        try:
            yield
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
            signal.set_wakeup_fd(before)
            os.close(self.wake)
            os.close(written)

    def _note(self, number: int, _: object) -> None:
        self.stopped_at_s = time.monotonic()
        signal.signal(number, signal.SIG_DFL)


class _Live:
    """A capture of an interface."""

    def __init__(
        self, filter_text: str, count: int | None, snap_bytes: int, promiscuous: bool
    ) -> None:
        self._filter = filter_text
        self._count = count
        self._snap_bytes = snap_bytes
        self._promiscuous = promiscuous
        self._signals = _Signals()
        self._captured = 0

    def run(self, interface: Interface, write: str | None, show: Show) -> int:
        """Show or record what comes; return the exit status."""
        link_type, snap_bytes = interface.link_type, self._snap_bytes
        program = compile_text(self._filter, link_type, snap_bytes)
        with ExitStack() as stack:
            # The file comes before the ring: it needs no right, and a FIFO makes us wait.
            sink = open_capture_file("-" if write is None else write, self._signals.is_patient)
            stack.callback(sink.close)
            ring = open_source(
                interface, program, snap_bytes=snap_bytes, promiscuous=self._promiscuous
            )
            stack.callback(ring.close)
            stack.enter_context(self._signals.caught())
            # Told last, whatever has happened.
            stack.callback(self._tell_figures, ring)
            if write is None:
                self._follow(ring, self._shown_by(show, ring, sink))
            else:
                self._record(ring, sink, is_live=write != "-" and sys.stderr.isatty())
        return 0

    def _record(self, ring: Ring, sink: CaptureFile, is_live: bool) -> None:
        began_at_ns = time.time_ns()
        recorder = Recorder(sink.write, ring.interface, ring.snap_bytes)
        sink.empty()
        recorder.begin(self._filter)
        lost: InterfaceLost | None = None
        try:
            self._follow(
                ring,
                lambda block, most: recorder.record(ring, block, most),
                _tick if is_live else None,
            )
        except InterfaceLost as error:
            lost = error
        finally:
            if is_live:
                click.echo("\r\x1b[K", nl=False, err=True)
        recorder.end(began_at_ns, time.time_ns(), ring.count())
        if lost is not None:
            raise lost

    @staticmethod
    def _shown_by(show: Show, ring: Ring, sink: CaptureFile) -> Callable[[Block, int], int]:
        def deal(block: Block, most: int) -> int:
            lines = [show(packet).encode() for packet in islice(ring.packets(block), most)]
            sink.write([b"".join(lines)])
            return len(lines)

        return deal

    def _follow(
        self,
        ring: Ring,
        deal: Callable[[Block, int], int],
        tick: Callable[[int], object] | None = None,
    ) -> None:
        def dealt(block: Block, most: int) -> int:
            packets = deal(block, most)
            self._captured += packets
            return packets

        follow(
            ring,
            dealt,
            count=self._count,
            is_stopping=lambda: self._signals.is_stopping,
            wake=self._signals.wake,
            tick=tick,
        )

    def _tell_figures(self, ring: Ring) -> None:
        counters: Counters = ring.count()
        text = f"{self._captured} packets captured, {counters.dropped} dropped by the kernel"
        click.echo(text, err=True)


def _tick(packets: int) -> None:
    click.echo(f"\r{packets} packets", nl=False, err=True)


def _show_file(name: str, filter_text: str, count: int | None, show: Show) -> int:
    """Show the packets of a capture file; return the exit status."""
    compiled = functools.cache(functools.partial(compile_text, filter_text))  # by link type
    compiled(LINKTYPE_ETHERNET)  # what is wrong with the text is said before all else
    reader, left = Reader(), count
    with ExitStack() as stack:
        sink = open_capture_file("-")
        stack.callback(sink.close)
        try:
            file = os.dup(0) if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, file)
            while left != 0 and (data := os.read(file, READ_BYTES)):
                taken = [
                    packet
                    for packet in reader.feed(data)
                    if not filter_text or is_taken(compiled(packet.link_type), packet)
                ]
                shown = taken[:left]
                sink.write(["".join(map(show, shown)).encode()])
                left = None if left is None else left - len(shown)
            if left != 0:
                reader.end()
        except PacketError as error:
            return _tell(f"{name}: {error}", EX_DATAERR)
        except OSError as error:
            return _tell(str(FileError(name, error)), EX_NOINPUT)
    return 0
