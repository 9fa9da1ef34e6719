"""Clocks that are set while contracts wait: for every kind that waits for a time, what was left of that is left still,
by a step forward, back, and from no clock at all, in one run and over a reboot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD
from support.model_runs import Fate, run
from support.plays import Scene
from support.stores import Database
from support.watching import SOON, Bench, watching

from edgeq.events import Event
from edgeq.testing.clock import NOON

HOUR = 3600.0
DAY = 24 * HOUR
STEPS = [6 * HOUR, -14 * DAY]
CLOCKLESS = -NOON / 1e6 + 60  # a minute after the beginning of 1970

Happened = tuple[float, str, Any]  # when, type, value

RATE = {"name": "often", "kind": "rate", "of": "reading", "within": "10s"}
SEQUENCE = {"name": "order", "kind": "sequence", "steps": ["opened", "closed"], "within": "10s"}
REQUIRES = {"name": "allowed", "kind": "requires", "of": "opened"}
WAITING: dict[str, tuple[list[dict[str, Any]], list[Happened]]] = {
    "absence": ([ABSENCE], [(0, "reading", 0), (25, "reading", 0)]),
    "absence, known": ([{**ABSENCE, "known": ["a"]}], [(25, "reading", 0)]),
    "deadline": ([DEADLINE], [(0, "opened", 0), (2, "opened", 0), (25, "closed", 0)]),
    "for": ([{**THRESHOLD, "for": "10s"}], [(0, "reading", 6), (25, "reading", 4)]),
    "clear.for": ([{**THRESHOLD, "clear": {"below": 5, "for": "10s"}}], [(0, "reading", 6), (1, "reading", 4)]),
    "gap": ([{**THRESHOLD, "gap": "10s", "on_gap": "unknown"}], [(0, "reading", 4), (25, "reading", 4)]),
    "more_than": ([{**RATE, "more_than": 1}], [(0, "reading", 0), (1, "reading", 0)]),
    "fewer_than": ([{**RATE, "fewer_than": 1}], [(0, "reading", 0), (25, "reading", 0)]),
    "must happen": ([SEQUENCE], [(0, "opened", 0), (25, "closed", 0)]),
    "must not happen": ([{**SEQUENCE, "must": "not_happen"}], [(0, "opened", 0), (1, "closed", 0)]),
    "after": ([{**REQUIRES, "if": {"of": "closed", "after": "10s"}}], [(0, "opened", 0), (25, "closed", 0)]),
    "clear_after": ([{**REQUIRES, "if": {"of": "closed"}, "clear_after": "10s"}], [(0, "opened", 0)]),
    "composite": (
        [{"name": "whole", "kind": "composite", "any_of": ["cold"], "for": "10s"}, THRESHOLD],
        [(0, "reading", 6), (25, "reading", 4)],
    ),
}  # fmt: skip


class Day:
    """A bench and what is told there, with when that really was, in seconds since the beginning."""

    def __init__(self, bench: Bench, mappings: Sequence[dict[str, Any]]) -> None:
        self.bench = bench
        self.told: list[tuple[str, str, float]] = []
        self.events: list[Event] = []
        self._mappings = mappings
        self._began = bench.clock.monotonic()

    async def boot(self, step: float = 0, *, off_seconds: float = 0, synchronised: bool = True) -> Day:
        """The machine boots after it was off for so long, by a clock that is that far from the one before."""
        self.bench.clock.reboot(off_seconds, synchronised=synchronised)
        self.bench.clock.step(step)
        return await self.start()

    async def start(self) -> Day:
        """The program starts."""
        await self.bench.start(*self._mappings)
        return await self._note()

    async def set_clock(self, step: float) -> Day:
        """The clock is set."""
        self.bench.clock.step(step)
        return await self.go_on([], self.passed)

    async def go_on(self, history: Sequence[Happened], until: float) -> Day:
        """Let all that happen, and what comes due between, until so much time has really passed."""
        for at, type_, value in [*history, (until, "", 0)]:
            moment = self._now + round((at - self.passed) * 1e6)
            while (due := self.bench.sentinel.due_at()) is not None and due <= moment:
                await self.bench.at((max(due, self._now) - NOON) / 1e6)
                await self._note()
            await self.bench.at((moment - NOON) / 1e6)
            if type_:
                await self.bench.hear(type_, value=value)
            await self._note()
        return self

    @property
    def passed(self) -> float:
        """How much time has really passed."""
        return self.bench.clock.monotonic() - self._began

    @property
    def durations(self) -> list[float | None]:
        """How long each episode that ended had lasted."""
        return [each.data.get("duration_seconds") for each in self.events]

    @property
    def _now(self) -> int:
        return self.bench.clock.now()

    async def _note(self) -> Day:
        found = await self.bench.told()
        self.told += [(each.data["contract"], each.type, round(self.passed, 3)) for each in found[len(self.events) :]]
        self.events = found
        return self


@asynccontextmanager
async def day(
    database: Database, name: str, clock: float = 0, *, synchronised: bool = True
) -> AsyncIterator[tuple[Day, list[Happened], list[Happened]]]:
    """A day on which a contract waits, with a clock that is that far from `NOON`, and what happens before 4 s and
    after."""
    mappings, history = WAITING[name]
    async with watching(database) as bench:
        before = [each for each in history if each[0] < 4]
        yield await Day(bench, mappings).boot(clock, synchronised=synchronised), before, history[len(before) :]


async def untouched(database: Database, name: str) -> Day:
    """The same day if nobody touches the clock."""
    async with day(database.fresh(), name) as (today, before, after):
        await today.go_on([*before, *after], 60)
    assert today.told
    return today


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", WAITING)
async def test_a_step_of_the_clock_is_no_time_that_passed(database: Database, name: str, step: float) -> None:
    """A start after it changes nothing. An episode lasts as long as it really did."""
    async with day(database, name) as (today, before, after):
        await today.go_on(before, 4)
        await today.set_clock(step)
        await today.start()
        await today.go_on(after, 60)
    without = await untouched(database, name)
    assert today.told == without.told
    assert today.durations == without.durations


@pytest.mark.parametrize("unset_seconds", [3, 40])
@pytest.mark.parametrize("name", WAITING)
async def test_a_boot_without_a_clock_gives_one_full_period_and_no_more(
    database: Database, name: str, unset_seconds: float
) -> None:
    """The clock is set before that is over, or when all is over."""
    async with day(database, name) as (today, before, after):
        await today.go_on(before, 4)
        await today.boot(CLOCKLESS, synchronised=False)
        early = [each for each in after if each[0] < 4 + unset_seconds]
        await today.go_on(early, 4 + unset_seconds)
        await today.set_clock(HOUR - CLOCKLESS)
        await today.go_on(after[len(early) :], 60)
    without = await untouched(database, name)
    assert [each[:2] for each in today.told] == [each[:2] for each in without.told]
    for (_, _, at), (_, _, usually) in zip(today.told, without.told, strict=True):
        assert usually <= at <= max(usually, 4 + 10 + SOON)
    assert [each.occurred_at for each in today.events if each.occurred_at > today.bench.clock.now()] == []


@pytest.mark.parametrize("name", WAITING)
async def test_from_no_clock_to_now(database: Database, name: str) -> None:
    """All begins by a clock that was never set."""
    async with day(database, name, CLOCKLESS) as (today, before, after):
        await today.go_on(before, 4)
        await today.set_clock(-CLOCKLESS)
        await today.go_on(after, 60)
    without = await untouched(database, name)
    assert today.told == without.told
    assert today.durations == without.durations


# Daylight saving


MINUTE = 60 * 1_000_000
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00Z"), ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("America/New_York", "2026-03-08T07:00Z"), ("America/New_York", "2026-11-01T06:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"), ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
]  # fmt: skip
WINDOWS = ["01:10-01:50", "01:30-02:10", "01:45-02:30", "02:00-03:00", "02:15-02:20", "23:30-02:05"]


class Around:
    """The hours around a change of the clocks, minute by minute, with an event every ten minutes."""

    def __init__(self, zone: str, change: str) -> None:
        self.zone = zone
        middle = round(datetime.fromisoformat(change).timestamp()) * 1_000_000
        begin, self.end = middle - 300 * MINUTE, middle + 300 * MINUTE
        self.minutes = range(begin - 1500 * MINUTE, self.end + 1500 * MINUTE, MINUTE)
        self.shown = {at: datetime.fromtimestamp(at / 1e6, ZoneInfo(zone)) for at in self.minutes}
        self.events = list(range(begin, self.end, 10 * MINUTE))
        self.history = [Scene("reading", (at - NOON) / 1e6, data={"value": 6}) for at in self.events]

    def spans(self, key: Callable[[datetime], object]) -> list[tuple[int, int]]:
        """From when until before when the clocks show something of one `key` that isn't None."""
        found: dict[object, list[int]] = {}
        for at in self.minutes:
            found.setdefault(key(self.shown[at]), []).append(at)
        return sorted((each[0], each[-1] + MINUTE) for name, each in found.items() if name is not None)

    def verdicts(self, mappings: Sequence[dict[str, Any]], fate: list[Fate]) -> dict[str, list[tuple[str, int]]]:
        """What each contract tells, and when."""
        found = run(mappings, self.history, (self.end - NOON) / 1e6, fate, 5)
        return {
            mapping["name"]: [
                (each.type[9:], each.occurred_at) for each in found if each.data["contract"] == mapping["name"]
            ]
            for mapping in mappings
        }

    def expected(self, spans: Iterable[tuple[int, int]], allowed: int) -> list[tuple[str, int]]:
        """What is told of a promise that is broken by the event after so many in a span, until that ends."""
        verdicts = []
        for begin, end in spans:
            heard = [at for at in self.events if begin <= at < end]
            if len(heard) > allowed:
                verdicts.append(("violated", heard[allowed]))
                verdicts += [("resolved", end)] if end < self.end else []
        return verdicts


FATES: list[list[Fate]] = [[], ["crash", "", "sleep", "", "wake", "restart"] * 10]


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_windows_when_the_clocks_are_changed(zone: str, change: str, fate: list[Fate]) -> None:
    """A window holds from when clocks first show its beginning until they last show a time before its end."""
    around = Around(zone, change)
    mappings, expected = [], {}
    for window in WINDOWS:
        first, _, last = window.partition("-")

        def begun_on(shown: datetime, first: str = first, last: str = last) -> date | None:
            """On which day the window has begun that clocks show to be open."""
            time = f"{shown:%H:%M}"
            if first < last:
                return shown.date() if first <= time < last else None
            return shown.date() if time >= first else shown.date() - timedelta(days=1) if time < last else None

        active = {"times": window, "timezone": zone, "at_end": "resolve"}
        mappings.append({**THRESHOLD, "name": window, "active": active})
        expected[window] = around.expected(around.spans(begun_on), 0)
    assert around.verdicts(mappings, fate) == expected
    assert len(list(filter(None, expected.values()))) > 2


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_hours_and_days_when_the_clocks_are_changed(zone: str, change: str, fate: list[Fate]) -> None:
    """An hour that comes twice is two, and a day is as long as its date is shown."""
    around = Around(zone, change)
    count = {"kind": "count", "of": "reading", "at_most": 2, "timezone": zone}
    found = around.verdicts([{**count, "name": per, "per": per} for per in ("hour", "day")], fate)
    hours = around.spans(lambda shown: (shown.date(), shown.hour, shown.utcoffset()))
    assert found == {"hour": around.expected(hours, 2), "day": around.expected(around.spans(datetime.date), 2)}
