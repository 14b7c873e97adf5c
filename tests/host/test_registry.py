"""Finding plug-ins: by entry point, with every way that one can be wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from twistedsock.errors import PluginError
from twistedsock.host.registry import GROUP, find_plugins, load_plugin
from twistedsock.services.echo import Echo

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A stand-in for pip: puts a distribution with entry points and modules on sys.path."""

    def install(name: str, points: dict[str, str], version: str = "1.0", **modules: str) -> Path:
        site = tmp_path / f"{name}-{version}"
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{point} = {value}\n" for point, value in points.items()]
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")
        for module, code in modules.items():
            (site / f"{module}.py").write_text(code)
            monkeypatch.setitem(sys.modules, module, sys)  # so that its import is undone
            del sys.modules[module]
        monkeypatch.syspath_prepend(str(site))
        return site

    return install


SHOUT = """
from twistedsock import SocketService
class Shout(SocketService):
    'Answers every message in capitals.'
    def received(self, session, message):
        session.send(message.upper())
"""
BODY = "    def received(self, session, message): ...\n"


def fault(name: str) -> str:
    """Return why *name* cannot be loaded."""
    with pytest.raises(PluginError) as caught:
        load_plugin(name)
    return str(caught.value)


def test_the_built_in_services_come_through_the_same_door() -> None:
    """The built-ins are found by their entry points, sorted, and say where they come from."""
    plugins = find_plugins()
    built_in = ["chargen", "daytime", "discard", "echo", "echo-reply", "qotd", "time"]
    assert [name for name in plugins if name in built_in] == built_in
    assert plugins["echo"].origin.startswith("twistedsock ")
    assert load_plugin("echo") is Echo


def test_an_installed_plugin_is_found(install: Install) -> None:
    """A class that a distribution names as an entry point is a service."""
    install("acme-bawl", {"bawl": "acme_shout:Shout"}, "2.1", acme_shout=SHOUT)
    assert find_plugins()["bawl"].origin == "acme-bawl 2.1"
    assert load_plugin("bawl").__name__ == "Shout"


def test_finding_imports_no_plugin(install: Install) -> None:
    """A plug-in that is not used is not imported, whatever it does when it is."""
    install("acme", {"bomb": "acme_bomb:Bomb"}, acme_bomb="raise SystemExit('imported')")
    assert "bomb" in find_plugins()
    assert "acme_bomb" not in sys.modules


def test_an_unknown_name_gets_the_nearest() -> None:
    """A slip in a service's name is answered with the right one."""
    assert fault("ecko") == "no service is called 'ecko'; did you mean 'echo'?"


def test_a_name_like_none_gets_them_all(install: Install) -> None:
    """A name that resembles nothing is answered with what is installed."""
    assert fault("zzzzz") == (
        f"no service is called 'zzzzz'; installed: {', '.join(find_plugins())}"
    )


# -- two distributions, one name --


def test_a_clash_names_both_distributions(install: Install) -> None:
    """A name that two distributions offer is nobody's, and the error names both."""
    install("acme", {"bawl": "acme_shout:Shout"}, "1.0", acme_shout=SHOUT)
    install("bolt", {"bawl": "bolt_shout:Shout"}, "2.0", bolt_shout=SHOUT)
    assert fault("bawl") == "'bawl' is offered by bolt 2.0 and acme 1.0; uninstall one of them"


def test_a_clash_of_copies_is_one_too(install: Install) -> None:
    """Two distributions that offer a name by the same module are told as well."""
    install("acme", {"bawl": "acme_shout:Shout"}, "1.0", acme_shout=SHOUT)
    install("acme-fork", {"bawl": "acme_shout:Shout"}, "1.1", acme_shout=SHOUT)
    assert fault("bawl") == (
        "'bawl' is offered by acme-fork 1.1 and acme 1.0; uninstall one of them"
    )


def test_a_clash_with_a_built_in_hides_neither(install: Install) -> None:
    """Nobody takes a built-in's name unnoticed."""
    install("acme", {"echo": "acme_shout:Shout"}, acme_shout=SHOUT)
    message = fault("echo")
    assert message.startswith("'echo' is offered by acme 1.0 and twistedsock ")
    assert message.endswith("; uninstall one of them")


def test_a_clash_leaves_the_other_names_alone(install: Install) -> None:
    """What else the two distributions offer is still to be had."""
    install("acme", {"bawl": "acme_shout:Shout", "cry": "acme_shout:Shout"}, acme_shout=SHOUT)
    install("bolt", {"bawl": "bolt_shout:Shout"}, bolt_shout=SHOUT)
    assert load_plugin("cry").__name__ == "Shout"


def test_a_distribution_seen_twice_is_no_clash(install: Install) -> None:
    """Of one distribution twice on the path, the first counts."""
    install("acme", {"bawl": "acme_shout:Shout"}, "1.0", acme_shout=SHOUT)
    install("acme", {"bawl": "acme_shout:Shout"}, "2.0", acme_shout=SHOUT)
    assert find_plugins()["bawl"].origin == "acme 2.0"
    assert load_plugin("bawl").__name__ == "Shout"


# -- a plug-in that is broken --


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        (
            "acme_nowhere:Thing",
            "",
            "cannot be imported: ModuleNotFoundError: No module named 'acme_nowhere'",
        ),
        (
            "acme:Thing",
            "",
            "cannot be imported: AttributeError: module 'acme' has no attribute 'Thing'",
        ),
        ("acme:Thing", "1/0", "cannot be imported: ZeroDivisionError: division by zero"),
        (
            "acme:Thing",
            "def",
            "cannot be imported: SyntaxError: invalid syntax (acme.py, line 1)",
        ),
        ("acme:Thing", "class Thing: ...", "is not a subclass of SocketService"),
        ("acme:Thing", "Thing = 3", "is not a subclass of SocketService"),
        (
            "acme:Thing",
            "from twistedsock import EchoReply\nThing = EchoReply()",
            "is not a subclass of SocketService",
        ),
    ],
)
def test_what_is_no_service_class_is_refused(
    install: Install, value: str, code: str, message: str
) -> None:
    """An entry point that gives no service class is told with its distribution and its place."""
    install("acme-dist", {"thing": value}, acme=code)
    assert fault("thing") == f"plug-in 'thing' of acme-dist 1.0 ({value}) {message}"


KINDS = "kinds must be a tuple of stream, datagram, seqpacket, raw or packet"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    pass\n", "Thing must define one of received(), converse() or stream_factory()"),
        (
            "    def opened(self, session): ...\n",
            "Thing must define one of received(), converse() or stream_factory()",
        ),
        (
            f"{BODY}    async def converse(self, session): ...\n",
            "Thing defines both received() and converse()",
        ),
        (f"    Settings = 3\n{BODY}", "Thing.Settings must be a pydantic model"),
        (f"    Settings = dict\n{BODY}", "Thing.Settings must be a pydantic model"),
        (f"    kinds = ('streem',)\n{BODY}", f"Thing.{KINDS}, got ('streem',)"),
        (f"    kinds = 'stream'\n{BODY}", f"Thing.{KINDS}, got 'stream'"),
        (f"    kinds = ()\n{BODY}", f"Thing.{KINDS}, got ()"),
    ],
    ids=[
        "no-hook",
        "no-answer",
        "two-ways",
        "settings-a-number",
        "settings-no-model",
        "kinds-unknown",
        "kinds-a-text",
        "kinds-none",
    ],
)
def test_a_breach_of_the_contract_is_told(install: Install, body: str, message: str) -> None:
    """Whatever of the contract can be seen before a peer comes is checked before one does."""
    code = f"from twistedsock import SocketService\nclass Thing(SocketService):\n{body}"
    install("acme-dist", {"thing": "acme:Thing"}, acme=code)
    assert fault("thing") == (
        f"plug-in 'thing' of acme-dist 1.0 (acme:Thing) breaks the contract: {message}"
    )


def test_a_plugin_that_hands_over_a_factory_serves_streams_alone(install: Install) -> None:
    """A Twisted factory knows connections, so no datagram is brought to it."""
    code = (
        "from twistedsock import SocketService\nclass Thing(SocketService):\n"
        "    def stream_factory(self): ...\n"
    )
    install("acme-dist", {"thing": "acme:Thing"}, acme=code)
    assert load_plugin("thing").served_kinds() == ("stream",)


def test_a_factory_beside_the_hooks_leaves_datagrams_to_the_hooks(install: Install) -> None:
    """A plug-in with both serves every kind that it names."""
    code = (
        "from twistedsock import SocketService\nclass Thing(SocketService):\n"
        f"    def stream_factory(self): ...\n{BODY}"
    )
    install("acme-dist", {"thing": "acme:Thing"}, acme=code)
    assert load_plugin("thing").served_kinds() == ("stream", "datagram", "seqpacket")
