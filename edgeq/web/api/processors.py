"""Processors: how far each is, holding one, letting it go on."""

from __future__ import annotations

from typing import Any, TypedDict

from ...config.suggest import did_you_mean
from ...store import cursors
from ...store.store import Store
from ..live import Live
from ..operation import Call, Named, Nothing, Operation
from .common import Done, missing, saved


class Processors(TypedDict):
    """What the status says of each: its name, state, cursor, lag, failure, and what it is busy with."""

    items: list[dict[str, Any]]
    next: None


class ProcessorOperations:
    """Tells what the status says, and changes cursors by the verbs of the commands."""

    def __init__(self, live: Live, store: Store) -> None:
        self._live = live
        self._store = store

    def operations(self) -> list[Operation]:
        """See api."""
        changes: dict[str, Any] = {"asks": Named, "gives": Done, "need": "change", "refusals": (404,)}
        return [
            Operation("GET", "/api/processors", "How far each processor is.", self._all, Processors, Nothing),
            Operation("POST", "/api/processors/<name>/pause", "Hold it where it is.", self._pause, **changes),
            Operation("POST", "/api/processors/<name>/resume", "Let it go on.", self._resume, **changes),
        ]

    async def _all(self, call: Call) -> Processors:
        return {"items": (await self._live.now()).get("processors", []), "next": None}

    async def _pause(self, call: Call) -> Done:
        return await self._change(call.asked.name, paused=True)

    async def _resume(self, call: Call) -> Done:
        return await self._change(call.asked.name, paused=False)

    async def _change(self, name: str, *, paused: bool) -> Done:
        if not await saved(self._store, lambda tx: cursors.pause(tx, name, paused)):
            known = [cursor.processor for cursor in await cursors.every(self._store)]
            raise missing(f"processor {name!r}", did_you_mean(name, known) or "/api/processors lists them")
        return {"done": True}
