"""From raw tables to plans: what fits together, and every fault at once."""

from __future__ import annotations

import socket
import tomllib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pydantic
import pytest

from twistedsock.addresses import Address
from twistedsock.errors import ConfigError
from twistedsock.host import registry
from twistedsock.host.loader import RawConfig, set_key
from twistedsock.host.plan import ServicePlan, make_plans
from twistedsock.service import ServiceSettings, Session, SocketService
from twistedsock.services.echo_reply import EchoReply


def raw(*texts: str) -> RawConfig:
    """Return the merged tables of *texts*, which are called 1.toml, 2.toml and so on."""
    config = RawConfig()
    for number, text in enumerate(texts, 1):
        config.merge(tomllib.loads(text), f"{number}.toml")
    return config


def plans(*texts: str) -> tuple[ServicePlan, ...]:
    """Return the plans for *texts*."""
    return make_plans(raw(*texts))


def problems(*texts: str) -> list[str]:
    """Return every problem of *texts*, as the operator reads it."""
    with pytest.raises(ConfigError) as caught:
        make_plans(raw(*texts))
    assert str(caught.value).splitlines() == [str(each) for each in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


# -- what is right --


def test_the_design_s_example_is_planned_as_it_is_written() -> None:
    """A whole service comes out as its plan, ready to be bound."""
    [plan] = plans(
        """
        [services.hello]
        service = "echo-reply"
        listen = ["tcp:127.0.0.1:8888", { address = "udp:127.0.0.1:8888", backlog = 7 }]
        framing = "line"
        [services.hello.settings]
        greeting = "hi"
        [services.hello.limits]
        max_connections = 10_000
        idle_timeout = "1m"
        [services.hello.access]
        allow = ["127.0.0.0/8", "::1"]
        [services.hello.socket]
        SO_KEEPALIVE = true
        TCP_KEEPIDLE = "60s"
        SO_RCVBUF = "64KiB"
        """
    )
    assert (plan.name, plan.service_class, plan.framing) == ("hello", EchoReply, "line")
    assert plan.settings == EchoReply.Settings(greeting="hi")
    assert plan.limits.idle_timeout == 60.0
    assert plan.access.allows("127.0.0.1")
    assert not plan.access.allows("10.0.0.1")
    tcp, udp = plan.listeners
    assert (tcp.address, tcp.backlog) == (Address("tcp", "127.0.0.1", 8888), 1024)
    assert (udp.address, udp.backlog) == (Address("udp", "127.0.0.1", 8888), 7)
    assert [(setting.name, setting.value) for setting in tcp.options.settings] == [
        ("SO_KEEPALIVE", 1),
        ("TCP_KEEPIDLE", 60),
        ("SO_RCVBUF", 65536),
    ]
    assert [(setting.name, setting.value) for setting in udp.options.settings] == [
        ("SO_RCVBUF", 65536)
    ]
    assert tcp.options.refusal == "strict"


def test_services_are_planned_in_the_order_of_the_file() -> None:
    """Each table is one service, in order, under its own name."""
    found = plans(
        '[services.b]\nservice = "echo"\nlisten = ["tcp:1"]\n'
        '[services."a b"]\nservice = "echo"\nlisten = ["tcp:2"]\n'
    )
    assert [plan.name for plan in found] == ["b", "a b"]


def test_a_listener_s_own_option_counts_over_the_service_s() -> None:
    """An option of a listener replaces the service's for that listener alone."""
    [plan] = plans(
        """
        [services.a]
        service = "echo"
        listen = [{ address = "tcp:1", socket = { SO_RCVBUF = 4096 } }, "tcp:2"]
        socket = { SO_RCVBUF = 8192 }
        """
    )
    values = [[each.value for each in listener.options.settings] for listener in plan.listeners]
    assert values == [[4096], [8192]]


def test_an_option_of_one_ip_version_goes_where_it_fits() -> None:
    """An IPv6 option is set on IPv6 and dual-stack listeners; IPv4 ones go without."""
    [plan] = plans(
        """
        [services.a]
        service = "echo"
        listen = ["tcp:127.0.0.1:1", "tcp:[::1]:1", "tcp:*:2"]
        socket = { IPV6_UNICAST_HOPS = 3 }
        """
    )
    assert [len(listener.options.settings) for listener in plan.listeners] == [0, 1, 1]


def test_one_port_can_be_asked_for_by_two_protocols_and_zero_by_all() -> None:
    """TCP and UDP ports are apart, and port 0 is a new port each time."""
    plans(
        '[services.a]\nservice = "echo"\nlisten = ["tcp:9", "udp:9", "tcp:0", "tcp:0"]\n'
        '[services.b]\nservice = "echo"\nlisten = ["tcp:0", "tcp:[::1]:9"]\n'
    )


def test_planning_opens_and_resolves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check needs neither a socket nor a name server."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a check went out to the system")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    [plan] = plans(
        '[services.a]\nservice = "echo"\nlisten = ["tcp:host.example:1", "udp:*:1", "tcp:2"]\n'
    )
    assert str(plan.listeners[0].address) == "tcp:host.example:1"


# -- several files --


def test_a_problem_names_the_file_that_its_key_came_from() -> None:
    """Of several files and an assignment, each problem names the one to be mended."""
    config = raw(
        '[services.a]\nservice = "ecko"\nlisten = ["tcp:1"]\nframing = "lines"\n',
        '[services.a]\nframing = "words"\nlimits.idle_timeout = 3\n',
    )
    set_key(config, "services.a.limits.max_connections=0")
    with pytest.raises(ConfigError) as caught:
        make_plans(config)
    assert set(map(str, caught.value.problems)) == {
        "1.toml: services.a.service: no service is called 'ecko'; did you mean 'echo'?",
        "2.toml: services.a.framing: must be one of chunk, line, netstring, uint8, uint16, uint32,"
        " got 'words'",
        "2.toml: services.a.limits.idle_timeout: must be a duration such as"
        ' "500ms", "30s" or "5m", got 3',
        "--set services.a.limits.max_connections=0: services.a.limits.max_connections:"
        " must be at least 1, got 0",
    }


def test_a_later_file_mends_an_earlier_one() -> None:
    """Only what is left after merging is checked."""
    [plan] = plans(
        '[services.a]\nservice = "ecko"\nlisten = []\n',
        '[services.a]\nservice = "echo"\nlisten = ["tcp:1"]\n',
    )
    assert plan.service_class.__name__ == "Echo"


# -- every fault at once --


def test_every_fault_of_every_service_is_told_at_once() -> None:
    """One run tells all there is to mend: no fault hides another."""
    assert sorted(
        problems(
            """
            nonsense = 1
            [services.a]
            service = "ecko"
            listen = ["tcp:99999", "unix:/run/x"]
            framng = "line"
            limits = { idle_timout = "5m", write_high_water = 0 }
            access = { allow = ["::1"], deny = ["::1"] }
            socket = { SO_KEEPALIVE = 1, NODELAY = true }
            [services.b]
            listen = []
            [services.c]
            service = "echo-reply"
            listen = ["udp:9", "udp:9", { address = "tcp:9", socket = { TCP_NODELAI = true } }]
            settings = { greting = "hi", prefix = 3 }
            [[services.d.listen]]
            address = "tcp:10"
            backlog = 0
            socket = { SO_KEPALIVE = true }
            """
        )
    ) == sorted(
        [
            "1.toml: nonsense: unknown key; known here: services",
            "1.toml: services.a.service: no service is called 'ecko'; did you mean 'echo'?",
            "1.toml: services.a.listen[0]: port must be 0 to 65535, got '99999' in 'tcp:99999'",
            "1.toml: services.a.framng: unknown key; did you mean 'framing'?",
            "1.toml: services.a.limits.idle_timout: unknown key; did you mean 'idle_timeout'?",
            "1.toml: services.a.limits.write_high_water: must be above zero, got 0",
            "1.toml: services.a.access: ::1/128 is both allowed and denied",
            "1.toml: services.a.socket.SO_KEEPALIVE: must be true or false, got 1",
            "1.toml: services.a.socket.NODELAY: no socket option has this name;"
            " did you mean TCP_NODELAY?",
            "1.toml: services.b.service: is required",
            "1.toml: services.b.listen: must not be empty",
            "1.toml: services.c.listen[1]: udp:127.0.0.1:9: services.c.listen[0] has it already",
            "1.toml: services.c.listen[2].socket.TCP_NODELAI: no socket option has this name;"
            " did you mean TCP_NODELAY?",
            "1.toml: services.c.settings.greting: unknown key; did you mean 'greeting'?",
            "1.toml: services.c.settings.prefix: must be a text, got 3",
            "1.toml: services.d.service: is required",
            "1.toml: services.d.listen[0].backlog: must be at least 1, got 0",
            "1.toml: services.d.listen[0].socket.SO_KEPALIVE: no socket option has this name;"
            " did you mean SO_KEEPALIVE?",
        ]
    )


def test_a_bad_file_does_not_hide_the_faults_of_the_others() -> None:
    """What could not be read is told first, then what is wrong with the rest."""
    config = raw('[services.a]\nservice = "echo"\n')
    set_key(config, "nonsense")
    with pytest.raises(ConfigError) as caught:
        make_plans(config)
    assert [str(problem) for problem in caught.value.problems] == [
        "--set nonsense: must be KEY=VALUE, such as services.main.limits.idle_timeout=1m",
        "1.toml: services.a.listen: is required",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[services]", "1.toml: holds no service; add a table such as [services.main]"),
        ("", "1.toml: holds no service; add a table such as [services.main]"),
        ("services = 3", "1.toml: services: must be tables [services.NAME], got 3"),
        ("services.a = 3", "1.toml: services.a: must be a table, got 3"),
        ("[service.a]", "1.toml: service: unknown key; did you mean 'services'?"),
    ],
)
def test_a_file_without_services_is_told_what_it_lacks(text: str, expected: str) -> None:
    """An empty or misspelt file is an error that names the file and what belongs in it."""
    assert problems(text) == [expected]


# -- what must fit together --


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("raw:icmp", "raw:icmp: the service serves stream, datagram, seqpacket only"),
        ("packet:lo", "packet:lo: the service serves stream, datagram, seqpacket only"),
    ],
)
def test_an_address_that_is_not_served_is_refused(listen: str, expected: str) -> None:
    """A kind that the service does not know is refused before anything is bound."""
    text = f'[services.a]\nservice = "echo"\nlisten = ["{listen}"]\n'
    assert problems(text) == [f"1.toml: services.a.listen[0]: {expected}"]


def test_an_address_taken_twice_names_who_has_it() -> None:
    """Two listeners on one address are refused, across services too."""
    assert problems(
        '[services.a]\nservice = "echo"\nlisten = ["tcp:9", "tcp:127.0.0.1:9"]\n'
        '[services.b]\nservice = "echo"\nlisten = [{ address = "tcp:9" }]\n'
    ) == [
        "1.toml: services.a.listen[1]: tcp:127.0.0.1:9: services.a.listen[0] has it already",
        "1.toml: services.b.listen[0]: tcp:127.0.0.1:9: services.a.listen[0] has it already",
    ]


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        ("TCP_NODELAY = true", "TCP_NODELAY", "fits only tcp, mptcp, and no listener here is one"),
        (
            "IPV6_UNICAST_HOPS = 3",
            "IPV6_UNICAST_HOPS",
            "fits only tcp, udp, udplite, raw, ping and sctp over IPv6,"
            " and no listener here is one",
        ),
        ('IP_TTL = "x"', "IP_TTL", "must be a whole number from -1 to 255, got 'x'"),
        ("ip_ttl = 3", "ip_ttl", "no socket option has this name; did you mean IP_TTL?"),
        ("zzzzzz = 3", "zzzzzz", "no socket option has this name"),
        ("SO_MARK = -1", "SO_MARK", "must be a whole number from 0 to 4294967295, got -1"),
    ],
)
@pytest.mark.parametrize("on_listener", [False, True])
def test_a_socket_option_that_cannot_be_set_is_refused(
    options: str, key: str, message: str, on_listener: bool
) -> None:
    """An option that is unknown, wrong or fits no listener is refused, wherever it stands."""
    if on_listener:
        listen, place = f'[{{ address = "udp:9", socket = {{ {options} }} }}]', "listen[0].socket"
        text = f'[services.a]\nservice = "echo"\nlisten = {listen}\n'
    else:
        place = "socket"
        text = f'[services.a]\nservice = "echo"\nlisten = ["udp:9"]\nsocket = {{ {options} }}\n'
    assert problems(text) == [f"1.toml: services.a.{place}.{key}: {message}"]


def test_a_network_cannot_be_both_allowed_and_denied() -> None:
    """An access list that contradicts itself is refused."""
    assert problems(
        '[services.a]\nservice = "echo"\nlisten = ["tcp:9"]\n'
        'access = { allow = ["10.0.0.0/8"], deny = ["10.0.0.0/8"] }\n'
    ) == ["1.toml: services.a.access: 10.0.0.0/8 is both allowed and denied"]


# -- plug-ins and their settings --


class StreamsOnly(SocketService):
    """Serves connections alone."""

    kinds = ("stream",)

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


class Demanding(StreamsOnly):
    """Has settings of every sort."""

    class Settings(ServiceSettings):
        """Its keys."""

        host: str
        port: int | str = 3
        ratio: float = 0.5
        names: list[str] = pydantic.Field(default_factory=list)
        count: int = pydantic.Field(3, gt=1)
        at: dict[str, int] = pydantic.Field(default_factory=dict)

        @pydantic.field_validator("ratio")
        @classmethod
        def _ratio(cls, ratio: float) -> float:
            if ratio == 7:
                raise RuntimeError("a slip of the plug-in's author")
            if ratio > 1:
                raise ValueError("must be at most 1")
            return ratio


class BrokenDefault(StreamsOnly):
    """Has a default that cannot be made."""

    class Settings(ServiceSettings):
        """Its keys."""

        token: str = pydantic.Field(default_factory=lambda: {}["token"])


@pytest.fixture
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [
        EntryPoint(name, f"{__name__}:{value}", registry.GROUP)
        for name, value in [
            ("streams", "StreamsOnly"),
            ("demanding", "Demanding"),
            ("default", "BrokenDefault"),
            ("nowhere", "Nowhere"),
        ]
    ]
    installed = list(entry_points(group=registry.GROUP))
    monkeypatch.setattr(registry, "entry_points", lambda group: [*installed, *own])


def with_settings(service: str, settings: dict[str, Any]) -> RawConfig:
    """Return a configuration of *service* with *settings*."""
    config = RawConfig()
    main = {"service": service, "listen": ["tcp:9"], "settings": settings}
    config.merge({"services": {"a": main}}, "f.toml")
    return config


@pytest.mark.usefixtures("_plugins")
def test_a_plugin_gets_its_own_settings_checked_by_its_own_model() -> None:
    """What stands under ``settings`` becomes an instance of the plug-in's model."""
    [plan] = make_plans(with_settings("demanding", {"host": "x", "names": ["y"]}))
    assert plan.settings == Demanding.Settings(host="x", names=["y"])


@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "settings.host: is required"),
        ({"host": 3}, "settings.host: must be a text, got 3"),
        ({"host": "x", "names": "y"}, "settings.names: must be a list, got 'y'"),
        ({"host": "x", "names": ["y", 3]}, "settings.names[1]: must be a text, got 3"),
        ({"host": "x", "ratio": 2}, "settings.ratio: must be at most 1"),
        (
            {"host": "x", "count": 1},
            "settings.count: input should be greater than 1, got 1",
        ),
        ({"host": "x", "hots": "y"}, "settings.hots: unknown key; did you mean 'host'?"),
        (
            {"host": "x", "zzzzzz": "y"},
            "settings.zzzzzz: unknown key; known here: host, port, ratio, names, count, at",
        ),
    ],
)
def test_a_fault_in_a_plugin_s_settings_reads_like_ours(
    settings: dict[str, Any], expected: str
) -> None:
    """The plug-in's keys are told as strictly and in the same words as our own."""
    with pytest.raises(ConfigError) as caught:
        make_plans(with_settings("demanding", settings))
    assert str(caught.value) == f"f.toml: services.a.{expected}"


@pytest.mark.usefixtures("_plugins")
def test_a_key_of_several_types_is_told_under_its_own_path() -> None:
    """A key path holds keys alone, never the name of a type that was tried."""
    with pytest.raises(ConfigError) as caught:
        make_plans(with_settings("demanding", {"host": "x", "port": [], "at": {"b": []}}))
    assert {problem.path for problem in caught.value.problems} == {
        "services.a.settings.port",
        "services.a.settings.at.b",
    }


@pytest.mark.usefixtures("_plugins")
def test_a_fault_of_a_plugin_s_validator_is_told_as_the_plugin_s() -> None:
    """A validator that fails in a way of its own is a problem of that key, not a traceback."""
    with pytest.raises(ConfigError) as caught:
        make_plans(with_settings("demanding", {"host": "x", "ratio": 7}))
    assert str(caught.value) == (
        "f.toml: services.a.settings: the plug-in could not check its settings:"
        " RuntimeError: a slip of the plug-in's author"
    )


@pytest.mark.usefixtures("_plugins")
def test_a_plugin_s_default_that_cannot_be_made_is_told() -> None:
    """A default that fails is told like any other fault of the plug-in."""
    with pytest.raises(ConfigError) as caught:
        make_plans(with_settings("default", {}))
    assert str(caught.value) == (
        "f.toml: services.a.settings: the plug-in could not check its settings: KeyError: 'token'"
    )


@pytest.mark.usefixtures("_plugins")
def test_a_service_of_streams_is_not_given_datagrams() -> None:
    """An address of a kind that the service cannot serve is refused."""
    assert problems('[services.a]\nservice = "streams"\nlisten = ["tcp:9", "udp:9"]\n') == [
        "1.toml: services.a.listen[1]: udp:127.0.0.1:9: the service serves stream only"
    ]


@pytest.mark.usefixtures("_plugins")
def test_a_plugin_that_cannot_be_imported_is_an_error_where_it_is_configured() -> None:
    """Another service's configuration is not troubled by a broken plug-in."""
    plans('[services.a]\nservice = "streams"\nlisten = ["tcp:9"]\n')
    assert problems('[services.a]\nservice = "nowhere"\nlisten = ["tcp:9"]\n') == [
        f"1.toml: services.a.service: plug-in 'nowhere' of ? ({__name__}:Nowhere) cannot be"
        f" imported: AttributeError: module '{__name__}' has no attribute 'Nowhere'"
    ]


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("tcp:127.0.0.1:9", "tcp:*:9", True),
        ("udp:*:9", "udp:[::1]:9", True),
        ("tcp:0.0.0.0:9", "tcp:127.0.0.1:9", True),
        ("tcp:[::]:9", "tcp:[::1]:9", True),
        ("tcp:[::]:9", "tcp:*:9", True),
        ("tcp:[::]:9", "tcp:0.0.0.0:9", False),
        ("tcp:[::]:9", "tcp:127.0.0.1:9", False),
        ("tcp:*:9", "udp:*:9", False),
        ("tcp:*:9", "tcp:*:8", False),
        ("tcp:*:0", "tcp:127.0.0.1:0", False),
    ],
)
def test_a_wildcard_takes_the_port_of_every_address(first, second, overlap):
    table = {"services": {"a": {"service": "echo", "listen": [first, second]}}}
    raw = RawConfig()
    raw.merge(table, "file")
    if not overlap:
        make_plans(raw)
        return
    with pytest.raises(ConfigError, match=r"services\.a\.listen\[0\] has .* already"):
        make_plans(raw)
    table["services"]["a"]["socket"] = {"SO_REUSEPORT": True}
    raw = RawConfig()
    raw.merge(table, "file")
    make_plans(raw)
