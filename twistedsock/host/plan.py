"""From a raw table to plans that a server can carry out, or all that is wrong with it.

Opens nothing: every check here works without a socket.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from twistedsock import sockopts
from twistedsock.addresses import Address
from twistedsock.errors import ConfigError, PluginError, Problem
from twistedsock.host import registry
from twistedsock.host.loader import RawConfig, format_path
from twistedsock.host.settings import Config, ServiceConfig
from twistedsock.policy.access import AccessList
from twistedsock.policy.limits import Limits
from twistedsock.service import SocketService

SERVED_SCHEMES = ("tcp", "udp")
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ListenerPlan:
    """One address to listen on, with its socket's options."""

    address: Address
    backlog: int
    options: tuple[sockopts.SocketPlan, ...]


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service to run, with everything checked that can be without opening it."""

    name: str
    service_class: type[SocketService]
    settings: pydantic.BaseModel
    listeners: tuple[ListenerPlan, ...]
    framing: str
    limits: Limits
    access: AccessList
    any_source_port: bool


def make_plans(raw: RawConfig) -> tuple[ServicePlan, ...]:
    """Return a plan for each service of *raw*.

    Raises:
        ConfigError: Something is wrong; it holds every problem, not only the first.
    """
    checker = _Checker(raw)
    plans = checker.check()
    if checker.problems:
        raise ConfigError(checker.problems)
    return plans


class _Checker:
    """Collects problems on the way; a fault in one service does not hide those of the next."""

    def __init__(self, raw: RawConfig) -> None:
        self.raw = raw
        self.problems = list(raw.problems)
        self._addresses: dict[Address, str] = {}

    def check(self) -> tuple[ServicePlan, ...]:
        table = self.raw.table
        for key in table:
            if key not in Config.model_fields:
                self.problem((key,), _unknown(key, Config.model_fields))
        services = table.get("services", {})
        if not isinstance(services, Mapping):
            self.problem(("services",), f"must be tables [services.NAME], got {services!r}")
            return ()
        if not services and not self.problems:
            self.problem((), "holds no service; add a table such as [services.main]")
        plans = [self._service(name, value) for name, value in services.items()]
        return tuple(plan for plan in plans if plan is not None)

    def problem(self, path: Path, message: str) -> None:
        source = self.raw.origin(path) or ", ".join(dict.fromkeys(self.raw.origins.values()))
        self.problems.append(Problem(source, format_path(path), message))

    def _service(self, name: str, value: object) -> ServicePlan | None:
        path: Path = ("services", name)
        if not isinstance(value, Mapping):
            self.problem(path, f"must be a table, got {value!r}")
            return None
        before = len(self.problems)
        config = self._validate(ServiceConfig, value, path)
        service_class, settings = self._plugin(value, path)
        if config is None:
            return None
        listeners = self._listeners(config, service_class, path)
        try:
            access = AccessList(config.access.allow, config.access.deny)
        except ValueError as error:
            self.problem((*path, "access"), str(error))
            return None
        if len(self.problems) > before or service_class is None or settings is None:
            return None
        return ServicePlan(
            name=name,
            service_class=service_class,
            settings=settings,
            listeners=listeners,
            framing=config.framing,
            limits=config.limits.to_limits(),
            access=access,
            any_source_port=config.udp_source_ports == "any",
        )

    def _plugin(
        self, value: Mapping[str, Any], path: Path
    ) -> tuple[type[SocketService] | None, pydantic.BaseModel | None]:
        name = value.get("service")
        if not isinstance(name, str):
            return None, None  # told by the validation of the table
        try:
            service_class = registry.load_plugin(name)
        except PluginError as error:
            self.problem((*path, "service"), str(error))
            return None, None
        own = value.get("settings", {})
        if not isinstance(own, Mapping):
            return service_class, None
        return service_class, self._validate(service_class.Settings, own, (*path, "settings"))

    def _validate(
        self, model: type[pydantic.BaseModel], value: Mapping[str, Any], path: Path
    ) -> Any:
        try:
            return model.model_validate(dict(value))
        except pydantic.ValidationError as error:
            for detail in error.errors():
                where = tuple(detail["loc"])
                if where[-1:] == ("address",) and isinstance(_at(value, where[:-1]), str):
                    where = where[:-1]  # the operator wrote a plain address, not a table
                message = _message(detail, model, value)
                self.problem((*path, *where), message)
            return None

    def _listeners(
        self, config: ServiceConfig, service_class: type[SocketService] | None, path: Path
    ) -> tuple[ListenerPlan, ...]:
        addresses = [listen.address for listen in config.listen]
        for name, fault in sockopts.check_options(config.socket, addresses).items():
            self.problem((*path, "socket", name), fault)
        plans = []
        for position, listen in enumerate(config.listen):
            here: Path = (*path, "listen", position)
            own = sockopts.check_options(listen.socket, [listen.address])
            for name, fault in own.items():
                self.problem((*here, "socket", name), fault)
            self._check_address(listen.address, service_class, here)
            options = {**config.socket, **listen.socket}
            if not sockopts.check_options(options, []):
                planned = sockopts.plan_options(options, listen.address)
                plans.append(ListenerPlan(listen.address, listen.backlog, planned))
        return tuple(plans)

    def _check_address(
        self, address: Address, service_class: type[SocketService] | None, here: Path
    ) -> None:
        if address.scheme not in SERVED_SCHEMES:
            known = " and ".join(SERVED_SCHEMES)
            self.problem(here, f"{address}: this version serves {known} only")
            return
        if service_class is not None and address.kind not in service_class.served_kinds():
            kinds = ", ".join(service_class.served_kinds())
            self.problem(here, f"{address}: the service serves {kinds} only")
        taken = self._addresses.setdefault(address, format_path(here))
        if address.port and taken != format_path(here):
            self.problem(here, f"{address}: {taken} has it already")


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _unknown(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key, known, 1)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    return f"unknown key; known here: {', '.join(known) or 'none'}"


def _fields(model: type[pydantic.BaseModel], path: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of the table at *path* inside *model*; none where that is no model."""
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        models = _models_in(field.annotation) if field is not None else []
        if not models:
            return {}
        model = models[0]
    return dict(model.model_fields)


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [found for arg in getattr(annotation, "__args__", ()) for found in _models_in(arg)]


# pydantic's words for a fault, in ours. "{}" is what was written.
_MESSAGES = {
    "missing": "is required",
    "int_type": "must be a whole number, got {}",
    "float_type": "must be a number, got {}",
    "bool_type": "must be true or false, got {}",
    "string_type": "must be a text, got {}",
    "list_type": "must be a list, got {}",
    "tuple_type": "must be a list, got {}",
    "dict_type": "must be a table, got {}",
    "model_type": "must be a table, got {}",
    "too_short": "must not be empty",
}


def _message(detail: Any, model: type[pydantic.BaseModel], value: Mapping[str, Any]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    written = repr(detail["input"])
    if len(written) > 80:
        written = f"{written[:77]}..."
    if kind == "extra_forbidden":
        where = detail["loc"]
        return _unknown(str(where[-1]), _fields(model, where[:-1]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}, got {written}"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}, got {written}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}, got {written}"
    if kind in _MESSAGES:
        return _MESSAGES[kind].format(written)
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {written}"
