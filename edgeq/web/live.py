"""The status as those see it who look at a page: gathered once for all of them, and only while somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from ..clock import Clock
from ..events import to_json
from .replies import Refusal

STREAMS_MAX = 8
EVERY_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 15.0

_LOOK_SECONDS = 0.5

Facts = dict[str, Any]


class Live:
    """What `gather` says, which takes a look at the tables; anew when `version` is another one, or after a while."""

    def __init__(self, gather: Callable[[], Awaitable[Facts]], version: Callable[[], object], clock: Clock) -> None:
        self._gather = gather
        self._version = version
        self._clock = clock
        self._gathering = asyncio.Lock()
        self._facts: Facts = {}
        self._seen: object = None
        self._gathered_at = float("-inf")
        self._streams = 0

    async def now(self) -> Facts:
        """The status: of this moment, or of one since which nothing happened, EVERY_SECONDS ago at most."""
        async with self._gathering:
            version, now = self._version(), self._clock.monotonic()
            if version != self._seen or now - self._gathered_at >= EVERY_SECONDS:
                self._facts = await self._gather()
                self._seen, self._gathered_at = version, now
            return self._facts

    async def events(self, add: Callable[[Facts], Facts]) -> AsyncGenerator[bytes]:
        """The status, with what `add` adds to it, as server-sent events: at once, and then whenever something has
        happened, or after KEEP_ALIVE_SECONDS; not more often than every EVERY_SECONDS. Without an end. Raises Refusal
        when STREAMS_MAX are there already."""
        if self._streams >= STREAMS_MAX:
            text = f"{STREAMS_MAX} others look at it live: close a page, or ask for /api/status"
            raise Refusal(503, text, {"Retry-After": "15"})
        return self._events(add)

    async def _events(self, add: Callable[[Facts], Facts]) -> AsyncGenerator[bytes]:
        self._streams += 1  # not before: what was never begun never ends
        try:
            while True:
                facts = await self.now()
                told, told_at = self._seen, self._clock.monotonic()
                yield b"event: status\ndata: " + to_json(add(facts)).encode() + b"\n\n"
                await asyncio.sleep(EVERY_SECONDS)
                # Counters wake nobody; looking at them costs next to nothing, and only while somebody is here.
                while self._version() == told and self._clock.monotonic() - told_at < KEEP_ALIVE_SECONDS:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._streams -= 1
