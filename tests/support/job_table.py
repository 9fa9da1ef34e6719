"""The verbs of the table `jobs` for tests, one commit each, at a moment given in seconds after NOW."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import peewee as pw

from edgeq.store import claims, jobs
from edgeq.store.claims import (
    BreakerSettings,
    Buried,
    Completed,
    End,
    Outlook,
    Rate,
    Released,
    Rescued,
    Retried,
    Snoozed,
)  # fmt: skip
from edgeq.store.jobs import Dispatched, NewJob, StoredJob
from edgeq.store.store import Store
from edgeq.testing import FakeClock

from .stores import Database

NOW = FakeClock().now()
SECOND = 1_000_000
LEASE = 60.0


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Store]:
    async with database.opened(clock=FakeClock()) as store:
        yield store


def moment(at: float) -> int:
    return NOW + round(at * SECOND)


def new(number: int = 0, *, queue: str = "default", at: float = 0.0, after: float = 0.0, **more: Any) -> NewJob:
    return NewJob(
        queue=queue,
        kind=more.pop("kind", "m:Work"),
        args=f'{{"number":{number}}}',
        run_at=moment(at + after),
        created_at=moment(at),
        **more,
    )


async def add(store: Store, *rows: NewJob) -> list[Dispatched]:
    return await store.write(lambda tx: jobs.add(tx, rows))


async def claim(
    store: Store,
    limit: int = 1,
    *,
    at: float = 0.0,
    queue: str = "default",
    owner: str = "me",
    rate: Rate | None = None,
    breakers: Mapping[str, BreakerSettings] = {},
) -> list[StoredJob]:
    return await store.write(
        lambda tx: claims.claim(
            tx, queue=queue, owner=owner, lease_seconds=LEASE, limit=limit, now=moment(at), rate=rate, breakers=breakers
        )
    )


async def end(store: Store, *ends: End, at: float = 0.0, breakers: Mapping[str, BreakerSettings] = {}) -> list[bool]:
    return await store.write(lambda tx: claims.end(tx, ends, now=moment(at), breakers=breakers))


async def extend(store: Store, *held: StoredJob, at: float) -> set[int]:
    return await store.write(lambda tx: claims.extend(tx, held, lease_seconds=LEASE, now=moment(at)))


async def rescue(store: Store, at: float, *, queue: str = "default", limit: int = 100) -> list[Rescued]:
    return await store.write(
        lambda tx: claims.rescue(tx, queue=queue, lease_seconds=LEASE, limit=limit, now=moment(at))
    )


async def outlook(store: Store, *, at: float = 0.0, queue: str = "default") -> Outlook:
    return await store.write(lambda tx: claims.outlook(tx, queue, moment(at)))


async def cancel(store: Store, *ids: int, at: float = 0.0) -> int:
    return await store.write(lambda tx: jobs.cancel(tx, ids, moment(at)))


async def retry(store: Store, *ids: int, at: float = 0.0) -> int:
    return await store.write(lambda tx: jobs.retry(tx, ids, moment(at)))


async def one(store: Store, job_id: int) -> StoredJob:
    job = await jobs.one(store, job_id)
    assert job is not None
    return job


async def change(store: Store, query: pw.Node) -> None:
    """What somebody changes by hand."""
    await store.write(lambda tx: tx.run(query))


def ids(found: Sequence[StoredJob]) -> list[int]:
    return [job.id for job in found]


# One end of each kind, of which those with a time are for a second after NOW.
ENDS: dict[str, Callable[[StoredJob], End]] = {
    "completed": lambda job: Completed(job, "1"),
    "retried": lambda job: Retried(job, NOW + SECOND, "again"),
    "snoozed": lambda job: Snoozed(job, NOW + SECOND),
    "buried": lambda job: Buried(job, "failed", "over"),
    "released": Released,
}
