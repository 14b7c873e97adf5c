"""``twistd sockservice``: the command line, to settings, to a server.

Every flag is a short way of writing a piece of the configuration file; both end in the same
checked settings. A service made by flags is called ``main``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from twistedsock import sockopts
from twistedsock.errors import ConfigError, PluginError, Problem
from twistedsock.host import registry
from twistedsock.host.daemon import EX_CONFIG, EX_USAGE, Daemon, tell
from twistedsock.host.loader import RawConfig, format_path, read_files, set_key
from twistedsock.host.logs import FORMATS
from twistedsock.host.plan import ServicePlan, make_plans
from twistedsock.host.settings import DEFAULT_PORT, DEFAULT_SERVICE
from twistedsock.wire.codecs import CODECS
from twistedsock.wire.framing import FRAMINGS

MAIN = "main"
MAKING, CHANGING = ("port", "host", "service"), ("framing", "codec")  # flags of services.main
LONGEST_TOLD = 80  # characters of a flag that are repeated to whoever typed it


class Options(usage.Options):
    """The flags of ``twistd sockservice``."""

    synopsis = "Usage: twistd [twistd options] sockservice [options]"
    longdesc = (
        "Serves socket protocols. Without options: echo-reply on 127.0.0.1, TCP and UDP port"
        " 8888. Installed services: twistedsock services. A configuration file:"
        " twistedsock check FILE, then --config FILE."
    )
    optParameters = [  # noqa: RUF012 - usage.Options declares it as an instance attribute
        ["port", "p", None, "TCP and UDP port, as far as the service serves them [8888]"],
        ["host", "h", None, "Address for --port; * is every address, IPv4 and IPv6 [127.0.0.1]"],
        ["service", "s", None, f"Service to run [{DEFAULT_SERVICE}]"],
        ["framing", "f", None, f"How messages are cut: {', '.join(FRAMINGS)} [chunk]"],
        ["codec", None, None, f"What messages say: {', '.join(CODECS)} [bytes]"],
        ["log-format", None, "text", f"Log lines: {' or '.join(FORMATS)}"],
    ]
    compData = usage.Completions(
        optActions={
            "framing": usage.CompleteList(list(FRAMINGS)),
            "codec": usage.CompleteList(list(CODECS)),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["config"] = []
        self["set"] = []
        self["option"] = []

    def opt_listen(self, address: str) -> None:
        """Listen on ADDRESS, such as tcp:127.0.0.1:8888, udp:[::1]:8888 or tcp:*:8888; may be repeated"""  # noqa: E501 - usage.Options shows this as the flag's help
        self["listen"].append(address)

    opt_l = opt_listen

    def opt_config(self, path: str) -> None:
        """Read the TOML file at PATH; may be repeated, later files replace single keys"""
        self["config"].append(path)

    opt_c = opt_config

    def opt_set(self, assignment: str) -> None:
        """Set one key, as in services.main.limits.idle_timeout=1m; may be repeated"""
        self["set"].append(assignment)

    def opt_option(self, assignment: str) -> None:
        """Set a socket option of services.main, as in TCP_KEEPIDLE=60s, on each listener that it fits; may be repeated"""  # noqa: E501 - usage.Options shows this as the flag's help
        self["option"].append(assignment)

    opt_o = opt_option

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the flags; a wrong one ends the process with 64 and one line."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            refuse(EX_USAGE, _explain(str(error), self))

    def parseArgs(self, *args: str) -> None:
        """Refuse words that are no flags."""
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}; every setting is a flag")

    def postOptions(self) -> None:
        """Check what concerns the flags alone."""
        port = self["port"]
        if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535):
            raise usage.UsageError(f"--port must be 0 to 65535, got {port!r}")
        for assignment in self["option"]:
            name, equals, _ = assignment.partition("=")
            if not (name and equals):
                example = "TCP_KEEPIDLE=60s"
                raise usage.UsageError(
                    f"--option must be NAME=VALUE, such as {example}; got {assignment!r}"
                )
        if self["log-format"] not in FORMATS:
            wanted = " or ".join(FORMATS)
            raise usage.UsageError(f"--log-format must be {wanted}, got {self['log-format']!r}")


def refuse(code: int, *lines: str) -> NoReturn:
    """Print *lines* and end the process with *code*."""
    for line in lines:
        tell(line)
    raise SystemExit(code)


def _explain(message: str, options: Options) -> str:
    unknown = re.fullmatch(r"option --?(\S+) not recognized", message)
    if unknown and not message.startswith("option --"):
        return f"unknown flag -{unknown[1]}; see twistd sockservice --help"
    if unknown:
        near = difflib.get_close_matches(
            unknown[1], [name.rstrip("=") for name in options.longOpt], 1
        )
        hint = f"did you mean --{near[0]}?" if near else "see twistd sockservice --help"
        return f"unknown flag --{unknown[1]}; {hint}"
    return message


def read_options(options: Options) -> RawConfig:
    """Return the files and flags of *options* as one raw table."""
    raw = read_files(options["config"])
    named = [each.split(".")[1] for each in options["set"] if each.startswith("services.")]
    makes_main = options["listen"] or any(options[flag] is not None for flag in MAKING)
    changes_main = options["option"] or any(options[flag] is not None for flag in CHANGING)
    services = [*dict.fromkeys([*_services(raw), *named])]
    is_alone = not (options["config"] or set(services) - {MAIN})
    if makes_main or is_alone or (changes_main and MAIN in services):
        _merge_main(raw, options)
    elif changes_main and not raw.problems:  # a file that cannot be read may have it
        raw.problems += _homeless(options, services)
    for assignment in options["set"]:
        set_key(raw, assignment)
    return raw


def _services(raw: RawConfig) -> list[str]:
    services = raw.table.get("services")
    return list(services) if isinstance(services, dict) else []


def _homeless(options: Options, services: list[str]) -> Iterator[Problem]:
    """Yield the flags that change ``services.main`` where there is none, each with another way."""
    wishes = [(f"--{key}", key, options[key]) for key in CHANGING if options[key] is not None]
    for assignment in options["option"]:
        name, _, value = assignment.partition("=")
        source = _source(assignment)
        told = value if source.endswith(value) else "VALUE"
        wishes.append((source, f"socket.{name}", told))
    service = services[0] if len(services) == 1 else "NAME"
    for source, key, value in wishes:
        way = f"--set {format_path(('services', service))}.{key}={value}"
        yield Problem(source, "", f"there is no services.{MAIN} for it; write {way}")


def _source(assignment: str) -> str:
    """Return what a fault in ``--option`` is told by: what was typed, or its name alone."""
    for told in (assignment, assignment.partition("=")[0]):
        if told.isprintable() and len(told) <= LONGEST_TOLD:
            return f"--option {told}"
    return "--option"


def _merge_main(raw: RawConfig, options: Options) -> None:
    """Lay the flags over ``services.main``, which need not be there yet."""
    services = raw.table.get("services")
    main = services.get(MAIN, {}) if isinstance(services, dict) else {}
    main = main if isinstance(main, dict) else {}

    def put(key: str, value: Any, source: str) -> None:
        raw.merge({"services": {MAIN: {key: value}}}, source)

    name = options["service"] or main.get("service", DEFAULT_SERVICE)
    if options["service"] is not None or "service" not in main:
        put("service", name, "--service")
    for key in ("framing", "codec"):
        if options[key] is not None:
            put(key, options[key], f"--{key}")
    for assignment in options["option"]:
        option, _, value = assignment.partition("=")
        put("socket", {option: sockopts.read_value(option, value)}, _source(assignment))
    listen = list(options["listen"])
    wants_port = options["port"] is not None or options["host"] is not None
    sources = ["--listen"] * len(listen)
    if wants_port or not (listen or "listen" in main):
        made = _port_addresses(options, name)
        listen += made
        sources += ["--host" if options["host"] is not None else "--port"] * len(made)
    if listen:
        put("listen", listen, sources[0])
        for position, source in enumerate(sources):
            raw.origins["services", MAIN, "listen", position] = source


def _port_addresses(options: Options, service: object) -> list[str]:
    """Return the addresses of ``--host`` and ``--port`` that *service* can serve."""
    host = options["host"] or "127.0.0.1"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    port = options["port"] or str(DEFAULT_PORT)
    kinds: tuple[str, ...] = ("stream", "datagram")
    if isinstance(service, str):
        with suppress(PluginError):  # told when the configuration is checked
            kinds = registry.load_plugin(service).served_kinds()
    schemes = [("stream", "tcp"), ("datagram", "udp")]
    return [f"{scheme}:{host}:{port}" for kind, scheme in schemes if kind in kinds]


def make_server_plans(options: Options) -> tuple[ServicePlan, ...]:
    """Return what *options* ask for.

    Raises:
        ConfigError: Something is wrong with a file or a flag.
    """
    return make_plans(read_options(options))


def makeService(options: Options) -> IService:
    """Return the service that twistd runs; opens nothing yet."""
    try:
        plans = make_server_plans(options)
    except ConfigError as error:
        # A fault in what was typed is one of usage; in a file, of configuration.
        typed = all(problem.source.startswith("--") for problem in error.problems)
        refuse(EX_USAGE if typed else EX_CONFIG, *map(str, error.problems))
    twistd: Any = options.parent if options.parent is not None else {}
    log_path = twistd.get("logfile") or None
    if log_path == "-" and not twistd.get("nodaemon"):
        refuse(EX_USAGE, "a daemon cannot log to standard output; use -n or --logfile")
    if log_path is None and not twistd.get("nodaemon"):
        log_path = "twistd.log"
    return Daemon(
        plans,
        log_format=options["log-format"],
        log_path=None if log_path == "-" else log_path,
        own_log=not (twistd.get("logger") or twistd.get("syslog")),
    )


__all__ = ["Options", "makeService"]
