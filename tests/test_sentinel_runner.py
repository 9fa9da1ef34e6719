"""The Sentinel under its runner: verdicts by events and by time, each exactly once, also when it is killed."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, contracts_of, micro
from support.processing import Bench
from support.programs import of_tests
from support.stores import Database
from support.watched_doors import CONTRACT

from edgeq.contracts.watch import SETTLE_SECONDS
from edgeq.events import Event, NewEvent
from edgeq.processors import progress
from edgeq.processors.runner import ProcessorRunner
from edgeq.processors.sentinel import Sentinel
from edgeq.store import contract_states, cursors, events
from edgeq.testing import FakeClock, events_stored
from edgeq.units import Duration

KILLS = 6
DEADLINE_SECONDS = 120.0
TESTS = Path(__file__).parent


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    """A store with a clock that stands still."""
    bench = Bench(database, FakeClock())
    await bench.store.open()
    yield bench
    await bench.close()


def sentinel(bench: Bench, *mappings: dict[str, object]) -> Sentinel:
    """A Sentinel for a bench."""
    return Sentinel(contracts_of(*mappings), bench.metrics, bench.clock)


async def settled_after(bench: Bench, runner: ProcessorRunner, seconds: float) -> None:
    """Let time pass, and all be processed."""
    bench.pass_time(seconds)
    await bench.settled(runner)


async def test_a_door_left_open(bench: Bench) -> None:
    runner = await bench.run("sentinel", sentinel(bench, DEADLINE, ABSENCE))
    await bench.add("noise", "opened", subject="door")
    await settled_after(bench, runner, 10)
    bench.pass_time(1)
    (violated,) = await events_stored(bench.store, 1, "contract.*")
    assert (violated.type, violated.subject, violated.cause_id, violated.occurred_at) == (
        "contract.violated", "door", 2, micro(10),
    )  # fmt: skip
    (state,) = await contract_states.every(bench.store)
    assert state.state == "violated"
    await settled_after(bench, runner, 4)
    await bench.add("closed", subject="door")
    resolved = (await events_stored(bench.store, 2, "contract.*"))[1]
    assert resolved.data["late_by_seconds"] == 5
    await bench.settled(runner)
    assert runner.state == "running"


async def test_a_deadline_that_passed_while_nobody_looked(bench: Bench) -> None:
    await bench.run("sentinel", sentinel(bench, DEADLINE))
    await bench.add("opened", subject="left open")
    await bench.add("opened", subject="closed in time")
    await bench.reopen()
    await bench.add("closed", subject="closed in time")
    bench.clock.advance(3600)  # type: ignore[attr-defined]
    for _ in range(2):
        runner = await bench.run("sentinel", sentinel(bench, DEADLINE))
        await events_stored(bench.store, 1, "contract.*")
        await bench.settled(runner)
        await bench.reopen()
    found = [each for each in await events.after(bench.store, 0, 100) if each.type.startswith("contract.")]
    assert [(each.type, each.subject) for each in found] == [("contract.violated", "left open")]
    await bench.close()


async def test_events_without_verdicts_cost_no_commit_of_their_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 3600.0)
    runner = await bench.run("sentinel", sentinel(bench, ABSENCE))
    await bench.add("reading", subject="a")
    await bench.settled(runner)
    assert await contract_states.every(bench.store) == []  # nor has the cursor moved
    cursor = await cursors.one(bench.store, "sentinel")
    assert cursor is not None
    assert cursor.last_consumed_id == 0
    await runner.stop()
    await bench.add("noise")  # takes along what waits
    assert len(await contract_states.every(bench.store)) == 1
    cursor = await cursors.one(bench.store, "sentinel")
    assert cursor is not None
    assert cursor.last_consumed_id == 1


async def test_a_cursor_put_back_says_nothing_twice(bench: Bench) -> None:
    runner = await bench.run("sentinel", sentinel(bench, {**THRESHOLD, "above": 0}))

    async def read(value: int) -> None:
        new = NewEvent(
            "reading", subject="a", data_json=f'{{"value": {value}}}', occurred_at=bench.clock.now(),
            recorded_at=bench.clock.now(),
        )  # fmt: skip
        await bench.store.write(lambda tx: events.append(tx, [new]))

    for value in (1, 0, 1):
        await read(value)
    await events_stored(bench.store, 3, "contract.*")
    await bench.settled(runner)
    await bench.store.write(lambda tx: cursors.seek(tx, "sentinel", "start", bench.clock.now()))
    await read(0)  # what comes of it comes after all that is said when the others are read again
    found = await events_stored(bench.store, 4, "contract.*")
    assert [each.type.removeprefix("contract.") for each in found] == ["violated", "resolved"] * 2
    assert found[3].cause_id == await newest_reading(bench)


async def newest_reading(bench: Bench) -> int:
    """The id of the last event of this type."""
    return max(each.id for each in await events.after(bench.store, 0, 100) if each.type == "reading")


async def test_a_link_that_settles_later_is_noticed(bench: Bench) -> None:
    class SlowLink:
        settled: int | None = None

        def settled_at(self) -> int | None:
            return self.settled

    link = SlowLink()
    watcher = Sentinel(contracts_of(DEADLINE), bench.metrics, bench.clock, link)
    runner = await bench.run("sentinel", watcher, poll_interval=Duration(0.05))
    await bench.add("opened", subject="door")
    await settled_after(bench, runner, 3600)
    assert await events.head(bench.store) == 1
    link.settled = bench.clock.now()
    bench.pass_time(SETTLE_SECONDS)
    await events_stored(bench.store, 1, "contract.violated")


async def test_each_verdict_comes_within_a_second_of_its_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on only while the runner sleeps, and by as much as it wants to sleep."""
    clock, dice, over = bench.clock, random.Random(5), asyncio.Event()
    assert isinstance(clock, FakeClock)
    times = iter(sorted(micro(dice.uniform(0, 600)) for _ in range(150)))
    coming = next(times)
    held = {"remind": "33s", "active": {"times": "12:01-12:08", "timezone": "UTC", "at_end": "resolve"}}
    runner = bench.runner(
        "sentinel",
        sentinel(
            bench,
            {**ABSENCE, "known": ["a", "b", "never"]},
            {**DEADLINE, "name": "late", "after": "reading", "expect": "noise"},
            {**THRESHOLD, "above": 0.5, "for": "4s", "clear": {"below": 0.5, "for": "3s"}},
            {"name": "few", "kind": "rate", "of": "reading", "fewer_than": 3, "within": "20s"},
            {**DEADLINE, "name": "held", "after": "reading", "expect": "noise", **held},
        ),
        poll_interval=Duration(5),
    )

    async def sleep(seconds: float) -> None:
        nonlocal coming
        if seconds <= 0:
            return
        now = min(clock.now() + round(seconds * 1e6), coming)
        if now >= micro(700):
            over.set()
            await asyncio.wait_for(runner.stopping.wait(), 30)
        clock.advance((now - clock.now()) / 1e6)
        if now == coming:
            coming = next(times, micro(999))
            new = NewEvent(
                dice.choice(["reading", "reading", "noise"]), subject=dice.choice("ab"), occurred_at=now,
                recorded_at=now, data_json=f'{{"value": {dice.choice([0, 1])}}}',
            )  # fmt: skip
            await bench.store.write(lambda tx: events.append(tx, [new]))

    monkeypatch.setattr(runner, "_sleep", sleep)
    await runner.start()
    await asyncio.wait_for(over.wait(), 60)
    told = [each for each in await events.after(bench.store, 0, 1000) if each.type.startswith("contract.")]
    by_time = [each for each in told if each.cause_id is None or each.recorded_at != (await cause(bench, each))]
    assert {each.data["contract"] for each in by_time} == {"reports", "late", "cold", "few", "held"}
    assert len(by_time) > 100
    assert max(each.recorded_at - each.occurred_at for each in told) < 1_000_000


async def cause(bench: Bench, told: Event) -> int:
    """When the event was recorded that a verdict names."""
    assert told.cause_id is not None
    (found,) = await events.after(bench.store, told.cause_id - 1, 1)
    return found.recorded_at


def test_each_verdict_exactly_once_however_often_it_is_killed(database: Database) -> None:
    program = ("-m", "support.watched_doors", database.where)
    dice = random.Random(2)

    def happened() -> int:
        return int(database.sql("SELECT count(*) FROM events WHERE type IN ('opened', 'closed')")[0][0])

    for _ in range(KILLS):
        with subprocess.Popen(**of_tests(*program), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            # Killed while deadlines are open; the next start comes after some passed. Events are counted, not seconds:
            # where commits take their time, few doors are opened in a second, and none is closed.
            enough, give_up_at = happened() + dice.randrange(10, 70), time.monotonic() + DEADLINE_SECONDS
            while happened() < enough:
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < give_up_at, "no doors are opened"
                time.sleep(0.005)
            process.kill()
    subprocess.run(**of_tests(*program, "drain"), check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE_SECONDS)

    rows = database.sql("SELECT type, subject, recorded_at, occurred_at, data FROM events ORDER BY id")
    opened = {subject: recorded for what, subject, recorded, _, _ in rows if what == "opened"}
    closed = {subject: recorded for what, subject, recorded, _, _ in rows if what == "closed"}
    within = Duration.parse(CONTRACT["within"]).microseconds
    expected = []
    for door, since in opened.items():
        deadline = since + within
        if closed.get(door, deadline + 1) > deadline:
            expected.append(("contract.violated", door, deadline))
            if door in closed:
                expected.append(("contract.resolved", door, closed[door]))
    told = [(what, subject, occurred) for what, subject, _, occurred, _ in rows if what.startswith("contract.")]
    assert sorted(told) == sorted(expected)
    assert len({what for what, _, _ in told}) == 2
    assert all(json.loads(data)["episode"] == 1 for what, _, _, _, data in rows if what.startswith("contract."))
    assert len(opened) > len([each for each in told if each[0] == "contract.violated"]) > 10
