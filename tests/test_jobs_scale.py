"""A million finished jobs, or a hundred thousand that can't run: what a worker does costs as much as without them.

Nothing here is timed. What a verb costs is counted in steps of SQLite's machine, ten or more for each row that it looks
at.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from support.large_tables import Meter, analyze, fill

from edgeq.store import claims, jobs, queues
from edgeq.store.claims import BreakerSettings, Rate
from edgeq.store.jobs import Limit, NewJob, StoredJob, Unique
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock

MILLION = 1_000_000
FEW = 1_000
MANY_BLOCKED = 100_000
NOW = FakeClock().now()
SECOND = 1_000_000
LEASE = 60.0
STEPS_MAX = 1_000_000
BREAKERS = {"crm": BreakerSettings(failures=1, within_us=60 * SECOND, wait_us=1000 * SECOND)}

pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def opened(path: Path | str) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(path), metrics=Metrics(), clock=FakeClock(), durability="normal")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def new(number: int = 0, *, after: float = 0.0, **more: Any) -> NewJob:
    how = {"queue": "q", "kind": "m:Kind0", **more}
    return NewJob(args=f'{{"number":{number}}}', run_at=NOW + round(after * SECOND), created_at=NOW, **how)


class Work:
    """What a worker and those who dispatch jobs do on one store; `costs` by name."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.meter = Meter(store)
        self.costs: dict[str, int] = {}

    async def do(self, name: str, unit: Any) -> Any:
        answer = await self.meter.write(unit)
        self.costs[name] = self.meter.steps
        return answer

    async def claim(self, name: str, limit: int = 10, *, at: float = 0.0, rate: Rate | None = None) -> list[StoredJob]:
        now = NOW + round(at * SECOND)
        taken: list[StoredJob] = await self.do(
            name,
            lambda tx: claims.claim(
                tx, queue="q", owner="me", lease_seconds=LEASE, limit=limit, now=now, rate=rate, breakers=BREAKERS
            ),
        )
        return taken

    async def end(self, name: str, ends: list[claims.End], *, at: float = 0.0) -> None:
        now = NOW + round(at * SECOND)
        assert all(await self.do(name, lambda tx: claims.end(tx, ends, now=now, breakers=BREAKERS)))

    async def do_everything(self) -> None:
        """Each verb once; all claims, and so all ends, find the same jobs on every store."""
        todo = Limit("limit-1", concurrency=5, interval_us=SECOND, burst=5)
        callback = NewJob(queue="q", kind="m:Kind1", args="{}")
        await self.do("add", lambda tx: jobs.add(tx, [new(number) for number in range(20)]))
        await self.do("add with callbacks", lambda tx: jobs.add(tx, [new(1, on_success=callback, on_failure=callback)]))
        unique = Unique((*jobs.INCOMPLETE, "completed"), 60 * SECOND)
        keyed = [new(number, unique_key=f"unique-{number}", unique=unique) for number in range(10)]
        await self.do("add unique", lambda tx: jobs.add(tx, keyed))
        await self.do("add limited", lambda tx: jobs.add(tx, [new(number, limit=todo) for number in range(10)]))
        await self.do("add needing", lambda tx: jobs.add(tx, [new(number, needs="crm") for number in range(10)]))
        await self.do("add delayed", lambda tx: jobs.add(tx, [new(number, after=5) for number in range(10)]))
        held = await self.claim("claim", 21)
        assert len(held) == 21
        await self.do("extend", lambda tx: claims.extend(tx, held, lease_seconds=LEASE, now=NOW))
        await self.do("progress", lambda tx: claims.progress(tx, held[0], "{}"))
        await self.end("complete", [claims.Completed(job, "1") for job in held[:5]])
        await self.end("complete with a callback", [claims.Completed(held[20], "1")])
        await self.end("retry", [claims.Retried(job, NOW + SECOND, "no") for job in held[5:8]])
        await self.end("snooze", [claims.Snoozed(job, NOW + SECOND) for job in held[8:10]])
        await self.end("bury", [claims.Buried(job, "failed", "no") for job in held[10:13]])
        await self.end("release", [claims.Released(job) for job in held[13:15]])
        await self.claim("claim of limited and needing", 40)
        await self.do("outlook", lambda tx: claims.outlook(tx, "q", NOW))
        await self.claim("claim of what is due", 40, at=10)
        await self.do("cancel", lambda tx: jobs.cancel(tx, [held[15].id, held[16].id], NOW))
        at = NOW + 70 * SECOND
        rescued = await self.do(
            "rescue", lambda tx: claims.rescue(tx, queue="q", lease_seconds=LEASE, limit=10, now=at)
        )
        assert len(rescued) == 10
        await self.do("retry dead", lambda tx: jobs.retry(tx, [held[10].id], NOW))
        await self.do("retry dead of a queue", lambda tx: jobs.retry_where(tx, queue="q", now=NOW, limit=5))
        await self.do("pause", lambda tx: queues.pause(tx, "q"))
        await self.do("resume", lambda tx: queues.resume(tx, "q"))
        await self.claim("claim at a rate", 3, at=10, rate=Rate(SECOND, 2))
        old = NOW - 100 * SECOND
        await self.do(
            "purge what is old",
            lambda tx: jobs.purge(tx, states=jobs.FINISHED, finished_before=old, limit=50),
        )
        await self.do(
            "purge a queue", lambda tx: jobs.purge(tx, states=["available"], queue="q", finished_before=None, limit=5)
        )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database with a million finished jobs."""

    async def make() -> None:
        async with opened(path):
            pass

    path = tmp_path_factory.mktemp("large") / "edgeq.db"
    asyncio.run(make())
    fill(str(path), MILLION, NOW)
    yield path
    for name in path.parent.iterdir():
        name.unlink()


async def test_a_million_finished_jobs_cost_nothing(large: Path, tmp_path: Path) -> None:
    """Also after somebody told SQLite to look at the tables, which has it plan otherwise."""
    async with opened(tmp_path / "few.db") as store:
        fill(store.path, FEW, NOW)
        few = Work(store)
        await few.do_everything()
    for looked_at in (False, True):
        if looked_at:
            analyze(str(large))
        async with opened(large) as store:
            many = Work(store)
            await many.do_everything()
        dear = {name: many.costs[name] for name, steps in few.costs.items() if many.costs[name] > 1.5 * steps + 200}
        assert not dear, f"what these cost grows with the finished jobs; with few: {few.costs}"
        check_plans(large, many.meter.statements)


def check_plans(path: Path, statements: list[str]) -> None:
    """Each statement goes by an index to what it wants."""
    # What the statement itself brings, and a table of one row.
    given = re.compile(r"SCAN (CONSTANT|\d+ CONSTANT|v VIRTUAL|json_each VIRTUAL|removed_jobs$)")
    with closing(sqlite3.connect(path)) as connection:
        for text in {re.sub(r"\d+", "1", text): text for text in statements}.values():
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
            scans = [step for step in plan if step.startswith("SCAN") and not given.match(step)]
            assert not scans, f"{text}: {plan}"


# Jobs that can't run


async def wait_for_an_end(work: Work) -> None:
    """One job of a key that lets one run at a time runs."""
    await add_many(work, [new(limit=Limit("one", concurrency=1)) for _ in range(MANY_BLOCKED + 1)])
    assert len(await work.claim("before", 10)) == 1


async def wait_for_a_rate(work: Work) -> None:
    """A key's rate is used up."""
    await add_many(work, [new(limit=Limit("slow", interval_us=3600 * SECOND)) for _ in range(MANY_BLOCKED + 1)])
    assert len(await work.claim("before", 10)) == 1


async def wait_for_many_rates(work: Work) -> None:
    """The rates of many keys are used up, one long after the other."""
    keys = [Limit(f"slow {n}", interval_us=3600 * SECOND) for n in range(MANY_BLOCKED // 10)]
    await add_many(work, [new(limit=key) for key in keys])
    assert len(await work.claim("before", MANY_BLOCKED)) == len(keys)
    await add_many(work, [new(limit=key) for key in keys for _ in range(10)])


async def wait_for_what_is_broken(work: Work) -> None:
    """What they need was broken before they came."""
    await break_crm(work)
    await add_many(work, [new(needs="crm") for _ in range(MANY_BLOCKED)])


async def wait_for_what_breaks(work: Work) -> None:
    """What they need breaks after they came: a claim meets all of them."""
    await add_many(work, [new(needs="crm") for _ in range(MANY_BLOCKED)])
    await break_crm(work)


async def wait_for_their_time(work: Work) -> None:
    """They are for later; and they come first then."""
    await add_many(work, [new(after=3600, priority=10) for _ in range(MANY_BLOCKED)])


async def wait_in_a_paused_queue(work: Work) -> None:
    """They are in another queue, which is paused."""
    await add_many(work, [new(queue="other", priority=10) for _ in range(MANY_BLOCKED)])
    await work.store.write(lambda tx: queues.pause(tx, "other"))


async def break_crm(work: Work) -> None:
    await add_many(work, [new(needs="crm", priority=10)])
    [job] = await work.claim("before", 1)
    await work.end("before", [claims.Retried(job, NOW + 3600 * SECOND, "no route")])


async def add_many(work: Work, rows: list[NewJob]) -> None:
    await work.store.write(lambda tx: jobs.add(tx, rows))


BLOCKED = [
    wait_for_an_end, wait_for_a_rate, wait_for_many_rates, wait_for_what_is_broken, wait_for_what_breaks,
    wait_for_their_time, wait_in_a_paused_queue,
]  # fmt: skip


@pytest.mark.parametrize("block", BLOCKED, ids=lambda block: block.__name__)
async def test_a_hundred_thousand_blocked_jobs_do_not_stand_in_the_way(block: Any, tmp_path: Path) -> None:
    costs = []
    for blocked in (True, False):
        async with opened(tmp_path / f"{blocked}.db") as store:
            work = Work(store)
            if blocked:
                await block(work)
            ready = [new(-1) for _ in range(10)]
            await work.do("add", lambda tx: jobs.add(tx, ready))  # noqa: B023 - done before the next
            looks = 0
            taken: list[StoredJob] = []
            while not taken:
                looks += 1
                assert looks < 50, "ready jobs aren't found behind blocked ones"
                taken = await work.claim(f"look {looks}", 5)
                assert work.meter.steps < STEPS_MAX, "one look takes too long"
            assert [job.args for job in taken] == ['{"number":-1}'] * 5
            await work.claim("claim", 4)
            await work.do("outlook", lambda tx: claims.outlook(tx, "q", NOW))
            await work.end("complete", [claims.Completed(job, "1") for job in taken])
            await work.claim("claim of the last", 10)
            await work.claim("claim of nothing", 10)
            costs.append(work.costs)
    many, none = costs
    for name in ("add", "claim", "outlook", "complete", "claim of the last", "claim of nothing"):
        assert many[name] <= 1.5 * none[name] + 300, (
            f"{name}: {many[name]} steps, and {none[name]} without blocked jobs"
        )


async def test_what_waited_for_something_broken_goes_on_in_portions(tmp_path: Path) -> None:
    async with opened(tmp_path / "edgeq.db") as store:
        work = Work(store)
        await wait_for_what_is_broken(work)
        [probe] = await work.claim("probe", 10, at=1001)
        await work.end("it works", [claims.Completed(probe, "1")], at=1001)
        assert work.meter.steps < 1000, "who finds that it works must not let on all the others"
        waiting = MANY_BLOCKED - 1
        looks = 0
        while waiting:
            looks += 1
            assert looks < MANY_BLOCKED // 100, "it takes too many looks"
            taken = await work.claim("claim", 1000, at=1001)
            assert taken
            assert work.meter.steps < STEPS_MAX, "one look takes too long"
            await work.end("complete", [claims.Completed(job, "1") for job in taken], at=1001)
            waiting -= len(taken)
