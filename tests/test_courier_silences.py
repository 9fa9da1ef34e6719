"""Silences: what they hold back, what is told when they end, and that everybody may make and end them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.couriers import HOUR, MINUTE, Desk, contract, desk, event, routes
from support.processing import Bench
from support.stores import Database

from edgeq.events import NewEvent, to_json
from edgeq.notifications.policy import Policy
from edgeq.processors.courier import Courier
from edgeq.store import events, notifications, silences
from edgeq.store.silences import NewSilence
from edgeq.testing import until
from edgeq.testing.clock import NOON, FakeClock

PHONE = {"channels": ["phone"]}
COLD = {"contract": "cold"}


@pytest.fixture
async def box(database: Database) -> AsyncIterator[Desk]:
    async with desk(database, {**PHONE, "repeat": ["15m"]}) as box:
        yield box


async def states(box: Desk) -> list[tuple[int, str, str]]:
    return [((row.created_at - NOON) // MINUTE, row.kind, row.state) for row in await box.rows()]


async def test_what_it_is_about_stands_in_the_history_alone(box: Desk) -> None:
    silence_id = await box.silence({"types": ["door.*"]}, seconds=3600)
    await box.open(PHONE)
    await box.occurs("door.opened")
    await box.occurs("window.opened")
    rows = await box.rows()
    assert [(row.state, row.error) for row in rows] == [("silenced", f"silence {silence_id}"), ("queued", None)]
    assert box.metrics.notifications.values == {"silenced": 1, "queued": 1}
    await box.pass_time(7200)
    assert len(await box.rows()) == 2


@pytest.mark.parametrize(("at", "silenced"), [(-1, False), (0, True), (3599, True), (3600, False)])
async def test_from_its_beginning_until_before_its_end(box: Desk, at: int, silenced: bool) -> None:
    await box.open(PHONE)
    await box.silence(begin=60, seconds=3600)
    box.clock.advance(60 + at)
    await box.occurs()
    assert [row.state == "silenced" for row in await box.rows()] == [silenced]


async def test_it_counts_when_the_event_was_stored(box: Desk) -> None:
    """The courier was paused during the works, and is resumed when they are over."""
    await box.open(PHONE)
    await box.silence(seconds=3600)
    box.clock.advance(2 * 3600)
    await box.tell(event(at=NOON + 30 * MINUTE), event(at=NOON + 90 * MINUTE))
    assert [row.state for row in await box.rows()] == ["silenced", "queued"]


async def test_what_is_still_open_at_the_end_is_told_then(box: Desk) -> None:
    await box.silence(COLD, seconds=3600)
    await box.happens("violated")
    await box.happens("violated", subject="f2")
    assert (await box.threads())[0].thread.silenced
    box.clock.advance(600)
    await box.happens("resolved", subject="f2")
    await box.live(2 * 3600)
    rows = [row for row in await box.rows() if row.state != "silenced"]
    assert [((row.created_at - NOON) // MINUTE, row.kind) for row in rows] == [
        (60, "alert"), (75, "reminder"), (90, "reminder"), (105, "reminder"), (120, "reminder"),
    ]  # fmt: skip
    assert rows[0].title == "f1 violated (for 1h)"
    assert [row.kind for row in await box.rows() if row.state == "silenced"] == ["alert", "alert", "resolved"]


async def test_resolved_after_the_end_follows_what_was_told(box: Desk) -> None:
    await box.silence(COLD, seconds=3600)
    await box.happens("violated")
    await box.live(3700)
    await box.happens("resolved")
    assert (await states(box))[-1] == (61, "resolved", "queued")


async def test_a_reminder_of_the_contract_may_be_the_first_to_tell(box: Desk) -> None:
    """The silence is over, and the event comes before the courier has looked at the clock."""
    await box.silence(COLD, seconds=3600)
    await box.happens("violated")
    await box.tick()
    box.clock.advance(3600)
    await box.happens("violated", reminder=1)
    await box.live(16 * 60)
    assert [((row.created_at - NOON) // MINUTE, row.kind) for row in (await box.rows())[1:]] == [
        (60, "reminder"), (75, "reminder"),
    ]  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
async def test_acknowledged_meanwhile_it_isnt_told(box: Desk, when: str) -> None:
    await box.silence(COLD, seconds=3600)
    await box.happens("violated")
    if when == "after":
        await box.tick()
    await box.acknowledge()
    await box.live(7200)
    assert await states(box) == [(0, "alert", "silenced")]


async def test_ended_early_it_is_told_at_once(box: Desk) -> None:
    silence_id = await box.silence(COLD, seconds=86400)
    await box.happens("violated")
    await box.live(600)
    assert await box.end_silence(silence_id)
    await box.tick()
    assert await states(box) == [(0, "alert", "silenced"), (10, "alert", "queued")]
    assert not await box.end_silence(silence_id)
    assert not await box.end_silence(77)


async def test_reminders_and_escalation_wait_for_its_end(box: Desk) -> None:
    await box.open({**PHONE, "repeat": ["15m"], "escalate": [{"after": "30m", "channels": ["mail"]}]})
    await box.happens("violated")
    await box.live(20 * 60)
    await box.silence({"subject": "f*"}, seconds=3600)
    await box.live(3700)
    told = [((row.created_at - NOON) // MINUTE, row.channel, row.kind) for row in await box.rows()]
    assert told == [
        (0, "phone", "alert"), (15, "phone", "reminder"), (80, "mail", "alert"), (80, "phone", "reminder"),
    ]  # fmt: skip


async def test_silences_that_follow_each_other_are_one(box: Desk) -> None:
    await box.silence(COLD, seconds=3600)
    await box.silence({"subject": "f1"}, begin=3000, seconds=3600)
    await box.silence({"subject": "f2"}, begin=6600, seconds=3600)
    await box.happens("violated")
    await box.pass_time(6600 + 60)
    assert await states(box) == [(0, "alert", "silenced"), (110, "alert", "queued")]


async def test_it_is_told_after_a_restart_too(box: Desk) -> None:
    await box.silence(COLD, seconds=3600)
    await box.happens("violated")
    await box.restart()
    await box.live(600)
    box.clock.advance(3600)
    await box.restart()
    await box.tick()
    assert await states(box) == [(0, "alert", "silenced"), (70, "alert", "queued")]


async def test_the_quiet_hours_after_it_count_too(box: Desk) -> None:
    await box.open({**PHONE, "quiet": {"times": "12:30-18:00", "timezone": "UTC"}})
    await box.silence(COLD, seconds=3600)
    await box.happens("violated")
    await box.live(3700)
    row = (await box.rows())[-1]
    assert (row.kind, row.next_attempt_at) == ("alert", NOON + 6 * HOUR)


async def test_by_all_that_a_match_can_ask(box: Desk) -> None:
    await box.open(PHONE)
    await box.silence(
        {"types": ["contract.*"], "tags": ["contract"], "severity": "warning", "contract": "c*", "subject": "f*",
         "data": {"kind": ["threshold", "rate"], "observed": {"above": 3}}},
        seconds=3600,
    )  # fmt: skip
    fits: dict[str, Any] = {"kind": "rate", "observed": 4}
    await box.tell(contract("violated", **fits), contract("unknown", **fits))
    for other in ({"contract": "hot"}, {"severity": "critical"}, {"observed": 3}, {"kind": "count"}, {"subject": "g"}):
        await box.tell(contract("violated", episode=2, **{**fits, **other}))
    assert [row.state for row in await box.rows()] == ["silenced"] * 2 + ["queued"] * 5


@pytest.mark.parametrize("match", ["", "{", "null", "[]", "7", '{"typo": 1}', '{"data": {"a": {}}}', '{"types": 1}'])
async def test_one_that_cant_be_read_silences_nothing(box: Desk, match: str, caplog: pytest.LogCaptureFixture) -> None:
    await box.open(PHONE)
    new = NewSilence(match, NOON, NOON + HOUR, NOON)
    with caplog.at_level(logging.WARNING, "edgeq.courier"):
        await box.store.write(lambda tx: silences.add(tx, new))
        await box.occurs()
    assert [row.state for row in await box.rows()] == ["queued"]
    assert "silence 1 silences nothing" in caplog.text


async def test_the_latest_are_listed_first(box: Desk) -> None:
    for seconds in (60, 120, 180):
        await box.silence(COLD, seconds=seconds)
    assert [each.id for each in await silences.latest(box.store, 2)] == [3, 2]


async def test_one_that_another_process_made_counts_and_its_end_too(database: Database) -> None:
    """A running courier, and somebody else on the same database."""
    async with Bench(database, FakeClock()) as bench:
        policy = Policy(routes({**PHONE, "match": {"types": ["contract.violated"]}, "repeat": ["1h"]}), ["phone"])
        courier = Courier(policy, bench.metrics, bench.clock)
        await bench.run("courier", courier)
        now = bench.clock.now()
        async with database.opened(clock=bench.clock, beside=True) as other:
            await other.write(lambda tx: silences.add(tx, NewSilence("{}", now, now + HOUR, now)))
        await until(lambda: bool(courier._silences), "the courier to know of it", store=bench.store)
        data = {"contract": "cold", "episode": 1, "title": "cold"}
        new = NewEvent("contract.violated", now, now, data_json=to_json(data), tags=("notification",))
        await bench.store.write(lambda tx: events.append(tx, [new]))

        async def rows() -> list[str]:
            return [row.state for row in await notifications.find(bench.store, limit=10)]

        async def silenced() -> bool:
            return await rows() == ["silenced"]

        async def told() -> bool:
            return await rows() == ["queued", "silenced"]

        await until(silenced, "the silenced row", store=bench.store)
        async with database.opened(clock=bench.clock, beside=True) as other:
            await other.write(lambda tx: silences.end(tx, 1, now))
        await until(told, "the alert", store=bench.store)


async def test_an_end_in_this_process_is_noticed_at_once(database: Database) -> None:
    """Nothing but the signal wakes the courier: no event comes, and the poll is an hour away."""
    async with Bench(database, FakeClock()) as bench:
        courier = Courier(Policy([], ["phone"]), bench.metrics, bench.clock)
        await bench.run("courier", courier)
        now = bench.clock.now()
        new = NewSilence("{}", now, now + HOUR, now)
        silence_id = await bench.store.write(lambda tx: silences.add(tx, new))
        data = to_json({"contract": "cold", "episode": 1})
        violated = NewEvent("contract.violated", now, now, data_json=data, tags=("notification",))
        await bench.store.write(lambda tx: events.append(tx, [violated]))

        async def states() -> list[str]:
            return [row.state for row in await notifications.find(bench.store, limit=10)]

        async def are(wanted: list[str]) -> bool:
            return await states() == wanted

        await until(lambda: are(["silenced"]), "the silenced row", store=bench.store)
        await until(lambda: courier.due_at() == now + HOUR, "the courier to rest")
        await bench.store.write(lambda tx: silences.end(tx, silence_id, now))
        await until(lambda: are(["queued", "silenced"]), "the alert", store=bench.store)
