"""How it stands, how it went, and being told when something changes."""

from __future__ import annotations

from typing import Any

from ...clock import Clock
from ..access import Access
from ..history import History, Samples
from ..live import Live
from ..operation import Call, Operation
from ..replies import Stream


class Now:
    """The status: what `edgeq status --json` says, and what the caller may do."""

    def __init__(self, live: Live, history: History, access: Access, clock: Clock) -> None:
        self._live = live
        self._history = history
        self._access = access
        self._clock = clock

    def operations(self) -> list[Operation]:
        """See api."""
        return [
            Operation("GET", "/api/status", "How everything stands.", self._status, dict[str, Any]),
            Operation(
                "GET", "/api/history", "Samples of the last quarter of an hour.", self._samples, Samples
            ),
            Operation(
                "GET", "/api/stream", "The status as server-sent events: at once, and when something happened.",
                self._stream, str, refusals=(503,), media="text/event-stream",
            ),
        ]  # fmt: skip

    async def _status(self, call: Call) -> dict[str, Any]:
        return self._for(call, await self._live.now())

    async def _samples(self, call: Call) -> Samples:
        return self._history.columns()

    async def _stream(self, call: Call) -> Stream:
        return Stream(await self._live.events(lambda facts: self._for(call, facts)))

    async def facts(self) -> dict[str, Any]:
        """The status, with what it is for everybody."""
        return self._dated(await self._live.now())

    def _dated(self, facts: dict[str, Any]) -> dict[str, Any]:
        clock = {"synchronised": self._clock.synchronised()}
        return {**facts, "now": self._clock.now(), "clock": clock}

    def _for(self, call: Call, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            **self._dated(facts),
            "may_change": call.caller.known,
            "can_log_in": self._access.token is not None,
            "needs_token": self._access.needs_token(call.about),
        }
