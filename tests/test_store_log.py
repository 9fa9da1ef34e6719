"""The log of a SQLite file stays short, also under load and beside those who read; and what happens when it can't."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.pruned import fill
from support.stores import SqliteDatabase

from edgeq.clock import Clock
from edgeq.store import events, opening
from edgeq.store.space import measure
from edgeq.store.sqlite import LOG_BYTES_KEPT
from edgeq.telemetry.metrics import Metrics
from edgeq.upkeep.pruner import Pruner

KIB = 1024
KEPT = 400 * KIB
# One commit more may stand in it, and as much as is waited for before it is tried again.
MOST = KEPT + 1024 * KIB + 200 * KIB


async def test_it_stays_short_while_we_write_and_read(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path)
    async with database.opened(log_bytes_kept=KEPT) as store:
        longest = 0
        for _ in range(100):
            await fill(store, [1] * 40, bytes_each=4000)
            assert await events.head(store)
            longest = max(longest, os.stat(f"{database.path}-wal").st_size)
    assert KEPT / 2 < longest <= MOST


async def test_beside_one_who_reads_without_an_end_it_grows_is_told_of_and_shrinks_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    database = SqliteDatabase(tmp_path)
    async with database.opened(log_bytes_kept=KEPT) as store:
        with closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            for _ in range(40):
                await fill(store, [1] * 40, bytes_each=4000)
            assert os.stat(f"{database.path}-wal").st_size > 4 * KEPT, "what the reader sees can't be thrown away"
            told = [record.message for record in caplog.records if "reads without an end" in record.message]
            assert len(told) == 1
            reader.execute("ROLLBACK")
        for _ in range(20):
            await fill(store, [1] * 40, bytes_each=4000)
        assert os.stat(f"{database.path}-wal").st_size <= MOST


async def test_a_large_commit_alone_is_no_reason_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    database = SqliteDatabase(tmp_path)
    async with database.opened(log_bytes_kept=KEPT) as store:
        await fill(store, [1] * 1000, bytes_each=4000)
        for _ in range(5):
            await fill(store, [1])
        assert os.stat(f"{database.path}-wal").st_size <= MOST
    assert not caplog.records


async def test_what_is_free_is_handed_back_a_little_at_a_time(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path)
    units: list[int] = []
    async with database.opened(log_bytes_kept=KEPT) as store:
        await fill(store, [1] * 2000, bytes_each=4000)
        await store.write(lambda tx: tx.run(events.Events.delete().where(events.Events.id < 1900)))
        before = await measure(store)

        async def rest(seconds: float) -> None:
            units.append((await measure(store)).free)

        pruner = Pruner(store, Clock(), Metrics(), processors=(), rest=rest)
        assert await pruner.hand_back(10**9) == 0
        given = await pruner.hand_back(2**20)
        after = await measure(store)
    assert before.free - after.free == given
    assert after.free <= 2**20 < after.free + 64 * 4096
    steps = [one - other for one, other in zip([before.free, *units], units, strict=False)]
    assert max(steps) <= 64 * 4096
    assert os.stat(database.path).st_size < before.used + 2**20 + 10**6


def test_it_is_shorter_for_a_small_store_and_on_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole = str(tmp_path / "edgeq.db"), 2**40
    monkeypatch.setattr(opening, "disk", lambda path: {"disk_bytes": whole})
    assert opening._log_bytes(path, None) == opening._log_bytes(path, 2**40) == LOG_BYTES_KEPT
    assert opening._log_bytes(path, 16 * 2**20) == 2 * 2**20
    whole = 64 * 2**20
    assert opening._log_bytes(path, None) == 8 * 2**20
