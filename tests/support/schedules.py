"""Schedules on a store, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgeq import Job
from edgeq.clock import Clock
from edgeq.jobs.schedules.rule import Cron
from edgeq.jobs.schedules.schedule import Schedule
from edgeq.jobs.schedules.scheduler import Scheduler
from edgeq.store.store import Store
from edgeq.store.tables import Jobs
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock
from edgeq.zones import zone

from .stores import Database

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = FakeClock().now()


class Report(Job):
    """What the schedules of tests dispatch."""

    kind: str = "daily"

    def handle(self, ctx: object) -> None: ...


def cron(line: str, zone_name: str = "UTC") -> Cron:
    return Cron(line, zone(zone_name), zone_name)


@asynccontextmanager
async def opened(database: Database, clock: Clock | None = None) -> AsyncIterator[Store]:
    async with database.opened(clock=clock or FakeClock(), durability="normal") as store:
        yield store


async def runs(store: Store) -> list[str]:
    """The schedules and run times that were dispatched, in the order of dispatching."""
    found = await store.read(Jobs.select(Jobs.unique_key).order_by(Jobs.id))
    return [key.partition(":")[2] for (key,) in found]


async def times(store: Store) -> list[str]:
    """The run times that were dispatched since the last call, as month, day, hour and minute."""
    found = [each.partition(":")[2] for each in await runs(store)]
    await store.write(lambda tx: tx.run(Jobs.delete()))
    return [each[5:16] for each in found]


def hourly(catch_up: str = "once", name: str = "s") -> Schedule:
    return Schedule(name, cron("0 * * * *"), Report(), catch_up)


async def started(store: Store, clock: Clock, *schedules: Schedule) -> Scheduler:
    """A scheduler that has just been started, and has looked."""
    scheduler = Scheduler(schedules, store, clock, Metrics())
    await scheduler.adopt()
    await scheduler.look()
    return scheduler
