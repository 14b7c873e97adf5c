"""``twistd sockservice``: flags to settings to a server, and what is said of wrong ones."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
from conftest import run
from twisted.application.service import IService

from twistedsock.host import registry
from twistedsock.host.daemon import Daemon
from twistedsock.host.plan import ServicePlan
from twistedsock.service import Session, SocketService
from twistedsock.tap import Options, make_server_plans, makeService, read_options

TWISTD = str(Path(sys.executable).with_name("twistd"))


def parsed(*flags: str) -> Options:
    """Return the options that *flags* make."""
    options = Options()
    options.parseOptions(flags)
    return options


def plans(*flags: str) -> tuple[ServicePlan, ...]:
    """Return what *flags* ask for."""
    return make_server_plans(parsed(*flags))


def main(*flags: str) -> ServicePlan:
    """Return the one service that *flags* ask for, which is called main."""
    [plan] = plans(*flags)
    assert plan.name == "main"
    return plan


def addresses(plan: ServicePlan) -> list[str]:
    """Return the addresses of *plan* as an operator writes them."""
    return [str(listener.address) for listener in plan.listeners]


def make(*flags: str, **twistd: Any) -> IService:
    """Return what twistd would run, in the foreground unless told otherwise."""
    options = parsed(*flags)
    options.parent = {"nodaemon": True, **twistd}
    return makeService(options)


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Any:
    """Call with flags to get the exit code and the lines that are told."""

    def refused(*flags: str, **twistd: Any) -> tuple[object, list[str]]:
        with pytest.raises(SystemExit) as caught:
            make(*flags, **twistd)
        out, err = capfd.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert all(line.startswith("twistd sockservice: ") for line in lines)
        return caught.value.code, [line.removeprefix("twistd sockservice: ") for line in lines]

    return refused


class StreamsOnly(SocketService):
    """Serves connections alone."""

    kinds = ("stream",)

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


class DatagramsOnly(StreamsOnly):
    """Serves datagrams alone."""

    kinds = ("datagram",)


class HandsOver(SocketService):
    """Hands over a Twisted factory."""

    def stream_factory(self) -> None:
        """Return none: it is never served here."""


@pytest.fixture
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [
        EntryPoint(name, f"{__name__}:{value}", registry.GROUP)
        for name, value in [
            ("streams", "StreamsOnly"),
            ("datagrams", "DatagramsOnly"),
            ("factory", "HandsOver"),
        ]
    ]
    installed = list(entry_points(group=registry.GROUP))
    monkeypatch.setattr(registry, "entry_points", lambda group: [*installed, *own])


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Call with a text to get the path of a file that holds it."""
    count = iter(range(9))

    def config(text: str) -> str:
        path = tmp_path / f"{next(count)}.toml"
        path.write_text(text)
        return str(path)

    return config


# -- flags --


def test_no_flags_are_the_tutorial_s_server() -> None:
    """Without a flag there is echo-reply on loopback, TCP and UDP port 8888."""
    plan = main()
    assert plan.service_class.__name__ == "EchoReply"
    assert addresses(plan) == ["tcp:127.0.0.1:8888", "udp:127.0.0.1:8888"]
    assert plan.framing == "chunk"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--port", "7"], ["tcp:127.0.0.1:7", "udp:127.0.0.1:7"]),
        (["-p", "0"], ["tcp:127.0.0.1:0", "udp:127.0.0.1:0"]),
        (["--host", "*"], ["tcp:*:8888", "udp:*:8888"]),
        (["-h", "::1", "-p", "7"], ["tcp:[::1]:7", "udp:[::1]:7"]),
        (["--host", "[::1]", "--port", "7"], ["tcp:[::1]:7", "udp:[::1]:7"]),
        (["--host", "localhost", "--port=7"], ["tcp:localhost:7", "udp:localhost:7"]),
        (["--listen", "tcp:7"], ["tcp:127.0.0.1:7"]),
        (["-l", "tcp:*:7", "-l", "udp:[::1]:9"], ["tcp:*:7", "udp:[::1]:9"]),
        (
            ["--port", "7", "--listen", "tcp:9"],
            ["tcp:127.0.0.1:9", "tcp:127.0.0.1:7", "udp:127.0.0.1:7"],
        ),
        (["--port", "7", "--port", "9"], ["tcp:127.0.0.1:9", "udp:127.0.0.1:9"]),
        (["--service", "echo"], ["tcp:127.0.0.1:8888", "udp:127.0.0.1:8888"]),
    ],
    ids=" ".join,
)
def test_flags_say_where_to_listen(flags: list[str], expected: list[str]) -> None:
    """--port and --host are short for two addresses; --listen names each."""
    assert addresses(main(*flags)) == expected


@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("streams", ["tcp:127.0.0.1:7"]),
        ("datagrams", ["udp:127.0.0.1:7"]),
        ("factory", ["tcp:127.0.0.1:7"]),
        ("echo", ["tcp:127.0.0.1:7", "udp:127.0.0.1:7"]),
    ],
)
def test_a_port_is_opened_as_far_as_the_service_serves_it(
    service: str, expected: list[str]
) -> None:
    """--port opens TCP and UDP only where the service's kinds allow it."""
    assert addresses(main("--service", service, "--port", "7")) == expected


def test_flags_make_a_service_called_main() -> None:
    """--service and --framing are keys of services.main."""
    plan = main("-s", "discard", "-f", "line")
    assert (plan.service_class.__name__, plan.framing) == ("Discard", "line")


def test_set_alone_makes_its_own_service_alone() -> None:
    """A service made by --set opens nothing beside what it lists."""
    options = Options()
    options.parseOptions(
        ["--set", "services.s.service=echo", "--set", 'services.s.listen=["tcp:9"]']
    )
    assert list(read_options(options).table["services"]) == ["s"]
    options = Options()
    options.parseOptions(["--set", "services.main.framing=line"])
    assert "listen" in read_options(options).table["services"]["main"]


def test_set_reaches_what_no_flag_does() -> None:
    """--set reaches every key, the plug-in's own too, and counts over flags."""
    plan = main(
        "--framing=line",
        "--set",
        "services.main.limits.idle_timeout=1m",
        "--set",
        "services.main.settings.greeting=",
        "--set",
        "services.main.framing=netstring",
    )
    assert plan.limits.idle_timeout == 60.0
    assert plan.settings.model_dump()["greeting"] == ""
    assert plan.framing == "netstring"


def test_a_flag_may_be_shortened_while_it_is_clear() -> None:
    """The beginning of a flag will do, as with all of twistd's."""
    assert main("--fram", "line").framing == "line"


# -- files --

HELLO = '[services.hello]\nservice = "discard"\nlisten = ["tcp:7"]\n'
MAIN = '[services.main]\nservice = "discard"\nlisten = ["tcp:7"]\nframing = "line"\n'


def test_a_file_stands_alone(config: Any) -> None:
    """With a file and no other flag, nothing is added to it."""
    [plan] = plans("--config", config(HELLO))
    assert (plan.name, addresses(plan)) == ("hello", ["tcp:127.0.0.1:7"])


def test_a_flag_adds_main_to_a_file(config: Any) -> None:
    """Flags make services.main beside those of the file."""
    hello, added = plans("-c", config(HELLO), "--port", "9")
    assert (hello.name, added.name) == ("hello", "main")
    assert addresses(added) == ["tcp:127.0.0.1:9", "udp:127.0.0.1:9"]


def test_a_flag_replaces_one_key_of_main_in_a_file(config: Any) -> None:
    """Where the file has a services.main, a flag replaces its key and no other."""
    path = config(MAIN)
    plan = main("-c", path, "--framing", "netstring")
    assert plan.service_class.__name__ == "Discard"
    assert (plan.framing, addresses(plan)) == ("netstring", ["tcp:127.0.0.1:7"])
    plan = main("-c", path, "--port", "9")
    assert plan.service_class.__name__ == "Discard"
    assert (plan.framing, addresses(plan)) == ("line", ["tcp:127.0.0.1:9", "udp:127.0.0.1:9"])
    plan = main("-c", path, "--service", "echo")
    assert (plan.service_class.__name__, plan.framing) == ("Echo", "line")
    assert addresses(plan) == ["tcp:127.0.0.1:7"]


@pytest.mark.usefixtures("_plugins")
def test_a_port_asks_the_file_what_the_service_is(config: Any) -> None:
    """--port opens what the file's service serves, not what the default one would."""
    path = config('[services.main]\nservice = "streams"\n')
    assert addresses(main("-c", path, "--port", "9")) == ["tcp:127.0.0.1:9"]
    assert addresses(main("-c", path, "--framing", "line")) == ["tcp:127.0.0.1:8888"]


def test_later_files_and_set_count(config: Any) -> None:
    """Files are laid over each other in order, and --set over them all."""
    [plan] = plans(
        "--set",
        "services.hello.limits.max_connections=3",
        *("-c", config(HELLO)),
        *("-c", config('[services.hello]\nframing = "line"\nlimits.max_connections = 2\n')),
    )
    assert (plan.framing, plan.limits.max_connections) == ("line", 3)
    assert addresses(plan) == ["tcp:127.0.0.1:7"]


# -- what was typed wrongly: 64 --


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--confg", "x"], "unknown flag --confg; did you mean --config?"),
        (["--zzz"], "unknown flag --zzz; see twistd sockservice --help"),
        (["-z"], "unknown flag -z; see twistd sockservice --help"),
        (["--port"], "option --port requires argument"),
        (["8888"], "unexpected argument '8888'; every setting is a flag"),
        (["--port", "65536"], "--port must be 0 to 65535, got '65536'"),
        (["--port", "-1"], "--port must be 0 to 65535, got '-1'"),
        (["--port", "http"], "--port must be 0 to 65535, got 'http'"),
        (["--port", "\u0663"], "--port must be 0 to 65535, got '\u0663'"),
        (["--port", ""], "--port must be 0 to 65535, got ''"),
        (["--log-format", "xml"], "--log-format must be text or json, got 'xml'"),
        (
            ["--framing", "lines"],
            "--framing: services.main.framing: must be one of chunk, line, netstring, uint8,"
            " uint16, uint32, got 'lines'",
        ),
        (
            ["--service", "ecko"],
            "--service: services.main.service: no service is called 'ecko'; did you mean 'echo'?",
        ),
        (
            ["--listen", "tcp:1", "--listen", "tcp:x"],
            "--listen: services.main.listen[1]: port must be 0 to 65535, got 'x' in 'tcp:x'",
        ),
        (
            ["--listen", "raw:icmp"],
            "--listen: services.main.listen[0]: raw:icmp: the service serves stream, datagram,"
            " seqpacket only",
        ),
        (
            ["--set", "services.main"],
            "--set services.main: must be KEY=VALUE, such as services.main.limits.idle_timeout=1m",
        ),
        (
            ["--set", "services.main.limits.idle_timeout=5"],
            "--set services.main.limits.idle_timeout=5: services.main.limits.idle_timeout:"
            ' must be a duration such as "500ms", "30s" or "5m", got 5',
        ),
        (
            ["--set", "service.main.framing=line"],
            "--set service.main.framing=line: service: unknown key; did you mean 'services'?",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_flag_ends_with_64(refused: Any, flags: list[str], line: str) -> None:
    """What was typed wrongly is told in one line, with what would be right."""
    assert refused(*flags) == (64, [line])


def test_a_wrong_host_is_laid_to_its_flag(refused: Any) -> None:
    """A host that is none is laid to --host, though --port made the addresses of it."""
    assert refused("--host", "a..b", "--listen", "tcp:9") == (
        64,
        [
            "--host: services.main.listen[1]: 'a..b' is neither an IP address nor a host name,"
            " in 'tcp:a..b:8888'",
            "--host: services.main.listen[2]: 'a..b' is neither an IP address nor a host name,"
            " in 'udp:a..b:8888'",
        ],
    )


def test_what_replaced_an_address_is_named_not_what_it_replaced(refused: Any) -> None:
    """A wrong list of addresses is laid to the --set that it came from."""
    assignment = 'services.main.listen=["tcp:x"]'
    assert refused("--host", "*", "--set", assignment) == (
        64,
        [
            f"--set {assignment}: services.main.listen[0]:"
            " port must be 0 to 65535, got 'x' in 'tcp:x'"
        ],
    )


def test_every_wrong_flag_is_told_at_once(refused: Any) -> None:
    """One run tells every flag that is wrong."""
    code, lines = refused("--service", "ecko", "--framing", "lines", "--set", "x", "-l", "nope")
    assert code == 64
    assert [line.partition(": ")[0] for line in lines] == [
        "--set x",
        "--listen",
        "--framing",
        "--service",
    ]


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """--help tells each flag, the framings and where to go on."""
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert not caught.value.code
    told = capsys.readouterr().out
    for flag in ("config", "framing", "host", "listen", "log-format", "port", "service", "set"):
        assert f"--{flag}=" in told
    for word in ("netstring", "twistedsock services", "twistedsock check FILE", "8888"):
        assert word in " ".join(told.split())


# -- what a file has wrongly: 78 --


def test_a_wrong_file_ends_with_78(refused: Any, config: Any) -> None:
    """What a file has wrongly is told with file and key, all at once."""
    path = config('[services.hello]\nservice = "ecko"\nlisten = ["tcp:x"]\n')
    assert refused("--config", path) == (
        78,
        [
            f"{path}: services.hello.listen[0]: port must be 0 to 65535, got 'x' in 'tcp:x'",
            f"{path}: services.hello.service: no service is called 'ecko'; did you mean 'echo'?",
        ],
    )


def test_a_file_that_is_not_there_ends_with_78(refused: Any) -> None:
    """A missing file is a fault of the configuration, told once."""
    assert refused("--config", "/none.toml") == (
        78,
        ["/none.toml: cannot be read: No such file or directory"],
    )


def test_an_empty_file_ends_with_78(refused: Any, config: Any) -> None:
    """A file without a service serves nothing, and is named."""
    path = config("")
    assert refused("--config", path) == (
        78,
        [f"{path}: holds no service; add a table such as [services.main]"],
    )


def test_a_wrong_file_outweighs_a_wrong_flag(refused: Any, config: Any) -> None:
    """Where both are wrong, both are told, and the code is the configuration's."""
    path = config('[services.main]\nservice = "ecko"\nlisten = ["tcp:7"]\n')
    code, lines = refused("--config", path, "--framing", "lines")
    assert code == 78
    assert [line.partition(": ")[0] for line in lines] == ["--framing", path]


# -- the service that twistd runs --


def test_makeservice_opens_nothing() -> None:
    """The server is made though its port is taken: twistd has yet to fork."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = make("--listen", f"tcp:127.0.0.1:{taken.getsockname()[1]}")
    assert IService.providedBy(service)
    assert isinstance(service, Daemon)
    assert [plan.name for plan in service.plans] == ["main"]
    assert service.addresses == []


def test_makeservice_leaves_the_reactor_to_twistd() -> None:
    """Neither importing the plug-in nor making the service installs a reactor."""
    code = (
        "import sys\n"
        "from twistedsock.tap import Options, makeService\n"
        "options = Options()\n"
        "options.parseOptions(['--port', '0'])\n"
        "makeService(options)\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
    )
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_daemon_cannot_log_to_standard_output(refused: Any) -> None:
    """A daemon has no standard output; that is told before it is lost."""
    assert refused(nodaemon=False, logfile="-") == (
        64,
        ["a daemon cannot log to standard output; use -n or --logfile"],
    )
    assert make(nodaemon=True, logfile="-")


# -- as a process --


def twistd(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run twistd in the foreground to its end."""
    done = run(TWISTD, "-n", "sockservice", *flags, cwd=folder)
    assert done.stdout == ""
    assert not (folder / "twistd.pid").exists()
    return done


def test_a_wrong_flag_ends_the_process_with_64(tmp_path: Path) -> None:
    """The process prints one line and nothing of Python's, and leaves no pidfile."""
    done = twistd(tmp_path, "--confg", "x")
    assert (done.returncode, done.stderr) == (
        64,
        "twistd sockservice: unknown flag --confg; did you mean --config?\n",
    )


def test_a_wrong_assignment_ends_the_process_with_64(tmp_path: Path) -> None:
    """A fault that only checking finds ends the process like one of the command line."""
    done = twistd(tmp_path, "--set", "services.main.limits.max_connections=0")
    assert (done.returncode, done.stderr) == (
        64,
        "twistd sockservice: --set services.main.limits.max_connections=0:"
        " services.main.limits.max_connections: must be at least 1, got 0\n",
    )


def test_a_wrong_file_ends_the_process_with_78(tmp_path: Path) -> None:
    """The process names the file as it was typed."""
    (tmp_path / "hello.toml").write_text("nonsense = 1\n" + HELLO)
    done = twistd(tmp_path, "--config", "hello.toml")
    assert (done.returncode, done.stderr) == (
        78,
        "twistd sockservice: hello.toml: nonsense: unknown key; known here: services\n",
    )
