"""Hours, days, weeks and months, and windows of time, in zones whose clocks are changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeq.calendar import Calendar, Unit, Windows, parse_days, parse_moment, parse_times, period

SECOND = 1_000_000
MINUTE = 60 * SECOND
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR

BERLIN = ZoneInfo("Europe/Berlin")
# Half an hour forward and back; a day without midnight; half an hour off all year; a midnight that comes twice.
ZONES = [BERLIN, *map(ZoneInfo, ("Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata", "Atlantic/Azores", "UTC"))]


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * SECOND


def reading(at: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at / SECOND, zone)


def label(unit: Unit, at: int, zone: ZoneInfo) -> Any:
    """What is the same throughout a period, and another thing in the next."""
    there = reading(at, zone)
    if unit == "hour":
        return there.date(), there.hour, there.utcoffset()
    return {"day": there.date(), "week": there.isocalendar()[:2], "month": (there.year, there.month)}[unit]


# A minute around each change of the clocks in 2026, and anywhere else.
CHANGES = [
    moment(text)
    for text in (
        "2026-03-29T01:00Z", "2026-10-25T01:00Z",  # Berlin and the Azores
        "2026-04-04T15:00Z", "2026-10-03T15:30Z",  # Lord Howe
        "2026-04-23T22:00Z", "2026-10-29T21:00Z",  # Cairo
    )
]  # fmt: skip
MOMENTS = st.one_of(
    st.integers(moment("2026-01-01T00:00Z"), moment("2027-02-01T00:00Z")),
    st.builds(lambda change, off: change + off, st.sampled_from(CHANGES), st.integers(-26 * HOUR, 26 * HOUR)),
    st.builds(lambda change, minutes: change + minutes * 30 * MINUTE, st.sampled_from(CHANGES), st.integers(-50, 50)),
)


class TestPeriod:
    @settings(max_examples=500)
    @given(st.sampled_from(["hour", "day", "week", "month"]), MOMENTS, st.sampled_from(ZONES))
    def test_it_is_all_that_has_the_same_name(self, unit: Unit, at: int, zone: ZoneInfo) -> None:
        begin, end = period(unit, at, zone)
        assert begin <= at < end
        inside = {label(unit, each, zone) for each in (begin, at, (begin + end) // 2, end - 1)}
        assert len(inside) == 1
        assert {label(unit, begin - 1, zone), label(unit, end, zone)}.isdisjoint(inside)
        assert period(unit, begin, zone) == period(unit, end - 1, zone) == (begin, end)

    @pytest.mark.parametrize(
        ("unit", "at", "begin", "end"),
        [
            ("day", "2026-03-29T12:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
            ("day", "2026-10-25T02:30+01:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
            ("week", "2026-03-29T23:59+02:00", "2026-03-23T00:00+01:00", "2026-03-30T00:00+02:00"),
            ("month", "2026-10-01T00:00+02:00", "2026-10-01T00:00+02:00", "2026-11-01T00:00+01:00"),
            ("month", "2026-12-31T23:59+01:00", "2026-12-01T00:00+01:00", "2027-01-01T00:00+01:00"),
            ("hour", "2026-10-25T02:30+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"),
            ("hour", "2026-10-25T02:30+01:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"),
            ("hour", "2026-03-29T01:59+01:00", "2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00"),
        ],
    )
    def test_in_berlin(self, unit: Unit, at: str, begin: str, end: str) -> None:
        assert period(unit, moment(at), BERLIN) == (moment(begin), moment(end))

    def test_half_hours(self) -> None:
        at = moment("2026-05-05T00:10+05:30")
        assert period("hour", at, ZoneInfo("Asia/Kolkata")) == (at - 10 * MINUTE, at + 50 * MINUTE)
        lord_howe = ZoneInfo("Australia/Lord_Howe")
        forward = moment("2026-10-04T02:30+11:00")  # set there from 02:00+10:30
        assert period("hour", forward, lord_howe) == (forward, forward + 30 * MINUTE)


@cache
def wall(begin: int, end: int, zone: ZoneInfo) -> list[tuple[int, datetime]]:
    """What a clock on the wall shows at every quarter of an hour."""
    return [(at, reading(at, zone).replace(tzinfo=None)) for at in range(begin, end, QUARTER)]


def windows_slowly(days: list[str], times: list[str], zone: ZoneInfo, begin: int, end: int) -> list[tuple[int, int]]:
    """Each window by looking at the clock on the wall."""
    shown = wall(begin - 2 * DAY, end + 2 * DAY, zone)
    wanted = set().union(*(parse_days(each) for each in days)) if days else set(range(7))
    found = []
    day = shown[0][1].date() + timedelta(days=1)
    while day < shown[-1][1].date() - timedelta(days=1):
        midnight = datetime.combine(day, datetime.min.time())
        for first, last in map(parse_times, times or ["00:00-24:00"]):
            opens, closes = midnight + timedelta(minutes=first), midnight + timedelta(minutes=last)
            start = min(at for at, each in shown if each >= opens)
            stop = max(at for at, each in shown if each < closes) + QUARTER
            if day.weekday() in wanted and start < stop:
                found.append((start, stop))
        day += timedelta(days=1)
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(found):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


TIMES = st.builds(
    lambda first, last: f"{first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02}",
    st.sampled_from([0, 30, 60, 90, 120, 150, 180, 600, 1320, 1410]),
    st.sampled_from([0, 30, 60, 120, 135, 150, 180, 210, 705, 1380, 1440]),
)


class TestWindows:
    @settings(max_examples=150)
    @given(
        st.sampled_from([[], ["sun"], ["sat", "sun"], ["sun-mon"], ["mon-fri"], ["fri"]]),
        st.lists(TIMES, max_size=2),
        st.sampled_from(CHANGES),
        st.sampled_from(ZONES),
        st.lists(st.integers(-40, 40), min_size=1, max_size=8),
    )
    def test_against_a_clock_on_the_wall(
        self, days: list[str], times: list[str], change: int, zone: ZoneInfo, steps: list[int]
    ) -> None:
        assume(all(first != last for first, _, last in (each.partition("-") for each in times)))
        windows = Windows(days, times, zone)
        spans = windows_slowly(days, times, zone, change - 2 * DAY, change + 2 * DAY)
        edges = [edge for span in spans for edge in span]
        for at in [change + step * 30 * MINUTE for step in steps] + edges + [edge - 1 for edge in edges]:
            if not change - DAY <= at <= change + DAY:
                continue
            assert windows.holds(at) is any(begin <= at < end for begin, end in spans)
            coming = windows.next_change(at)
            expected = min((edge for edge in edges if edge > at), default=None)
            if expected is not None and expected < change + 2 * DAY:
                assert coming == expected
            else:
                assert coming is None or coming >= change + 2 * DAY

    def test_over_midnight_belongs_to_the_day_it_begins_on(self) -> None:
        windows = Windows(["fri"], ["22:00-06:00"], BERLIN)
        friday, saturday = moment("2026-06-05T23:00+02:00"), moment("2026-06-06T05:59+02:00")
        assert windows.holds(friday)
        assert windows.holds(saturday)
        assert windows.next_change(friday) == moment("2026-06-06T06:00+02:00")
        assert not windows.holds(moment("2026-06-05T05:59+02:00"))
        assert windows.next_change(moment("2026-06-06T06:00+02:00")) == moment("2026-06-12T22:00+02:00")

    def test_its_beginning_is_in_it_and_its_end_is_not(self) -> None:
        windows = Windows([], ["08:00-17:30"], BERLIN)
        begin, end = moment("2026-06-05T08:00+02:00"), moment("2026-06-05T17:30+02:00")
        assert [windows.holds(at) for at in (begin - 1, begin, end - 1, end)] == [False, True, True, False]

    def test_a_night_with_a_change_of_the_clocks_is_as_long_as_it_is(self) -> None:
        windows = Windows([], ["22:00-06:00"], BERLIN)
        for evening, hours in (("2026-03-28T22:00+01:00", 7), ("2026-10-24T22:00+02:00", 9)):
            assert windows.next_change(moment(evening)) == moment(evening) + hours * HOUR

    def test_what_is_left_out_and_what_comes_twice(self) -> None:
        windows = Windows([], ["02:15-02:45"], BERLIN)
        spring = moment("2026-03-28T23:00+01:00")
        assert windows.next_change(spring) == moment("2026-03-30T02:15+02:00")
        autumn = windows.next_change(moment("2026-10-24T23:00+02:00"))
        assert autumn == moment("2026-10-25T02:15+02:00")
        assert windows.next_change(autumn) == moment("2026-10-25T02:45+01:00")

    def test_the_only_one_of_a_week_may_be_left_out(self) -> None:
        windows = Windows(["sun"], ["02:15-02:45"], BERLIN)
        assert windows.next_change(moment("2026-03-23T12:00+01:00")) == moment("2026-04-05T02:15+02:00")

    def test_the_clocks_are_asked_once_for_a_window(self, monkeypatch: pytest.MonkeyPatch) -> None:
        windows = Windows([], ["08:00-16:00"], BERLIN)
        noon = moment("2026-06-05T12:00+02:00")
        assert windows.holds(noon)
        monkeypatch.setattr(Windows, "_around", lambda *_: 1 / 0)
        inside = [moment("2026-06-05T08:00+02:00"), noon - 1, noon + 1, moment("2026-06-05T16:00+02:00") - 1]
        assert all(map(windows.holds, inside))
        assert {windows.next_change(at) for at in inside} == {moment("2026-06-05T16:00+02:00")}
        with pytest.raises(ZeroDivisionError):
            windows.holds(inside[0] - 1)

    @pytest.mark.parametrize(
        "times", [[], ["00:00-24:00"], ["00:00-12:00", "11:00-24:00"], ["12:00-00:00", "00:00-12:00"]]
    )
    def test_always(self, times: list[str]) -> None:
        windows = Windows([], times, BERLIN)
        assert windows.holds(CHANGES[0])
        assert windows.next_change(CHANGES[0]) is None

    def test_whole_days_are_one_window(self) -> None:
        windows = Windows(["mon-fri"], [], BERLIN)
        assert windows.next_change(moment("2026-06-03T12:00+02:00")) == moment("2026-06-06T00:00+02:00")
        assert windows.next_change(moment("2026-06-06T00:00+02:00")) == moment("2026-06-08T00:00+02:00")


class TestCalendar:
    def test_valid_from_and_until(self) -> None:
        calendar = Calendar(None, 10, 20)
        assert [calendar.is_active(at) for at in (9, 10, 19, 20)] == [False, True, True, False]
        assert [calendar.next_change(at) for at in (0, 9, 10, 19, 20, 99)] == [10, 10, 20, 20, None, None]
        assert Calendar(None, 10).next_change(10) is None
        assert Calendar(None, None, 20).next_change(0) == 20

    def test_windows_within_a_validity(self) -> None:
        windows = Windows(["mon-fri"], ["08:00-16:00"], BERLIN)
        begin, end = moment("2026-06-04T12:00+02:00"), moment("2026-06-08T10:00+02:00")  # Thursday to Monday
        calendar = Calendar(windows, begin, end)
        at, changes = moment("2026-05-01T00:00+02:00"), []
        while (coming := calendar.next_change(at)) is not None:
            assert calendar.is_active(coming) is not calendar.is_active(at)
            changes.append(coming)
            at = coming
        assert changes == [
            begin, moment("2026-06-04T16:00+02:00"), moment("2026-06-05T08:00+02:00"),
            moment("2026-06-05T16:00+02:00"), moment("2026-06-08T08:00+02:00"), end,
        ]  # fmt: skip

    def test_a_validity_between_windows_changes_nothing(self) -> None:
        windows = Windows(["mon"], ["08:00-16:00"], BERLIN)
        calendar = Calendar(windows, moment("2026-06-02T00:00+02:00"), moment("2026-06-05T00:00+02:00"))
        assert calendar.next_change(moment("2026-05-01T00:00+02:00")) is None

    @settings(max_examples=100)
    @given(MOMENTS, st.sampled_from(ZONES), st.none() | MOMENTS, st.none() | MOMENTS)
    def test_between_two_changes_nothing_changes(
        self, at: int, zone: ZoneInfo, begin: int | None, end: int | None
    ) -> None:
        calendar = Calendar(Windows(["mon-thu"], ["22:00-02:30"], zone), begin, end)
        changes = [at]
        while len(changes) < 6 and (coming := calendar.next_change(changes[-1])) is not None:
            changes.append(coming)
        for before, after in pairwise(changes):
            assert before < after
            states = {calendar.is_active(each) for each in (before, (before + after) // 2, after - 1)}
            assert len(states) == 1
            assert calendar.is_active(after) not in states


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("8:00-17:30", (480, 1050)),
        ("22:00-06:00", (1320, 1800)),
        ("22:00 – 24:00", (1320, 1440)),
        ("0:00-24:00", (0, 1440)),
    ],
)
def test_times_of_day(text: str, times: tuple[int, int]) -> None:
    assert parse_times(text) == times


@pytest.mark.parametrize(
    "text", ["", "8-17", "08:00", "08:00-25:00", "08:60-09:00", "24:00-06:00", "24:01-25:00", "x-y"]
)
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(ValueError, match="must be times of day"):
        parse_times(text)


def test_nothing_ends_when_it_begins() -> None:
    with pytest.raises(ValueError, match="the whole day is"):
        parse_times("08:00-08:00")


def test_days() -> None:
    assert parse_days("Mon") == {0}
    assert parse_days("fri - mon") == {4, 5, 6, 0}
    assert parse_days("sun-sun") == {6}
    with pytest.raises(ValueError, match="did you mean 'thu'"):
        parse_days("thur")
    with pytest.raises(ValueError, match="must be a day"):
        parse_days("mon-")


def test_moments() -> None:
    assert parse_moment("2026-03-29", BERLIN) == moment("2026-03-29T00:00+01:00")
    assert parse_moment("2026-03-29", BERLIN, end=True) == moment("2026-03-30T00:00+02:00")
    assert parse_moment("2026-03-29T12:00:00Z", BERLIN, end=True) == moment("2026-03-29T12:00+00:00")
    assert parse_moment("2026-07-01T12:00", BERLIN) == moment("2026-07-01T12:00+02:00")
    assert parse_moment("2026-07-01t12:00:00.5z", BERLIN) == moment("2026-07-01T12:00+00:00") + SECOND // 2
    for text in ("tomorrow", "2026-02-30", "2026", "0001-01-01", "9999-12-31T23:59:59-12:00", ""):
        with pytest.raises(ValueError, match="must be a date"):
            parse_moment(text, BERLIN)
