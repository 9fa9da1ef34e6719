"""Which controllers a message goes to: every route whose topic matches, once, in the order of the file.

The YAML's routes come first, then those of `app.modules`. Compiled once, when the configuration is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..config import checks
from ..config.schema import LoadedConfig, Route
from ..errors import Problem
from ..events import KEEP
from ..mqtt.topics import Template
from . import controllers
from .limit import Limiter
from .middleware import Own, wrap
from .router import PythonRoute, Router
from .template import Text, compile_text, compile_value

JobResolver = Callable[[str], type[Any]]

TOPICS_CACHED = 4096
TOPIC_CHARACTERS_CACHED = 256


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route, ready to run: `inline` are the built-in controllers, `own` runs under `timeout_seconds`.

    `label` is its name in status, metrics and dead letters: its topic, with a number behind it from the second one
    with the same topic on. One that `takes_oversize` is given the beginning of what is larger than it takes. One that
    is `private` takes what is for this process alone, also where others take turns with the rest.
    """

    label: str
    template: Template
    qos: int
    payload: str
    takes_retained: bool
    payload_bytes_max: int
    timeout_seconds: float
    inline: tuple[controllers.Inline, ...]
    own: Own | None
    limiter: Limiter | None
    limit_key: Text
    over_limit_is_dead_letter: bool
    ordered: bool = False
    takes_oversize: bool = False
    private: bool = False
    keep: int = 0


Match = tuple[CompiledRoute, Mapping[str, Any]]


class Matches(NamedTuple):
    """The routes that a topic goes to, in order, each with its parameters; `inline` says that all are built-in."""

    routes: tuple[Match, ...]
    inline: bool


class RouteTable:
    """All routes of a configuration. Immutable but for its cache."""

    def __init__(self, routes: Sequence[CompiledRoute]) -> None:
        self.routes = tuple(routes)
        self._cache: dict[str, Matches] = {}

    def filters(self) -> dict[str, int]:
        """Topic filter -> QoS (0 or 1) for every route."""
        filters: dict[str, int] = {}
        for route in self.routes:
            filters[route.template.filter] = max(route.qos, filters.get(route.template.filter, 0))
        return filters

    def private_filters(self) -> set[str]:
        """The topic filters of routes that are private."""
        return {route.template.filter for route in self.routes if route.private}

    def part(self, *, ordered: bool) -> RouteTable:
        """The routes whose messages must come in order, or the others."""
        return RouteTable([route for route in self.routes if route.ordered is ordered])

    def payload_bytes_max(self) -> int:
        """The largest payload that any route takes."""
        return max((route.payload_bytes_max for route in self.routes), default=0)

    def lookup(self, topic: str) -> Matches:
        """Where `topic` goes."""
        found = self._cache.get(topic)
        if found is None:
            levels = topic.split("/")
            matches = tuple(
                (route, params) for route in self.routes if (params := route.template.match(levels)) is not None
            )
            found = Matches(matches, inline=all(route.own is None for route, _ in matches))
            if len(topic) <= TOPIC_CHARACTERS_CACHED:
                if len(self._cache) >= TOPICS_CACHED:
                    self._cache.clear()
                self._cache[topic] = found
        return found


def compile_routes(
    loaded: LoadedConfig,
    routers: Sequence[Router],
    resolve_job: JobResolver,
    monotonic: Callable[[], float],
    problems: list[Problem],
) -> RouteTable:
    """The route table of a configuration. Mistakes are added to `problems`, each naming its route."""
    compiled: list[CompiledRoute] = []
    labels: dict[str, int] = {}

    def add(settings: Route, mistakes: _Mistakes, python: PythonRoute | None = None) -> None:
        count = labels[settings.topic] = labels.get(settings.topic, 0) + 1
        label = settings.topic if count == 1 else f"{settings.topic} ({count})"
        route = _compile(settings, label, python, resolve_job, monotonic, mistakes)
        if route is not None:
            compiled.append(route)

    for index, settings in enumerate(loaded.config.routes):
        add(settings, _Mistakes(problems, f"routes[{index}]", loaded.where))
    for router in routers:
        for route in router.routes:
            where = _always(_place(route.function))
            add(route.settings, _Mistakes(problems, f"route {route.settings.topic!r}", where), route)
    return RouteTable(compiled)


class _Mistakes:
    """Notes the mistakes of one route, so that all of them can be told."""

    def __init__(self, problems: list[Problem], route: str, where: Callable[[str], str]) -> None:
        self._problems = problems
        self._route = route
        self._where = where
        self._before = len(problems)

    @contextmanager
    def at(self, key: str) -> Iterator[None]:
        """What raises ValueError in this block is a mistake in `key`."""
        path = f"{self._route}.{key}"
        try:
            yield
        except ValueError as error:
            self._problems.append(Problem(self._where(path), path, str(error)))

    def __bool__(self) -> bool:
        return len(self._problems) > self._before


def _compile(
    settings: Route,
    label: str,
    python: PythonRoute | None,
    resolve_job: JobResolver,
    monotonic: Callable[[], float],
    mistakes: _Mistakes,
) -> CompiledRoute | None:
    with mistakes.at("topic"):
        template = Template.parse(settings.topic)
    if mistakes:
        return None  # its parameters aren't known, so nothing else can be checked
    names = template.names
    function = python.function if python is not None else None
    inline: list[controllers.Inline] = []
    if settings.emit is not None:
        _check_texts(settings, names, mistakes)
    elif settings.dedup:
        with mistakes.at("dedup"):
            raise ValueError("goes with emit: it is the event that is stored once")
    if settings.emit is not None and not mistakes:
        with mistakes.at("emit"):
            inline.append(controllers.emit(settings, names))
    if settings.dispatch is not None:
        with mistakes.at("dispatch"):
            inline.append(controllers.dispatch(resolve_job(settings.dispatch)))
    if settings.receive is not None:
        with mistakes.at("receive"):
            inline.append(controllers.receive(settings, names))
    with mistakes.at("controller"):
        if settings.controller:
            function = controllers.own(settings.controller, names)
        elif function is not None:
            controllers.check_takes(function, names)
    limit = settings.limit
    with mistakes.at("limit.key"):
        limit_key = compile_text(limit.key if limit is not None else "", names)
    with mistakes.at("limit.rate"):
        rate = checks.rate(limit.rate) if limit is not None else 0.0
    if mistakes:
        return None
    return CompiledRoute(
        label=label,
        template=template,
        qos=min(settings.qos, 1),
        payload=settings.payload,
        takes_retained=settings.retained == "handle",
        payload_bytes_max=int(settings.max_payload),
        timeout_seconds=float(settings.timeout),
        inline=tuple(inline),
        own=None if function is None else wrap(function, python.middleware if python is not None else ()),
        limiter=None if limit is None else Limiter(rate, limit.burst or max(1.0, rate), monotonic),
        limit_key=limit_key,
        over_limit_is_dead_letter=limit is not None and limit.over == "dead_letter",
        ordered=settings.ordered,
        keep=KEEP[settings.keep],
    )


def _check_texts(settings: Route, names: Sequence[str], mistakes: _Mistakes) -> None:
    for key, text in (("subject", settings.subject), ("description", settings.description), ("dedup", settings.dedup)):
        with mistakes.at(key):
            compile_text(text or "", names)
    for key, value in (("data", settings.data), ("occurred_at", settings.occurred_at)):
        with mistakes.at(key):
            compile_value(value, names)


def _always(place: str) -> Callable[[str], str]:
    return lambda _path: place


def _place(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else getattr(function, "__module__", "")
