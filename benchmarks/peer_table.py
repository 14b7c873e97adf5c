"""The peers: how each is started, and which loads it can take. A table; starts nothing."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["echo", "bulk", "churn", "udp", "idle"]

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
SOURCES = HERE / "peers"

STREAM: frozenset[Kind] = frozenset({"echo", "bulk", "churn", "idle"})
EVERY: frozenset[Kind] = STREAM | {"udp"}
ECHO: frozenset[Kind] = frozenset({"echo"})
CHURN: frozenset[Kind] = frozenset({"churn"})
WITHOUT: frozenset[Kind] = frozenset({"echo", "bulk", "churn"})


@dataclass(frozen=True, slots=True)
class Peer:
    """One server to be measured.

    Attributes:
        name: As it is in every table and filter.
        command: The program and its arguments; ``{port}`` becomes the port on 127.0.0.1.
        kinds: The kinds of load it takes.
        source: What has to be compiled into ``command[0]`` first, or None.
        line: Its messages end in a newline.
        greets: It sends one line before anything is asked.
        reply_prefix: What stands before the message in each reply.
        max_size: The largest message in bytes that it is sent; None for any.
    """

    name: str
    command: tuple[str, ...]
    kinds: frozenset[Kind]
    source: Path | None = None
    line: bool = False
    greets: bool = False
    reply_prefix: str = ""
    max_size: int | None = None


def _script(name: str) -> tuple[str, ...]:
    return (sys.executable, str(SOURCES / name), "{port}")


def _compiled(name: str) -> tuple[str, ...]:
    return (str(BUILD / name), "{port}")


# What a listener may well have, all of it inherited by its connections.
OPTIONS = (
    "SO_KEEPALIVE=true",
    "TCP_KEEPIDLE=60s",
    "TCP_KEEPINTVL=10s",
    "TCP_KEEPCNT=6",
    "TCP_USER_TIMEOUT=2m",
    "TCP_NOTSENT_LOWAT=128KiB",
    "TCP_LINGER2=30s",
    "TCP_SYNCNT=3",
    "IP_TOS=AF21",
    "SO_REUSEPORT=true",
)


def _twistd(
    service: str, framing: str, transports: Iterable[str], options: Iterable[str] = ()
) -> tuple[str, ...]:
    limits = ("max_connections", "max_connections_per_source")
    return (
        str(Path(sys.executable).with_name("twistd")),
        *("-n", "--pidfile=", "sockservice", "--service", service, "--framing", framing),
        *(word for name in transports for word in ("--listen", f"{name}:127.0.0.1:{{port}}")),
        *(word for key in limits for word in ("--set", f"services.main.limits.{key}=20000")),
        *(word for option in options for word in ("--option", option)),
    )


PEERS: tuple[Peer, ...] = (  # in the order of measuring: those that are compared, side by side
    Peer("c", _compiled("echo_c"), EVERY, source=SOURCES / "echo.c"),
    Peer("twistedsock", _twistd("echo", "chunk", ("tcp", "udp")), EVERY),
    Peer("twistedsock-options", _twistd("echo", "chunk", ("tcp",), OPTIONS), CHURN),
    Peer("uvloop", _script("uvloop_protocol.py"), EVERY),
    Peer("twisted", _script("stock_twisted.py"), EVERY),
    Peer("twistedsock-line", _twistd("echo", "line", ("tcp",)), ECHO, line=True),
    Peer("uvloop-streams", _script("uvloop_streams.py"), ECHO, line=True),
    Peer(
        "twistedsock-reply",
        _twistd("echo-reply", "chunk", ("tcp",)),
        ECHO,
        greets=True,
        reply_prefix="OK...",
        max_size=1024,  # it answers what one read brought, so a message must come in one read
    ),
    Peer("asyncio", _script("asyncio_protocol.py"), EVERY),
    Peer("gevent", _script("gevent_echo.py"), STREAM),
    Peer("go", _compiled("echo_go"), EVERY, source=SOURCES / "echo.go"),
    *(
        Peer(f"without-{name}", (*_script("without.py")[:2], name, "{port}"), WITHOUT)
        for name in ("eager-write", "hot-loop", "one-call")
    ),
    Peer("recvfrom-loop", _script("recvfrom_loop.py"), frozenset({"udp"})),
)
