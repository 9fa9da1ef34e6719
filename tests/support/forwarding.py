"""Gateways that forward, and sites that say what a test wants."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.config.schema import OnError
from edgeq.events import NewEvent
from edgeq.forward.processor import Forward
from edgeq.forward.settings import ForwardSettings
from edgeq.forward.target import Answer, Parcel, Taken, Target
from edgeq.processors.runner import ProcessorRunner
from edgeq.store import events
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

QUICK = OnError(backoff=Backoff(0.1, 0.2))


class Site(Target):
    """Takes everything, or answers as `answers` says: the next one is used up by the next parcel. `judge` is asked
    after that, if there is one. `parcels` are those that were taken, as ids."""

    place = "the site"

    def __init__(self, judge: Callable[[Parcel], Answer | None] = lambda parcel: None) -> None:
        self.answers: deque[Answer] = deque()
        self.judge = judge
        self.asked: list[tuple[int, ...]] = []
        self.parcels: list[tuple[int, ...]] = []

    @property
    def ids(self) -> list[int]:
        """Of all events that were taken, in the order in which they came."""
        return [number for parcel in self.parcels for number in parcel]

    async def send(self, parcel: Parcel) -> Answer:
        self.asked.append(parcel.batch.ids)
        answer = self.answers.popleft() if self.answers else self.judge(parcel) or Taken(len(parcel.body))
        if isinstance(answer, Taken):
            self.parcels.append(parcel.batch.ids)
        return answer


def settings(to: str = "http://127.0.0.1:1/", **keys: Any) -> ForwardSettings:
    """Settings that begin at the first event, and look for themselves."""
    return ForwardSettings(
        **{"to": to, "start": "beginning", "poll_interval": Duration(3600), "on_error": QUICK, **keys}
    )


def forwarder(
    store: Store, target: Target, clock: Clock, metrics: Metrics | None = None, name: str = "cloud", **keys: Any
) -> ProcessorRunner:
    """A runner that forwards to `target`, as the gateway `gw`."""
    made, metrics = settings(**keys), metrics or Metrics()
    return ProcessorRunner(name, Forward(name, made, target, "gw", metrics, clock), made, store, metrics, clock)


async def add(store: Store, count: int, kind: str = "reading", clock: Clock | None = None, **keys: Any) -> None:
    """Store so many events, each with a number of its own."""
    now = (clock or Clock()).now()
    head = await events.head(store)
    new = [
        NewEvent(kind, occurred_at=now, recorded_at=now, subject="s", data_json=f'{{"n": {head + number}}}', **keys)
        for number in range(1, count + 1)
    ]
    await store.write(lambda tx: events.append(tx, new))
