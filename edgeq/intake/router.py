"""Which controllers a message goes to.

In Python, `Router` collects routes; from those and the YAML's, `compile_routes` makes a `RouteTable`. Every route whose
topic matches gets the message, once, in the order of the file (the YAML's first, then those of `app.modules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..config.schema import Limit, LoadedConfig, Route
from ..errors import Problem
from ..mqtt.topics import Template
from ..units import Duration, Size
from . import controllers
from .limit import Limiter, parse_rate
from .middleware import Middleware, wrap
from .template import compile_text, compile_value

F = TypeVar("F", bound=Callable[..., Any])
JobResolver = Callable[[str], type[Any]]

_TOPICS_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class PythonRoute:
    """A route made by `Router.on`."""

    settings: Route
    function: Callable[..., Any]
    middleware: tuple[Middleware, ...]


class Router:
    """Routes written in Python.

        router = Router()

        @router.on("sensors/{device}/temperature")
        async def temperature(ctx: Context, device: str) -> None: ...

    Routers at the top of the modules in `app.modules` are found by themselves.
    """

    def __init__(self, *, prefix: str = "", middleware: Sequence[Middleware] = ()) -> None:
        self.routes: list[PythonRoute] = []
        self._prefix = prefix.strip("/")
        self._middleware = tuple(middleware)

    def on(
        self,
        topic: str,
        *,
        qos: int = 1,
        payload: str = "json",
        retained: str = "skip",
        timeout: str = "5s",
        max_payload: str = "256KiB",
        limit: Mapping[str, Any] | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> Callable[[F], F]:
        """Route messages on `topic` (`{name}`, `{name:int}`, `{rest:#}`, `+`, `#`) to the decorated function.

        It is called as `function(ctx, **parameters)` and may be `async def` or `def` (which runs in a thread). The
        other arguments mean what they mean in YAML. Raises ValueError for a value that can't be; a bad topic is an error of
        `edgeq check` and `edgeq run`, which name the function.
        """
        for name, value, allowed in (
            ("qos", qos, (0, 1, 2)),
            ("payload", payload, ("json", "text", "raw")),
            ("retained", retained, ("skip", "handle")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
        settings = Route(
            topic=f"{self._prefix}/{topic}" if self._prefix else topic,
            controller="",
            qos=qos,  # type: ignore[arg-type]
            payload=payload,  # type: ignore[arg-type]
            retained=retained,  # type: ignore[arg-type]
            timeout=Duration.parse(timeout),
            max_payload=Size.parse(max_payload),
            limit=None if limit is None else Limit(**limit),
        )

        def register(function: F) -> F:
            self.routes.append(PythonRoute(settings, function, (*self._middleware, *middleware)))
            return function

        return register

    @contextmanager
    def group(self, prefix: str = "", *, middleware: Sequence[Middleware] = ()) -> Iterator[Router]:
        """A router for routes below `prefix`, with `middleware` around each, outside of their own. Groups nest.

        with router.group("pumps/{pump}", middleware=[log_it]) as pumps:
            @pumps.on("state")
            def state(ctx, pump): ...
        """
        inner = Router(
            prefix="/".join(part for part in (self._prefix, prefix.strip("/")) if part),
            middleware=(*self._middleware, *middleware),
        )
        inner.routes = self.routes
        yield inner


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route, ready to run: `inline` are the built-in controllers, `own` runs under `timeout_seconds`."""

    label: str
    template: Template
    qos: int
    payload: str
    takes_retained: bool
    payload_bytes_max: int
    timeout_seconds: float
    inline: tuple[controllers.Inline, ...]
    own: Callable[..., Any] | None
    own_is_async: bool
    limiter: Limiter | None
    limit_key: controllers.Getter
    over_limit_is_dead_letter: bool


Match = tuple[CompiledRoute, Mapping[str, Any]]


class RouteTable:
    """All routes of a configuration. Immutable but for its cache."""

    def __init__(self, routes: Sequence[CompiledRoute]) -> None:
        self.routes = tuple(routes)
        self._cache: dict[str, tuple[Match, ...]] = {}

    def filters(self) -> dict[str, int]:
        """Topic filter -> QoS (0 or 1) for every route."""
        filters: dict[str, int] = {}
        for route in self.routes:
            filters[route.template.filter] = max(route.qos, filters.get(route.template.filter, 0))
        return filters

    def payload_bytes_max(self) -> int:
        """The largest payload that any route takes."""
        return max((route.payload_bytes_max for route in self.routes), default=0)

    def lookup(self, topic: str) -> tuple[Match, ...]:
        """The routes that `topic` goes to, in order, each with its parameters."""
        found = self._cache.get(topic)
        if found is None:
            levels = topic.split("/")
            found = tuple(
                (route, params) for route in self.routes if (params := route.template.match(levels)) is not None
            )
            if len(self._cache) >= _TOPICS_CACHED:
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
    compiled = []
    for index, settings in enumerate(loaded.config.routes):
        path = f"routes[{index}]"
        try:
            compiled.append(_compile(settings, resolve_job, monotonic))
        except _RouteError as error:
            where = f"{path}.{error.key}"
            problems.append(Problem(loaded.where(where), where, str(error), ""))
    for router in routers:
        for route in router.routes:
            try:
                compiled.append(_compile(route.settings, resolve_job, monotonic, route.function, route.middleware))
            except _RouteError as error:
                code = getattr(route.function, "__code__", None)
                place = f"{code.co_filename}:{code.co_firstlineno}" if code else route.function.__module__
                problems.append(Problem(place, f"route {route.settings.topic!r}", str(error), ""))
    return RouteTable(compiled)


class _RouteError(ValueError):
    def __init__(self, key: str, error: ValueError) -> None:
        super().__init__(str(error))
        self.key = key


@contextmanager
def _at(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise _RouteError(key, error) from None


def _compile(
    settings: Route,
    resolve_job: JobResolver,
    monotonic: Callable[[], float],
    function: Callable[..., Any] | None = None,
    middleware: Sequence[Middleware] = (),
) -> CompiledRoute:
    with _at("topic"):
        template = Template.parse(settings.topic)
    names = template.names
    inline: list[controllers.Inline] = []
    if settings.emit is not None:
        inline.append(_compile_emit(settings, names))
    elif settings.dedup:
        with _at("dedup"):
            raise ValueError("goes with emit: it is the event that is stored once")
    if settings.dispatch is not None:
        with _at("dispatch"):
            inline.append(controllers.dispatch(resolve_job(settings.dispatch)))
    with _at("controller"):
        if settings.controller:
            function = controllers.own(settings.controller, names)
        elif function is not None:
            controllers.check_takes(function, names)
    limiter = None
    limit_key = compile_text("", names)
    if settings.limit is not None:
        with _at("limit.rate"):
            rate = parse_rate(settings.limit.rate)
        limiter = Limiter(rate, settings.limit.burst or max(1.0, rate), monotonic)
        with _at("limit.key"):
            limit_key = compile_text(settings.limit.key, names)
    own = wrap(function, middleware) if function is not None else None
    return CompiledRoute(
        label=settings.topic,
        template=template,
        qos=min(settings.qos, 1),
        payload=settings.payload,
        takes_retained=settings.retained == "handle",
        payload_bytes_max=int(settings.max_payload),
        timeout_seconds=float(settings.timeout),
        inline=tuple(inline),
        own=own,
        own_is_async=own is not None and controllers.is_async(own),
        limiter=limiter,
        limit_key=limit_key,
        over_limit_is_dead_letter=settings.limit is not None and settings.limit.over == "dead_letter",
    )


def _compile_emit(settings: Route, names: Sequence[str]) -> controllers.Inline:
    for key, text in (("subject", settings.subject), ("description", settings.description), ("dedup", settings.dedup)):
        with _at(key):
            compile_text(text or "", names)
    for key, value in (("data", settings.data), ("occurred_at", settings.occurred_at)):
        with _at(key):
            compile_value(value, names)
    with _at("emit"):
        return controllers.emit(settings, names)
