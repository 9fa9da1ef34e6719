"""A courier on a store of its own, driven by hand: events in, rows out, and time that a test lets pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from edgeq.config.convert import Converter
from edgeq.config.origin import Origin
from edgeq.config.schema import NotificationRoute
from edgeq.errors import Problem
from edgeq.events import Event, to_json
from edgeq.notifications.policy import Policy, route_faults
from edgeq.processors.courier import Courier
from edgeq.processors.processor import ProcessorContext
from edgeq.store import notifications, outbox, silences, threads
from edgeq.store.decisions import count, record
from edgeq.store.notifications import StoredNotification
from edgeq.store.silences import NewSilence
from edgeq.store.store import Store
from edgeq.store.threads import OpenThread
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON, FakeClock

from .stores import Database

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
CHANNELS = ("phone", "mail", "siren")


def routes(*written: Mapping[str, Any]) -> list[NotificationRoute]:
    """Routes as they would stand in YAML."""
    problems: list[Problem] = []
    made = Converter("", Origin(), problems).convert(list[NotificationRoute], list(written), "notifications.routes")
    assert not problems, problems
    assert not [fault for route in made for fault in route_faults(route)]
    return list(made)


def event(
    type: str = "door.opened",  # noqa: A002
    subject: str = "front",
    *,
    tags: tuple[str, ...] = ("notification",),
    data: object = None,
    id: int = 9,  # noqa: A002
    at: int = NOON,
) -> Event:
    """An event that was recorded at `at`."""
    return Event(id, type, subject, None, to_json(data or {}), to_json(list(tags)), "", at, at, None, None)


def contract(what: str, *, episode: int = 1, subject: str = "f1", at: int = NOON, id: int = 9, **data: Any) -> Event:  # noqa: A002
    """`contract.<what>` of the contract `cold`."""
    data = {"contract": "cold", "episode": episode, "severity": "warning", "message": f"{subject} {what}", **data}
    return event(f"contract.{what}", subject, data=data, tags=("contract", "notification"), id=id, at=at)


class Desk:
    """A courier by `routes`. Everything happens at the time of `clock`."""

    def __init__(self, store: Store, clock: FakeClock, metrics: Metrics) -> None:
        self.store = store
        self.clock = clock
        self.metrics = metrics
        self.courier: Courier
        self._id = 0

    async def open(
        self,
        *written: Mapping[str, Any],
        channels: Sequence[str] = CHANNELS,
        public_url: str | None = None,
        last_consumed_id: int = 0,
    ) -> None:
        """Begin, or begin again, with these routes."""
        self._written, self._channels = written, channels
        self.courier = Courier(Policy(routes(*written), channels, public_url), self.metrics, self.clock)
        await self.courier.opened(self.store, last_consumed_id)

    async def restart(self, last_consumed_id: int = 0) -> None:
        """A new courier with the same routes."""
        await self.open(*self._written, channels=self._channels, last_consumed_id=last_consumed_id)

    async def tell(self, *events: Event) -> None:
        """Have events processed."""
        for each in events:
            ctx = self.context(each.id)
            await self.courier.process_item(each, ctx)
            await self.commit(ctx)

    async def happens(self, what: str, **keys: Any) -> None:
        """`contract.<what>` happens now."""
        self._id += 1
        await self.tell(contract(what, at=self.clock.now(), id=self._id, **keys))

    async def occurs(self, type: str = "door.opened", **keys: Any) -> None:  # noqa: A002
        """An event occurs now."""
        self._id += 1
        await self.tell(event(type, at=self.clock.now(), id=self._id, **keys))

    async def tick(self) -> None:
        """Do what is due."""
        for _ in range(100):
            due = self.courier.due_at()
            if due is None or due > self.clock.now():
                return
            ctx = self.context(None)
            await self.courier.on_time(ctx)
            await self.commit(ctx)
        raise AssertionError(f"due again and again: {due}")

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and do what is due on the way when it is due."""
        until = self.clock.now() + round(seconds * SECOND)
        await self.tick()
        while (due := self.courier.due_at()) is not None and due <= until:
            self.clock.advance(max(0, due - self.clock.now()) / SECOND)
            await self.tick()
        self.clock.advance((until - self.clock.now()) / SECOND)

    async def live(self, seconds: float) -> None:
        """Let time pass, while all that is due is sent before anything new is made."""
        until = self.clock.now() + round(seconds * SECOND)
        await self.sent()
        await self.tick()
        while (due := self.courier.due_at()) is not None and due <= until:
            self.clock.advance(max(0, due - self.clock.now()) / SECOND)
            await self.sent()
            await self.tick()
        self.clock.advance((until - self.clock.now()) / SECOND)
        await self.sent()

    async def rows(self) -> list[StoredNotification]:
        """All notifications, oldest first."""
        return (await notifications.find(self.store, limit=100_000))[::-1]

    async def told(self, channel: str = "") -> list[str]:
        """`12:00 phone alert: title` for what was queued, in order."""
        return [
            f"{(row.created_at - NOON) // MINUTE} {row.channel} {row.kind}: {row.title}"
            for row in await self.rows()
            if row.state == "queued" and channel in ("", row.channel)
        ]

    async def kinds(self, channel: str = "phone") -> list[tuple[int, str]]:
        """The minute and kind of what was queued."""
        return [
            ((row.created_at - NOON) // MINUTE, row.kind)
            for row in await self.rows()
            if row.state == "queued" and row.channel == channel
        ]

    async def threads(self) -> list[OpenThread]:
        """What is open in the store."""
        return await threads.latest(self.store, 1000)

    async def thread(self) -> OpenThread:
        """The one that is open."""
        (thread,) = await self.threads()
        return thread

    async def silence(self, match: Any = None, *, begin: float = 0.0, seconds: float) -> int:
        """Silence something from in `begin` seconds on."""
        now = self.clock.now()
        starts_at = now + round(begin * SECOND)
        new = NewSilence(to_json(match or {}), starts_at, starts_at + round(seconds * SECOND), now)
        return await self.store.write(lambda tx: silences.add(tx, new))

    async def end_silence(self, silence_id: int) -> bool:
        """End a silence."""
        return await self.store.write(lambda tx: silences.end(tx, silence_id, self.clock.now()))

    async def acknowledge(self, fingerprint: str = "") -> int:
        """Acknowledge what is open."""
        fingerprint = fingerprint or (await self.threads())[0].thread.fingerprint
        return await self.store.write(
            lambda tx: threads.acknowledge(tx, fingerprint, by="ann", comment="on my way", now=self.clock.now())
        )

    async def sent(self) -> None:
        """All that is queued was sent."""
        await self.store.write(lambda tx: sent_all(tx, self.clock.now()))

    def context(self, cause_id: int | None) -> ProcessorContext:
        """What the courier decides in."""
        return ProcessorContext(self.clock, cause_id=cause_id, idempotency_key="k", attempt=1)

    async def commit(self, ctx: ProcessorContext) -> None:
        """Have what was decided hold."""
        decisions = ctx.decisions
        duplicates = await self.store.write(lambda tx: record(tx, decisions))
        count(self.metrics, decisions, duplicates)


def sent_all(tx: Any, now: int) -> None:
    """Mark everything that is due as sent."""
    for channel in CHANNELS:
        while (row := outbox.head(tx, channel, now, critical=False, again=False)) is not None:
            outbox.mark_sent(tx, row.id, attempt=1, now=now)


@asynccontextmanager
async def desk(database: Database, *written: Mapping[str, Any], clock: FakeClock | None = None) -> AsyncIterator[Desk]:
    """A desk whose courier goes by these routes."""
    clock, metrics = clock or FakeClock(), Metrics()
    store = database.store(metrics=metrics, clock=clock)
    await store.open()
    made = Desk(store, clock, metrics)
    try:
        await made.open(*written)
        yield made
    finally:
        await store.close()
