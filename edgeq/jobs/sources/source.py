"""`@source`: where jobs come from that nobody dispatches, such as rows of a table or files in a folder.

    @source(queue="video", at_most=20, window="10m")
    async def new_videos(wanted: int):
        for path in sorted(folder.glob("*.mp4")):
            yield Encode(path=str(path))

It is asked when its queue runs low, for as many jobs as there is room for. It may yield the same again as often as it
likes: a job that is still to be done, or ended less than `window` ago, isn't queued a second time, and as the store
knows that, neither a restart nor a second process makes a difference. Only what is new counts towards `wanted`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from types import ModuleType
from typing import Any, cast

from ...backoff import Backoff
from ...context import Context
from ...units import Duration
from .. import settings

AT_MOST_MAX = 10_000
_CTX = "ctx"

Find = Callable[..., AsyncIterator[Any]]
_made: dict[str, Source] = {}


class Source:
    """A function that finds jobs, and how it is asked: see `source`. Calling it calls the function."""

    def __init__(
        self,
        function: Find,
        *,
        queue: str,
        at_most: int,
        low: int | None,
        window: str,
        timeout: str,
        backoff: str | Backoff,
    ) -> None:
        """Raises ValueError that names what is wrong."""
        self.function = function
        self.name = f"{function.__module__}:{function.__qualname__}"
        self.queue = settings.queue(queue)
        self.at_most = _count("at_most", at_most, AT_MOST_MAX)
        self.low = max(1, at_most // 3) if low is None else _count("low", low, at_most)
        self.window = _duration("window", window, Duration(0))
        self.timeout = _duration("timeout", timeout, Duration(0.001))
        self.backoff = Backoff.parse(backoff)
        if not 0 < self.backoff.first <= self.backoff.most <= settings.SECONDS_MAX:
            raise ValueError("backoff must be more than nothing and at most 366d")
        self._takes_ctx = _takes_ctx(function)
        self._wakers: set[Callable[[], None]] = set()
        _made[self.name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return self.function(*args, **kwargs)

    def find(self, wanted: int, ctx: Context) -> AsyncGenerator[Any, None]:
        """Ask it for up to `wanted` jobs."""
        found = self.function(wanted, ctx=ctx) if self._takes_ctx else self.function(wanted)
        return cast(AsyncGenerator[Any, None], found)

    def wake(self) -> None:
        """Have it asked now, if its queue is low, though it had nothing a moment ago. May be called from any thread; it
        reaches the process that it is called in."""
        for waker in tuple(self._wakers):
            waker()

    def heed(self, waker: Callable[[], None]) -> Callable[[], None]:
        """Have `waker` called at every `wake`; what is returned ends that."""
        self._wakers.add(waker)
        return lambda: self._wakers.discard(waker)


def source(
    *,
    queue: str,
    at_most: int = 50,
    low: int | None = None,
    window: str = "5m",
    timeout: str = "60s",
    backoff: str | Backoff = "1s..60s",
) -> Callable[[Find], Source]:
    """Make a source of an async generator, `async def find(wanted)` or `async def find(wanted, ctx)`, at the top of a
    module of `app.modules`. What it yields are jobs; all are put into `queue`.

    It is asked when fewer than `low` jobs (default: a third of `at_most`) wait in the queue, so that up to `at_most`
    wait in it; it is ended when it has yielded as many new ones as wanted, or AT_MOST_MAX in all. Its jobs are stored
    as they come, many in one commit, and what `ctx` has recorded (`ctx.emit`, `ctx.dispatch`) with them. When it finds
    nothing new, fails, or takes longer than `timeout`, there is a pause of `backoff` before it is asked again; a pause
    after finding nothing is cut to its beginning when the queue moves, and ended by `wake()` of what this makes of the
    function.

    It runs in the event loop: what blocks belongs in a thread (`asyncio.to_thread`). Raises TypeError that names the
    function and what is wrong.
    """

    def decorate(function: Find) -> Source:
        try:
            return Source(
                function, queue=queue, at_most=at_most, low=low, window=window, timeout=timeout, backoff=backoff
            )
        except ValueError as error:
            raise TypeError(f"source {getattr(function, '__qualname__', function)}: {error}") from None

    return decorate


def load_sources(modules: Iterable[ModuleType]) -> list[Source]:
    """The sources at the top of the modules, each once (one may be imported into another module)."""
    found = {id(value): value for module in modules for value in vars(module).values() if isinstance(value, Source)}
    return list(found.values())


def left_out(sources: Collection[Source], modules: Iterable[str]) -> list[str]:
    """The names of sources that were made in one of these modules, or beside one, and aren't among `sources`."""
    packages = {name.partition(".")[0] for name in modules}
    asked = {each.name for each in sources}
    return [name for name in _made if name not in asked and name.partition(":")[0].partition(".")[0] in packages]


def _takes_ctx(function: Find) -> bool:
    if not inspect.isasyncgenfunction(function):
        raise ValueError("must be an async generator: async def …(wanted), with yield in it")
    takes = _CTX in inspect.signature(function).parameters
    try:
        inspect.signature(function).bind(1, **({_CTX: None} if takes else {}))
    except TypeError as error:
        raise ValueError(f"(wanted) or (wanted, ctx) is how it is called: {error}") from None
    return takes


def _count(name: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} = {value!r:.80}: must be a whole number from 1 to {most}")
    return value


def _duration(name: str, value: object, least: Duration) -> Duration:
    try:
        duration = Duration.parse(value)
    except ValueError as error:
        raise ValueError(f"{name} = {value!r:.80}: {error}") from None
    if not least <= duration <= settings.SECONDS_MAX:
        raise ValueError(f"{name} = {value!r:.80}: must be between {least} and 366d")
    return duration
