"""What this process may set. The oracle is /proc/self/status, and the kernel's own refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from twistedsock.addresses import parse_address
from twistedsock.sockopts import held, lacking, plan_options
from twistedsock.sockopts.catalogue import CATALOGUE
from twistedsock.sockopts.rights import CAPABILITIES

TCP = parse_address("tcp:127.0.0.1:1")


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        ("0000000000000000", set()),
        ("0000000000001000", {"CAP_NET_ADMIN"}),
        ("0000000000003000", {"CAP_NET_ADMIN", "CAP_NET_RAW"}),
        ("000001ffffffffff", set(CAPABILITIES)),
    ],
)
def test_the_mask_is_read(tmp_path: Path, mask: str, names: set[str]) -> None:
    """The effective capabilities are those whose bits are set."""
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{mask}\n")
    assert held(status) == names


@pytest.mark.parametrize("text", ["", "CapEff:\n", "CapEff:\tno\n", "Name: x\n"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, text: str) -> None:
    """A status without the mask says nothing, rather than that nothing is held."""
    status = tmp_path / "status"
    status.write_text(text)
    assert held(status) is None
    assert held(tmp_path / "none") is None


def test_what_is_lacking_is_told_with_its_cure() -> None:
    """An option that always needs a right is told with any that will do; others are not."""
    options = {"SO_MARK": 7, "SO_RCVBUFFORCE": 4096, "TCP_NODELAY": True, "SO_PRIORITY": 7}
    plan = plan_options(options, TCP)
    admin = "in the unit, AmbientCapabilities=CAP_NET_ADMIN"
    assert lacking(plan, frozenset()) == {
        "SO_MARK": f"needs CAP_NET_ADMIN or CAP_NET_RAW ({admin})",
        "SO_RCVBUFFORCE": f"needs CAP_NET_ADMIN ({admin})",
    }
    assert lacking(plan, frozenset({"CAP_NET_RAW"})).keys() == {"SO_RCVBUFFORCE"}
    assert lacking(plan, frozenset({"CAP_NET_ADMIN"})) == {}
    assert lacking(plan, None) == {}


def test_every_capability_of_the_table_is_known() -> None:
    """No option names a capability that the mask is not searched for."""
    named = {each for option in CATALOGUE.values() for each in option.capabilities}
    assert named <= CAPABILITIES.keys()
