"""A queue's `context`: made once by its worker, before the first job; again and again if that fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

from ..backoff import Backoff
from ..units import Duration
from .handling import Call, describe, make_context

SLOW_SECONDS = 30.0
_AGAIN = Backoff(1.0, 60.0)


class QueueContext:
    """What `reference`, `module:function`, makes; None without one. Plain functions are called by `call`.

    `ready`: `value` is there, of which `made` tells. `stuck`: the last try has failed, or has been taking longer than
    SLOW_SECONDS; the log says so.
    """

    def __init__(self, reference: str | None, call: Call, log: logging.Logger, made: Callable[[], None]) -> None:
        self.value: Any = None
        self.ready = reference is None
        self.stuck = False
        self._reference = reference
        self._call = call
        self._log = log
        self._made = made
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Make it, unless that was begun before."""
        if self._reference is not None and self._task is None:
            self._task = asyncio.create_task(self._make(self._reference), name=f"context {self._reference}")

    def close(self) -> None:
        """Try no more."""
        if self._task is not None:
            self._task.cancel()

    async def _make(self, reference: str) -> None:
        for attempt in itertools.count(1):
            slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._is_slow)
            try:
                self.value = await make_context(reference, self._call)
                break
            except Exception as error:  # noqa: BLE001 - the author's code
                self.stuck = True
                delay = _AGAIN.delay(attempt)
                self._log.error(
                    "no job is run, because the context %s can't be made: %s; it is tried again in %.1fs",
                    reference, describe(error), delay,
                )  # fmt: skip
            finally:
                slow.cancel()
            await asyncio.sleep(delay)
        self.ready, self.stuck = True, False
        self._made()

    def _is_slow(self) -> None:
        self.stuck = True
        self._log.error(
            "no job is run, because the context %s has not been made for %s; it is waited for",
            self._reference, Duration(SLOW_SECONDS),
        )  # fmt: skip
