"""For those who watch over edgeq: whether it gets on, whether it can work, and all that it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypedDict

from microdot import Response

from ...mqtt.session import Session, State
from ...store.store import Store
from ...telemetry.metrics import Metrics
from ..operation import Call, Nothing, Operation
from ..replies import JSON_HEADERS, Refusal
from .now import Now


class Health(TypedDict):
    """The process gets on."""

    ok: bool


class Ready(TypedDict):
    """Session and store are up."""

    ready: bool


class HealthOperations:
    """`gets_on` says whether messages get on, or it is known why not."""

    def __init__(self, now: Now, session: Session, store: Store, metrics: Metrics, gets_on: Callable[[], bool]) -> None:
        self._now = now
        self._session = session
        self._store = store
        self._metrics = metrics
        self._gets_on = gets_on

    def operations(self) -> list[Operation]:
        """See api."""
        return [
            Operation(
                "GET", "/health", "Whether the process gets on.", self._health, Health, need="nothing", refusals=(503,)
            ),
            Operation("GET", "/ready", "Whether session and store are up.", self._ready, Ready, refusals=(503,)),
            Operation(
                "GET", "/metrics", "All that is counted and measured, for Prometheus.", self._exposition, str, Nothing,
                media="text/plain",
            ),
        ]  # fmt: skip

    async def _health(self, call: Call) -> Health:
        if self._store.fault is not None:
            raise Refusal(503, f"nothing can be stored any more: {self._store.fault}")
        if not self._gets_on():
            raise Refusal(503, "messages wait, and none gets on: the log of edgeq may say why")
        return {"ok": True}

    async def _ready(self, call: Call) -> Ready:
        missing = []
        if self._session.state != State.CONNECTED:
            reason = f" ({self._session.reason})" if self._session.reason else ""
            missing.append(f"session: {self._session.state}{reason}")
        if not self._store.health.ok:
            missing.append(f"store: {self._store.health.reason}")
        if missing:
            raise Refusal(503, "; ".join(missing))
        return {"ready": True}

    async def _exposition(self, call: Call) -> Response:
        library: Any = await asyncio.to_thread(import_module, "edgeq.web.exposition")  # it takes a while, once
        text = library.exposition(await self._now.facts(), self._metrics)
        return Response(text, 200, {**JSON_HEADERS, "Content-Type": library.CONTENT_TYPE}, "OK")
