"""``twistedsock connect``: talk to a peer, by hand or in a pipe."""

from __future__ import annotations

import os
import time

import click

from twistedsock.addresses import format_host_port
from twistedsock.cli.exits import EX_INTERRUPTED, EXITS, exit_of
from twistedsock.cli.reading import read_assignments, read_duration
from twistedsock.client.conversation import Conversation
from twistedsock.client.dialling import dial, five_tuple_of
from twistedsock.client.options import Options, check, finish
from twistedsock.client.pipe import Pipe
from twistedsock.errors import (
    AddressError,
    CodecError,
    OptionError,
    PeerProtocolError,
)
from twistedsock.wire.codecs import CODECS
from twistedsock.wire.framing import FRAMINGS


@click.command()
@click.argument("address")
@click.option(
    "--framing",
    type=click.Choice(list(FRAMINGS)),
    default="chunk",
    help="How messages are cut from a stream; chunk passes bytes as they are. [chunk]",
)
@click.option(
    "--codec",
    type=click.Choice(list(CODECS)),
    default="bytes",
    help="What messages say. [bytes]",
)
@click.option(
    "--timeout",
    "timeout_s",
    callback=read_duration,
    metavar="DURATION",
    help="For the connection, while the peer takes nothing, and for each answer once the input"
    " has ended; such as 500ms or 30s. [none; 1s of silence ends datagrams]",
)
@click.option(
    "-o",
    "--option",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a socket option before connecting, such as TCP_USER_TIMEOUT=10s; may be repeated.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell who is connected, and how much moved.")
@click.pass_context
def command(
    context: click.Context,
    address: str,
    framing: str,
    codec: str,
    timeout_s: float | None,
    assignments: tuple[str, ...],
    verbose: bool,
) -> None:
    """Connect to ADDRESS, such as tcp:localhost:8888, udp:[::1]:8888, unix:/run/x.sock,
    seqpacket:@name or raw:icmp:192.0.2.1.

    Standard input goes to the peer, and at its end our half is closed; what the peer sends goes
    to standard output, until it ends. With a framing or a codec each line of the input is one
    message, and each message one line of the output.

    \b
    Exit status:
       0  the peer has ended, in order
      64  wrong command line or address
      65  a line of the input is no message
      68  cannot resolve the name
      69  refused: nobody listens there
      71  unreachable: no way there, no right to, or a socket option refused
      72  closed by the peer before its time: reset
      73  the output cannot be written
      74  cannot send
      75  timed out
      76  the peer sent what cannot be read in this framing or codec
      77  no right to a raw socket, or to a socket option
     130  interrupted
    """
    try:
        talk = Conversation(address, framing, codec)
        options = check(talk.address, read_assignments(assignments))
    except (AddressError, OptionError) as error:
        raise click.UsageError(str(error)) from None
    _open_standard()
    in_lines = framing != "chunk" or codec != "bytes"
    try:
        code = _talk(talk, codec, in_lines, timeout_s, options, verbose)
    except KeyboardInterrupt:
        code = EX_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has had enough
        code = 0
    except tuple(EXITS) as error:
        by_peer = isinstance(error, PeerProtocolError | CodecError)  # they name no address
        where = f"{talk.address}: " if by_peer else ""
        click.echo(f"twistedsock connect: {where}{error}", err=True)
        code = exit_of(error)
    context.exit(code)


def _open_standard() -> None:
    """Put /dev/null where a standard descriptor is closed: a socket would take its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _talk(
    talk: Conversation,
    codec: str,
    in_lines: bool,
    timeout_s: float | None,
    options: Options,
    verbose: bool,
) -> int:
    sock = dial(talk.address, timeout_s, options)
    report = finish(sock, options)
    if verbose:
        five = five_tuple_of(talk.address, sock)
        own = format_host_port(five.local_host, five.local_port)
        other = format_host_port(five.peer_host, five.peer_port)
        click.echo(f"connected: {five.protocol} {own} -> {other}", err=True)
        for outcome in report:
            click.echo(str(outcome), err=True)
    pipe = Pipe(sock, talk, 0, 1, codec=codec, in_lines=in_lines, timeout_s=timeout_s)
    started = time.monotonic()
    try:
        pipe.run()
    finally:
        if verbose:
            lasted = time.monotonic() - started
            moved = f"sent {pipe.bytes_out} bytes, received {pipe.bytes_in}"
            click.echo(f"{moved} in {lasted:.3f} s", err=True)
    return 0
