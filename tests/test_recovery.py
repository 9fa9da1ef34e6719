"""A damaged database: what can still be read of it is in the one that takes its place, and nothing else is."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.damage import DAMAGES, HEAD, Damages, damage, overwrite, pages, rows, valuable

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.store import events, files, jobs
from edgeq.store.jobs import NewJob
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Row, Tx
from edgeq.telemetry.metrics import Metrics

Rows = dict[str, set[Row]]
STATES = ("available", "scheduled", "retryable", "executing")


def make(path: Path) -> SqliteStore:
    return SqliteStore(str(path), metrics=Metrics(), clock=Clock())


async def opened_again(path: Path) -> SqliteStore:
    """As at the next start, which looks into a file that SQLite has complained about."""
    files.mark_suspect(str(path))
    store = make(path)
    await store.open()
    return store


def add(tx: Tx) -> tuple[int, int]:
    events.append(tx, [NewEvent("new", occurred_at=0, recorded_at=0)])
    made = jobs.add(tx, [NewJob(queue="default", kind="k:K", args="{}", run_at=0, created_at=0)])
    return events.newest_id(tx), made[0].id


async def recovered(path: Path, before: Rows) -> Rows:
    """What is in the store after the next start, which takes in new things; nothing is there that wasn't."""
    store = await opened_again(path)
    try:
        after = rows(path)
        for name, found in after.items():
            assert found <= before[name], name
        event, job = await store.write(add)
        if store.quarantined is None:
            assert (event, job) == (HEAD + 1, HEAD + 1)
        elif store.recovery is not None and store.recovery.readable:
            assert event > HEAD
            assert job > HEAD
    finally:
        await store.close()
    return after


def unfinished(found: set[Row]) -> set[Row]:
    return {row for row in found if row[5] in STATES}


# Pages


class Originals:
    """A store whose last commits are in the log, and one without a log."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._made: dict[bool, tuple[Path, Rows]] = {}
        for log in (True, False):
            path = factory.mktemp("original") / "edgeq.db"
            self._made[log] = path, valuable(path, log=log)

    def copy(self, folder: Path, *, log: bool) -> tuple[Path, Rows]:
        """A copy to be damaged, and its rows."""
        source, before = self._made[log]
        for file in source.parent.glob("edgeq.db*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, folder)
        return folder / "edgeq.db", before


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory)


@pytest.fixture
def damageable(originals: Originals, tmp_path: Path) -> tuple[Path, Rows]:
    return originals.copy(tmp_path, log=False)


async def test_all_that_edgeq_goes_by_survives_the_loss_of_old_events(damageable: tuple[Path, Rows]) -> None:
    path, before = damageable
    overwrite(path, pages(path, "events")[2:6])
    after = await recovered(path, before)
    for name in ("contract_states", "threads", "silences", "schedules", "queues", "breakers", "limits", "cursors"):
        assert after[name] == before[name], name
    assert unfinished(after["jobs"]) == unfinished(before["jobs"])
    assert {row for row in after["notifications"] if row[7] == "queued"} == {
        row for row in before["notifications"] if row[7] == "queued"
    }
    assert {row[0] for row in after["events"]} == set(range(HEAD - 199, HEAD + 1)), (
        "what no processor waits for is later"
    )


TREES = [
    "sqlite_master", "events", "events_idempotency_key", "cursors", "jobs", "jobs_ready", "notifications",
    "contract_states", "threads", "meta", "sqlite_sequence", "removed_jobs", "silences", "schedules", "dead_letters",
]  # fmt: skip


@pytest.mark.parametrize("zero", [True, False], ids=["zeroed", "overwritten"])
@pytest.mark.parametrize("place", ["first", "last", "root"])
@pytest.mark.parametrize("name", TREES)
async def test_any_page_of_any_tree_may_be_lost(
    damageable: tuple[Path, Rows], name: str, place: str, zero: bool
) -> None:
    path, before = damageable
    tree = pages(path, name)
    lost = tree[-1] if place == "root" else tree[0] if place == "first" else tree[max(0, len(tree) - 2)]
    overwrite(path, [lost], zero=zero)
    after = await recovered(path, before)
    if name not in ("jobs", "cursors", "removed_jobs"):
        assert unfinished(after["jobs"]) == unfinished(before["jobs"])
        assert len(after["cursors"]) == 2
    if name not in ("contract_states",):
        assert after["contract_states"] == before["contract_states"]
    if place != "root":
        assert len(after["contract_states"]) > HEAD / 2
        assert len(unfinished(after["jobs"])) > HEAD / 2


# The file


@pytest.mark.parametrize("log", [True, False], ids=["log", "no log"])
async def test_a_header_that_is_none(originals: Originals, tmp_path: Path, log: bool) -> None:
    path, before = originals.copy(tmp_path, log=log)
    overwrite(path, [1])
    after = await recovered(path, before)
    assert unfinished(after["jobs"]) == unfinished(before["jobs"])
    assert after["contract_states"] == before["contract_states"]


async def test_a_file_that_was_cut_short(damageable: tuple[Path, Rows]) -> None:
    path, before = damageable
    os.truncate(path, path.stat().st_size // 2 + 17)
    after = await recovered(path, before)
    assert after["cursors"], "the first pages are there"
    assert len(after["contract_states"]) > 10


async def test_nothing_that_can_be_read(damageable: tuple[Path, Rows]) -> None:
    path, before = damageable
    path.write_bytes(os.urandom(path.stat().st_size))
    after = await recovered(path, before)
    assert not any(after.values())


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(damages=DAMAGES, seed=st.integers(0, 2**32))
@example(damages=[("page", 0.0, 40)], seed=0)
@example(damages=[("log", 0.0, 1)], seed=0)
@example(damages=[("cut", 0.3, 1), ("zero", 0.0, 1)], seed=0)
async def test_no_damage_stops_it_or_makes_rows(
    originals: Originals,
    tmp_path_factory: pytest.TempPathFactory,
    damages: Damages,
    seed: int,
) -> None:
    path, before = originals.copy(tmp_path_factory.mktemp("damaged"), log=True)
    damage(path, damages, seed)
    store = await opened_again(path)
    try:
        if store.quarantined is not None:  # else SQLite finds nothing wrong with it
            for name, found in rows(path).items():
                assert found <= before[name], name
        await store.write(add)
    finally:
        await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
