"""Publishes answers, without anybody waiting for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..clock import Clock
from ..errors import EdgeqError
from ..events import to_json
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .kind import Look

log = logging.getLogger("edgeq.requests")

ANSWERS_MAX = 100
PENDING_BYTES_MAX = 2**20
LOOK_SECONDS = 10.0

_ERROR_CHARACTERS_MAX = 300

Publish = Callable[..., Awaitable[object]]


class To(NamedTuple):
    """Where an answer goes, and what goes back with it."""

    topic: str
    correlation_data: bytes | None = None
    transaction: Any = None


class Answers:
    """At most ANSWERS_MAX are under way at once, of PENDING_BYTES_MAX bytes together; those beyond are lost, which is
    counted and logged, as are those for which there is no connection."""

    def __init__(self, publish: Publish, metrics: Metrics, clock: Clock) -> None:
        self._publish = publish
        self._metrics = metrics
        self._calm = Calm(log, clock.monotonic)
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0

    def ok(self, to: To, data: dict[str, Any]) -> None:
        """Answer that it is done."""
        self._begin(to, self._send(to, {"status": "ok", "data": data}))

    def error(self, to: To, sentence: str) -> None:
        """Answer that it is not done, and why."""
        self._begin(to, self._send(to, {"status": "error", "error": sentence[:_ERROR_CHARACTERS_MAX]}))

    def look(self, to: To, look: Look) -> None:
        """Answer with what `look` finds, or why it finds nothing within LOOK_SECONDS."""
        self._begin(to, self._look(to, look))

    def _begin(self, to: To, work: Any) -> None:
        if len(self._tasks) >= ANSWERS_MAX:
            work.close()
            self._lost(to, "too many are asked at once")
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, to: To, look: Look) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                answer = {"status": "ok", "data": await look()}
        except TimeoutError:
            answer = {"status": "error", "error": f"no answer within {LOOK_SECONDS:g}s"}
        except EdgeqError as error:
            answer = {"status": "error", "error": str(error)[:_ERROR_CHARACTERS_MAX]}
        except Exception:
            log.exception("a request could not be answered")
            answer = {"status": "error", "error": "this is a defect of edgeq, and stands in its log"}
        await self._send(to, answer)

    async def _send(self, to: To, answer: dict[str, Any]) -> None:
        if to.transaction is not None:
            answer = {**answer, "transaction": to.transaction}
        payload = to_json(answer).encode()
        if self._bytes + len(payload) > PENDING_BYTES_MAX:
            self._lost(to, "too much is asked at once")
            return
        self._bytes += len(payload)
        try:
            await self._publish(to.topic, payload, qos=1, correlation_data=to.correlation_data)
        except EdgeqError as error:
            self._lost(to, str(error))
        finally:
            self._bytes -= len(payload)

    def _lost(self, to: To, why: str) -> None:
        self._metrics.dropped.add(1, "answer")
        self._calm.warning("answer", "an answer on %s could not be published: %s", to.topic, why)
