"""What there is no room for goes, in order; what a processor hasn't seen only for a hard limit, and then not in
silence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.pruned import ages, fill, ids, place, retention
from support.stores import Database, SqliteDatabase

from edgeq.config.schema import Retention as Ages
from edgeq.store import dead_letters, events, meta
from edgeq.store.space import measure
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock
from edgeq.units import Size
from edgeq.upkeep import pruner

MIB = 2**20


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> AsyncIterator[Store]:
    async with database.opened(clock=clock) as store:
        yield store


@pytest.fixture
async def sqlite(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    """A file that measures itself; its log is short, so that it counts for little."""
    async with SqliteDatabase(tmp_path).opened(clock=clock, log_bytes_kept=256 * 1024) as store:
        assert isinstance(store, SqliteStore)
        yield store


class Disk:
    """A disk of which a test says how much is free; what the store hands back becomes free."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        self.log = 0
        self._measured = type(store).disk
        self._store = store
        self._first = self._measured(store)["file_bytes"]
        monkeypatch.setattr(store, "disk", self.disk)

    def disk(self) -> dict[str, int]:
        found = self._measured(self._store)
        given = self._first - found["file_bytes"]
        return found | {
            "free_disk_bytes": self.free + given - self.log,
            "disk_bytes": 1000 * MIB,
            "wal_bytes": self.log,
        }


# Rows


async def test_the_oldest_go_that_are_more_than_max_rows(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now()] * 10)
    await retention(store, clock, ages(max_rows=4)).look()
    assert await ids(store) == [7, 8, 9, 10]


async def test_of_low_priority_they_go_first_and_of_high_last(store: Store, clock: FakeClock) -> None:
    for keep in (1, 0, -1, 0, -1, 1):
        await fill(store, [clock.now()] * 2, keep=keep)  # 1-2 high, 3-4 normal, 5-6 low, 7-8 normal, 9-10 low, 11-12
    for most, left in (
        (11, [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]),
        (8, [1, 2, 3, 4, 7, 8, 11, 12]),
        (6, [1, 2, 7, 8, 11, 12]),
        (3, [2, 11, 12]),
    ):
        await retention(store, clock, ages(max_rows=most)).look()
        assert await ids(store) == left


async def test_max_rows_is_no_reason_to_take_events_from_a_processor(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now()] * 10)
    await place(store, "slow", 3)
    upkeep = retention(store, clock, ages(max_rows=4), processors=["slow"])
    await upkeep.look()
    assert await ids(store) == [4, 5, 6, 7, 8, 9, 10]
    assert "more than 4 events (max_rows)" in upkeep.room.trouble
    await place(store, "slow", 10)
    await upkeep.look()
    assert (await ids(store), upkeep.room.trouble) == ([7, 8, 9, 10], "")


# Bytes


async def test_a_file_is_kept_below_max_size(sqlite: SqliteStore, clock: FakeClock) -> None:
    await fill(sqlite, [clock.now()] * 3000, bytes_each=4000)
    assert (await measure(sqlite)).used > 11 * MIB
    upkeep = retention(sqlite, clock, ages(max_size=Size(6 * MIB)))
    await upkeep.look()
    room, left = await measure(sqlite), await ids(sqlite)
    assert 5 * MIB < room.used <= 6 * MIB
    assert left == list(range(left[0], 3001)), "the oldest went"
    assert upkeep.room.trouble == ""
    assert await meta.get(sqlite, "events_dropped") is None
    assert [event.type for event in await events.recent(sqlite, limit=1)] == ["t"], "nothing was lost, nothing is told"


async def test_on_a_server_what_rows_take_is_reckoned(store: Store, clock: FakeClock) -> None:
    if (await measure(store)).exact:
        return  # see above
    await fill(store, [clock.now()] * 3000, bytes_each=4000)
    for _ in range(200):  # a server notes what was written after a while
        if (await measure(store)).used > 0:
            break
        await store.read(events._HEAD, (1,))
    room = await measure(store)
    assert 0 < room.row < 40_000


async def test_for_max_size_events_go_that_a_processor_has_not_seen_and_it_is_told(
    sqlite: SqliteStore, clock: FakeClock
) -> None:
    await fill(sqlite, [clock.now()] * 1000, bytes_each=4000)
    await fill(sqlite, [clock.now()] * 2000, bytes_each=4000, keep=-1)
    await place(sqlite, "slow", 500)
    await place(sqlite, "slower", 100)
    metrics = Metrics()
    upkeep = retention(sqlite, clock, ages(max_size=Size(8 * MIB)), processors=["slow", "slower"], metrics=metrics)
    await upkeep.look()
    left = await ids(sqlite)
    told = (await events.recent(sqlite, limit=1))[0]
    gone = 3000 - len(left) + 1  # the last one is the one that tells
    assert left[:900] == list(range(101, 1001)), "what all have seen goes first, then what is low"
    assert told.type == "edgeq.events_dropped"
    assert told.tags == ("notification",)
    assert told.data["events"] == gone - 100
    assert told.data["processors"] == {"slow": gone - 100, "slower": gone - 100}
    assert (told.data["first"], told.data["reasons"]) == (1001, {"max_size": gone - 100})
    assert metrics.events_dropped.values == {"max_size": gone - 100}
    assert "not yet seen by slow" in told.description
    # A cursor that stood before them goes on behind them.
    assert [event.id for event in await events.after(sqlite, 1000, 1)] == [left[900]]
    assert left[900] == told.data["last"] + 1
    # And it is told once.
    await upkeep.look()
    assert (await events.recent(sqlite, limit=1))[0].id == told.id


async def test_what_was_dropped_before_a_crash_is_told_after_it(sqlite: SqliteStore, clock: FakeClock) -> None:
    from edgeq.upkeep import dropped

    await fill(sqlite, [clock.now()] * 3)
    await sqlite.write(lambda tx: dropped.note_events(tx, [1, 2], {"p": 0}, "max_size", clock.now()))
    await retention(sqlite, clock).look()
    assert (await events.recent(sqlite, limit=1))[0].data["processors"] == {"p": 2}


async def test_a_flood_of_dead_letters_does_not_take_the_room_of_events(sqlite: SqliteStore, clock: FakeClock) -> None:
    await fill(sqlite, [clock.now()] * 500, bytes_each=4000)
    letter = dead_letters.NewDeadLetter(
        source="intake", reason="r", error="e", created_at=clock.now(), payload=b"x" * 4000
    )
    await sqlite.write(lambda tx: dead_letters.add(tx, [letter] * 3000))
    await retention(sqlite, clock, ages(max_size=Size(8 * MIB))).look()
    assert len(await ids(sqlite)) == 501, "all, and what tells of the letters"
    left = [found.id for found in await dead_letters.find(sqlite, limit=9999)]
    assert left == list(range(3000, 3000 - len(left), -1))
    assert len(left) >= pruner.LATEST_KEPT
    told = (await events.recent(sqlite, limit=1))[0]
    assert told.data["dead_letters"] == 3000 - len(left)


async def test_what_must_stay_is_said_when_it_is_too_much(sqlite: SqliteStore, clock: FakeClock) -> None:
    await sqlite.write(lambda tx: [meta.put(tx, f"big{number}", "x" * 50_000) for number in range(120)])
    await fill(sqlite, [clock.now()] * 10)
    upkeep = retention(sqlite, clock, ages(max_size=Size(4 * MIB)))
    await upkeep.look()
    assert await ids(sqlite) == []
    assert "more than max_size (4MiB), and nothing is left" in upkeep.room.trouble


# Free disk


async def test_events_go_until_enough_of_the_disk_is_free(
    sqlite: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sqlite, [clock.now()] * 3000, bytes_each=4000)
    disk = Disk(sqlite, monkeypatch, free=47 * MIB)
    upkeep = retention(sqlite, clock, ages(min_free_disk=Size(50 * MIB)))
    used = (await measure(sqlite)).used
    await upkeep.look()
    room = await measure(sqlite)
    assert 2 * MIB < used - room.used < 4 * MIB, "as much as was lacking"
    assert room.free < MIB, "and it is handed back"
    assert upkeep.room.trouble == ""
    assert disk.disk()["free_disk_bytes"] >= 47 * MIB


async def test_nothing_goes_for_a_disk_that_others_fill(
    sqlite: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sqlite, [clock.now()] * 100, bytes_each=4000)
    disk = Disk(sqlite, monkeypatch, free=10 * MIB)
    upkeep = retention(sqlite, clock, ages(min_free_disk=Size(50 * MIB)))
    await upkeep.look()
    assert len(await ids(sqlite)) == 100
    assert "it isn't edgeq that fills it" in upkeep.room.trouble
    disk.free = 60 * MIB
    await upkeep.look()
    assert upkeep.room.trouble == ""


async def test_what_others_take_as_fast_as_it_becomes_free_is_given_once(
    sqlite: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sqlite, [clock.now()] * 3000, bytes_each=4000)
    disk = Disk(sqlite, monkeypatch, free=47 * MIB)

    async def rest(seconds: float) -> None:
        disk.free -= MIB

    upkeep = retention(sqlite, clock, ages(min_free_disk=Size(50 * MIB)), rest=rest)
    await upkeep.look()
    left = len(await ids(sqlite))
    assert 1500 < left < 2500
    disk.free = 44 * MIB
    await upkeep.look()
    assert len(await ids(sqlite)) == left
    assert "it isn't edgeq that fills it" in upkeep.room.trouble


async def test_that_the_log_grows_meanwhile_is_not_the_doing_of_others(
    sqlite: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sqlite, [clock.now()] * 3000, bytes_each=4000)
    disk = Disk(sqlite, monkeypatch, free=47 * MIB)
    sqlite._engine.log_bytes_kept = 16 * MIB

    async def rest(seconds: float) -> None:
        disk.log = min(5 * MIB, disk.log + MIB)

    upkeep = retention(sqlite, clock, ages(min_free_disk=Size(50 * MIB)), rest=rest)
    await upkeep.look()
    assert upkeep.room.trouble == ""
    await upkeep.look()
    await upkeep.look()
    assert upkeep.room.trouble == ""
    assert disk.disk()["free_disk_bytes"] >= 49 * MIB


async def test_on_a_disk_that_others_fill_as_much_goes_as_comes(
    sqlite: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sqlite, [clock.now()] * 1000, bytes_each=4000)
    Disk(sqlite, monkeypatch, free=10 * MIB)
    upkeep = retention(sqlite, clock, ages(min_free_disk=Size(50 * MIB)))
    await upkeep.look()
    await fill(sqlite, [clock.now()] * 500, bytes_each=4000)
    await upkeep.look()
    left = await ids(sqlite)
    assert 990 <= len(left) <= 1010
    assert left[-1] == 1500
    assert "it isn't edgeq that fills it" in upkeep.room.trouble


async def test_of_a_small_disk_a_quarter_is_to_be_free(sqlite: SqliteStore, clock: FakeClock) -> None:
    upkeep = retention(sqlite, clock, Ages())
    assert upkeep.room._free_wanted(sqlite.disk() | {"disk_bytes": 16 * MIB}) == 4 * MIB
    assert upkeep.room._free_wanted(sqlite.disk() | {"disk_bytes": 32_000 * MIB}) == 200 * MIB


async def test_near_a_limit_is_seen_without_reading(
    sqlite: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(sqlite, monkeypatch, free=1000 * MIB)
    near = retention(sqlite, clock, ages(max_size=Size(64 * MIB), min_free_disk=Size(50 * MIB))).room
    assert not near.is_near()
    disk.free = 52 * MIB
    assert near.is_near()
    disk.free = 1000 * MIB
    assert retention(sqlite, clock, ages(max_size=Size(4 * MIB), min_free_disk=Size(0))).room.is_near() is False
    await fill(sqlite, [clock.now()] * 1000, bytes_each=4000)
    assert retention(sqlite, clock, ages(max_size=Size(4 * MIB), min_free_disk=Size(0))).room.is_near()
