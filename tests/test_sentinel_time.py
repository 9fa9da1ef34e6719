"""The Sentinel and the time: links that are down, clocks that are set, devices whose clocks are wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, micro
from support.stores import Database
from support.watching import SOON, Bench, FakeLink, watching

from edgeq.contracts.watch import LINK_SECONDS, SETTLE_SECONDS
from edgeq.testing.clock import NOON


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    """A bench on a fresh store."""
    async with watching(database) as bench:
        yield bench


class TestLink:
    """Nothing is judged absent while nobody can be heard."""

    async def test_no_deadline_passes_without_a_link(self, bench: Bench) -> None:
        link = FakeLink(None)
        await bench.start(ABSENCE, link=link)
        await bench.hear()
        await bench.at(3600)
        assert await bench.told() == []
        assert bench.sentinel.due_at() == micro(3600 + SETTLE_SECONDS)  # it looks again
        link.settled = 3600
        await bench.at(3600 + SETTLE_SECONDS - 1e-6)
        assert await bench.told() == []
        await bench.at(3600 + SETTLE_SECONDS)
        assert [each.occurred_at for each in await bench.told()] == [micro(10)]

    async def test_the_backlog_at_the_broker_comes_first(self, bench: Bench) -> None:
        link = FakeLink(-100)
        await bench.start(ABSENCE, link=link)
        await bench.hear(subject="a")
        await bench.hear(subject="b")
        link.settled = None
        await (await bench.at(3600)).hear(subject="a")
        assert await bench.told() == []
        link.settled = 3601
        await bench.at(3603)
        await bench.hear(subject="b")  # the last of the backlog, after the link looked settled
        await bench.at(3608)
        assert await bench.told() == []

    async def test_a_restart_waits_for_the_link(self, bench: Bench) -> None:
        await (await bench.start(DEADLINE, link=FakeLink(-100))).hear("opened")
        bench.clock.advance(3600)
        link = FakeLink(None)
        await bench.start(DEADLINE, link=link)
        await bench.at(3602)
        link.settled = 3602
        await bench.hear("closed")
        await bench.at(3700)
        assert await bench.told() == []

    async def test_a_bad_value_is_not_held_longer_than_it_was_heard_of(self, bench: Bench) -> None:
        link = FakeLink(-100)
        await bench.start({**THRESHOLD, "for": "10s"}, link=link)
        await bench.hear(value=6)
        link.settled = None
        await (await bench.at(60)).hear(value=6)
        assert await bench.told() == []
        await bench.hear(value=4)
        link.settled = 61
        await bench.at(3600)
        assert await bench.told() == []

    async def test_a_step_of_the_clock_is_no_settled_link(self, bench: Bench) -> None:
        link = FakeLink(None)
        await bench.start(ABSENCE, link=link)
        await bench.hear()
        link.settled = 3600
        await bench.at(3602)
        bench.clock.step(3600)
        await bench.at(7203)
        assert await bench.told() == []
        await bench.at(7205)
        assert [each.occurred_at for each in await bench.told()] == [micro(3610)]

    async def test_the_settled_time_follows_a_step_of_the_clock(self, bench: Bench) -> None:
        await bench.start(ABSENCE, link=FakeLink(0))
        await bench.hear()
        bench.clock.step(-3600)
        await bench.at(-3600 + 6)
        await bench.at(-3600 + 11)
        assert [each.occurred_at for each in await bench.told()] == [micro(-3600 + 10)]


@pytest.mark.parametrize("step", [6 * 3600, -14 * 86400])
async def test_a_step_of_the_clock_fires_nothing_and_loses_nothing(bench: Bench, step: float) -> None:
    await bench.start(ABSENCE)
    await bench.hear()
    await bench.at(4)
    bench.clock.step(step)
    assert bench.sentinel.due_at() == micro(4 + step)  # to take note of the step
    await bench.at(step + 4)
    assert await bench.told() == []
    assert bench.sentinel.due_at() == micro(step + 10 + SOON)
    # It is kept over a restart.
    await bench.start(ABSENCE)
    await bench.at(step + 10 + SOON)
    assert [each.occurred_at for each in await bench.told()] == [micro(step + 10)]


async def test_a_clock_behind_after_a_boot_gives_the_full_period(bench: Bench) -> None:
    await (await bench.start(ABSENCE)).hear()
    bench.clock.reboot(synchronised=False)
    bench.clock.step(-NOON / 1e6)  # 1970
    await bench.start(ABSENCE)
    assert bench.sentinel.due_at() == bench.clock.now() + 10_000_000 + round(SOON * 1e6)
    bench.clock.step(NOON / 1e6 + 3600)
    await bench.at(3609)
    assert await bench.told() == []
    await bench.at(3611)
    assert len(await bench.told()) == 1


class TestSuppressedByLink:
    """A contract that cares about the link is told about it."""

    CARES: ClassVar = {**ABSENCE, "suppressed_by": ["link"]}

    async def test_it_is_told_after_a_while_and_when_it_is_back(self, bench: Bench) -> None:
        link = FakeLink(-100)
        await bench.start(self.CARES, link=link)
        await bench.hear(subject="a")
        await bench.hear(subject="b")
        link.settled = None
        await bench.at(1)  # somebody looks
        assert bench.sentinel.due_at() == micro(1 + SETTLE_SECONDS)  # only to look again
        await bench.at(LINK_SECONDS)
        assert await bench.told() == []
        await bench.at(1 + LINK_SECONDS)
        assert await bench.words() == ["reports: unknown: there is no session to the broker"]
        assert {state for _, _, state in await bench.states()} == {"unknown"}
        await bench.at(3600)
        assert len(await bench.told()) == 1
        link.settled = 3600
        assert bench.sentinel.due_at() == micro(3600 + SETTLE_SECONDS)
        await bench.at(3600 + SETTLE_SECONDS)
        assert (await bench.words())[1:] == ["reports: judged again: there is a session to the broker"]
        await bench.at(3610 + SETTLE_SECONDS)
        assert len(await bench.told()) == 2
        await bench.at(3610 + SETTLE_SECONDS + SOON)
        assert [each.subject for each in (await bench.told())[2:]] == ["a", "b"]

    async def test_a_short_interruption_is_nothing_to_tell(self, bench: Bench) -> None:
        link = FakeLink(-100)
        await bench.start(self.CARES, link=link)
        await bench.hear()
        for second in range(0, 100, 20):
            link.settled = None
            await bench.at(second + 1)
            link.settled = second + 15
            await bench.at(second + 19)
            await bench.hear()
        assert await bench.told() == []

    async def test_a_restart_in_between_tells_nothing_twice(self, bench: Bench) -> None:
        link = FakeLink(None)
        await bench.start(self.CARES, link=link)
        await bench.hear()
        await bench.at(40)
        for second in (50, 90, 130):
            await bench.at(second)
            await bench.start(self.CARES, link=link)
            await bench.at(second + 35)
        assert len(await bench.told()) == 1
        link.settled = 200
        await bench.at(200 + SETTLE_SECONDS)
        assert [each.type for each in await bench.told()] == ["contract.unknown", "contract.resolved"]

    async def test_the_backlog_is_heard_before_the_clock(self, bench: Bench) -> None:
        link = FakeLink(-100)
        await bench.start(self.CARES, link=link)
        await bench.hear()
        link.settled = None
        await bench.at(1)
        await bench.at(100)
        await bench.hear(occurred=95)
        link.settled = 101
        await (await bench.at(101 + SETTLE_SECONDS)).hear()
        await bench.at(102 + SETTLE_SECONDS)
        assert [each.type for each in await bench.told()] == ["contract.unknown", "contract.resolved"]

    async def test_who_does_not_care_is_not_told(self, bench: Bench) -> None:
        await bench.start(ABSENCE, link=FakeLink(None))
        await bench.hear()
        await bench.at(3600)
        assert await bench.told() == []


@pytest.mark.parametrize("keys", [{"remind": "10s"}, {"cooldown": "10s"}])
@pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, -56 * 365 * 86400])
async def test_a_step_of_the_clock_leaves_what_was_left(bench: Bench, keys: dict[str, Any], step: float) -> None:
    await bench.start({**THRESHOLD, **keys})
    for value in (7,) if "remind" in keys else (7, 3, 7):
        await bench.hear(value=value)
    before = len(await bench.told())
    await bench.at(4)
    bench.clock.step(step)
    await bench.at(step + 4)
    await bench.at(step + 10)
    assert len(await bench.told()) == before
    await bench.start({**THRESHOLD, **keys})
    await bench.at(step + 10 + SOON)
    assert [each.occurred_at for each in (await bench.told())[before:]] == [micro(step + 10)]


async def test_nothing_happens_at_a_clock_that_is_set_before_it_was_ever_right(bench: Bench) -> None:
    """A boot without a clock, with states of an earlier run, and then the time from the network."""
    mapping = {**ABSENCE, "active": {"times": "12:00-13:00", "timezone": "UTC", "at_end": "resolve"}, "remind": "20s"}
    await (await bench.start(mapping)).hear()
    await bench.at(10 + SOON)
    assert len(await bench.told()) == 1
    bench.clock.step(-NOON / 1e6 + 3 * 3600)
    bench.clock.reboot(synchronised=False)
    await bench.start(mapping)
    now = bench.clock.now()
    bench.clock.advance(5)
    await bench.on_time()
    assert await bench.states() == [("reports", "a", "violated")]
    assert bench.sentinel.due_at() == now + 20_000_000 + round(SOON * 1e6)
    bench.clock.step((NOON - now) / 1e6 + 600)
    await bench.on_time()
    assert [each.type for each in await bench.told()] == ["contract.violated"]
    assert await bench.states() == [("reports", "a", "violated")]
    await bench.hear()
    assert [each.type for each in await bench.told()] == ["contract.violated", "contract.resolved"]


@pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400, -56 * 365 * 86400])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_violation_has_lasted_as_long_as_it_has(bench: Bench, step: float, restart: bool) -> None:
    """Also when the clock was set while it stood."""
    link = FakeLink(-100)
    cares = {**ABSENCE, "suppressed_by": "link", "remind": "1h"}
    await bench.start(DEADLINE, cares, link=link)
    await bench.hear("opened", subject="door")
    await bench.hear()
    await bench.at(12)
    assert [each.type for each in await bench.told()] == ["contract.violated"] * 2
    link.settled = None
    await bench.at(13)
    await bench.at(15 + LINK_SECONDS)  # one event more: it is unknown
    bench.clock.step(step)
    await bench.at(step + 50)
    if restart:
        await bench.start(DEADLINE, cares, link=link)
    link.settled = step + 60
    await bench.at(step + 70)
    await bench.hear()
    await bench.hear("closed", subject="door")
    told = (await bench.told())[3:]
    assert [(each.data["contract"], each.type, each.occurred_at) for each in told] == [
        ("reports", "contract.resolved", micro(step + 70)), ("reports", "contract.resolved", micro(step + 70)),
        ("closes", "contract.resolved", micro(step + 70)),
    ]  # fmt: skip
    assert [each.data["duration_seconds"] for each in told] == [25, 60, 60]
    assert [each.data.get("late_by_seconds") for each in told] == [None, None, 60]


class TestWaitingEvents:
    """Events that were recorded by another clock than the one that is there when they are judged."""

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400, -56 * 365 * 86400])
    async def test_they_move_with_a_step(self, bench: Bench, step: float) -> None:
        await bench.start(ABSENCE, DEADLINE)
        await bench.hear(subject="a")
        await bench.hear("opened", subject="door")
        await bench.at(5)
        await bench.miss(subject="a")
        await bench.miss("closed", subject="door")
        await bench.miss("opened", subject="gate", occurred=4)
        bench.clock.advance(1)
        bench.clock.step(step)
        await bench.miss("opened", subject="hatch")
        await bench.catch_up()
        await bench.at(step + 6)
        assert await bench.told() == []
        await bench.at(step + 60)
        assert [(each.subject, each.occurred_at) for each in await bench.told()] == [
            ("gate", micro(step + 14)), ("a", micro(step + 15)), ("hatch", micro(step + 16)),
        ]  # fmt: skip

    async def test_two_steps(self, bench: Bench) -> None:
        await bench.start(ABSENCE)
        await bench.hear()
        await bench.at(5)
        await bench.miss()
        bench.clock.step(3600)
        await bench.hear("noise")
        await bench.miss()
        bench.clock.step(3600)
        await bench.at(7205)
        await bench.at(7214)
        assert await bench.told() == []

    async def test_a_backlog_from_the_future_proves_nothing(self, bench: Bench) -> None:
        """A boot with a clock that is behind."""
        await bench.start(ABSENCE)
        await bench.hear(subject="a")
        await bench.hear(subject="b")
        await bench.at(5)
        await bench.miss(subject="a")
        bench.clock.reboot(synchronised=False)
        bench.clock.step(-NOON / 1e6)
        await bench.start(ABSENCE)
        await bench.catch_up()
        await bench.at(-NOON / 1e6 + 14)
        assert await bench.told() == []
        bench.clock.step(NOON / 1e6 + 3600)
        await bench.at(3614.1)
        assert await bench.told() == []
        await bench.at(3616)
        assert [each.subject for each in await bench.told()] == ["a", "b"]

    async def test_a_backlog_from_before_there_was_a_clock_is_taken_as_it_comes(self, bench: Bench) -> None:
        bench.clock.step(-NOON / 1e6)
        await bench.start(ABSENCE)
        await bench.hear(subject="a")
        await bench.miss(subject="a")
        bench.clock.reboot()
        bench.clock.step(NOON / 1e6)
        await bench.start(ABSENCE)
        await bench.catch_up()
        await bench.at(9)
        assert await bench.told() == []
        await bench.at(11)
        assert [each.occurred_at for each in await bench.told()] == [micro(10)]
