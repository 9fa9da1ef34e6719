"""What is older than it is to be kept goes, in small units; what somebody still needs stays."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.pruned import DAY, DAYS_30, ages, fill, ids, no_rest, place, retention
from support.stores import Database

from edgeq.events import NewEvent
from edgeq.store import dead_letters, events, meta, silences, threads
from edgeq.store.store import Store, Tx
from edgeq.store.tables import DeadLetters, Notifications
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock
from edgeq.units import Duration
from edgeq.upkeep import pruner
from edgeq.upkeep.retention import WAIT_DAYS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> AsyncIterator[Store]:
    async with database.opened(clock=clock) as store:
        yield store


async def test_events_that_are_too_old_go_and_others_stay(store: Store, clock: FakeClock) -> None:
    now = clock.now()
    await fill(store, [now - DAYS_30 - 2, now - DAYS_30 - 1, now - DAYS_30, now])
    metrics = Metrics()
    await retention(store, clock, metrics=metrics).look()
    assert await ids(store) == [3, 4], "exactly at its age an event is kept"
    assert metrics.deleted.values == {"events": 2}
    await fill(store, [now])
    assert await ids(store) == [3, 4, 5]


async def test_the_id_of_a_deleted_event_is_nobodys(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now() - 40 * DAY] * 3)
    await retention(store, clock).look()
    assert await ids(store) == []
    await fill(store, [clock.now()])
    assert await ids(store) == [4]


async def test_with_an_event_its_key_goes(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now() - 40 * DAY], key="k")
    await fill(store, [clock.now()], key="k")
    assert await ids(store) == [1], "the key is there"
    await retention(store, clock).look()
    await fill(store, [clock.now()], key="k")
    assert len(await ids(store)) == 1


@pytest.mark.parametrize("paused", [False, True])
async def test_what_a_processor_has_not_seen_stays_paused_or_not(store: Store, clock: FakeClock, paused: bool) -> None:
    await fill(store, [clock.now() - 40 * DAY] * 5)
    await place(store, "slow", 2, moved_at=clock.now() - 50 * DAY, paused=paused)
    await place(store, "fast", 5, moved_at=clock.now())
    await retention(store, clock, processors=["slow", "fast"]).look()
    assert await ids(store) == [3, 4, 5]


async def test_one_that_is_not_configured_any_more_counts_for_as_long_as_events_are_kept(
    store: Store, clock: FakeClock
) -> None:
    await fill(store, [clock.now() - 40 * DAY] * 5)
    await place(store, "gone", 2, moved_at=clock.now() - 29 * DAY)
    upkeep = retention(store, clock)
    await upkeep.look()
    assert await ids(store) == [3, 4, 5]
    clock.advance(86_401)
    await upkeep.look()
    assert await ids(store) == []


async def test_many_go_in_small_units_and_others_get_in_between(store: Store, clock: FakeClock) -> None:
    """Rows are counted, not seconds: between any two units that delete, one of the intake's is committed."""
    count = 3 * pruner.ROWS_AT_ONCE
    await fill(store, [clock.now() - 40 * DAY] * count)
    left = [count]

    async def rest(seconds: float) -> None:
        assert seconds > 0
        await asyncio.wait_for(
            store.write(lambda tx: events.append(tx, [NewEvent("in", clock.now(), clock.now())])), 30
        )
        left.append(len([each for each in await ids(store) if each <= count]))

    await retention(store, clock, rest=rest).look()
    gone = [before - after for before, after in itertools.pairwise(left)]
    assert sum(gone) == count
    assert max(gone) <= pruner.ROWS_AT_ONCE
    assert len(await ids(store)) == len(gone)


async def test_nothing_due_writes_nothing(database: Database, store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now()])
    upkeep = retention(store, clock)
    await upkeep.look()
    before = database.written()
    for _ in range(3):
        clock.advance(3600)
        await upkeep.look()
    if database.kind == "sqlite":  # a server gives a number to whoever deletes
        assert database.written() == before


async def test_dead_letters_go_but_those_that_are_to_be_redriven(store: Store, clock: FakeClock) -> None:
    now = clock.now()

    def unit(tx: Tx) -> None:
        for created_at in (now - 91 * DAY, now - 91 * DAY, now - 91 * DAY, now):
            letter = dead_letters.NewDeadLetter(source="intake", reason="r", error="e", created_at=created_at)
            dead_letters.add(tx, [letter])
        tx.run(DeadLetters.update(redrive_requested_at=now).where(DeadLetters.id.in_([1, 2])))
        tx.run(DeadLetters.update(redriven_at=now).where(DeadLetters.id == 2))

    await store.write(unit)
    await retention(store, clock).look()
    assert sorted(letter.id for letter in await dead_letters.find(store, limit=9, redriven=None)) == [1, 4]


def notification(at: int, state: str, fingerprint: str) -> dict[str, Any]:
    return {
        "channel": "phone", "severity": "info", "title": "t", "body": "", "fingerprint": fingerprint, "state": state,
        "attempt": 0, "next_attempt_at": at, "created_at": at, "kind": "alert", "detail": "{}",
    }  # fmt: skip


async def test_notifications_go_but_those_that_wait_or_belong_to_an_open_thread(store: Store, clock: FakeClock) -> None:
    old = clock.now() - 91 * DAY

    def unit(tx: Tx) -> None:
        for state, fingerprint in (
            ("sent", "over"), ("queued", "over"), ("sent", "open"), ("dead", "over"), ("grouped", "over"),
            ("silenced", "over"),
        ):  # fmt: skip
            tx.run(Notifications.insert(notification(old, state, fingerprint)))
        tx.run(Notifications.insert(notification(clock.now(), "sent", "over")))
        thread = threads.Thread(
            fingerprint="open", route="r", event_id=1, severity="info", channels=("phone",), opened_at=old
        )
        threads.begin(tx, thread, threads.ThreadText("t", "", "{}"))

    await store.write(unit)
    await retention(store, clock).look()
    left = await store.read(Notifications.select(Notifications.id).order_by(Notifications.id))
    assert left == [(2,), (3,), (7,)]


async def test_silences_that_ended_go(store: Store, clock: FakeClock) -> None:
    now = clock.now()
    for ends_at in (now - 91 * DAY, now - DAY, now + DAY):
        new = silences.NewSilence("{}", now - 92 * DAY, ends_at, now - 92 * DAY)
        await store.write(lambda tx, new=new: silences.add(tx, new))  # type: ignore[misc]
    await retention(store, clock).look()
    assert [silence.id for silence in await silences.latest(store, 9)] == [3, 2]


# A store of an earlier version, which kept everything


async def upgraded(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now() - 40 * DAY] * 2 + [clock.now()])
    await store.write(lambda tx: meta.put(tx, "retention_waits", ""))


async def test_who_upgrades_is_told_a_week_before_anything_goes(store: Store, clock: FakeClock) -> None:
    await upgraded(store, clock)
    for days in range(WAIT_DAYS):
        await retention(store, clock, chosen=False).look()
        assert (await ids(store))[:3] == [1, 2, 3], days
        clock.advance(86_400)
    told = [event for event in await events.recent(store, limit=9) if event.type == "edgeq.retention_begins"]
    assert [event.tags for event in told] == [("notification",)], "once"
    assert "store.retention.events" in told[0].description
    await retention(store, clock, chosen=False).look()
    assert await ids(store) == [3, 4]


async def test_who_has_chosen_an_age_waits_for_nothing(store: Store, clock: FakeClock) -> None:
    await upgraded(store, clock)
    await retention(store, clock, chosen=True).look()
    assert await ids(store) == [3]
    assert await meta.get(store, "retention_waits") is None


async def test_a_new_store_waits_for_nothing(store: Store) -> None:
    assert await meta.get(store, "retention_waits") is None


# Short ages


async def test_an_age_of_a_minute_is_looked_at_every_few_seconds(store: Store, clock: FakeClock) -> None:
    upkeep = retention(store, clock, ages(events=Duration(60)))
    assert upkeep._look_seconds == 6


async def test_a_processor_that_reads_meanwhile_sees_every_event(store: Store, clock: FakeClock) -> None:
    """Its cursor moves while what is behind it is deleted: nothing is skipped."""
    count = 1200
    await fill(store, [clock.now() - 40 * DAY] * count)
    await place(store, "reader", 0)
    seen: list[int] = []

    async def read() -> None:
        while len(seen) < count:
            batch = await events.after(store, seen[-1] if seen else 0, 50)
            seen.extend(event.id for event in batch)
            await place(store, "reader", seen[-1])

    reading = asyncio.create_task(read())
    upkeep = retention(store, clock, processors=["reader"], rest=no_rest)
    while not reading.done():
        await upkeep.look()
        await asyncio.sleep(0)
    await reading
    await upkeep.look()
    assert seen == list(range(1, count + 1))
    assert await ids(store) == []


async def test_a_cursor_that_is_set_back_meanwhile_keeps_what_is_behind_it(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now() - 40 * DAY] * 1000)
    await place(store, "reader", 1000)
    back: list[int] = []

    async def rest(seconds: float) -> None:
        if not back:
            back.append((await ids(store))[0] + 100)
            await place(store, "reader", back[0])

    await retention(store, clock, processors=["reader"], rest=rest).look()
    assert await ids(store) == list(range(back[0] + 1, 1001))
