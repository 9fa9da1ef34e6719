"""Straight into the site's PostgreSQL store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from support.forwarding import add, forwarder, settings
from support.postgres import Postgres
from support.stores import PostgresDatabase, SqliteDatabase

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.forward.postgresql import PostgresTarget
from edgeq.forward.target import Away, Parcel, Refused, Taken
from edgeq.store import events
from edgeq.store.forwarded import Batch
from edgeq.store.store import Store
from edgeq.testing import until
from edgeq.testing.clock import NOON
from edgeq.units import Duration


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with SqliteDatabase(tmp_path).opened() as made:
        yield made


@pytest.fixture
def site(postgres: Postgres) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase.on(postgres)
    yield made
    made.drop()


def parcel(*ids: int, head: int = 0, series: str = "s1", **fields: object) -> Parcel:
    new = [NewEvent(**{"type": "reading", "occurred_at": NOON + n, "recorded_at": 1, **fields}) for n in ids]  # type: ignore[arg-type]
    return Parcel(Batch.of("gw", series, head or max(ids), ids, new), [b"{}"] * len(ids), NOON)


@pytest.fixture
async def target(site: PostgresDatabase) -> AsyncIterator[PostgresTarget]:
    made = PostgresTarget(settings(site.url), "gw")
    yield made
    await made.close()


def keys(site: PostgresDatabase) -> list[str]:
    return [row[0] for row in site.sql("SELECT idempotency_key FROM events ORDER BY id")]


async def test_a_batch_is_there_once(site: PostgresDatabase, target: PostgresTarget) -> None:
    assert isinstance(await target.send(parcel(3, 4)), Taken)
    assert isinstance(await target.send(parcel(3, 4, 5)), Taken)
    assert keys(site) == ["s1:3", "s1:4", "s1:5"]
    rows = site.sql("SELECT DISTINCT tags, recorded_at > 1 FROM events")
    assert rows == [('["from:gw"]', True)], "recorded by the site's clock"


async def test_those_who_wait_at_the_site_are_woken(site: PostgresDatabase, target: PostgresTarget) -> None:
    async with site.opened() as theirs:
        seen = theirs.signal.version("events")
        await target.send(parcel(1))
        assert await theirs.signal.wait("events", seen, 20.0)


async def test_a_store_that_has_gone_back_is_told_so(site: PostgresDatabase, target: PostgresTarget) -> None:
    await target.send(parcel(8, 9))
    answer = await target.send(parcel(5, head=7))
    assert isinstance(answer, Away)
    assert "restored from a backup" in answer.reason
    assert isinstance(await target.send(parcel(9, type="another")), Away)
    assert isinstance(await target.send(parcel(5, head=7, series="s1.2")), Taken)
    assert keys(site) == ["s1:8", "s1:9", "s1.2:5"]


async def test_what_the_database_refuses_is_refused(target: PostgresTarget) -> None:
    assert isinstance(await target.send(parcel(1, subject="a\0b")), Refused)
    assert isinstance(await target.send(parcel(1)), Taken)


async def test_a_database_without_the_tables_is_waited_for(postgres_url: str) -> None:
    target = PostgresTarget(settings(postgres_url), "gw")
    answer = await target.send(parcel(1))
    assert isinstance(answer, Away)
    assert "start the site's edgeq once" in answer.reason
    await target.close()


async def test_a_table_that_keeps_no_order_is_waited_for(site: PostgresDatabase, target: PostgresTarget) -> None:
    site.sql("ALTER TABLE events DISABLE TRIGGER events_in_commit_order")
    answer = await target.send(parcel(1))
    assert isinstance(answer, Away)
    assert "trigger" in answer.reason


async def test_few_rights_are_enough(site: PostgresDatabase, postgres: Postgres, store: Store) -> None:
    """Those that docs/forwarding.md names."""
    name = f"barn_{site.url.rpartition('/')[2]}"
    postgres.sql(postgres.url, f"CREATE ROLE {name} LOGIN")
    site.sql(f"GRANT INSERT, SELECT ON events TO {name}")
    site.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON meta, writers TO {name}")
    user, _, rest = site.url.removeprefix("postgresql://").partition("@")
    assert user != name
    target = PostgresTarget(settings(f"postgresql://{name}@{rest}"), "gw")
    for _ in range(2):
        assert isinstance(await target.send(parcel(1, 2)), Taken)
    await target.close()
    assert keys(site) == ["s1:1", "s1:2"]
    assert site.sql("SELECT count(*) FROM writers") == [(0,)], "what it left behind"


async def test_a_wrong_password_is_told_without_it(postgres: Postgres) -> None:
    url = postgres.url.replace("postgres@", "nobody-there@")
    target = PostgresTarget(settings(url, password="s3cr3t"), "gw")
    answer = await target.send(parcel(1))
    assert isinstance(answer, Away)
    assert "s3cr3t" not in answer.reason
    await target.close()


@pytest.fixture
def harmed(own_postgres: Callable[..., Postgres]) -> tuple[Postgres, PostgresDatabase]:
    server = own_postgres()
    return server, PostgresDatabase.on(server)


async def test_the_server_may_go_away_and_come_back(store: Store, harmed: tuple[Postgres, PostgresDatabase]) -> None:
    server, site = harmed
    await add(store, 10)
    runner = forwarder(store, PostgresTarget(settings(site.url), "gw"), Clock(), batch_size=5)
    await runner.start()
    await until(lambda: runner.position == 10, "the first to arrive", store=store, deadline_seconds=30)
    await asyncio.to_thread(server.stop, "immediate")
    await add(store, 10)
    await until(lambda: runner.state == "waiting", "the outage", store=store, deadline_seconds=30)
    await asyncio.to_thread(server.start)
    await until(lambda: runner.position == 20, "the rest to arrive", store=store, deadline_seconds=60)
    await asyncio.to_thread(server.terminate, "%forward%")
    await add(store, 10)
    await until(lambda: runner.position == 30, "the last to arrive", store=store, deadline_seconds=60)
    await runner.stop()
    assert keys(site) == [f"{store.id}:{number}" for number in range(1, 31)]
    assert await events.head(store) == 30


async def test_a_server_that_answers_nothing_keeps_nobody_from_going_on_or_ending(
    harmed: tuple[Postgres, PostgresDatabase],
) -> None:
    server, site = harmed
    target = PostgresTarget(settings(site.url, timeout=Duration(1)), "gw")

    async def taken(number: int) -> bool:  # on a busy machine a second may be too short
        return isinstance(await target.send(parcel(number)), Taken)

    await until(lambda: taken(1), "the first to be taken", deadline_seconds=60)
    await asyncio.to_thread(server.freeze)
    try:
        async with asyncio.timeout(30):
            assert isinstance(await target.send(parcel(2)), Away)
    finally:
        await asyncio.to_thread(server.thaw)
    await until(lambda: taken(2), "the second to be taken", deadline_seconds=60)
    await asyncio.to_thread(server.freeze)
    try:
        sending = asyncio.create_task(target.send(parcel(3)))
        await until(lambda: target._site._lock.locked(), "the next to be on its way")
        sending.cancel()
        async with asyncio.timeout(30):
            await target.close()
    finally:
        await asyncio.to_thread(server.thaw)
    assert keys(site) == ["s1:1", "s1:2"]
