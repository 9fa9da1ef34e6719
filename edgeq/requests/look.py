"""`status` and `health`: how it is. The answer is gathered at most once a second, however many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..events import to_json
from .kind import Kind, Look, Request

ANSWER_BYTES_MAX = 64 * 1024
FRESH_SECONDS = 1.0

_CHARACTERS_MAX = 300
_ITEMS = (100, 30, 10, 3)

KIND = Kind(Request)


class Shared:
    """What `look` finds, found once for all who ask at the same time or shortly after."""

    def __init__(self, look: Look, monotonic: Callable[[], float]) -> None:
        self._look = look
        self._monotonic = monotonic
        self._found: asyncio.Task[dict[str, Any]] | None = None
        self._found_at = 0.0

    async def __call__(self) -> dict[str, Any]:
        """What it found. Raises what the look raises."""
        now = self._monotonic()
        if self._found is None or (self._found.done() and now - self._found_at >= FRESH_SECONDS):
            self._found, self._found_at = asyncio.create_task(self._bounded()), now
        return await asyncio.shield(self._found)

    async def _bounded(self) -> dict[str, Any]:
        return bounded(await self._look())


def bounded(found: dict[str, Any]) -> dict[str, Any]:
    """`found`, with the lists, mappings and texts in it cut until it has at most ANSWER_BYTES_MAX bytes of JSON; `cut`
    says how many items of each were left, if it was."""
    if len(to_json(found).encode()) <= ANSWER_BYTES_MAX:
        return found
    for items in _ITEMS:
        short = {**{key: _cut(value, items) for key, value in found.items()}, "cut": items}
        if len(to_json(short).encode()) <= ANSWER_BYTES_MAX:
            return short
    return {"cut": 0}


def _cut(value: Any, items: int) -> Any:
    if isinstance(value, dict):
        return {str(key)[:_CHARACTERS_MAX]: _cut(each, items) for key, each in list(value.items())[:items]}
    if isinstance(value, list | tuple):
        return [_cut(each, items) for each in value[:items]]
    return value[:_CHARACTERS_MAX] if isinstance(value, str) else value
