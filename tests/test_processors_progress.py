"""Commits of one processor: in order or not at all, lazy ones too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.processing import Bench, writer_blocked
from support.stores import Database

from edgeq.events import NewEvent
from edgeq.processors.progress import CommitRefused, Progress
from edgeq.store import cursors
from edgeq.store.cursors import CursorMoved
from edgeq.store.decisions import Decisions
from edgeq.store.store import Tx
from edgeq.testing import FakeClock, until


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Bench(database, FakeClock()) as bench:
        yield bench


@pytest.fixture
async def progress(bench: Bench) -> Progress:
    progress = Progress("p", bench.store, bench.metrics, bench.clock)
    await progress.take("beginning")
    return progress


def event() -> Decisions:
    return Decisions(events=[NewEvent("out", occurred_at=0, recorded_at=0)])


def refused(tx: Tx) -> None:
    raise OverflowError("far too large")


async def test_a_lazy_move_does_not_overtake_a_commit_under_way(bench: Bench, progress: Progress) -> None:
    async with writer_blocked(bench.store):
        progress.add(1, event())
        progress._flush()
        progress.add(2)
        progress._flush()
        assert bench.store._writer._lazy == []
    await progress.commit()
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(2,)]


async def test_commit_waits_for_lazy_decisions_that_were_handed_over(bench: Bench, progress: Progress) -> None:
    done: list[str] = []
    progress.add(1, Decisions(lazily=[lambda tx: done.append("lazily")]))
    progress._flush()
    await progress.commit()
    assert done == ["lazily"]
    before = bench.metrics.commits.total()
    await progress.commit()
    assert bench.metrics.commits.total() == before, "there was nothing more to commit"


async def test_a_refused_commit_takes_all_later_ones_with_it(bench: Bench, progress: Progress) -> None:
    async with writer_blocked(bench.store):
        progress.add(1, Decisions(also=[refused]))
        progress._flush()
        progress.add(2, event())
        progress._flush()
        progress.add(3, event())
    with pytest.raises(CommitRefused, match="far too large"):
        await progress.commit()
    assert bench.database.sql("SELECT last_consumed_id, (SELECT count(*) FROM events) FROM cursors") == [(0, 0)]
    assert (await progress.take("latest")).last_consumed_id == progress.position == 0
    progress.add(3, event())
    await progress.commit()
    assert bench.database.sql("SELECT last_consumed_id, (SELECT count(*) FROM events) FROM cursors") == [(3, 1)]


async def test_tallies_are_called_once_for_what_is_kept(bench: Bench, progress: Progress) -> None:
    called: list[str] = []
    progress.add(1, Decisions(also=[refused], tallies=[lambda: called.append("refused")]))
    with pytest.raises(CommitRefused):
        await progress.commit()
    await progress.take("latest")
    progress.add(1, Decisions(tallies=[lambda: called.append("lazy")]))
    progress._flush()
    assert called == ["lazy"]
    progress.add(2, event())
    progress.add(3, Decisions(tallies=[lambda: called.append("left")]))
    progress.leave()
    assert called == ["lazy"]
    await bench.store.write(lambda tx: None)
    await until(lambda: called == ["lazy", "left"], "the tally of what was left behind")


async def test_a_seek_refuses_everything_that_is_under_way(bench: Bench, progress: Progress) -> None:
    progress.add(1, event())
    await bench.store.write(lambda tx: cursors.seek(tx, "p", "latest", 0))
    with pytest.raises(CursorMoved):
        await progress.commit()
    assert bench.database.sql("SELECT last_consumed_id, (SELECT count(*) FROM events) FROM cursors") == [(0, 0)]


async def test_leaving_hands_over_what_is_done(bench: Bench, progress: Progress) -> None:
    progress.add(1, event())
    progress.leave()
    await bench.store.write(lambda tx: None)
    assert bench.database.sql("SELECT last_consumed_id, (SELECT count(*) FROM events) FROM cursors") == [(1, 1)]
    progress.add(2)
    progress.leave()
    await bench.store.write(lambda tx: None)
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(2,)]


async def test_leaving_behind_a_commit_under_way_keeps_the_order(bench: Bench, progress: Progress) -> None:
    async with writer_blocked(bench.store):
        progress.add(1, event())
        progress._flush()
        progress.add(2)
        progress.leave()
    await bench.store.write(lambda tx: None)
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(2,)]


async def test_a_commit_that_the_store_has_to_try_again_counts_once(
    bench: Bench, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full; what was decided is the same when the store runs the units bench."""
    engine = bench.store._engine
    commit = engine.commit
    failures = [bench.database.full()]

    def full() -> None:
        if failures:
            raise failures.pop()
        commit()

    monkeypatch.setattr(engine, "commit", full)
    async with writer_blocked(bench.store):
        for number in (1, 2, 3):
            progress.add(number, event())
            progress._flush()
    await progress.commit()
    await until(lambda: not failures, "the failure")
    assert bench.database.sql("SELECT last_consumed_id, (SELECT count(*) FROM events) FROM cursors") == [(3, 3)]
    assert bench.metrics.events.total() == 3
