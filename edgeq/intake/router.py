"""Routes written in Python. With those of the YAML, `table.compile_routes` makes a table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..config.convert import FAILED, Converter
from ..config.origin import Origin
from ..config.schema import Route
from ..errors import Problem
from .middleware import Middleware, is_async

F = TypeVar("F", bound=Callable[..., Any])


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

    Routers at the top of the modules in `app.modules` are found by themselves. Raises ValueError for a middleware that
    is not `async def`.
    """

    def __init__(self, *, prefix: str = "", middleware: Sequence[Middleware] = ()) -> None:
        self.routes: list[PythonRoute] = []
        self._prefix = prefix.strip("/")
        self._middleware = _checked(middleware)

    def on(
        self,
        topic: str,
        *,
        qos: int = 1,
        payload: str = "json",
        retained: str = "skip",
        ordered: bool = False,
        timeout: str = "5s",
        max_payload: str = "256KiB",
        limit: Mapping[str, Any] | None = None,
        keep: str = "normal",
        middleware: Sequence[Middleware] = (),
    ) -> Callable[[F], F]:
        """Route messages on `topic` (`{name}`, `{name:int}`, `{rest:#}`, `+`, `#`) to the decorated function.

        It is called as `function(ctx, **parameters)` and may be `async def` or `def` (which runs in a thread). The
        other arguments mean what they mean in YAML. Raises ValueError for a value that can't be. A bad topic is an
        error of `edgeq check` and `edgeq run`, which name the function.
        """
        problems: list[Problem] = []
        settings = Converter(f"route {topic!r}", Origin(), problems).record(
            Route,
            {
                "topic": f"{self._prefix}/{topic}" if self._prefix else topic,
                "controller": "",
                "qos": qos,
                "payload": payload,
                "retained": retained,
                "ordered": ordered,
                "timeout": timeout,
                "max_payload": max_payload,
                "limit": limit,
                "keep": keep,
            },
            "",
        )
        if settings is FAILED:
            raise ValueError("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        around = (*self._middleware, *_checked(middleware))

        def register(function: F) -> F:
            self.routes.append(PythonRoute(settings, function, around))
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


def _checked(middleware: Sequence[Middleware]) -> tuple[Middleware, ...]:
    for layer in middleware:
        if not is_async(layer):
            raise ValueError(f"middleware must be `async def`, which {layer!r} is not")
    return tuple(middleware)
