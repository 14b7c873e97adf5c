"""Finding service plug-ins: the entry points of group ``twistedsock.services``.

Built-in services come through the same door. A plug-in that cannot be imported is an error only
where it is configured.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from twistedsock.errors import PluginError
from twistedsock.service import SocketService

GROUP = "twistedsock.services"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A service that some installed distribution offers.

    Attributes:
        name: What ``service = `` in the configuration says.
        entry_points: Where it is; more than one is a clash of distributions.
    """

    name: str
    entry_points: tuple[EntryPoint, ...]

    @property
    def origin(self) -> str:
        """The distributions it comes from, with their versions."""
        dists = [point.dist for point in self.entry_points]
        return " and ".join(f"{dist.name} {dist.version}" if dist else "?" for dist in dists)

    def load(self) -> type[SocketService]:
        """Return the service class.

        Raises:
            PluginError: Two distributions claim the name, or the class cannot be imported, is
                no SocketService, or breaks the contract.
        """
        if len(self.entry_points) > 1:
            raise PluginError(f"{self.name!r} is offered by {self.origin}; uninstall one of them")
        point = self.entry_points[0]
        where = f"plug-in {self.name!r} of {self.origin} ({point.value})"
        try:
            found = point.load()
        except Exception as error:  # a plug-in is imported: anything may go wrong in it
            told = f"{type(error).__name__}: {error}"
            raise PluginError(f"{where} cannot be imported: {told}") from error
        if not (isinstance(found, type) and issubclass(found, SocketService)):
            raise PluginError(f"{where} is not a subclass of SocketService")
        try:
            found.served_kinds()
        except PluginError as error:
            raise PluginError(f"{where} breaks the contract: {error}") from None
        return found


def find_plugins() -> dict[str, Plugin]:
    """Return every installed service plug-in by name, importing none of them."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):  # of a distribution found twice, the first
        found.setdefault(point.name, []).append(point)
    return {name: Plugin(name, tuple(points)) for name, points in sorted(found.items())}


def load_plugin(name: str) -> type[SocketService]:
    """Return the service class that is installed as *name*.

    Raises:
        PluginError: There is none of that name, or it cannot be used.
    """
    plugins = find_plugins()
    if name not in plugins:
        near = difflib.get_close_matches(name, plugins, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"installed: {', '.join(plugins) or '-'}"
        raise PluginError(f"no service is called {name!r}; {hint}")
    return plugins[name].load()
