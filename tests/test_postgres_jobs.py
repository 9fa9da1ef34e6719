"""Jobs on PostgreSQL: workers of several machines on one store, whose transactions run at the same time, and whose
clocks differ; and the whole under load, while processes, connections and the server are killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.job_load import Site, audit, dice, numbers_told
from support.job_table import LEASE, SECOND
from support.postgres import Postgres
from support.stores import PostgresDatabase
from support.workbench import Gate, until

from edgeq import Job, JobContext
from edgeq.clock import Clock
from edgeq.config.schema import Queue as QueueSettings
from edgeq.jobs.worker import Worker
from edgeq.store import breakers, claims, jobs, queues
from edgeq.store.breakers import BreakerSettings
from edgeq.store.claims import Completed, Rate, Retried
from edgeq.store.jobs import Limit, NewJob, StoredJob
from edgeq.store.store import Store, Tx
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

HOUR = 3600 * SECOND
ROUNDS = int(os.environ.get("POSTGRES_KILLS", "12"))
REACH = 60.0
CRM = {"crm": BreakerSettings(failures=1000, within_us=HOUR, wait_us=HOUR)}


class Shifted(Clock):
    """The clock of a machine that is an hour early or late."""

    def __init__(self, hours: int) -> None:
        self._shift = hours * HOUR

    def now(self) -> int:
        return super().now() + self._shift


@pytest.fixture
def database(postgres: Postgres) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase.on(postgres)
    yield made
    made.drop()


@asynccontextmanager
async def machines(database: PostgresDatabase, *hours: int) -> AsyncIterator[list[Store]]:
    """A store for each machine, whose clock is so many hours off."""
    async with AsyncExitStack() as opened:
        yield [
            await opened.enter_async_context(
                database.opened(beside=True, clock=Shifted(each) if each else Clock(), database_clock=True)
            )
            for each in hours
        ]


def new(number: int = 0, *, after: float = 0.0, **more: Any) -> NewJob:
    now = Clock().now()
    return NewJob(
        queue="default",
        kind=more.pop("kind", "test_postgres_jobs:Note"),
        args=f'{{"number":{number}}}',
        run_at=now + round(after * SECOND),
        created_at=now,
        **more,
    )


def claim(tx: Tx, limit: int, rate: Rate | None = None) -> list[StoredJob]:
    return claims.claim(
        tx, queue="default", owner="me", lease_seconds=LEASE, limit=limit, now=tx.now(Clock().now()), rate=rate,
        breakers=CRM,
    )  # fmt: skip


def complete(tx: Tx, held: list[StoredJob]) -> list[bool]:
    return claims.end(tx, [Completed(job, "1") for job in held], now=tx.now(0), breakers=CRM)


class Stop:
    """Keeps a unit in the midst of its transaction until the test lets it go on."""

    def __init__(self) -> None:
        self._here, self._go_on = threading.Event(), threading.Event()

    def after(self, unit: Callable[[Tx], Any]) -> Callable[[Tx], Any]:
        def stopping(tx: Tx) -> Any:
            answer = unit(tx)
            self._here.set()
            assert self._go_on.wait(REACH)
            return answer

        return stopping

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._here.wait, REACH)

    def go_on(self) -> None:
        self._go_on.set()


# At the same time


async def test_a_claim_passes_over_what_another_one_is_about_to_take(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0) as (one, two):
        await one.write(lambda tx: jobs.add(tx, [new(number) for number in range(10)]))
        stop = Stop()
        first = one.submit(stop.after(lambda tx: claim(tx, 4)), shared=True)
        await stop.reached()
        second = await two.write(lambda tx: claim(tx, 4), shared=True, timeout_seconds=30)
        third = await two.write(lambda tx: claim(tx, 4), shared=True, timeout_seconds=30)
        stop.go_on()
        assert [len(found) for found in (await first, second, third)] == [4, 4, 2]
        assert len({job.id for found in (await first, second, third) for job in found}) == 10


async def test_what_is_due_is_made_available_by_one_of_them(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0) as (one, two):
        await one.write(lambda tx: jobs.add(tx, [new(number, after=-1) for number in range(3)]))
        database.sql("UPDATE jobs SET state = 'retryable' RETURNING 1")
        stop = Stop()
        first = one.submit(stop.after(lambda tx: claim(tx, 1)), shared=True)
        await stop.reached()
        assert await two.write(lambda tx: claim(tx, 9), shared=True, timeout_seconds=30) == []
        stop.go_on()
        assert len(await first) == 1
        assert len(await two.write(lambda tx: claim(tx, 9), shared=True)) == 2


async def test_ends_and_leases_of_one_wait_for_no_other(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0) as (one, two):
        await one.write(lambda tx: jobs.add(tx, [new(number) for number in range(4)]))
        mine, theirs = [await store.write(lambda tx: claim(tx, 2)) for store in (one, two)]
        stop = Stop()
        ending = one.submit(stop.after(lambda tx: complete(tx, mine)), shared=True)
        await stop.reached()

        def go_on(tx: Tx) -> Any:
            lost = claims.extend(tx, theirs, lease_seconds=LEASE, now=tx.now(0))
            return lost, claims.progress(tx, theirs[0], "1"), complete(tx, theirs)

        assert await two.write(go_on, shared=True, timeout_seconds=30) == (set(), True, [True, True])
        stop.go_on()
        assert await ending == [True, True]


async def test_a_pause_waits_for_claims_under_way_and_holds_for_those_after_it(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0, 0) as (one, two, three):
        await one.write(lambda tx: jobs.add(tx, [new(number) for number in range(3)]))
        stop = Stop()
        first = one.submit(stop.after(lambda tx: claim(tx, 1)), shared=True)
        await stop.reached()
        pausing = two.submit(lambda tx: queues.pause(tx, "default"))
        await until(lambda: database.sql("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
        second = three.submit(lambda tx: claim(tx, 1), shared=True)
        stop.go_on()
        assert len(await first) == 1
        assert await pausing
        assert await second == []


async def at_once(*writes: Callable[[], Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*(write() for write in writes))


async def test_many_claims_and_ends_at_once_take_each_job_once(database: PostgresDatabase) -> None:
    count = 400
    async with machines(database, 0, 0, 0, 0) as stores:
        await stores[0].write(lambda tx: jobs.add(tx, [new(number) for number in range(count)]))
        taken: Counter[int] = Counter()

        async def work(store: Store, limit: int) -> None:
            held: list[StoredJob] = []

            def unit(tx: Tx) -> tuple[list[bool], list[StoredJob]]:
                return complete(tx, held), claim(tx, limit)

            while True:
                done, held = await store.write(unit, shared=True)
                assert all(done)
                taken.update(job.id for job in held)
                if not held:
                    return

        await asyncio.gather(*(work(store, 3 + number) for number, store in enumerate(stores)))
    assert len(taken) == count
    assert set(taken.values()) == {1}
    assert database.sql("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2") == [("completed", 1, count)]


async def test_a_limit_holds_for_all_of_them(database: PostgresDatabase) -> None:
    """Of the jobs of each key two run at once, however many claim and complete at the same moment."""
    running = (
        "SELECT max(count) FROM (SELECT count(*) FROM jobs WHERE state = 'executing' GROUP BY limit_key) AS counts"
    )
    async with machines(database, 0, 0, 0) as stores:
        two = [Limit(key, concurrency=2) for key in "ab"]
        await stores[0].write(lambda tx: jobs.add(tx, [new(number, limit=two[number % 2]) for number in range(60)]))
        most: list[int] = []

        async def work(store: Store) -> None:
            while database.sql("SELECT 1 FROM jobs WHERE state = 'available' LIMIT 1"):
                held = await store.write(lambda tx: claim(tx, 3), shared=True)
                most.append(database.sql(running)[0][0] or 0)
                await store.write(lambda tx, held=held: complete(tx, held), shared=True)  # type: ignore[misc]

        await asyncio.gather(*(work(store) for store in stores))
    assert max(most) <= 2
    assert database.sql("SELECT state, count(*) FROM jobs GROUP BY 1") == [("completed", 60)]


async def test_nobody_lets_on_two_where_there_is_room_for_one(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0) as (one, two):
        key = Limit("a", concurrency=1)
        stop = Stop()
        first = one.submit(stop.after(lambda tx: jobs.add(tx, [new(limit=key)])), shared=True)
        await stop.reached()
        second = two.submit(lambda tx: jobs.add(tx, [new(limit=key)]), shared=True)
        await until(lambda: second.done() or database.sql("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
        stop.go_on()
        await asyncio.gather(first, second)
        assert len(await one.write(lambda tx: claim(tx, 9), shared=True)) == 1


async def test_a_rate_is_shared_by_all_of_them(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0, 0) as stores:
        a_day = Rate(24 * HOUR, burst=4)
        one_a_day = Limit("b", interval_us=24 * HOUR, burst=2)
        await stores[0].write(lambda tx: jobs.add(tx, [new(number) for number in range(20)]))
        found = await at_once(
            *(lambda store=store: store.write(lambda tx: claim(tx, 3, a_day), shared=True) for store in stores * 3)  # type: ignore[misc]
        )
        assert sum(map(len, found)) == 4
        await stores[0].write(lambda tx: queues.resume(tx, "default"))
        database.sql("UPDATE queues SET rate_at = 0 RETURNING 1")
        database.sql("UPDATE jobs SET queue = 'other' RETURNING 1")
        await stores[0].write(lambda tx: jobs.add(tx, [new(number, limit=one_a_day) for number in range(9)]))
        found = await at_once(
            *(lambda store=store: store.write(lambda tx: claim(tx, 3), shared=True) for store in stores * 3)  # type: ignore[misc]
        )
        assert sum(map(len, found)) == 2


async def test_of_twins_dispatched_at_once_one_is_stored(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0, 0) as stores:
        for number in range(15):
            answers = await at_once(
                *(
                    lambda store=store, number=number: store.write(  # type: ignore[misc]
                        lambda tx: jobs.add(tx, [new(), new(unique_key=f"{number}")]), shared=True
                    )
                    for store in stores
                )
            )
            assert len({answer[1].id for answer in answers}) == 1
            assert [answer[1].existed for answer in answers].count(False) == 1


async def test_no_failure_of_what_jobs_need_goes_uncounted(database: PostgresDatabase) -> None:
    async with machines(database, 0, 0, 0) as stores:
        await stores[0].write(lambda tx: jobs.add(tx, [new(number, needs="crm") for number in range(45)]))

        async def fail(store: Store) -> None:
            for _ in range(5):
                held = await store.write(lambda tx: claim(tx, 3), shared=True)
                ends = [Retried(job, job.run_at + HOUR, "no route") for job in held]
                await store.write(
                    lambda tx, ends=ends: claims.end(tx, ends, now=tx.now(0), breakers=CRM),  # type: ignore[misc]
                    shared=True,
                )

        await asyncio.gather(*map(fail, stores))
        [found] = await breakers.all(stores[0])
    assert found.failures == 45


async def test_a_claim_needs_few_ways_there_and_back(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machines(database, 0) as (store,):
        await store.write(lambda tx: jobs.add(tx, [new(number) for number in range(20)]))
        held = await store.write(lambda tx: claim(tx, 5), shared=True)
        texts: list[bytes] = []
        execute = psycopg.Connection.execute

        def noted(self: Any, query: Any, *rest: Any, **more: Any) -> Any:
            texts.append(query)
            return execute(self, query, *rest, **more)

        monkeypatch.setattr(psycopg.Connection, "execute", noted)
        await store.write(lambda tx: (complete(tx, held), claim(tx, 5)), shared=True)
    assert len(texts) == 5  # begin, complete, look, claim, commit


# Clocks


class Note(Job):
    number: int

    async def handle(self, ctx: JobContext) -> None:
        await Gate.wait(self.number)


class Again(Job):
    backoff = "1h"

    async def handle(self, ctx: JobContext) -> None:
        raise ValueError("again")


@asynccontextmanager
async def worker(store: Store, clock: Clock, lease: float = 60.0) -> AsyncIterator[Worker]:
    settings = QueueSettings(concurrency=2, lease=Duration(lease))
    made = Worker("default", settings, store, metrics=Metrics(), clock=clock, owner="bench")
    await made.start()
    try:
        yield made
    finally:
        Gate.open_all()
        await made.stop(5.0)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_machine_with_a_wrong_clock_takes_no_job_from_another(database: PostgresDatabase, hours: int) -> None:
    Gate.reset()
    async with machines(database, 0, hours) as (right, wrong):
        await right.write(lambda tx: jobs.add(tx, [new(1)]))
        async with worker(right, Clock()) as holder:
            await until(lambda: Gate.entered == [1])
            async with worker(wrong, Shifted(hours)) as other:
                await until(lambda: other.idle)
                await wrong.write(lambda tx: jobs.add(tx, [new(2)]))
                await until(lambda: sorted(Gate.entered) == [1, 2])
                assert other._metrics.jobs.values.get("rescued") is None
                Gate.open_all()
                await until(lambda: database.sql("SELECT state, attempt FROM jobs") == [("completed", 1)] * 2)
            assert holder._metrics.jobs.values.get("lease_lost") is None


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_lease_of_a_machine_with_a_wrong_clock_ends_when_it_should(
    database: PostgresDatabase, hours: int
) -> None:
    """Its holder dies; a worker with the right time, or with another wrong one, takes the job."""
    Gate.reset()
    async with machines(database, hours, -hours) as (holder, other):
        await holder.write(lambda tx: jobs.add(tx, [new(1)]))
        now = Shifted(hours).now()
        [job] = await holder.write(
            lambda tx: claims.claim(tx, queue="default", owner="gone", lease_seconds=1.0, limit=1, now=tx.now(now))
        )
        async with worker(other, Shifted(-hours), lease=1.0):
            await until(lambda: Gate.entered == [1])
            assert database.sql("SELECT attempt, lease_owner FROM jobs") == [(2, "bench")]
            Gate.open_all()
            await until(lambda: database.sql("SELECT state FROM jobs") == [("completed",)])
        assert job.lease_expires_at is not None
        assert abs(job.lease_expires_at - Clock().now()) < 60 * SECOND


@pytest.mark.parametrize("hours", [-1, 1])
async def test_what_is_put_off_is_put_off_by_the_databases_clock(database: PostgresDatabase, hours: int) -> None:
    Gate.reset()
    async with machines(database, hours) as (store,):
        later = new(2, after=1.0)
        await store.write(lambda tx: jobs.add(tx, [new(1, after=1800.0), later, new(kind="test_postgres_jobs:Again")]))
        async with worker(store, Shifted(hours)):
            await until(lambda: Gate.entered == [2])
            assert Clock().now() >= later.run_at
            await until(lambda: database.sql("SELECT state FROM jobs WHERE id = 3") == [("retryable",)])
            [(run_at,)] = database.sql("SELECT run_at FROM jobs WHERE id = 3")
            assert 1800 * SECOND < run_at - Clock().now() < 5400 * SECOND
            assert database.sql("SELECT state FROM jobs WHERE id = 1") == [("scheduled",)]


# Under load

# As the one of job_load; what it was told that isn't there it dispatches again.
DISPATCHER = """\
import random, sys, time
import edgeq
from edgeq.errors import StoreUnavailable
from load_jobs import Threaded, Told, Work

number = int(sys.argv[1])
with edgeq.Queue({url!r}) as queue:
    while True:
        numbers = list(range(number, number + random.randint(1, 4)))
        try:
            with queue.transaction():
                for each in numbers:
                    how = {{"on_success": Told(of=each, well=True), "on_failure": Told(of=each, well=False)}}
                    queue.dispatch((Work if each % 3 else Threaded)(number=each), **how)
        except StoreUnavailable as error:
            if "may be done or not" not in str(error):
                time.sleep(0.05)
                continue
        else:
            print(*numbers, flush=True)
        number = numbers[-1] + 1
        time.sleep(0.02)
"""


class Shared(Site):
    """A site whose store is on a server."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = url
        config = folder / "edgeq.yaml"
        config.write_text(config.read_text().replace("{url: edgeq.db}", f'{{url: "{url}"}}'))
        (folder / "dispatcher.py").write_text(DISPATCHER.format(url=url))

    def sql(self, text: str, *params: Any) -> list[Any]:
        if text.startswith("PRAGMA"):
            return [("ok",)]
        with psycopg.connect(self.url, autocommit=True, application_name="audit") as connection:
            return connection.execute(text.encode(), params or None).fetchall()


_JSON_EXTRACT = """
CREATE FUNCTION json_extract(text, text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT $1::jsonb #> string_to_array(substr($2, 3), '.') $$
"""


@pytest.fixture
def server(own_postgres: Callable[..., Postgres]) -> Postgres:
    return own_postgres(max_connections="60")


@pytest.fixture
def site(tmp_path: Path, server: Postgres) -> Iterator[Shared]:
    database = PostgresDatabase.on(server)
    site = Shared(tmp_path, database.url)
    with psycopg.connect(database.url) as connection:
        connection.execute(_JSON_EXTRACT)
    yield site
    site.kill_all()


@pytest.mark.timeout(180 + 10 * ROUNDS)
def test_whatever_is_killed_under_load_every_job_ends_in_one_way(site: Shared, server: Postgres) -> None:
    """Three processes of workers and one that dispatches, on a server that crashes, and whose sessions are ended."""
    chance = dice()
    workers = [site.work("default", "threads") for _ in range(3)]
    dispatcher = site.dispatch_from(1)

    def attempts_of(number: int) -> int:
        """Of this worker, which is started again, as systemd does, when it found no server at its start."""
        if workers[number].process.poll() == 1 and "edgeq: the database can't be reached" in workers[number].log:
            workers[number] = site.work("default", "threads")
        return sum(pid == workers[number].pid for _, _, _, pid in site.attempts())

    for _ in range(ROUNDS):
        victim = chance.randrange(3)
        before, wanted = attempts_of(victim), chance.randint(1, 25)
        site.until(lambda: attempts_of(victim) >= before + wanted, "a worker to work")  # noqa: B023
        match chance.choice(["kill", "terminate", "terminate", "crash"]):
            case "kill":
                workers[victim].kill()
                workers[victim] = site.work("default", "threads")
            case "terminate":
                server.terminate(chance.choice(["edgeq%", "edgeq % writer", "edgeq program%"]))
            case "crash":
                server.restart("immediate")
    site.until(lambda: all(attempts_of(number) for number in range(3)), "all workers to work")
    os.kill(dispatcher.pid, signal.SIGKILL)
    dispatcher.process.wait()
    sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'edgeq program%'"
    site.until(lambda: not site.sql(sessions), "the end of what it was committing")
    site.until(site.all_ended, "all jobs to end")
    assert [worker.stop() for worker in workers] == [0, 0, 0]
    states = audit(site, numbers_told([dispatcher]))
    print(f"{ROUNDS} faults, {sum(states.values())} jobs: {dict(states)}")
    assert states["completed"] > states["dead"] > 0
