"""What a forwarder does with what a site says, and when it sends."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from support.forwarding import Site, add, forwarder
from support.stores import Database

from edgeq.forward.target import Answer, Away, Parcel, Refused
from edgeq.processors.runner import ProcessorRunner
from edgeq.store import cursors, dead_letters, meta
from edgeq.store import events as stored
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until
from edgeq.units import Duration, Size


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with database.opened() as made:
        yield made


async def settled(store: Store, runner: ProcessorRunner) -> None:
    """It has sent all, and what it decided is on disk."""

    async def done() -> bool:
        return runner.position >= await stored.head(store) and runner.settled

    await until(done, "all to be sent", store=store)


async def passing(store: Store, clock: FakeClock, runner: ProcessorRunner, seconds: float = 1.0) -> None:
    """The same while time passes."""

    async def done() -> bool:
        clock.advance(seconds)
        store.signal.fire(["events"])
        return runner.position >= await stored.head(store) and runner.settled

    await until(done, "all to be sent", store=store)


async def test_events_go_in_batches_and_live_ones_at_once(store: Store, clock: FakeClock) -> None:
    site, metrics = Site(), Metrics()
    await add(store, 25)
    runner = forwarder(store, site, clock, metrics, batch_size=10)
    await runner.start()
    await settled(store, runner)
    assert [len(parcel) for parcel in site.parcels] == [10, 10, 5]
    await add(store, 1)
    await settled(store, runner)
    await runner.stop()
    assert site.ids == list(range(1, 27))

    async def committed() -> bool:
        cursor = await cursors.one(store, "cloud")
        return cursor is not None and cursor.last_consumed_id == 26

    await until(committed, "the cursor to follow", store=store)
    assert metrics.forwarded.values == {"cloud": 26}
    assert metrics.processed.values == {"cloud": 26}
    assert metrics.forwarded_bytes.values["cloud"] > 26 * 50


async def test_what_is_sent_says_where_it_comes_from(store: Store, clock: FakeClock) -> None:
    seen: list[Parcel] = []

    def judge(parcel: Parcel) -> Answer | None:
        seen.append(parcel)
        return None

    await add(store, 1, tags=("x",), idempotency_key="own", description="d", topic="a/b")
    runner = forwarder(store, Site(judge), clock, prefix="{gateway}/")
    await runner.start()
    await settled(store, runner)
    await runner.stop()
    (event,) = seen[0].batch.events
    assert (event.subject, event.tags, event.topic) == ("gw/s", ("x", "from:gw"), "a/b")
    assert event.idempotency_key == f"{store.id}:1"
    assert seen[0].batch.head == 1


async def test_a_series_has_keys_of_its_own(store: Store, clock: FakeClock) -> None:
    site = Site()
    keys: list[str] = []
    site.judge = lambda parcel: keys.append(parcel.key)
    await add(store, 2)
    runner = forwarder(store, site, clock, series=2)
    await runner.start()
    await settled(store, runner)
    await runner.stop()
    assert keys == [f"{store.id}.2:1-2"]


async def test_an_outage_loses_nothing_and_is_told_once(
    store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(lambda parcel: Away("no route to host"))
    await add(store, 5)
    runner = forwarder(store, site, clock)
    with caplog.at_level(logging.INFO, "edgeq"):
        await runner.start()
        await until(lambda: runner.state == "waiting", "the outage", store=store)
        for _ in range(20):
            asked = len(site.asked)
            clock.advance(1)
            store.signal.fire(["events"])
            await until(lambda before=asked: len(site.asked) > before, "another attempt")
        assert runner.waiting_for == "the site: no route to host"
        site.judge = lambda parcel: None
        await passing(store, clock, runner)
        await until(lambda: runner.state == "running", "the end of the outage")
        await runner.stop()
    assert site.ids == [1, 2, 3, 4, 5]
    told = [record.message for record in caplog.records if "cloud" in record.name]
    assert told == ["waits: the site: no route to host", "goes on"]
    assert await dead_letters.counts(store) == []


async def test_a_site_that_says_when_is_believed(store: Store, clock: FakeClock) -> None:
    site = Site()
    site.answers.append(Away("busy", after_seconds=100.0))
    await add(store, 1)
    runner = forwarder(store, site, clock)
    await runner.start()
    await until(lambda: runner.state == "waiting", "the answer", store=store)
    clock.advance(99)
    store.signal.fire(["events"])
    await add(store, 1)
    assert len(site.asked) == 1
    clock.advance(2)
    store.signal.fire(["events"])
    await settled(store, runner)
    await runner.stop()
    assert site.ids == [1, 2]


async def test_the_events_that_are_refused_are_set_aside_and_the_others_go_on(store: Store, clock: FakeClock) -> None:
    bad = {17, 63, 64}
    site = Site(lambda parcel: Refused("bad value") if bad & set(parcel.batch.ids) else None)
    await add(store, 100)
    runner = forwarder(store, site, clock)
    await runner.start()
    await settled(store, runner)
    await runner.stop()
    assert site.ids == [number for number in range(1, 101) if number not in bad]
    letters = [await dead_letters.one(store, number) for number in (1, 2, 3)]
    assert {letter.event_id for letter in letters if letter} == bad
    assert {(letter.source, letter.reason, letter.error) for letter in letters if letter} == {
        ("processor:cloud", "refused", "the site: bad value")
    }
    assert len(site.asked) < 60


async def test_data_that_is_no_json_is_set_aside(database: Database, clock: FakeClock) -> None:
    async with database.opened() as store:
        await add(store, 3)
        database.sql("UPDATE events SET data = 'nonsense' WHERE id = 2")
        site = Site()
        runner = forwarder(store, site, clock)
        await runner.start()
        await settled(store, runner)
        await runner.stop()
        assert site.ids == [1, 3]


async def test_a_site_that_refuses_everything_costs_few_events(store: Store, clock: FakeClock) -> None:
    site = Site(lambda parcel: Refused("go away"))
    await add(store, 50)
    runner = forwarder(store, site, clock)
    await runner.start()

    async def letters() -> int:
        return sum(each["count"] for each in await dead_letters.counts(store))

    await until(lambda: len(site.asked) >= 16, "the refusals", store=store)
    asked = len(site.asked)
    await add(store, 1)  # wakes it
    assert len(site.asked) == asked, "it rests"
    site.judge = lambda parcel: None
    await passing(store, clock, runner)
    await runner.stop()
    assert await letters() + len(site.ids) == 51
    assert await letters() <= 12


async def test_what_is_too_large_goes_in_smaller_batches(store: Store, clock: FakeClock) -> None:
    site = Site(lambda parcel: Refused("too large", too_large=True) if len(parcel.batch.ids) > 7 else None)
    await add(store, 200)
    runner = forwarder(store, site, clock)
    await runner.start()
    await settled(store, runner)
    await runner.stop()
    assert site.ids == list(range(1, 201))
    assert len(site.asked) - len(site.parcels) < len(site.parcels), "it learns"


async def test_a_body_has_a_limit(store: Store, clock: FakeClock) -> None:
    sizes: list[int] = []
    site = Site()
    site.judge = lambda parcel: sizes.append(len(parcel.body))
    await add(store, 100)
    runner = forwarder(store, site, clock, max_body=Size(4096))
    await runner.start()
    await settled(store, runner)
    await runner.stop()
    assert site.ids == list(range(1, 101))
    assert max(sizes) <= 4096


async def test_the_backlog_goes_at_the_rate(store: Store, clock: FakeClock) -> None:
    """Two weeks of one event in 24 seconds, after an outage."""
    for _ in range(10):
        await add(store, 5_000)
    site, began = Site(), clock.monotonic()
    rate = 2_000
    site.judge = lambda parcel: counted.append((clock.monotonic(), len(parcel.batch.ids)))
    counted: list[tuple[float, int]] = []
    runner = forwarder(store, site, clock, rate=f"{rate}/s")
    await runner.start()
    while runner.position < 50_000:
        position = runner.position
        clock.advance(0.5)
        store.signal.fire(["events"])
        await until(lambda before=position: runner.position > before, "it to go on", store=store)
    await runner.stop()
    assert sorted(site.ids) == list(range(1, 50_001))
    total = 0
    for moment, count in counted:
        total += count
        assert total <= rate * (moment - began) + rate, "more than a second's worth ahead"


async def test_a_live_event_does_not_wait_for_the_rate(store: Store, clock: FakeClock) -> None:
    site = Site()
    runner = forwarder(store, site, clock, rate="1/m")
    await runner.start()
    await add(store, 1)
    await settled(store, runner)
    clock.advance(60)
    await add(store, 1)
    await settled(store, runner)
    await runner.stop()
    assert site.ids == [1, 2]


async def test_events_are_gathered_as_long_as_asked(store: Store, clock: FakeClock) -> None:
    site = Site()
    runner = forwarder(store, site, clock, gather=Duration(10), batch_size=5)
    await runner.start()
    await add(store, 2)
    await add(store, 1)
    await until(lambda: runner._not_before > clock.monotonic(), "it to wait", store=store)
    assert site.asked == []
    clock.advance(11)
    store.signal.fire(["events"])
    await settled(store, runner)
    await add(store, 5)
    await settled(store, runner)
    await runner.stop()
    assert site.parcels == [(1, 2, 3), (4, 5, 6, 7, 8)], "a full batch doesn't wait"


async def test_events_that_are_not_wanted_do_not_make_it_behind(store: Store, clock: FakeClock) -> None:
    site = Site()
    runner = forwarder(store, site, clock, types=["reading"], newest_first=["reading"], gather=Duration(10))
    await runner.start()
    await add(store, 1)
    await add(store, 3, "other")
    await until(lambda: runner._not_before > clock.monotonic(), "it to wait", store=store)
    assert site.asked == []
    clock.advance(11)
    store.signal.fire(["events"])
    await settled(store, runner)
    await runner.stop()
    assert site.parcels == [(1,)]
    assert await meta.get(store, "forward_window:cloud") is None, "nothing went before its turn"


async def test_what_came_back_from_the_site_is_not_sent_again(store: Store, clock: FakeClock) -> None:
    site = Site()
    await add(store, 1, tags=("from:gw", "from:site"))
    await add(store, 1, tags=("from:other",))
    runner = forwarder(store, site, clock)
    await runner.start()
    await settled(store, runner)
    await runner.stop()
    assert site.ids == [2]


async def test_one_that_was_set_aside_can_be_sent_again(store: Store, clock: FakeClock) -> None:
    site = Site(lambda parcel: Refused("bad value") if 1 in parcel.batch.ids else None)
    await add(store, 3)
    runner = forwarder(store, site, clock, rate="3/s")
    await runner.start()
    await passing(store, clock, runner)
    site.judge = lambda parcel: None
    event = await stored.one(store, 1)
    assert event is not None
    await runner.redrive(event, lambda tx: True)
    await runner.stop()
    assert sorted(site.ids) == [1, 2, 3]


async def test_seek_sends_again(store: Store, clock: FakeClock) -> None:
    site = Site()
    await add(store, 3)
    runner = forwarder(store, site, clock)
    await runner.start()
    await settled(store, runner)
    await store.write(lambda tx: cursors.seek(tx, "cloud", 1, clock.now()))
    await until(lambda: len(site.ids) == 5, "the last two again", store=store)
    await runner.stop()
    assert site.ids == [1, 2, 3, 2, 3]


async def test_a_stop_in_an_outage_is_no_hardship(store: Store, clock: FakeClock) -> None:
    site = Site(lambda parcel: Away("no route to host"))
    await add(store, 1)
    runner = forwarder(store, site, clock)
    await runner.start()
    await until(lambda: runner.state == "waiting", "the outage", store=store)
    await runner.stop(5.0)
    assert runner.state == "stopped"
    cursor = await cursors.one(store, "cloud")
    assert cursor is not None
    assert cursor.last_consumed_id == 0
