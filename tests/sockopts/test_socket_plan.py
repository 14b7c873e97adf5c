"""From what an operator writes to what each socket gets. No socket is opened here."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.addresses import parse_address
from twistedsock.errors import OptionError
from twistedsock.sockopts import CATALOGUE, check_options, plan_for_kinds, plan_options
from twistedsock.sockopts.kinds import SOCKETS, expand

TCP = parse_address("tcp:127.0.0.1:1")
EITHER = [parse_address("tcp:*:1"), parse_address("udp:*:1")]


def names(options: dict[str, object], address: str, **more: Any) -> list[tuple[str, object]]:
    plan = plan_options(options, parse_address(address), **more)
    return [(setting.option.name, setting.value) for setting in plan.settings]


@pytest.mark.parametrize(
    ("address", "fitting"),
    [
        ("tcp:127.0.0.1:1", ["SO_KEEPALIVE", "SO_RCVBUF", "IP_TTL"]),
        ("tcp:[::1]:1", ["SO_KEEPALIVE", "SO_RCVBUF", "IPV6_TCLASS"]),
        ("tcp:*:1", ["SO_KEEPALIVE", "SO_RCVBUF", "IP_TTL", "IPV6_TCLASS"]),
        ("udp:127.0.0.1:1", ["SO_RCVBUF", "IP_TTL"]),
        ("unix:/p", []),
        ("raw:icmp", ["SO_RCVBUF", "IP_TTL"]),
    ],
)
def test_a_listener_gets_what_fits_it(address: str, fitting: list[str]) -> None:
    """Of a service's options each listener gets those of its kind, in the order of the file."""
    options = {"SO_KEEPALIVE": True, "SO_RCVBUF": 4096, "IP_TTL": 9, "IPV6_TCLASS": 8}
    assert [name for name, _ in names(options, address)] == fitting


@given(st.permutations(["SO_KEEPALIVE", "TCP_NODELAY", "SO_OOBINLINE", "TCP_CORK"]))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_file_is_kept(order: list[str]) -> None:
    """Within a phase the options are set in the order in which they are written."""
    plan = plan_options(dict.fromkeys(order, True), TCP)
    assert [setting.name for setting in plan.at("socket")] == order


@pytest.mark.parametrize(
    ("options", "own", "wanted"),
    [
        ({"IP_TTL": 5}, {"IPTTL": 9}, [("IP_TTL", 9)]),
        ({"IPTTL": 5}, {"IP_TTL": 9}, [("IP_TTL", 9)]),
        ({"NoDelay": True}, {"TCP_NODELAY": False}, [("TCP_NODELAY", 0)]),
        ({"IP_TTL": 5}, {}, [("IP_TTL", 5)]),
        ({"IP_TTL": 5}, {"IP_TOS": 8}, [("IP_TTL", 5), ("IP_TOS", 8)]),
    ],
)
def test_an_own_table_is_over_the_services(
    options: dict[str, object], own: dict[str, object], wanted: list[tuple[str, object]]
) -> None:
    """A listener's own value replaces the service's, under whatever spelling each is written."""
    assert names(options, "tcp:127.0.0.1:1", own=own) == wanted


def test_an_alias_of_two_is_half_replaced() -> None:
    """Where an alias means an option of each IP version, the own table may replace one of them."""
    assert names({"IPTTL": 5}, "tcp:*:1", own={"IP_TTL": 9}) == [
        ("IPV6_UNICAST_HOPS", 5),
        ("IP_TTL", 9),
    ]


@pytest.mark.parametrize(
    ("first", "second"), [("NoDelay", "TCP_NODELAY"), ("TCP_NODELAY", "NoDelay")]
)
def test_an_option_is_written_once(first: str, second: str) -> None:
    """An alias beside the name is a fault of the second, which tells the first."""
    faults = check_options({first: True, second: True})
    assert faults == {second: f"{first} sets the same option"}
    with pytest.raises(OptionError, match=rf"^{second}: {first} sets the same option$"):
        plan_options({first: True, second: True}, TCP)


def test_a_list_of_memberships_is_set_one_by_one() -> None:
    """A list of groups makes a setting of each, in its order; a lone one is a list of one."""
    udp = expand("udp4")
    plan = plan_for_kinds({"IP_ADD_MEMBERSHIP": ["239.1.1.1", "239.1.1.2"]}, udp)
    assert [setting.requested for setting in plan.settings] == ["239.1.1.1", "239.1.1.2"]
    assert [bytes(s.value)[3] for s in plan.settings] == [1, 2]  # type: ignore[arg-type]
    assert len(plan_for_kinds({"IP_ADD_MEMBERSHIP": "239.1.1.1"}, udp).settings) == 1
    assert plan_for_kinds({"IP_ADD_MEMBERSHIP": []}, udp).settings == ()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"SO_KEEPALIVE": 1}, "SO_KEEPALIVE: must be true or false, got 1"),
        ({"SO_TYPE": 1}, "SO_TYPE: can only be read"),
        ({"NOPE": 1}, "NOPE: no socket option has this name"),
        (
            {"IPV6_HOPLIMIT": 1},
            "IPV6_HOPLIMIT: comes and goes with single messages; it is no setting of a socket",
        ),
        ({5: 1}, "5: the name of a socket option is a text, not a int"),
    ],
)
def test_what_cannot_be_is_refused_before_a_socket_is_opened(
    options: dict[str, object], fault: str
) -> None:
    """A wrong value or a read-only option is told with what would be right."""
    with pytest.raises(OptionError) as caught:
        plan_options(options, TCP)
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("name", "value", "address", "fault"),
    [
        (
            "SO_KEEPALIVE",
            True,
            "udp:*:1",
            "fits only tcp, mptcp, sctp, and no listener here is one",
        ),
        ("TCP_NODELAY", True, "udp:*:1", "fits only tcp, mptcp, and no listener here is one"),
        ("IP_HDRINCL", True, "tcp:*:1", "fits only raw over IPv4, and no listener here is one"),
        ("UDP_GRO", True, "unix:/p", "fits only udp, and no listener here is one"),
    ],
)
def test_a_wrong_pairing_is_a_fault(name: str, value: object, address: str, fault: str) -> None:
    """An option that fits no listener of its service is told with the kinds that it fits."""
    assert check_options({name: value}, [parse_address(address)]) == {name: fault}


def test_every_fault_is_found() -> None:
    """One fault hides no other, and an option needs only one listener that it fits."""
    options = {"NOPE": 1, "SO_KEEPALIVE": 1, "TCP_NODELAY": True, "UDP_GRO": True}
    assert check_options(options, EITHER).keys() == {"NOPE", "SO_KEEPALIVE"}


SWITCHES = [name for name, each in CATALOGUE.items() if each.value == "bool" and each.is_writable]


@pytest.mark.parametrize("name", SWITCHES)
def test_every_setting_has_a_time_on_what_it_fits(name: str) -> None:
    """What fits a socket is set on it at the phase of the table, by a peer and by a listener."""
    option = CATALOGUE[name]
    for kind in SOCKETS:
        for role in ("listen", "connect"):
            plan = plan_for_kinds({name: True}, frozenset({kind}), role=role)  # type: ignore[arg-type]
            phases = [setting.phases[0] for setting in plan.settings]
            assert phases in ([], [option.phase])
            assert kind in option.fits or not phases
            assert phases or kind not in option.fits or role == "listen"


def test_what_is_not_inherited_is_set_on_each_connection() -> None:
    """Inherited options are set once on the listener; the others on it and on what it accepts."""
    options = {"TCP_NODELAY": True, "SO_PRIORITY": 3}
    phases = {s.name: s.phases for s in plan_options(options, TCP).settings}
    assert phases == {"TCP_NODELAY": ("socket",), "SO_PRIORITY": ("socket", "connected")}
    phases = {s.name: s.phases for s in plan_options(options, TCP, role="connect").settings}
    assert phases == {"TCP_NODELAY": ("socket",), "SO_PRIORITY": ("socket",)}


# -- options without a name --


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ({"level": 1, "number": 9, "value": 1}, 1),
        ({"level": "SOL_SOCKET", "number": 9, "value": True}, 1),
        ({"level": 6, "number": 13, "value": "reno"}, b"reno"),
        ({"level": 6, "number": 13, "value": "hex:7265"}, b"re"),
        ({"level": 6, "number": 13, "value": b"re"}, b"re"),
        ({"level": 1, "number": 36, "value": 2**32 - 1}, -1),
        ({"level": 1, "number": 36, "value": -(2**31)}, -(2**31)),
    ],
)
def test_what_has_no_name_is_set_by_its_numbers(table: dict[str, object], value: object) -> None:
    """A raw table takes numbers, texts and octets, for the sockets that have its level."""
    assert names({"mine": table}, "tcp:1") == [("mine", value)]
    elsewhere = [] if table["level"] == socket.IPPROTO_TCP else [("mine", value)]
    assert names({"mine": table}, "unix:/p") == elsewhere


def test_a_level_that_nobody_knows_is_for_any_socket() -> None:
    """What the table has no level for is left to the kernel."""
    raw = {"mine": {"level": 9999, "number": 1, "value": 1}}
    assert names(raw, "tcp:1") == names(raw, "unix:/p") == [("mine", 1)]


def test_a_raw_option_takes_no_other_one_s_name() -> None:
    """A raw table under the name of a real option is refused: it would set another one."""
    for name in ("TCP_NODELAY", "NoDelay"):
        faults = check_options({name: {"level": 6, "number": 4, "value": 60}})
        assert faults == {
            name: "has a name here: write its value, or give the raw option another name"
        }


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"level": 1}, "a raw option has level, number and value"),
        ({"number": 1, "value": 1}, "a raw option has level, number and value"),
        ({"level": 1, "number": 1, "value": 1, "when": 1}, "a raw option has level, number"),
        ({"level": 1, "number": 1, "value": 1, 5: 1}, "a raw option has level, number"),
        ({"level": "SOL_X", "number": 1, "value": 1}, "level must be 0 to 2147483647, or one of"),
        ({"level": True, "number": 1, "value": 1}, "level must be 0 to 2147483647"),
        ({"level": -1, "number": 1, "value": 1}, "level must be 0 to 2147483647"),
        ({"level": [], "number": 1, "value": 1}, "level must be 0 to 2147483647"),
        ({"level": 1, "number": 2**31, "value": 1}, "number must be 0 to 2147483647; got"),
        ({"level": 1, "number": "9", "value": 1}, "number must be 0 to 2147483647; got '9'"),
        ({"level": 1, "number": 9, "value": 1, "phase": "later"}, "phase must be one of socket"),
        ({"level": 1, "number": 9, "value": 1, "phase": []}, "phase must be one of socket"),
        ({"level": 1, "number": 9, "value": 2**32}, "value must be a whole number of 32 bits"),
        ({"level": 1, "number": 9, "value": 1.5}, "value must be a whole number of 32 bits"),
        ({"level": 1, "number": 9, "value": None}, "value must be a whole number of 32 bits"),
        ({"level": 1, "number": 9, "value": "hex:0"}, "must be bytes"),
        ({"level": 1, "number": 9, "value": 10**5000}, "value must be a whole number of 32 bits"),
    ],
)
def test_a_wrong_raw_table_is_a_fault(table: dict[object, object], fault: str) -> None:
    """Each wrong or missing key of a raw table is told with what is right."""
    assert check_options({"mine": table})["mine"].startswith(fault)


@pytest.mark.parametrize("phase", ["socket", "prebind", "bound", "listening", "connected"])
def test_a_raw_option_has_its_phase(phase: str) -> None:
    """A raw table names its phase; a listener that accepts takes each."""
    table = {"level": 1, "number": 9, "value": 1, "phase": phase}
    assert [setting.phases for setting in plan_options({"mine": table}, TCP).settings] == [(phase,)]


def test_a_filter_is_never_read_back_by_its_number() -> None:
    """SO_GET_FILTER writes instructions past Python's buffer: a raw table of it is not read."""
    table = {"level": 1, "number": 26, "value": b"\0" * 16}
    (setting,) = plan_options({"mine": table}, TCP).settings
    assert not setting.option.is_readable


def test_a_plan_does_not_change_with_the_callers_list() -> None:
    """What was requested stays what it was when it was read, and a plan can be looked up."""
    wish = ["software"]
    plan = plan_options({"SO_TIMESTAMPING": wish}, TCP)
    wish.append("rx-software")
    assert plan.settings[0].requested == ["software"]
    assert plan.settings[0] in {plan.settings[0]: 1}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(CATALOGUE)), ANYTHING)
@settings(max_examples=400, deadline=None)
def test_any_value_is_taken_or_told(name: str, value: object) -> None:
    """No value of any type makes the check raise; each is right or has a fault in words."""
    for fault in check_options({name: value}, EITHER).values():
        assert fault
