"""The laws of the house, held by reading its imports.

A room imports only from floors below it, or from an earlier room of its own wing; the ground
floors know the standard library alone; nothing happens at import; files stay readable.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "twistedsock"
PLUGIN = PACKAGE.parent / "twisted" / "plugins" / "twistedsock_plugins.py"

# floor, wing: the first part of a module's name decides. A wing's rooms may use each other.
FLOORS = {
    "errors": 0, "units": 0, "addresses": 0,
    "wire": 1, "policy": 1, "sockopts": 1,
    "service": 2,
    "protocols": 3, "services": 3, "transports": 3,
    "host": 4, "client": 4,
    "endpoints": 5, "testing": 5,
    "tap": 6, "cli": 6, "__main__": 7, "__init__": 7,
}  # fmt: skip
GROUND = {"errors", "units", "addresses"}  # one wing; the order in it is tested with the others
STANDARD_LIBRARY_ALONE = {"errors", "units", "addresses", "wire", "policy"}
NEVER_IN_PURE_ROOMS = {"time", "logging", "socket", "asyncio", "os.path", "pathlib", "io"}
MAX_LINES, MAX_MEDIAN_LINES = 400, 175

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def imports(tree: ast.AST, *, top_only: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each imported (module, name); name is empty for ``import module``."""
    nodes = ast.iter_child_nodes(tree) if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def rooms_used(path: Path) -> set[str]:
    used = set()
    for module, name in imports(ast.parse(path.read_text())):
        parts = module.split(".")
        if parts[0] == "twistedsock":
            used.add(parts[1] if len(parts) > 1 else name)
    return used


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_only_from_below(path: Path) -> None:
    """A room imports from lower floors and from its own wing, never from a neighbour."""
    room = room_of(path)
    assert room in FLOORS, f"{room} has no floor"
    for used in rooms_used(path) - {room}:
        one_wing = {room, used} <= GROUND
        assert one_wing or FLOORS[used] < FLOORS[room], f"{name_of(path)} imports {used}"


def test_no_wing_imports_in_a_circle() -> None:
    """Inside a wing there is an order: some room comes first, and none needs a later one."""
    needs: dict[str, set[str]] = {}
    for path in FILES:
        here = "twistedsock." + name_of(path).removesuffix(".py").replace("/", ".")
        here = here.removesuffix(".__init__")
        found = needs.setdefault(here, set())
        for module, name in imports(ast.parse(path.read_text()), top_only=True):
            if module.startswith("twistedsock."):
                full = f"{module}.{name}"
                found.add(
                    full
                    if (PACKAGE.parent / full.replace(".", "/")).with_suffix(".py").exists()
                    else module
                )
    while needs:
        free = {module for module, found in needs.items() if not (found - {module}) & set(needs)}
        assert free, f"a circle among {sorted(needs)}"
        needs = {module: found for module, found in needs.items() if module not in free}


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) in STANDARD_LIBRARY_ALONE], ids=name_of
)
def test_the_ground_floors_know_the_standard_library_alone(path: Path) -> None:
    """Pure rooms import no Twisted, clock, file or log."""
    for module, _ in imports(ast.parse(path.read_text())):
        top = module.split(".")[0]
        assert top in sys.stdlib_module_names or top == "twistedsock", module
        assert top not in NEVER_IN_PURE_ROOMS, module


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_global_reactor_is_imported_only_in_functions(path: Path) -> None:
    """No module imports the global reactor when it is imported itself."""
    tree = ast.parse(path.read_text())
    for module, name in imports(tree, top_only=True):
        assert (module, name) != ("twisted.internet", "reactor")
        assert module != "twisted.internet.reactor"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_importing_has_no_effect(path: Path) -> None:
    """At import a module defines, imports and assigns; it calls nothing for its effect."""
    body = ast.parse(path.read_text()).body
    for node in body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno} acts at import"
        if isinstance(node, ast.If) and not is_type_checking(node):
            assert ast.unparse(node.test) == "__name__ == '__main__'", f"line {node.lineno}"
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), node.lineno


def test_services_are_strangers_to_settings_and_sockets() -> None:
    """A built-in service knows the contract and what lies below it, as a third party's does."""
    for path in FILES:
        if room_of(path) == "services":
            assert rooms_used(path) <= {
                "service",
                "services",
                "wire",
                "errors",
                "units",
                "addresses",
            }


def test_files_stay_readable() -> None:
    """No file but a table is longer than 400 lines, and the median is near 150."""
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    long = {name: n for name, n in lengths.items() if n > MAX_LINES}
    assert not long
    assert statistics.median(lengths.values()) <= MAX_MEDIAN_LINES


def test_the_plugin_declaration_is_light() -> None:
    """The roof imports Twisted's ServiceMaker and our endpoints, which cost next to nothing."""
    assert list(imports(ast.parse(PLUGIN.read_text()))) == [
        ("twisted.application.service", "ServiceMaker"),
        ("twistedsock.endpoints", "ClientParser"),
        ("twistedsock.endpoints", "ServerParser"),
    ]
    # Every Twisted program with an endpoint string pays for what this imports.
    code = "import sys, twistedsock.endpoints; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    ours = {name for name in loaded.stdout.split() if name.startswith("twistedsock")}
    assert ours == {"twistedsock", "twistedsock.endpoints"}
    assert "twisted.internet.endpoints" not in loaded.stdout.split()


def test_every_module_opens_with_what_it_is() -> None:
    """Each module has a docstring."""
    for path in [*FILES, PLUGIN]:
        assert ast.get_docstring(ast.parse(path.read_text())), path
