"""The one form that every long-lived part has: start, run, stop, and run again, also after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from .backoff import Backoff
from .clock import Clock
from .errors import EdgeqError, StoreUnavailable

_CALM_SECONDS = 60.0
_CANCEL_SECONDS = 5.0


class Service:
    """A part that runs until it is stopped.

    Subclasses write `run()`, which works until `self.stopping` is set and then returns. An exception that
    leaves `run()` never ends the program: it is logged, shown by `last_error`, and `run()` begins again after
    a growing, jittered delay, which shrinks back after a minute without a crash. That the store is unavailable is said
    once: it is said by the store itself, too.
    """

    restart_backoff = Backoff(1.0, 60.0)

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.log = logging.getLogger(f"edgeq.{name}")
        self.stopping = asyncio.Event()
        self.last_error: str | None = None
        self.crashes = 0
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """The work. Must return soon after `self.stopping` is set."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin, or begin again after a stop. Returns at once; the work goes on in a task of its own."""
        self.stopping.clear()
        self._task = asyncio.create_task(self._supervise(), name=self.name)

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Ask for the end, wait up to `grace_seconds`, then cancel; what doesn't end then is left behind. Safe to
        call twice."""
        self.stopping.set()
        task = self._task
        if task is None:
            return
        _, pending = await asyncio.wait([task], timeout=grace_seconds)
        if pending:
            if grace_seconds:
                self.log.warning("did not stop within %gs and was cancelled", grace_seconds)
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=_CANCEL_SECONDS)
            if pending:  # there is code in it that isn't ours, and that may do as it likes
                self.log.error("goes on though it was cancelled, and is left behind")

    async def ended(self) -> None:
        """Return when nothing of it runs any more: after `stop`, also of what was left behind."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def pause(self, seconds: float) -> None:
        """Wait `seconds`, or less when the service is asked to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _supervise(self) -> None:
        attempt = 0
        while not self.stopping.is_set():
            began = self.clock.monotonic()
            try:
                await self.run()
                if self.stopping.is_set():
                    return
                raise RuntimeError("ended by itself")
            except Exception as error:  # G5: an exception never ends a part
                self.crashes += 1
                self.last_error = f"{type(error).__name__}: {error}"
                attempt = 1 if self.clock.monotonic() - began > _CALM_SECONDS else attempt + 1
                delay = self.restart_backoff.delay(attempt)
                unexpected = not isinstance(error, EdgeqError)
                level = logging.DEBUG if attempt > 1 and isinstance(error, StoreUnavailable) else logging.ERROR
                self.log.log(level, "crashed: %s; runs again in %.1fs", error, delay, exc_info=unexpected)
                await self.pause(delay)
