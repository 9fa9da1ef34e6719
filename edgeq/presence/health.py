"""How a gateway is, in one message of bounded size.

`store` (`ok`, and if not the `reason`), `session`, `processors` with their `lag_events` and `lag_seconds`, the largest
of which are repeated outside, `dead_letters`, `queues` and `jobs_waiting`, `messages_per_second` since the last look,
`contracts_violated`, `disk_free_bytes`, `backup_error` (why the last one failed), `clock_synchronised` and
`temperature` of the processor in °C. What can't be known is null. Of processors and queues, LISTED_MAX are listed,
those that lag the most first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ..clock import Clock, rfc3339
from ..errors import StoreError
from ..mqtt.session import Session
from ..processors.runner import ProcessorRunner
from ..processors.sentinel import Sentinel
from ..status import places
from ..store import contract_states, dead_letters, jobs
from ..store.store import TOPICS, Store
from ..telemetry.metrics import Metrics

LISTED_MAX = 50
NAME_CHARACTERS_MAX = 100
REASON_CHARACTERS_MAX = 200
TEMPERATURE_STEP = 2
DISK_STEP = 0.01
THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")

_NOTHING_READ: dict[str, Any] = dict.fromkeys(
    ("processors", "lag_events", "lag_seconds", "dead_letters", "queues", "jobs_waiting", "contracts_violated")
)


class Health:
    """Looks at it, when asked. `queues` are those that are configured."""

    def __init__(
        self,
        store: Store,
        session: Session,
        runners: Mapping[str, ProcessorRunner],
        queues: Collection[str],
        metrics: Metrics,
        clock: Clock,
        thermal: Path = THERMAL,
        *,
        backup_error: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._store = store
        self._session = session
        self._runners = runners
        self._queues = queues
        self._metrics = metrics
        self._clock = clock
        self._thermal = thermal
        self._backup_error = backup_error
        self._read = _NOTHING_READ
        self._read_at: tuple[object, ...] = ()
        self._counted: tuple[float, int] | None = None
        self._steady: dict[str, int | None] = {}

    def signs(self) -> tuple[object, ...]:
        """What changes when something of meaning happens. Costs nothing: no file and no table is looked at."""
        health = self._store.health
        sentinels = [each.processor for each in self._runners.values() if isinstance(each.processor, Sentinel)]
        return (
            health.ok,
            health.reason.partition(":")[0],
            self._metrics.dead_letters.total(),
            tuple(runner.state for runner in self._runners.values()),
            tuple(sentinel.told for sentinel in sentinels),
            self._backup_error() is None,
        )

    async def look(self) -> dict[str, Any]:
        """All of it. Of a store that can't be read it says what was read last."""
        health, session = self._store.health, self._session
        # Where nothing lags and nothing was committed since, there is nothing new to be read.
        state = *self.signs(), *(self._store.signal.version(topic) for topic in TOPICS)
        try:
            if state != self._read_at or self._read["lag_events"]:
                self._read, self._read_at = await self._tables(), state
        except StoreError as error:
            reason = health.reason or str(error)
            store: dict[str, Any] = {"ok": False, "reason": reason[:REASON_CHARACTERS_MAX]}
        else:
            store = {"ok": health.ok, "reason": health.reason[:REASON_CHARACTERS_MAX]}
        since = session.connected_since
        free = self._store.disk().get("free_disk_bytes")
        return {
            "store": store,
            "session": {
                "connected_since": None if since is None else rfc3339(since),
                "connections": session.connections,
            },
            **self._read,
            "messages_per_second": self._rate(),
            "disk_free_bytes": self._steadily("disk", free, 0 if free is None else free * DISK_STEP),
            "backup_error": (self._backup_error() or "")[:REASON_CHARACTERS_MAX] or None,
            "clock_synchronised": self._clock.synchronised(),
            "temperature": self._steadily("temperature", self._temperature(), TEMPERATURE_STEP),
        }

    async def _tables(self) -> dict[str, Any]:
        now = self._clock.now()
        positions = {name: runner.reached for name, runner in self._runners.items()}
        found = await places(self._store, now, self._runners, positions)
        found = [place for place in found if place["state"] != "not configured"]
        for place in found:
            if self._store.ownership.holds(f"processor:{place['name']}"):
                place["state"] = self._runners[place["name"]].state
        found.sort(key=lambda place: -place["lag_events"])
        queues = [each for each in await jobs.counts(self._store, now) if each["queue"] in self._queues]
        waiting = {each["queue"]: each["ready"] + each["blocked"] + each["delayed"] for each in queues}
        waiting = {name: waiting.get(name, 0) for name in self._queues}
        counts = {each["queue"]: each for each in queues}
        fullest = sorted(waiting, key=lambda name: -waiting[name])[:LISTED_MAX]
        return {
            "processors": {
                place["name"][:NAME_CHARACTERS_MAX]: {
                    "state": place["state"],
                    "lag_events": place["lag_events"],
                    "lag_seconds": round(place["lag_seconds"]),
                }
                for place in found[:LISTED_MAX]
            },
            "lag_events": max((place["lag_events"] for place in found), default=0),
            "lag_seconds": round(max((place["lag_seconds"] for place in found), default=0)),
            "dead_letters": sum(each["count"] for each in await dead_letters.counts(self._store)),
            "queues": {
                name: {
                    "waiting": waiting[name],
                    **{what: counts.get(name, {}).get(what, 0) for what in ("executing", "dead")},
                    "paused": counts.get(name, {}).get("paused", False),
                }
                for name in fullest
            },
            "jobs_waiting": sum(waiting.values()),
            "contracts_violated": sum("violated" in each for each in await contract_states.counts(self._store)),
        }

    def _rate(self) -> float:
        now, received = self._clock.monotonic(), self._metrics.received.total()
        then, before = self._counted or (now, received)
        self._counted = now, received
        return round((received - before) / max(1.0, now - then), 1)

    def _steadily(self, what: str, value: int | None, step: float) -> int | None:
        """`value`, or what was said last if it is less than `step` away: what always moves a little is no news."""
        said = self._steady.get(what)
        if said is None or value is None or abs(value - said) >= step:
            self._steady[what] = value
        return self._steady[what]

    def _temperature(self) -> int | None:
        try:
            return round(int(self._thermal.read_text()) / 1000)
        except (OSError, ValueError):
            return None
