"""What was stored by a clock that wasn't right, or has been set since: no silence is made up, and none is lost. For
every kind that waits for a time, between two runs in one boot, and over a boot.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, micro
from support.stores import Database
from support.watching import SOON, Bench, watching
from test_sentinel_clock import CLOCKLESS, HOUR, STEPS, WAITING, Day, Happened, day, untouched

from edgeq.processors.processor import ProcessorContext
from edgeq.processors.sentinel import CLOCK_KEY
from edgeq.store import meta
from edgeq.testing.clock import NOON

FULL = 10  # every contract in WAITING waits for so many seconds


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    """A bench on a fresh store."""
    async with watching(database) as bench:
        yield bench


def until(history: list[Happened], end: float) -> list[Happened]:
    """What of it happens before so many seconds have passed."""
    return [each for each in history if each[0] < end]


def agree(found: Day, without: Day, full_from: float) -> None:
    """The same is told as without boots, none of it sooner, and all of it when the full time since the last boot is
    over at the latest; nothing has lasted longer than the day."""
    assert [each[:2] for each in found.told] == [each[:2] for each in without.told]
    for (_, _, at), (_, _, usually) in zip(found.told, without.told, strict=True):
        assert usually <= at <= max(usually, full_from + FULL + SOON)
    for seconds in found.durations:
        assert seconds is None or 0 <= seconds <= 60


class TestOverABoot:
    """The clock was wrong at one end."""

    @pytest.mark.parametrize("synchronised", [True, False])
    @pytest.mark.parametrize("name", WAITING)
    async def test_no_clock_and_then_now(self, database: Database, name: str, synchronised: bool) -> None:
        async with day(database, name, CLOCKLESS) as (today, before, after):
            await today.go_on(before, 4)
            await today.boot(-CLOCKLESS, synchronised=synchronised)
            await today.go_on(after, 60)
        agree(today, await untouched(database, name), 4)

    @pytest.mark.parametrize("behind", [HOUR, 7.0])
    @pytest.mark.parametrize("name", WAITING)
    async def test_behind_and_then_right(self, database: Database, name: str, behind: float) -> None:
        """By an hour, and by less than the contract waits for: then its deadline has not passed, and comes too soon."""
        async with day(database, name, -behind, synchronised=False) as (today, before, after):
            await today.go_on(before, 4)
            await today.boot(behind)
            await today.go_on(after, 60)
        agree(today, await untouched(database, name), 4)

    @pytest.mark.parametrize("name", WAITING)
    async def test_right_and_then_behind_and_then_right(self, database: Database, name: str) -> None:
        async with day(database, name) as (today, before, after):
            await today.go_on(before, 4)
            await today.boot(-HOUR, synchronised=False)
            early = until(after, 7)
            await today.go_on(early, 7)
            await today.boot(HOUR)
            await today.go_on(after[len(early) :], 60)
        agree(today, await untouched(database, name), 7)

    @pytest.mark.parametrize("name", WAITING)
    async def test_right_at_both_ends(self, database: Database, name: str) -> None:
        """What passed while the machine was off is told at once, with when it was."""
        async with day(database, name) as (today, before, _):
            await today.go_on(before, 4)
            await today.boot(off_seconds=HOUR)
            await today.go_on([], HOUR + 60)
        async with day(database.fresh(), name) as (without, before, _):
            await without.go_on(before, HOUR + 60)
        assert [each[:2] for each in today.told] == [each[:2] for each in without.told]
        assert [each.occurred_at for each in today.events] == [each.occurred_at for each in without.events]
        assert max(at for _, _, at in today.told) <= HOUR + 4 + SOON
        assert today.durations == without.durations

    async def test_what_is_over_by_a_clock_that_may_be_wrong_has_its_full_time_once(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        await bench.start(ABSENCE)
        for subject in "ab":
            await bench.hear(subject=subject)
        bench.clock.reboot(HOUR, synchronised=False)
        with caplog.at_level(logging.INFO, "edgeq.sentinel"):
            await bench.start(ABSENCE)
            for second in (4, 8):
                await bench.at(HOUR + second)
                await bench.start(ABSENCE)
        assert caplog.messages == [
            "the clock is not right yet, and nobody knows how long ago that was: 2 states given the full time once more"
        ]
        assert await bench.told() == []
        await bench.at(HOUR + 10 + SOON)
        assert [(each.subject, each.occurred_at) for each in await bench.told()] == [
            ("a", micro(HOUR + 10)), ("b", micro(HOUR + 10))
        ]  # fmt: skip

    async def test_a_machine_that_is_never_synchronised_comes_to_an_end(self, bench: Bench) -> None:
        """Though it is booted more often than the contract waits for."""
        bench.clock.synchronise(False)
        await (await bench.start({**ABSENCE, "every": "25h"})).hear()
        for _ in range(3):
            bench.clock.reboot(12 * HOUR, synchronised=False)
            await bench.start({**ABSENCE, "every": "25h"})
            await bench.at((bench.clock.now() - NOON) / 1e6 + 12 * HOUR)
        assert len(await bench.told()) == 1

    async def test_a_clock_that_became_right_counts_at_the_next_boot(self, bench: Bench) -> None:
        """Nobody had to set it."""
        bench.clock.synchronise(False)
        await (await bench.start(ABSENCE)).hear()
        await bench.at(1)
        assert bench.sentinel.due_at() == micro(10 + SOON)
        bench.clock.synchronise()
        assert bench.sentinel.due_at() == micro(1)
        await bench.at(1)
        assert bench.sentinel.due_at() == micro(10 + SOON)
        bench.clock.reboot(HOUR)
        await bench.start(ABSENCE)
        assert [each.occurred_at for each in await bench.told()] == [micro(10)]

    async def test_a_clock_that_was_right_stays_so_until_it_is_set(self, bench: Bench) -> None:
        """The network was down for so long that the kernel takes it for wrong."""
        await (await bench.start(ABSENCE)).hear()
        bench.clock.synchronise(False)
        await (await bench.start(ABSENCE)).hear()
        bench.clock.reboot(HOUR)
        await bench.start(ABSENCE)
        assert [each.occurred_at for each in await bench.told()] == [micro(10)]
        await bench.hear()
        bench.clock.synchronise(False)
        bench.clock.step(60)
        await bench.at(HOUR + 60)
        bench.clock.reboot(HOUR)
        await bench.start(ABSENCE)
        assert len(await bench.told()) == 2, "violated, and resolved by the event"

    @pytest.mark.parametrize(("clock", "step"), [(0, -HOUR), (0, CLOCKLESS), (-HOUR, HOUR), (CLOCKLESS, -CLOCKLESS)])
    async def test_the_full_time_is_that_of_what_waits(self, bench: Bench, clock: float, step: float) -> None:
        """And not the longest that anything of the contract may wait for."""
        opens, cold = {**DEADLINE, "lateness": "1h"}, {**THRESHOLD, "for": "10s", "gap": "1h", "on_gap": "unknown"}
        bench.clock.step(clock)
        bench.clock.synchronise(not clock)
        await bench.start(opens, cold)
        await bench.hear("opened")
        await bench.hear(value=6)
        bench.clock.reboot(synchronised=bool(clock))
        bench.clock.step(step)
        await bench.start(opens, cold)
        await bench.at(clock + step + 10)
        assert await bench.told() == []
        await bench.at(clock + step + 10 + SOON)
        assert [each.occurred_at for each in await bench.told()] == [micro(clock + step + 10)] * 2

    @pytest.mark.parametrize("behind", [HOUR, -CLOCKLESS])
    async def test_what_was_recorded_by_a_wrong_clock_proves_no_silence(self, bench: Bench, behind: float) -> None:
        """Events that nobody had judged yet."""
        bench.clock.step(-behind)
        bench.clock.synchronise(False)
        await bench.start(ABSENCE, DEADLINE)
        await bench.hear(subject="a")
        bench.clock.advance(5)
        await bench.miss("opened", subject="door")
        await bench.miss(subject="a")
        bench.clock.reboot()
        bench.clock.step(behind)
        await bench.start(ABSENCE, DEADLINE)
        await bench.catch_up()
        await bench.at(14)
        assert await bench.told() == []
        await bench.at(15 + SOON)
        told = {(each.subject, each.occurred_at) for each in await bench.told()}
        assert told == {("a", micro(15)), ("door", micro(15))}

    async def test_what_ends_with_the_day_has_ended(self, bench: Bench) -> None:
        """There is nothing that could be given its full time."""
        mapping = {"name": "seen", "kind": "count", "of": "reading", "at_least": 2, "per": "day", "timezone": "UTC"}
        bench.clock.step(-HOUR)
        await (await bench.start({**mapping, "known": ["a"]})).hear()
        await bench.at(12 * HOUR + 60)  # it is watched from the first day on that it sees begin
        bench.clock.reboot(24 * HOUR, synchronised=False)
        await bench.start({**mapping, "known": ["a"]})
        await bench.at((bench.clock.now() - NOON) / 1e6 + 2 * 3600)
        assert [each.occurred_at for each in await bench.told()] == [micro(36 * HOUR)]


class TestManyBoots:
    """A sensor that reports while the machine runs, and at last doesn't."""

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("name", ["absence", "gap", "fewer_than", "deadline"])
    async def test_no_silence_is_made_up_and_the_true_one_is_told(
        self, database: Database, name: str, seed: int
    ) -> None:
        chance = random.Random(f"{name} {seed}")
        mappings, history = WAITING[name]
        sent = "closed" if name == "deadline" else history[0][1]
        async with watching(database) as bench:
            today = Day(bench, mappings)
            error = 0.0
            for _ in range(12):
                before, error = error, chance.choice([0, 0, -60, -HOUR, -2 * HOUR, CLOCKLESS])
                await today.boot(error - before, off_seconds=chance.uniform(0, 3), synchronised=not error)
                for _ in range(chance.randrange(1, 5)):
                    happened = [(today.passed, sent, 4)]
                    if name == "deadline":
                        happened.append((today.passed, "opened", 4))
                    await today.go_on(happened, today.passed + chance.uniform(1, 6))
                    what = chance.randrange(6)
                    if what == 0:
                        bench.clock.step(-error)
                        bench.clock.synchronise()
                        error = 0.0
                    if what in (0, 1):
                        await today.start()
            assert today.told == []
            silent_from = today.passed
            await today.go_on([], silent_from + 60)
            assert len(today.told) == 1
            assert today.told[0][2] <= silent_from + FULL + SOON


class TestInOneBoot:
    """The clock was set while the program didn't run: it is known by how much."""

    @pytest.mark.parametrize(
        ("clock", "step"), [*((0, step) for step in STEPS), (0, CLOCKLESS), (CLOCKLESS, -CLOCKLESS)]
    )
    @pytest.mark.parametrize("name", WAITING)
    async def test_a_step_between_two_runs_is_no_time_that_passed(
        self, database: Database, name: str, clock: float, step: float
    ) -> None:
        async with day(database, name, clock, synchronised=False) as (today, before, after):
            await today.go_on(before, 4)
            today.bench.clock.step(step)
            await today.start()
            await today.start()
            await today.go_on(after, 60)
        without = await untouched(database, name)
        assert today.told == without.told
        assert today.durations == without.durations

    async def test_time_that_passed_while_the_program_did_not_run_has_passed(self, bench: Bench) -> None:
        """And the step comes on top of it."""
        bench.clock.synchronise(False)
        await (await bench.start(ABSENCE)).hear(subject="a")
        bench.clock.advance(6)
        bench.clock.step(HOUR)
        await bench.start(ABSENCE)
        await bench.at(HOUR + 10)
        assert await bench.told() == []
        await bench.at(HOUR + 10 + SOON)
        assert [each.occurred_at for each in await bench.told()] == [micro(HOUR + 10)]

    async def test_a_step_that_was_seen_and_not_stored_is_seen_again(self, bench: Bench) -> None:
        """The program was killed in between, or the store refused the commit."""
        await (await bench.start(ABSENCE)).hear()
        await bench.at(4)
        bench.clock.step(HOUR)
        ctx = ProcessorContext(bench.clock, cause_id=None, idempotency_key="", attempt=1)
        await bench.sentinel.on_time(ctx)
        assert len(ctx.decisions.lazily) == 2
        await bench.sentinel.opened(bench.store, bench.position)
        await bench.at(HOUR + 10)
        assert await bench.told() == []
        await bench.at(HOUR + 10 + SOON)
        assert [each.occurred_at for each in await bench.told()] == [micro(HOUR + 10)]

    async def test_small_steps_add_up(self, bench: Bench) -> None:
        await (await bench.start(ABSENCE)).hear()
        for _ in range(20):
            bench.clock.step(0.6)
            await bench.start(ABSENCE)
        assert await bench.told() == []

    async def test_events_that_wait_move_with_the_step(self, bench: Bench) -> None:
        await (await bench.start(ABSENCE)).hear(subject="a")
        await bench.at(5)
        await bench.miss(subject="a")
        await bench.miss("opened", subject="noise")
        bench.clock.step(HOUR)
        await bench.start(ABSENCE)
        await bench.catch_up()
        await bench.at(HOUR + 14)
        assert await bench.told() == []
        await bench.at(HOUR + 15 + SOON)
        assert [each.occurred_at for each in await bench.told()] == [micro(HOUR + 15)]

    async def test_a_restart_costs_no_write(self, bench: Bench) -> None:
        await bench.start(ABSENCE, THRESHOLD)
        await bench.hear()
        for step in (0.0, 0.3):
            bench.clock.advance(1)
            bench.clock.step(step)
            await bench.start(ABSENCE, THRESHOLD)
            bench.clock.advance(1)
            ctx = ProcessorContext(bench.clock, cause_id=None, idempotency_key="", attempt=1)
            await bench.sentinel.on_time(ctx)
            assert not ctx.decisions
            assert not ctx.decisions.lazily


class TestWithoutAReading:
    """Nothing is stored of the clock, or nothing of use."""

    @pytest.mark.parametrize("name", WAITING)
    async def test_what_was_stored_without_a_clock_has_its_full_time(self, database: Database, name: str) -> None:
        async with day(database, name, CLOCKLESS) as (today, before, after):
            await today.go_on(before, 4)
            await today.bench.store.write(lambda tx: meta.put(tx, CLOCK_KEY, "null"))
            await today.boot(-CLOCKLESS)
            await today.go_on(after, 60)
        agree(today, await untouched(database, name), 4)

    @pytest.mark.parametrize("text", ["", "null", "{", "[]", '{"boot": 1}', '{"boot": "1", "offset": 1e99}'])
    async def test_wall_time_counts(self, bench: Bench, text: str) -> None:
        await (await bench.start(ABSENCE)).hear()
        await bench.store.write(lambda tx: meta.put(tx, CLOCK_KEY, text))
        bench.clock.reboot(HOUR)
        await bench.start(ABSENCE)
        assert [each.occurred_at for each in await bench.told()] == [micro(10)]

    async def test_where_a_boot_has_no_name_one_that_began_then_is_the_same(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bench.clock, "boot", lambda: "")
        bench.clock.synchronise(False)
        await (await bench.start(ABSENCE)).hear()
        bench.clock.advance(HOUR)
        await bench.start(ABSENCE)
        assert [each.occurred_at for each in await bench.told()] == [micro(10)]
        await bench.hear()
        bench.clock.reboot(HOUR, synchronised=False)
        await bench.start(ABSENCE)
        assert len(await bench.told()) == 2
