"""A store with notifications in it, and a channel that does what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.config.schema import Record
from edgeq.notifications.channels import Channel, Outcome, Sent
from edgeq.notifications.notification import Notification
from edgeq.notifications.outbox import Sender
from edgeq.store import notifications
from edgeq.store.notifications import NewNotification, StoredNotification
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.channels import links
from edgeq.testing.clock import NOON
from support.stores import Database
from support.targets import until


class NoSettings(Record, frozen=True):
    """Nothing to set."""


class Scripted(Channel):
    """Answers what `answer` makes of a notification; an exception is raised. `got` are the titles so far."""

    kind = "scripted"
    settings = NoSettings
    backoff: ClassVar[Backoff] = Backoff(10.0, 900.0, jitter=0.0)

    def __init__(self, answer: Callable[[Notification], Outcome | Exception] | None = None) -> None:
        super().__init__("scripted", NoSettings(), links())
        self.answer = answer or (lambda notification: Sent())
        self.sent: list[Notification] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def got(self) -> list[str]:
        return [notification.title for notification in self.sent]

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        self.sent.append(notification)
        await self.gate.wait()
        outcome = self.answer(notification)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Outbox:
    """A store, and senders on it that end with it."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock) -> None:
        self.store = store
        self.metrics = metrics
        self.clock = clock
        self.senders: list[Sender] = []

    async def queue(self, *titles: str, channel: str = "phone", **fields: Any) -> None:
        """Queue a notification for each title, each with a fingerprint of its own unless `fingerprint` is given."""
        defaults = {"severity": "info", "body": "", "created_at": self.clock.now()}
        rows = [
            NewNotification(channel=channel, title=title, **{**defaults, "fingerprint": f"of {title}", **fields})
            for title in titles
        ]
        await self.store.write(lambda tx: notifications.add(tx, rows))

    async def start(self, channel: Channel, name: str = "phone") -> Sender:
        """A running sender."""
        sender = Sender(name, channel, self.store, self.metrics, self.clock)
        self.senders.append(sender)
        await sender.start()
        return sender

    async def states(self, channel: str = "") -> dict[str, str]:
        """The state of every notification by its title."""
        return {row.title: row.state for row in await self.rows(channel)}

    async def rows(self, channel: str = "") -> list[StoredNotification]:
        """All notifications, oldest first."""
        return (await notifications.find(self.store, limit=10_000, channel=channel))[::-1]

    async def row(self, title: str) -> StoredNotification:
        """The notification of that title."""
        return next(row for row in await self.rows() if row.title == title)

    async def failed(self, title: str) -> StoredNotification:
        """Return as soon as it stands in the store that sending it has failed."""

        found: list[StoredNotification] = []

        async def has_failed() -> bool:
            found[:] = [row for row in await self.rows() if row.title == title and row.error is not None]
            return bool(found)

        await until(has_failed)
        return found[0]

    def wake(self) -> None:
        """Have the senders look at the clock."""
        self.store.signal.fire(["notifications"])

    async def until(self, titles: dict[str, str]) -> None:
        """Return as soon as the notifications are in these states."""

        async def are() -> bool:
            return titles.items() <= (await self.states()).items()

        await until(are)


@asynccontextmanager
async def outbox(database: Database, clock: Clock) -> AsyncIterator[Outbox]:
    """An outbox in `database`, the same again if it is there."""
    metrics = Metrics()
    store = database.store(metrics=metrics, clock=clock)
    await store.open()
    box = Outbox(store, metrics, clock)
    try:
        yield box
    finally:
        for sender in box.senders:
            if isinstance(sender.channel, Scripted):
                sender.channel.gate.set()
            await sender.stop()
        await store.close()


__all__ = ["NOON", "Outbox", "Scripted", "outbox"]
