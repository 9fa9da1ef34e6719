"""How it went in the last quarter of an hour: samples in memory, taken while a page may be looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypedDict

from ..clock import Clock
from ..errors import StoreError
from ..service import Service
from ..store import cursors, events
from ..store.store import Store
from ..telemetry.metrics import Metrics

SECONDS = 5
SAMPLES = 180


class _Sample(NamedTuple):
    at: int
    messages_per_second: float
    events_per_second: float
    latency_ms: float | None
    lag: dict[str, int]


class Samples(TypedDict):
    """Columns of equal length, the oldest sample first. `at` is microseconds since 1970 UTC; `lag` is by processor, in
    events, None where it wasn't there; `latency_ms` the mean from arrival to acknowledgement, None if nothing came."""

    seconds: int
    at: list[int]
    messages_per_second: list[float]
    events_per_second: list[float]
    lag: dict[str, list[int | None]]
    latency_ms: list[float | None]


class History(Service):
    """Takes a sample every SECONDS and keeps the last SAMPLES. The tables are looked at only after a commit.

    `positions` says how far the processors are that run here, which their cursors follow within seconds.
    """

    def __init__(
        self, store: Store, metrics: Metrics, clock: Clock, positions: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        super().__init__("history", clock)
        self._positions = positions
        self._store = store
        self._metrics = metrics
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
        self._before = self._counted()
        self._lag: dict[str, int] = {}
        self._lag_version: object = None

    async def run(self) -> None:
        """See Service."""
        self._before = self._counted()
        while not self.stopping.is_set():
            await self.pause(SECONDS)
            if not self.stopping.is_set():
                await self.sample()

    def columns(self) -> Samples:
        """All of it, as it is sent."""
        names = sorted({name for sample in self._samples for name in sample.lag})
        return {
            "seconds": SECONDS,
            "at": [sample.at for sample in self._samples],
            "messages_per_second": [sample.messages_per_second for sample in self._samples],
            "events_per_second": [sample.events_per_second for sample in self._samples],
            "lag": {name: [sample.lag.get(name) for sample in self._samples] for name in names},
            "latency_ms": [sample.latency_ms for sample in self._samples],
        }

    async def sample(self) -> None:
        """Take one: of the time since the last."""
        before, self._before = self._before, self._counted()
        at, received, stored, acked, waited = (new - old for new, old in zip(self._before, before, strict=True))
        seconds = max(at, 0.001)
        latency = 1000 * waited / acked if acked else None
        await self._look()
        self._samples.append(
            _Sample(
                self.clock.now(),
                round(received / seconds, 2),
                round(stored / seconds, 2),
                None if latency is None else round(latency, 3),
                self._lag,
            )
        )

    def _counted(self) -> tuple[float, ...]:
        metrics = self._metrics
        latency = metrics.latency
        return (
            self.clock.monotonic(), metrics.received.total(), metrics.events.total(), latency.count, latency.sum,
        )  # fmt: skip

    async def _look(self) -> None:
        signal = self._store.signal
        version = (signal.version("events"), signal.version("cursors"))
        if version == self._lag_version:
            return
        try:
            head = await events.head(self._store)
            positions = self._positions()
            self._lag = {
                each.processor: max(0, head - max(each.last_consumed_id, positions.get(each.processor, 0)))
                for each in await cursors.every(self._store)
            }
        except StoreError:
            return  # the store itself says so
        self._lag_version = version
