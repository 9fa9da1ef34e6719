"""What a start leaves in a damaged database is taken over while the new one is used, and nobody misses an event."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.damage import DAMAGES, HEAD, Damages, damage, overwrite, pages, rows, valuable

from edgeq.clock import Clock
from edgeq.errors import StoreError
from edgeq.store import cursors, files, meta
from edgeq.store.sqlite import SqliteStore
from edgeq.store.sqlite import recover as recovering
from edgeq.store.sqlite import store as sqlite_store
from edgeq.store.sqlite.later import of_file, pending, take_over
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until
from edgeq.upkeep.recovery import Recoverer


def make(path: Path) -> SqliteStore:
    return SqliteStore(str(path), metrics=Metrics(), clock=Clock())


async def damaged(path: Path, lost: int = 2) -> SqliteStore:
    """An open store that took the place of one of which a page of old events is lost."""
    overwrite(path, pages(path, "events")[lost : lost + 1])
    files.mark_suspect(str(path))
    store = make(path)
    await store.open()
    return store


def lose_history(tx: object) -> None:
    """Delete all that may be taken over from a file."""
    for table in ("events", "jobs", "notifications", "dead_letters"):
        tx._connection.execute(f"DELETE FROM {table}")  # type: ignore[attr-defined]


async def recovered(store: SqliteStore) -> None:
    """Let the service take over all there is."""
    service = Recoverer(store, "g", Clock())
    await service.start()

    async def done() -> bool:
        return await meta.get(store, meta.RECOVERY) is None

    await until(done, "the rest", store=store, deadline_seconds=60)
    await service.stop()


async def test_all_the_rest_follows_and_an_event_says_how_much(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    before = valuable(path)
    store = await damaged(path)
    try:
        await recovered(store)
        after = rows(path)
        for name in before:
            if name != "events":
                assert after[name] == before[name], name
        found = {row for row in after["events"] if row[1] == "a"}
        assert found <= before["events"]
        lost = {row[0] for row in before["events"] - found}
        assert 0 < len(lost) < 60, "one page"
        (told,) = [row for row in after["events"] if row[1] == "edgeq.store_recovered"]
        assert told[0] > HEAD
        assert f'"events":{len(found) - 200}' in told[4] or f'"events":{len(found)}' in told[4]
        low, high = min(lost), max(lost)
        assert f"{low} to {high}" in told[6]
    finally:
        await store.close()


async def test_interrupted_it_goes_on_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    before = valuable(path)
    store = await damaged(path)
    found = await pending(store)
    assert found is not None
    async with aclosing(take_over(store, found)) as steps:
        await anext(steps)
    await store.close()
    store = make(path)
    await store.open()
    assert store.quarantined is None
    await recovered(store)
    assert rows(path)["jobs"] == before["jobs"]
    assert rows(path)["dead_letters"] == before["dead_letters"]
    await store.close()


async def test_a_processor_whose_events_are_not_there_in_time_is_held_until_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edgeq.db"
    before = valuable(path)
    monkeypatch.setattr(sqlite_store, "RECOVERY_SECONDS", -1.0)
    monkeypatch.setattr(recovering, "_EVENTS_AT_ONCE", 10)
    store = await damaged(path)
    try:
        early, late = await cursors.every(store)
        assert (early.paused, late.paused) == (True, True), "only the newest event is there"
        assert early.error is not None
        assert "held until its next events are recovered" in early.error
        assert len(rows(path)["events"]) < 200
        await store.write(lambda tx: cursors.take(tx, "new", "beginning", 1))
        await recovered(store)
        assert {cursor.paused for cursor in await cursors.every(store)} == {False}
        assert {cursor.error for cursor in await cursors.every(store)} == {None}
        there = {row[0] for row in rows(path)["events"]}
        assert set(range(early.last_consumed_id + 1, HEAD + 1)) <= there
        assert rows(path)["jobs"] == before["jobs"], "also those that are not done"
        assert rows(path)["notifications"] == before["notifications"]
    finally:
        await store.close()


async def test_a_processor_that_somebody_paused_stays_paused(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    store = make(path)
    await store.open()
    await store.write(lambda tx: cursors.pause(tx, "early", True))
    await store.close()
    store = await damaged(path)
    await recovered(store)
    assert [cursor.paused for cursor in await cursors.every(store)] == [True, False]
    await store.close()


async def test_a_file_put_aside_that_is_gone_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    store = await damaged(path)
    assert store.quarantined is not None
    await asyncio.to_thread(Path(store.quarantined).unlink)
    await recovered(store)
    assert "no more is recovered" in caplog.text
    await store.close()


async def test_only_what_once_was_this_store_is_taken_from_a_file(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        valuable(tmp_path / name / "edgeq.db")
    store = make(tmp_path / "one" / "edgeq.db")
    await store.open()
    with pytest.raises(StoreError, match="is not of the store"):
        await of_file(store, str(tmp_path / "other" / "edgeq.db"))
    await store.close()


async def test_from_an_older_copy_comes_what_is_missing_and_nothing_that_a_processor_has_yet_to_see(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "edgeq.db", tmp_path / "old.db"
    before = valuable(path)
    copy.write_bytes(path.read_bytes())
    store = make(path)
    await store.open()

    await store.write(lose_history)
    found = await of_file(store, str(copy))
    async for _ in take_over(store, found):
        pass
    after = rows(path)
    floor = min(cursor.last_consumed_id for cursor in await cursors.every(store))
    assert after["events"] == {row for row in before["events"] if row[0] <= floor}
    assert after["dead_letters"] == before["dead_letters"]
    assert {row[5] for row in after["jobs"]} == {"completed", "dead"}, "what is to be done isn't done again"
    assert {row[7] for row in after["notifications"]} == {"sent"}
    await store.close()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose last commits are in the log."""
    path = tmp_path_factory.mktemp("original") / "edgeq.db"
    valuable(path, log=True)
    return path


def copied(original: Path, folder: Path) -> Path:
    """A store like it, with its log."""
    for file in (original, Path(f"{original}-wal")):
        shutil.copy(file, folder)
    return folder / original.name


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(damages=DAMAGES, seed=st.integers(0, 2**32))
async def test_a_file_that_is_damaged_anyhow_gives_rows_of_its_own_or_says_why_it_can_not(
    original: Path, tmp_path_factory: pytest.TempPathFactory, damages: Damages, seed: int
) -> None:
    path, file = (copied(original, tmp_path_factory.mktemp(name)) for name in ("present", "damaged"))
    damage(file, damages, seed)
    store = make(path)
    await store.open()
    try:
        before = rows(path)
        await store.write(lose_history)
        refused: str | None = None
        try:
            found = await of_file(store, str(file))
            async for _ in take_over(store, found):
                pass
        except StoreError as error:
            refused = str(error)
        if refused is None:
            assert sum(found.rows.values()) == sum(len(rows(path)[name]) for name in found.rows)
        else:
            assert str(file) in refused
        for name, after in rows(path).items():
            assert after <= before[name], name
    finally:
        await store.close()
