"""From a raw table to plans that a server can carry out, or all that is wrong with it.

Opens nothing: every check here works without a socket.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pydantic

from twistedsock import sockopts
from twistedsock.addresses import WILDCARD, Address, is_numeric
from twistedsock.errors import ConfigError, PluginError, Problem
from twistedsock.host import registry
from twistedsock.host.listener_keys import faults_of_keys, of_right_version
from twistedsock.host.loader import RawConfig, format_path
from twistedsock.host.settings import AccessConfig, Config, ListenConfig, ServiceConfig
from twistedsock.policy.access import AccessList
from twistedsock.policy.limits import Limits
from twistedsock.service import SocketService
from twistedsock.sockopts.kinds import kinds_of_address
from twistedsock.sockopts.memberships import group_of, membership_options
from twistedsock.transports.unix_paths import DEFAULT_MODE
from twistedsock.wire.codecs import CODECS

# With these the kernel may let two sockets overlap; it alone knows.
SHARING_OPTIONS = frozenset({"SO_REUSEADDR", "SO_REUSEPORT", "SO_BINDTODEVICE", "SO_BINDTOIFINDEX"})
Path = tuple[str | int, ...]
_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=pydantic.BaseModel)


@dataclass(frozen=True, slots=True)
class ListenerPlan:
    """One address to listen on, with its socket's options."""

    address: Address
    backlog: int
    options: sockopts.SocketPlan
    mode: int = DEFAULT_MODE
    groups: tuple[str, ...] = ()
    filter: str = ""

    def at(self, address: Address) -> ListenerPlan:
        """Return this plan for *address*, one of those that the name in it stands for.

        A name takes the options of both IP versions; each of its sockets those of its own.
        """
        kinds = kinds_of_address(address)
        settings = [each for each in self.options.settings if each.option.fits & kinds]
        options = replace(self.options, settings=tuple(settings))
        return replace(self, address=address, options=options)


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service to run, with everything checked that can be without opening it."""

    name: str
    service_class: type[SocketService]
    settings: pydantic.BaseModel
    listeners: tuple[ListenerPlan, ...]
    framing: str
    codec: str
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
        source = self.raw.origin(path) or ", ".join(dict.fromkeys(self.raw.sources))
        self.problems.append(Problem(source, format_path(path), message))

    def _service(self, name: str, value: object) -> ServicePlan | None:
        path: Path = ("services", name)
        if not isinstance(value, Mapping):
            self.problem(path, f"must be a table, got {value!r}")
            return None
        before = len(self.problems)
        config = self._validate(ServiceConfig, value, path)
        service_class, settings = self._plugin(value, path)
        self._check_codec(value.get("codec", "bytes"), service_class, path)
        # What is right in a faulty table is checked on, so that no fault hides another.
        listeners = self._listeners(value, service_class, path)
        access = self._access(value, path)
        if len(self.problems) > before:
            return None
        assert config is not None
        assert service_class is not None
        assert settings is not None
        assert access is not None
        return ServicePlan(
            name=name,
            service_class=service_class,
            settings=settings,
            listeners=listeners,
            framing=config.framing,
            codec=config.codec,
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
        where = (*path, "settings")
        try:
            return service_class, self._validate(service_class.Settings, own, where)
        except Exception as error:  # the plug-in's own validators and defaults are called
            told = f"{type(error).__name__}: {error}"
            self.problem(where, f"the plug-in could not check its settings: {told}")
            return service_class, None

    def _validate(
        self, model: type[pydantic.BaseModel], value: Mapping[str, Any], path: Path
    ) -> Any:
        try:
            return model.model_validate(dict(value))
        except pydantic.ValidationError as error:
            for detail in error.errors():
                where = _keys(value, detail["loc"])
                self.problem((*path, *where), _message(detail, model))
            return None

    def _listeners(
        self,
        value: Mapping[str, Any],
        service_class: type[SocketService] | None,
        path: Path,
    ) -> tuple[ListenerPlan, ...]:
        written = value.get("listen")
        listens = [_right_part(ListenConfig, each) for each in _as(list, written)]
        shared = _as(dict, value.get("socket"))
        # Whether an option fits can be told only where every address is known.
        known = [listen.address for listen in listens if listen is not None]
        faults = sockopts.check_options(shared, known if len(known) == len(listens) else [])
        for name, fault in faults.items():
            self.problem((*path, "socket", name), fault)
        refusal = value.get("refused_options", sockopts.REFUSALS[0])
        plans = []
        for position, listen in enumerate(listens):
            if listen is None:
                continue
            here: Path = (*path, "listen", position)
            own = sockopts.check_options(listen.socket, [listen.address])
            for name, fault in own.items():
                self.problem((*here, "socket", name), fault)
            wrong = faults_of_keys(listen, {*shared, *listen.socket})
            for key, fault in wrong.items():
                self.problem((*here, key), fault)
            joined = {} if "groups" in wrong else membership_options(listen.groups)
            self._check_address(listen.address, service_class, here)
            self._check_overlap(listen.address, {*shared, *listen.socket}, here)
            if not (faults or own):
                own_options = {**joined, **listen.socket}
                planned = sockopts.plan_options(
                    shared, listen.address, own_options, refusal=refusal
                )
                plans.append(
                    ListenerPlan(
                        address=listen.address,
                        backlog=listen.backlog,
                        options=of_right_version(planned),
                        mode=listen.mode,
                        groups=tuple(map(group_of, listen.groups)),
                        filter=listen.filter,
                    )
                )
        return tuple(plans)

    def _access(self, value: Mapping[str, Any], path: Path) -> AccessList | None:
        access = _right_part(AccessConfig, value.get("access", {}))
        if access is None:
            return None
        try:
            return AccessList(access.allow, access.deny)
        except ValueError as error:
            self.problem((*path, "access"), str(error))
            return None

    def _check_codec(
        self, codec: object, service_class: type[SocketService] | None, path: Path
    ) -> None:
        if not isinstance(codec, str) or codec not in CODECS or service_class is None:
            return  # told by the validation of the table
        known = service_class.served_codecs()
        if codec not in known:
            fault = f"the service's messages are {' or '.join(known)} only, got {codec!r}"
            self.problem((*path, "codec"), fault)

    def _check_address(
        self, address: Address, service_class: type[SocketService] | None, here: Path
    ) -> None:
        if service_class is not None and address.kind not in service_class.served_kinds():
            kinds = ", ".join(service_class.served_kinds())
            self.problem(here, f"{address}: the service serves {kinds} only")
        taken = self._addresses.setdefault(address, format_path(here))
        if address.port and taken != format_path(here):
            self.problem(here, f"{address}: {taken} has it already")

    def _check_overlap(self, address: Address, options: set[str], here: Path) -> None:
        meant = {option.name for name in options for option in sockopts.SPELLINGS.get(name, ())}
        if SHARING_OPTIONS & meant:
            return
        for other, where in self._addresses.items():
            if _covers(address, other) or _covers(other, address):
                self.problem(here, f"{address}: {where} has {other} already")
                return


def _covers(wide: Address, other: Address) -> bool:
    """Return whether a socket on *wide* takes *other*, too: a wildcard has all of its family."""
    if wide == other or not wide.port or (wide.scheme, wide.port) != (other.scheme, other.port):
        return False
    if wide.host == "0.0.0.0":
        return is_numeric(other.host) and ":" not in other.host
    return wide.host == WILDCARD or (wide.host == "::" and ":" in other.host)


def _as(kind: type[_T], value: object) -> _T:
    """Return *value*, or an empty *kind* where it is none; that is told elsewhere."""
    return value if isinstance(value, kind) else kind()


def _right_part(model: type[_Model], value: object) -> _Model | None:
    """Return the *model* of those keys of *value* that are right; None where they do not do."""
    for _ in range(2):
        try:
            return model.model_validate(value)
        except pydantic.ValidationError as error:
            faulty = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
            value = {key: each for key, each in _as(dict, value).items() if key not in faulty}
    return None


def _keys(value: Any, loc: Sequence[str | int]) -> Path:
    """Return the keys of *value* in *loc*, where pydantic also puts the types it has tried."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        if isinstance(value, Mapping) and (part in value or position == len(loc) - 1):
            path.append(part)
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            path.append(part)
            value = value[part] if part < len(value) else None
    return tuple(path)


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


def _message(detail: Any, model: type[pydantic.BaseModel]) -> str:
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
