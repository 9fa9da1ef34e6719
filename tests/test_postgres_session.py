"""The control session: it hears of the commits of others, notices when it is deaf, and comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from support.postgres import ROLE, Postgres
from support.proxy import Proxy
from support.stores import PostgresDatabase, postgres_store

from edgeq.backoff import Backoff
from edgeq.cli.screen import lines
from edgeq.store import meta
from edgeq.store.postgres import session
from edgeq.store.postgres.store import PostgresStore
from edgeq.store.store import Topic, Tx
from edgeq.testing import until

PROMPTLY_SECONDS = 60.0


@pytest.fixture(autouse=True)
def without_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks now and then, unless a test is about that."""
    monkeypatch.setattr(session, "_NET_SECONDS", 1e6)
    monkeypatch.setattr(session, "FOREIGN_NET_SECONDS", 1e6)


@pytest.fixture
def database(postgres: Postgres) -> PostgresDatabase:
    return PostgresDatabase.on(postgres)


def touching(*topics: Topic) -> Callable[[Tx], None]:
    def unit(tx: Tx) -> None:
        meta.put(tx, "key", "value")
        for topic in topics:
            tx.touch(topic)

    return unit


async def listening(store: PostgresStore) -> None:
    """Return when its session is there: everything is fired then."""
    await until(lambda: store.signal.version("cursors") > 0)


async def heard(store: PostgresStore, topic: Topic, seen: int) -> None:
    assert await store.signal.wait(topic, seen, PROMPTLY_SECONDS), f"nothing was heard of {topic}"


async def test_commits_of_others_wake_those_who_wait_for_what_they_touched_and_nobody_else(
    database: PostgresDatabase,
) -> None:
    url = database.url
    async with postgres_store(url) as here, postgres_store(url, "there") as there:
        await listening(here)
        jobs, events = here.signal.version("jobs"), here.signal.version("events")
        await there.write(touching("jobs"))
        await heard(here, "jobs", jobs)
        assert here.signal.version("events") == events


async def test_ones_own_commits_and_those_to_other_stores_wake_nobody_twice(database: PostgresDatabase) -> None:
    async with postgres_store(database.url) as here, postgres_store(database.url, "there") as there:
        await listening(here)
        seen = here.signal.version("jobs")
        await here.write(touching("jobs"))
        database.sql("SELECT pg_notify('edgeq', '1 somebody jobs')")
        database.sql("SELECT pg_notify('edgeq', 'nonsense'), pg_notify('edgeq', '')")
        await there.write(touching("events"))
        await heard(here, "events", 1)
        assert here.signal.version("jobs") == seen + 1


async def test_an_ended_session_comes_back_and_wakes_everybody(
    postgres: Postgres, database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeq.store")
    url = database.url
    async with postgres_store(url, "ended") as here, postgres_store(url, "there") as there:
        await listening(here)
        seen = here.signal.version("events")
        assert postgres.terminate("edgeq ended session") == 1
        await heard(here, "events", seen)
        await until(lambda: "is back" in caplog.text)
        jobs = here.signal.version("jobs")
        await there.write(touching("jobs"))
        await heard(here, "jobs", jobs)
    assert caplog.text.count("session at the database") == 1


async def test_after_a_backup_was_put_back_all_agree_again_on_who_owns_what_and_hear_each_other(
    postgres: Postgres, database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    url = database.url
    async with postgres_store(url, "site run") as here:
        async with here.ownership.own("leader") as held:
            await here.write(touching("jobs"))
            postgres.sql(
                url,
                "ALTER TABLE events RENAME TO gone; CREATE TABLE events (LIKE gone INCLUDING ALL); DROP TABLE gone; "
                "CREATE TRIGGER events_in_commit_order BEFORE INSERT ON events "
                "FOR EACH STATEMENT EXECUTE FUNCTION events_in_commit_order()",
            )
            async with asyncio.timeout(PROMPTLY_SECONDS):
                await held.lost.wait()
        async with here.ownership.own("leader"), postgres_store(url, "there run") as there:
            assert await there.ownership.owner_of(["leader"]) == {"leader": "site"}
            await listening(there)
            jobs = there.signal.version("jobs")
            await here.write(touching("jobs"))
            await heard(there, "jobs", jobs)
    assert caplog.text.count("as after a restored backup") == 2  # the session, and the writer


async def test_a_session_that_is_cut_off_without_a_word_is_made_anew(
    postgres: Postgres, database: PostgresDatabase
) -> None:
    url = database.url
    async with Proxy(postgres.port) as proxy:
        through = url.replace(f":{postgres.port}", f":{proxy.port}")
        async with postgres_store(through) as here, postgres_store(url, "there") as there:
            await listening(here)
            connections, seen = proxy.connections, here.signal.version("events")
            proxy.hold()
            await heard(here, "events", seen)  # it has noticed
            await until(lambda: proxy.connections > connections)
            seen = here.signal.version("cursors")
            proxy.release()
            await heard(here, "cursors", seen)
            jobs = here.signal.version("jobs")
            await there.write(touching("jobs"))
            await heard(here, "jobs", jobs)


async def test_an_outage_is_one_line_and_one_when_it_is_over(
    own_postgres: Callable[..., Postgres], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeq.store")
    server = own_postgres()
    async with postgres_store(await asyncio.to_thread(lambda: PostgresDatabase.on(server).url)) as here:
        await listening(here)
        await asyncio.to_thread(server.stop, "immediate")
        seen = here.signal.version("events")
        for _ in range(3):  # tries to connect
            await heard(here, "events", seen)
            seen = here.signal.version("events")
        await asyncio.to_thread(server.start)
        await until(lambda: "control session is back" in caplog.text)
    assert caplog.text.count("control session") == 2


async def test_without_a_session_others_are_noticed_by_looking(
    postgres: Postgres, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "FOREIGN_NET_SECONDS", 0.05)
    monkeypatch.setattr(session, "_AGAIN", Backoff(1e6, 1e6))
    async with postgres_store(database.url, "deaf") as here:
        await listening(here)
        postgres.terminate("edgeq deaf session")
        for _ in range(5):
            await heard(here, "jobs", here.signal.version("jobs"))


async def test_closing_leaves_no_session_behind(postgres: Postgres, database: PostgresDatabase) -> None:
    url = database.url
    async with postgres_store(url, "gone") as here:
        await listening(here)
    text = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'edgeq gone%'"
    await until(lambda: postgres.sql(postgres.url, text) == [(0,)])


async def test_closing_while_the_server_answers_nothing_leaves_no_timer_behind(
    own_postgres: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_AGAIN", Backoff(0.0, 0.0))
    server = own_postgres()
    url = await asyncio.to_thread(lambda: PostgresDatabase.on(server).url)
    try:
        async with postgres_store(url) as here:
            await listening(here)
            await asyncio.to_thread(server.freeze)
            await until(lambda: here._session._up_since is None, "it to notice", deadline_seconds=30)
    finally:
        await asyncio.to_thread(server.thaw)
    assert here._session._net is not None
    assert here._session._net.cancelled()


async def test_a_session_alone_that_is_refused_is_told_again_and_again(
    own_postgres: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "_REMIND_SECONDS", 0.0)
    monkeypatch.setattr(session, "_AGAIN", Backoff(0.05, 0.05))
    server = own_postgres()
    async with postgres_store(await asyncio.to_thread(lambda: PostgresDatabase.on(server).url)) as here:
        await listening(here)
        await here.write(touching())
        await asyncio.to_thread(server.sql, server.url, f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
        await asyncio.to_thread(server.terminate, "edgeq here session")
        await until(lambda: caplog.text.count("nothing is owned by this process") >= 3)
        assert here.health.ok
        assert "too many connections" in here.health.reason
        shown = {"running": False, "gateway": "gw", "store": {"ok": True, "reason": here.health.reason}}
        assert f"store         {here.health.reason}" in lines(shown, 0)
        await here.write(touching())
        await asyncio.to_thread(server.sql, server.url, f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
        await until(lambda: not here.health.reason)
