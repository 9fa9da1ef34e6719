"""What a part does that isn't this process's any more, or is another one's: nothing that counts twice."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from support.outbox import Outbox, Scripted, outbox
from support.processing import Bench, Recorder, emit_out
from support.stores import Database

from edgeq.clock import Clock
from edgeq.contracts.boots import Reading, between
from edgeq.filters import StoredFilters
from edgeq.notifications.channels.channel import Outcome, Rejected, Retry, Sent
from edgeq.notifications.outbox import Sender
from edgeq.redrive import Redriver
from edgeq.store import cursors, dead_letters, meta
from edgeq.store.dead_letters import DeadLetter, NewDeadLetter
from edgeq.testing import until


@pytest.fixture
async def box(database: Database) -> AsyncIterator[Outbox]:
    async with outbox(database, Clock()) as box:
        yield box


async def test_a_sender_that_has_lost_its_channel_hands_nothing_over(box: Outbox) -> None:
    channel = Scripted()
    sender = Sender("phone", channel, box.store, box.metrics, box.clock, owned=lambda: False)
    box.senders.append(sender)
    await box.queue("one")
    await sender.start()

    async def tried() -> bool:
        return (await box.row("one")).tried_at is not None

    await until(tried)
    await sender.stop()
    assert channel.sent == []


async def test_what_two_senders_mark_counts_once(box: Outbox) -> None:
    """One was frozen while it sent; the other one has taken over meanwhile."""
    answers: dict[str, Outcome] = {"sent": Sent(), "dead": Rejected("no")}
    for state, outcome in answers.items():
        await box.queue(state)
        frozen, other = Scripted(), Scripted()
        frozen.answer = other.answer = lambda notification, outcome=outcome: outcome  # type: ignore[misc]
        frozen.gate.clear()
        first = await box.start(frozen)
        await until(lambda frozen=frozen: frozen.sent)  # type: ignore[misc]
        second = await box.start(other)
        await box.until({state: state})
        frozen.gate.set()
        await first.stop()
        await second.stop()
    assert box.metrics.notifications.values == {"sent": 1, "dead": 1}
    assert [count["count"] for count in await dead_letters.counts(box.store)] == [1]


async def test_a_late_failure_takes_no_attempt_back(box: Outbox) -> None:
    await box.queue("one")
    frozen, other = Scripted(lambda _: Retry("late")), Scripted(lambda _: Retry("soon"))
    frozen.gate.clear()
    first = await box.start(frozen)
    await until(lambda: frozen.sent)
    second = await box.start(other)
    await box.failed("one")
    before = await box.row("one")
    frozen.gate.set()
    await until(lambda: first.last_error == "late")
    await first.stop()
    await second.stop()
    after = await box.row("one")
    assert (after.attempt, after.error) == (before.attempt, before.error) == (1, "soon")
    assert box.metrics.notifications.values == {"retried": 1}


async def test_a_processor_that_is_another_ones_does_not_take_its_cursor_back(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeq.processors")
    async with Bench(database) as bench:
        mine = True
        processor = Recorder(emit_out)
        runner = bench.runner("p", processor, types=["in.*"])
        runner._owned = lambda: mine
        await runner.start()
        await bench.add("in.a")
        await until(lambda: processor.seen == [1])
        mine = False
        taken = await bench.store.write(lambda tx: cursors.take(tx, "p", "beginning", 0))
        await bench.add("in.a")
        await until(lambda: "the cursor was moved from outside" in caplog.text)
        await runner.stop()
        cursor = await cursors.one(bench.store, "p")
        assert cursor is not None
        assert cursor.generation == taken.generation


async def test_a_letter_that_is_another_ones_is_left_to_it(database: Database) -> None:
    async with Bench(database) as bench:
        new = [NewDeadLetter(source=source, reason="r", error="e", created_at=1) for source in ("mine:a", "theirs:a")]
        await bench.store.write(lambda tx: dead_letters.add(tx, new))
        await bench.store.write(lambda tx: dead_letters.request_redrive(tx, 1))
        done: list[str] = []

        async def handle(letter: DeadLetter) -> None:
            await bench.store.write(lambda tx: dead_letters.mark_redriven(tx, letter.id, 1))
            done.append(letter.source)

        mine = {"mine:a"}
        handlers = {"mine": handle, "theirs": handle}
        redriver = Redriver(handlers, bench.store, bench.clock, mine=lambda letter: letter.source in mine)
        await redriver.start()
        await until(lambda: done == ["mine:a"])
        assert [each.source for each in await dead_letters.redrive_requests(bench.store, 0, 9)] == ["theirs:a"]
        mine.add("theirs:a")  # its owner has died
        await until(lambda: done == ["mine:a", "theirs:a"])
        await redriver.stop()


async def test_each_client_has_topic_filters_of_its_own(database: Database) -> None:
    async with database.opened() as store:
        await store.write(lambda tx: meta.put(tx, "mqtt_filters", "from/an/earlier/version"))
        first, second = StoredFilters(store, "edgeq-a", own=True), StoredFilters(store, "edgeq-b")
        assert (await first.load(), await second.load()) == (["from/an/earlier/version"], [])
        await first.save(["a/#"])
        await second.save([])
        assert (await first.load(), await second.load()) == (["a/#"], [])


def test_when_another_machine_was_booted_says_nothing_of_the_time_between() -> None:
    there, here = Reading("boot-there", 5, synchronised=False), Reading("boot-here", 7, synchronised=True)
    assert between(there, here).booted_at == 7
    assert between(there, here, one_machine=False).booted_at is None
    assert between(here, here, one_machine=False).step == 0
