"""Contracts of kind `count`: at their edges, in calendars, and against a slow model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Story, contracts_of, event, micro, problems_of
from support.histories import IN_FLIGHT, Happened, Told, chances, end_of, histories, tell

from edgeq.contracts.count import SPANS_MAX
from edgeq.contracts.counted import CountMemory
from edgeq.contracts.judge import Judge
from edgeq.events import from_json
from edgeq.testing.clock import NOON

US = 1e-6
H = 3600
HOUR = H * 1_000_000
LEAST = {
    "name": "enough", "kind": "count", "of": "reading", "at_least": 2, "per": "hour", "timezone": "UTC",
    "lateness": "0s",
}  # fmt: skip
MOST = {key: value for key, value in {**LEAST, "at_most": 2}.items() if key != "at_least"}


def streaks(judge: Judge) -> tuple[int, int, int, int]:
    """How many periods the only instance met and missed, its streak and its best."""
    ((instance),) = judge.instances.values()
    memory = instance.memory
    assert isinstance(memory, CountMemory)
    return memory.met, memory.missed, memory.streak, memory.best


def count_model(
    history: Sequence[Happened], until: int, least: int, most: int, lateness: int
) -> tuple[list[Told], tuple[int, int, int, int]]:
    """Hour by hour, with all the times in it: which hours are judged, which had enough, which had too many?

    `most` may be without end, and `least` nothing. Hours are numbers, counted from 1970.
    """
    told: list[Told] = []
    hours: dict[int, list[int]] = {}
    overs: set[int] = set()
    outcomes: list[bool] = []
    head = judged_from = newest = 0
    since: int | None = None
    is_short = False

    def moment_of_enough(hour: int) -> int | None:
        times = hours.get(hour, [])
        return max(times[:least]) if least and len(times) >= least else None

    def violate(at: int) -> None:
        nonlocal since
        if since is None:
            since = at
            told.append(("violated", at, at))

    def look() -> None:
        """Whether it is violated still, by the first hour that isn't judged."""
        nonlocal since, is_short
        enough_at = moment_of_enough(head)
        if is_short and enough_at is not None:
            is_short = False
            if not overs:
                assert since is not None
                told.append(("resolved", since, max(since, enough_at)))
                since = None

    def pass_time(proof: int) -> None:
        nonlocal since, is_short, head
        while head:
            judged_at = (head + 1) * HOUR + lateness
            over_at = (max(overs) + 1) * HOUR if overs else judged_at + 1
            if min(judged_at, over_at) >= proof:
                return
            if over_at <= judged_at:
                overs.clear()
                if not is_short:
                    assert since is not None
                    told.append(("resolved", since, max(since, over_at)))
                    since = None
                continue
            count, is_whole = len(hours.get(head, [])), head * HOUR >= judged_from
            if is_whole or count > most:
                outcomes.append(count <= most and (count >= least or not is_whole))
            head += 1
            if is_whole and count < least:
                is_short = True
                violate(head * HOUR)
            look()

    for each in history:
        watermark = each.recorded_at - IN_FLIGHT
        pass_time(watermark)
        hour = each.at // HOUR
        if each.at < newest - lateness:
            continue
        pass_time(max(watermark, each.at))
        if hour < head:
            continue
        newest = max(newest, each.at)
        if not head:
            head, judged_from = hour, max(each.at, watermark)
        hours.setdefault(hour, []).append(each.at)
        if len(hours[hour]) == most + 1:
            overs.add(hour)
            violate(max(hours[hour]))
        else:
            look()
    pass_time(until)
    streak = best = 0
    for is_met in outcomes:
        streak = streak + 1 if is_met else 0
        best = max(best, streak)
    return told, (sum(outcomes), outcomes.count(False), streak, best)


GAPS = [0, 1, 60, 600, 1800 - US, 1800, 1800 + US, H - US, H, H + US, 2 * H, 7 * H]
LATE = [0, 0, 0, 0.3, 1, 59, 60, 60 + US, 600, 1800, H - US, H, 2 * H]


@settings(max_examples=300)
@given(
    histories(GAPS, LATE), st.sampled_from([(1, None), (2, None), (0, 1), (0, 0), (1, 1), (1, 2), (2, 4)]),
    st.sampled_from([0, 60, 600, 1800]), st.sampled_from([0.1, H, 5 * H]), chances(),
)  # fmt: skip
def test_it_is_what_a_slow_model_says(
    history: list[Happened], limits: tuple[int, int | None], lateness: int, after: float, chance: Iterator[bool]
) -> None:
    least, most = limits
    until = end_of(history, after)
    mapping: dict[str, Any] = {**LEAST, "at_least": least, "at_most": most, "lateness": f"{lateness}s"}
    mapping = {key: value for key, value in mapping.items() if value or (key != "at_least" and value is not None)}
    expected = count_model(history, until, least, 10**9 if most is None else most, lateness * 1_000_000)
    told, judge = tell(mapping, history, until, chance)
    assert told == expected[0]
    if history:
        assert streaks(judge) == expected[1]


def at(text: str) -> float:
    """A time of day, or an RFC 3339 time, in seconds after NOON; times of day are UTC, on the day of NOON."""
    moment = datetime.fromisoformat(text if "T" in text else f"2026-01-01T{text}+00:00")
    return moment.timestamp() - NOON / 1e6


def times(story: Story) -> list[tuple[str, str, str]]:
    """What was told, since when and when, in UTC."""
    return [(what, clock(since), clock(told_at)) for what, _, since, told_at in story.told]


def clock(seconds: float) -> str:
    """A time of day, with the date where that isn't the day of NOON."""
    moment = datetime.fromtimestamp(NOON / 1e6 + seconds, UTC)
    return f"{moment:%H:%M:%S}" if (moment.month, moment.day) == (1, 1) else f"{moment:%m-%d %H:%M:%S}"


class TestAtLeast:
    """`at_least: 2`, `per: hour`, `lateness: 0s`; it is noon."""

    def test_nothing_ever_came_and_nothing_is_known(self) -> None:
        assert Story(LEAST).wait(100 * H).told == []

    @pytest.mark.parametrize(
        ("second", "told"),
        [
            (2 * H - US, []),
            (2 * H, [("violated", "14:00:00", "14:00:00")]),
            (2 * H + US, [("violated", "14:00:00", "14:00:00")]),
        ],
    )
    def test_the_last_that_is_needed_comes_as_the_period_ends(self, second: float, told: list[Any]) -> None:
        story = Story(LEAST).reading(1).reading(H).reading(second).wait(2 * H + US)
        assert times(story) == told

    def test_the_first_period_is_judged_only_if_it_was_watched_from_its_beginning(self) -> None:
        assert times(Story(LEAST).reading(0).wait(H)) == []
        assert times(Story(LEAST).reading(0).wait(H + US)) == [("violated", "13:00:00", "13:00:00")]
        story = Story(LEAST).reading(US).wait(2 * H)
        assert (story.told, story.state()) == ([], "unknown")
        assert times(story.wait(2 * H + US)) == [("violated", "14:00:00", "14:00:00")]
        assert Story(LEAST).reading(1).reading(2).state() == "ok"

    def test_it_ends_when_a_later_period_has_enough_and_not_before(self) -> None:
        story = Story(LEAST).reading(0).wait(H + 1).reading(H + 10).wait(2 * H + 1).reading(2 * H + 20)
        assert times(story) == [("violated", "13:00:00", "13:00:00")]
        story.reading(2 * H + 30).wait(3 * H + 1)
        assert times(story)[1:] == [("resolved", "13:00:00", "14:00:30")]
        assert streaks(story.judge) == (1, 2, 1, 1)

    def test_periods_in_which_nobody_was_there_are_missed_and_one_violation(self) -> None:
        story = Story(LEAST).reading(0).reading(1)
        story.restart(1000 * H).reading(1000 * H + 1).reading(1000 * H + 2)
        assert times(story) == [("violated", "14:00:00", "14:00:00"), ("resolved", "14:00:00", "02-12 04:00:02")]
        assert streaks(story.judge) == (1, 999, 0, 1)

    def test_the_length_of_streaks(self) -> None:
        story = Story(LEAST)
        for hour, count in enumerate([2, 3, 0, 2, 2, 2, 1, 5]):
            for second in range(count):
                story.reading(hour * H + second)
        assert streaks(story.wait(8 * H + 1).judge) == (6, 2, 1, 3)
        assert [what for what, *_ in story.told] == ["violated", "resolved", "violated", "resolved"]

    def test_late_ones_count_until_the_period_is_judged(self) -> None:
        late = {**LEAST, "lateness": "1m"}
        story = Story(late).reading(0).reading(1).reading(H + 1).reading(2 * H + 10)
        story.reading(2 * H + 60, occurred=2 * H - 1).wait(2 * H + 61)
        assert (story.told, streaks(story.judge)) == ([], (2, 0, 2, 2))
        story = Story(late).reading(0).reading(1).reading(H + 1).reading(2 * H + 10).wait(2 * H + 60)
        assert story.told == []
        story.wait(2 * H + 60 + US)
        assert times(story) == [("violated", "14:00:00", "14:00:00")]
        story.reading(2 * H + 61, occurred=2 * H - 1)
        assert (story.skipped, len(story.told)) == (["too_late"], 1)

    @pytest.mark.parametrize(("occurred", "skipped"), [(1200, []), (1200 - US, ["too_late"])])
    def test_later_than_lateness_does_not_count(self, occurred: float, skipped: list[str]) -> None:
        story = Story({**LEAST, "lateness": "10m"}).reading(1800).reading(1801, occurred=1300)
        assert story.reading(1802, occurred=occurred).skipped == skipped

    def test_a_late_one_may_be_what_was_missing(self) -> None:
        story = Story({**LEAST, "lateness": "10m"}).reading(0).wait(H + 601).reading(H + 700)
        story.reading(2 * H + 1).reading(2 * H + 2)
        assert times(story) == [("violated", "13:00:00", "13:00:00")]
        story.reading(2 * H + 3, occurred=2 * H - 1)
        assert times(story)[1:] == [("resolved", "13:00:00", "13:59:59")]

    def test_an_earlier_period_is_judged_before_a_later_one_can_end_it(self) -> None:
        story = Story({**LEAST, "lateness": "10m"}).reading(0).wait(H + 601)
        story.reading(2 * H + 1).reading(2 * H + 2)
        assert times(story) == [("violated", "13:00:00", "13:00:00")]
        story.wait(2 * H + 601)
        assert times(story)[1:] == [("resolved", "13:00:00", "14:00:02")]
        assert streaks(story.judge) == (0, 2, 0, 0)

    def test_what_is_told_late_was_over_when_enough_had_come(self) -> None:
        story = Story({**LEAST, "lateness": "10m"}).reading(0).reading(H + 1).reading(H + 2).wait(H + 601)
        assert times(story) == [("violated", "13:00:00", "13:00:00"), ("resolved", "13:00:00", "13:00:02")]

    def test_known_subjects_are_watched_from_the_start(self) -> None:
        story = Story({**LEAST, "at_least": 1, "known": ["a", "b"]}).reading(H + 5, subject="b").wait(2 * H)
        assert story.told == [("violated", "a", H, H), ("violated", "b", H, H), ("resolved", "b", H, H + 5)]

    def test_who_is_no_longer_known_and_was_never_seen_is_forgotten(self) -> None:
        (known,) = contracts_of({**LEAST, "known": ["a"]})
        (unknown,) = contracts_of(LEAST)
        (instance,) = known.initial(NOON)
        assert known.keeps(instance)
        assert not unknown.keeps(instance)

    def test_what_it_says(self) -> None:
        story = Story({**LEAST, "of": "backup.done", "at_least": 3, "per": "week", "timezone": "Europe/Berlin"})
        story.event("backup.done", at("2026-03-22T02:00+01:00"))
        story.event("backup.done", at("2026-03-23T02:00+01:00")).wait(at("2026-03-30T00:00+02:00"))
        assert story.told == []
        told = story.wait(at("2026-03-30T00:00+02:00") + US).events[-1]
        assert told.description == "enough: a 1 backup.done in the week from 2026-03-23, fewer than 3"
        expected = {"count": 1, "from": "2026-03-23", "met": 0, "missed": 1, "streak": 0, "best": 0}
        assert from_json(told.data_json)["observed"] == expected


class TestAtMost:
    """`at_most: 2`, `per: hour`, `lateness: 0s`; it is noon."""

    def test_one_too_many(self) -> None:
        story = Story(MOST).reading(5).reading(6)
        assert (story.told, story.state()) == ([], "ok")
        story.reading(7).reading(8)
        assert times(story) == [("violated", "12:00:07", "12:00:07")]
        assert story.wait(H).told[1:] == []
        assert times(story.wait(H + US))[1:] == [("resolved", "12:00:07", "13:00:00")]
        assert streaks(story.judge) == (0, 1, 0, 0)

    @pytest.mark.parametrize(
        ("third", "told"),
        [
            (H - US, [("violated", "12:59:59", "12:59:59"), ("resolved", "12:59:59", "13:00:00")]),
            (H, []),
            (H + US, []),
        ],
    )
    def test_the_third_comes_as_the_period_ends(self, third: float, told: list[Any]) -> None:
        assert times(Story(MOST).reading(0).reading(1).reading(third).wait(H + 1)) == told

    def test_not_even_one(self) -> None:
        story = Story({**MOST, "at_most": 0}).reading(5).wait(H + 1).reading(H + 5).wait(3 * H)
        assert times(story) == [
            ("violated", "12:00:05", "12:00:05"), ("resolved", "12:00:05", "13:00:00"),
            ("violated", "13:00:05", "13:00:05"), ("resolved", "13:00:05", "14:00:00"),
        ]  # fmt: skip
        story = Story({**MOST, "at_most": 0}).reading(5).reading(H).wait(3 * H)
        assert times(story) == [("violated", "12:00:05", "12:00:05"), ("resolved", "12:00:05", "14:00:00")]

    def test_a_late_one_shows_that_there_were_too_many(self) -> None:
        story = Story({**MOST, "lateness": "1m"}).reading(1).reading(2).reading(H + 1).reading(H + 2, occurred=H - 1)
        assert times(story) == [("violated", "12:59:59", "12:59:59")]
        story.reading(H + 3, occurred=H - 2).wait(2 * H)
        assert times(story)[1:] == [("resolved", "12:59:59", "13:00:00")]

    def test_a_late_one_in_a_period_that_is_over_ends_nothing_early(self) -> None:
        story = Story({**MOST, "lateness": "1m"}).reading(1).reading(2).reading(H + 1).reading(H + 2).reading(H + 3)
        story.reading(H + 4, occurred=H - 1).wait(2 * H)
        assert times(story) == [("violated", "13:00:03", "13:00:03")]
        assert times(story.wait(2 * H + US))[1:] == [("resolved", "13:00:03", "14:00:00")]

    def test_with_both_limits_it_stands_until_neither_is_broken(self) -> None:
        story = Story({**LEAST, "at_least": 1, "at_most": 1, "lateness": "30m"}).reading(0).wait(2 * H + 1801)
        story.reading(3 * H + 1).reading(3 * H + 2).wait(4 * H)
        assert times(story) == [("violated", "14:00:00", "14:00:00")]
        assert times(story.wait(4 * H + US))[1:] == [("resolved", "14:00:00", "16:00:00")]

    def test_the_same_event_again_does_not_count(self) -> None:
        story = Story(MOST).reading(0).reading(1)
        with story.judge.turn() as turn:
            turn.observe(event(2, recorded=1), trusted=True)
        assert turn.changed == {}

    def test_each_has_its_own_count(self) -> None:
        story = Story({**MOST, "by": "door", "where": {"open": True}})
        for second, (door, is_open) in enumerate([(1, True), (2, True), (1, True), (1, False), (2, True), (1, True)]):
            story.event("reading", second, data={"door": door, "open": is_open})
        assert story.told == [("violated", "1", 5, 5)]

    def test_with_both_limits_a_period_is_met_within_them(self) -> None:
        story = Story({**LEAST, "at_most": 3})
        for hour, count in enumerate([2, 3, 4, 1, 2]):
            for second in range(count):
                story.reading(hour * H + second)
        assert times(story) == [
            ("violated", "14:00:03", "14:00:03"), ("resolved", "14:00:03", "15:00:00"),
            ("violated", "16:00:00", "16:00:00"), ("resolved", "16:00:00", "16:00:01"),
        ]  # fmt: skip
        assert streaks(story.wait(5 * H + 1).judge) == (3, 2, 1, 2)

    def test_what_it_says(self) -> None:
        story = Story({**MOST, "of": "door.opened", "timezone": "Europe/Berlin"})
        for second in range(3):
            story.event("door.opened", second, subject="front")
        told = story.events[-1]
        assert told.description == "enough: front 3 door.opened in the hour from 2026-01-01 13:00+01:00, more than 2"
        assert (told.cause_id, from_json(told.data_json)["observed"]["count"]) == (3, 3)
        assert "observed count 3, from 2026-01-01T13:00+01:00" in story.wait(H + 1).events[-1].description


class TestCalendars:
    """Where periods begin and end."""

    @pytest.mark.parametrize(
        ("per", "zone", "begin", "end"),
        [
            ("day", "Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),  # 23 hours
            ("day", "Europe/Berlin", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),  # 25 hours
            ("hour", "Europe/Berlin", "2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"),
            ("hour", "Europe/Berlin", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"),
            ("hour", "Asia/Kolkata", "2026-01-02T00:00+05:30", "2026-01-02T01:00+05:30"),
            ("week", "Europe/Berlin", "2026-03-23T00:00+01:00", "2026-03-30T00:00+02:00"),
            ("month", "UTC", "2028-02-01T00:00+00:00", "2028-03-01T00:00+00:00"),
            ("month", "Asia/Kolkata", "2026-02-01T00:00+05:30", "2026-03-01T00:00+05:30"),
        ],
    )
    def test_the_edges_of_a_period(self, per: str, zone: str, begin: str, end: str) -> None:
        mapping = {**LEAST, "at_most": 2, "per": per, "timezone": zone}
        first, last = at(begin), at(end)
        story = Story(mapping).reading(first - 1).reading(first).reading(last - US).reading(last).wait(last + 10)
        assert (story.told, streaks(story.judge)) == ([], (1, 0, 1, 1))
        story = Story(mapping).reading(first - 1).reading(first).reading(last).wait(last + US)
        assert story.told == [("violated", "a", last, last)]
        story = Story({**mapping, "at_least": 1}).reading(first - 1)
        story.reading(first).reading(last - 1).reading(last - US)
        assert story.told == [("violated", "a", pytest.approx(last - US), pytest.approx(last - US))]
        assert story.wait(last + US).told[1:] == [("resolved", "a", pytest.approx(last - US), last)]

    def test_a_day_of_work_is_judged_before_the_contract_goes_out_of_force(self) -> None:
        weekdays = {**LEAST, "per": "day", "lateness": "1m", "active": {"days": "mon-fri", "timezone": "UTC"}}
        friday = at("2026-01-02T00:00+00:00")
        story = Story(weekdays).reading(friday).reading(friday + 86400 - US, value=1)
        story.wait(friday + 4 * 86400 - 1)
        assert (story.told, streaks(story.judge)) == ([], (1, 0, 1, 1))
        story = Story(weekdays).reading(friday).wait(friday + 86400 + 1)
        assert [(told[0], told[3] - friday) for told in story.told] == [("violated", 86400)]
        monday = friday + 3 * 86400
        story.reading(monday).reading(monday + 1).wait(monday + 86400 + 61)
        assert streaks(story.judge)[:2] == (1, 1)

    def test_what_begins_within_a_period_does_not_judge_it(self) -> None:
        story = Story({**LEAST, "valid_from": "2026-01-01T13:30:00Z"}).reading(0).reading(H).reading(1.75 * H)
        assert story.wait(3 * H).told == []
        assert times(story.wait(3 * H + US)) == [("violated", "15:00:00", "15:00:00")]

    def test_a_period_that_begins_out_of_force_is_not_judged_either(self) -> None:
        times_of_day = ["12:00-14:00", "14:30-16:00"]
        story = Story({**LEAST, "active": {"times": times_of_day, "timezone": "UTC"}}).reading(0).wait(3 * H + 1)
        assert (story.state(), streaks(story.judge)) == ("violated", (0, 2, 0, 0))
        assert streaks(story.wait(4 * H + 1).judge) == (0, 3, 0, 0)

    def test_what_ends_within_a_period_does_not_judge_it(self) -> None:
        story = Story({**LEAST, "valid_until": "2026-01-01T14:30:00Z"}).reading(1).wait(2 * H + 1).reading(2 * H + 2)
        story.wait(10 * H).reading(10 * H + 1).wait(12 * H)
        assert (times(story), streaks(story.judge)) == ([("violated", "14:00:00", "14:00:00")], (0, 1, 0, 0))

    def test_a_period_that_ends_while_nothing_can_be_heard_is_not_judged(self) -> None:
        linked = {**LEAST, "suppressed_by": "link"}
        story = Story(linked).reading(0).reading(1).reading(H + 1)
        with story.judge.turn() as turn:
            turn.lose_link(micro(H + 5))
            turn.regain_link(micro(2 * H + 5))
        assert story.wait(3 * H).told == []
        assert times(story.wait(3 * H + US)) == [("violated", "15:00:00", "15:00:00")]
        story = Story(linked).reading(0).reading(1).reading(H + 1)
        with story.judge.turn() as turn:
            turn.lose_link(micro(H + 5))
            turn.regain_link(micro(H + 15))
        assert times(story.wait(2 * H + US)) == [("violated", "14:00:00", "14:00:00")]

    def test_what_was_missed_stays_so_when_nothing_could_be_heard(self) -> None:
        story = Story({**LEAST, "suppressed_by": "link"}).reading(0).wait(H + 1)
        with story.judge.turn() as turn:
            turn.lose_link(micro(H + 5))
            turn.regain_link(micro(2 * H + 5))
        story.reading(2 * H + 6).wait(2 * H + 10)
        assert (story.state(), streaks(story.judge)) == ("violated", (0, 1, 0, 0))
        assert times(story.reading(2 * H + 11))[1:] == [("resolved", "13:00:00", "14:00:11")]


class TestMachineZone:
    """A gateway that is moved to another time zone; there it is NOON of Thursday in UTC."""

    DAILY: ClassVar = {**LEAST, "per": "day", "timezone": "", "known": ["a"]}

    @pytest.mark.parametrize(
        ("zone", "first_whole_day_ends"),
        [
            ("UTC", 36), ("Pacific/Auckland", 47), ("Pacific/Kiritimati", 46), ("Asia/Kolkata", 54.5),
            ("America/New_York", 41), ("Pacific/Pago_Pago", 47),
        ],
    )  # fmt: skip
    def test_only_whole_days_are_missed(
        self, monkeypatch: pytest.MonkeyPatch, zone: str, first_whole_day_ends: float
    ) -> None:
        monkeypatch.setenv("TZ", "UTC")
        story = Story(self.DAILY)
        monkeypatch.setenv("TZ", zone)
        story.restart(H).wait(100 * H)
        assert story.told == [("violated", "a", first_whole_day_ends * H, first_whole_day_ends * H)]

    @pytest.mark.parametrize("zone", ["Pacific/Auckland", "Asia/Kolkata", "America/New_York", "Pacific/Pago_Pago"])
    @pytest.mark.parametrize("moved", [1, 11, 13, 20])
    def test_each_event_counts_once(self, monkeypatch: pytest.MonkeyPatch, zone: str, moved: int) -> None:
        exactly = {**self.DAILY, "at_least": 24, "at_most": 24, "lateness": "2h"}
        monkeypatch.setenv("TZ", "UTC")
        story = Story(exactly)
        for hour in range(200):
            if hour == moved:
                monkeypatch.setenv("TZ", zone)
                story.restart(hour * H + 1)
            story.reading((hour + 1.5) * H, occurred=(hour + 0.25) * H)
        assert (story.told, story.skipped) == ([], [])
        met, missed, _, _ = streaks(story.judge)
        assert met >= 5, "of 200 hours, where days begin at another one"
        assert missed == 0

    def test_windows_go_by_the_new_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        office = {
            "name": "office",
            "kind": "threshold",
            "of": "reading",
            "above": 5,
            "active": {"times": "08:00-17:00"},
        }
        monkeypatch.setenv("TZ", "UTC")
        story = Story(office).reading(0, 1)
        assert story.shown() == "ok"
        monkeypatch.setenv("TZ", "Asia/Tokyo")  # there it is 21:00
        assert story.restart(1).shown() == "suppressed"
        assert story.judge.earliest() == micro(11 * H)


class TestClocks:
    """`at_least: 2`, `per: hour`, `lateness: 1m`; it is noon."""

    KEYS = {**LEAST, "lateness": "1m"}  # noqa: RUF012

    def step(self, story: Story, now: float, seconds: float) -> Story:
        with story.judge.turn() as turn:
            turn.set_clock(micro(now), round(seconds * 1_000_000))
        return story

    @pytest.mark.parametrize("seconds", [6 * H, -14 * 86400])
    def test_hours_that_were_skipped_or_left_are_not_missed(self, seconds: int) -> None:
        story = Story(self.KEYS).reading(0).reading(1).reading(H + 5).wait(H + 61)
        self.step(story, 2 * H - 60 + seconds, seconds).reading(2 * H - 30 + seconds).wait(2 * H + 61 + seconds)
        assert (story.told, streaks(story.judge)) == ([], (1, 0, 1, 1))
        hours = (3 * H + seconds, 3 * H + seconds)
        assert story.wait(3 * H + 61 + seconds).told == [("violated", "a", *hours)]

    def test_from_no_clock_to_now(self) -> None:
        start = -NOON / 1e6 + 1000
        story = Story({**self.KEYS, "known": ["a"]}, {**self.KEYS, "name": "seen"})
        story.judge = Judge(list(story.judge.contracts.values()))
        known = story.judge.contracts["enough"].initial(micro(start))
        story.judge.load([("enough", each) for each in known], micro(start))
        story.reading(start + 1)
        assert story.skipped == ["no_clock", "no_clock"]
        self.step(story.wait(start + 3 * H), 100, 100 - start - 3 * H)
        assert story.wait(H + 61).told == []
        assert story.wait(2 * H + 61).told == [("violated", "a", 2 * H, 2 * H)]
        story.judge.load([(name, each) for (name, _), each in story.judge.instances.items()], micro(start))
        story.wait(start + 10)
        story.judge.load([(name, each) for (name, _), each in story.judge.instances.items()], micro(2 * H + 100))
        assert story.reading(2 * H + 101).reading(2 * H + 102).told[1:] == [("resolved", "a", 2 * H, 2 * H + 102)]

    def test_a_small_step_changes_nothing(self) -> None:
        story = Story(self.KEYS).reading(0).reading(1)
        self.step(story, H + 20, 30).reading(H + 21, occurred=H - 1).reading(H + 22).wait(2 * H + 61)
        assert times(story) == [("violated", "14:00:00", "14:00:00")]
        assert streaks(story.judge) == (1, 1, 0, 1)

    def test_a_step_within_the_period_changes_nothing(self) -> None:
        story = self.step(Story(self.KEYS).reading(0), 1800, 600).reading(1801).wait(H + 61)
        assert (story.told, streaks(story.judge)) == ([], (1, 0, 1, 1))

    def test_what_is_over_stays_so_until_the_period_that_the_clock_was_set_to_ends(self) -> None:
        story = Story({**MOST, "lateness": "1m"}).reading(0).reading(1).reading(2)
        self.step(story, 10 - 2 * H, -2 * H).wait(-H)
        assert times(story) == [("violated", "12:00:02", "12:00:02")]
        assert [told[0] for told in story.wait(-H + US).told] == ["violated", "resolved"]

    def test_a_clock_that_was_ahead_in_an_earlier_run(self) -> None:
        ahead = 14 * 86400
        story = Story(self.KEYS).reading(ahead).reading(ahead + 1).restart(5).wait(H + 61)
        assert story.told == []
        assert times(story.wait(2 * H + 61)) == [("violated", "14:00:00", "14:00:00")]

    def test_what_is_out_of_force_stays_so(self) -> None:
        story = Story({**MOST, "active": {"times": "12:00-12:30", "timezone": "UTC"}}).reading(0).wait(1900)
        self.step(story, 2000, 100)
        assert (story.told, streaks(story.judge)) == ([], (0, 0, 0, 0))
        assert (story.shown(), story.judge.instances[("enough", "a")].deadline_at) == ("suppressed", None)

    def test_what_was_missed_stays_so_when_the_clock_is_set(self) -> None:
        story = Story({**LEAST, "at_least": 1, "at_most": 1, "lateness": "30m"}).reading(0).wait(2 * H + 1801)
        story.reading(3 * H + 1).reading(3 * H + 2)
        self.step(story, 9 * H + 10, 6 * H).wait(9 * H + 15)
        assert times(story) == [("violated", "14:00:00", "14:00:00")]
        assert times(story.reading(9 * H + 20))[1:] == [("resolved", "20:00:00", "21:00:20")]

    def test_what_was_counted_before_a_start_without_a_clock_still_counts(self) -> None:
        story = Story(MOST).reading(0).reading(1)
        no_clock = 1000 - NOON / 1e6
        story.restart(no_clock)
        self.step(story, 600, 600 - no_clock).reading(601)
        assert times(story) == [("violated", "12:10:01", "12:10:01")]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"at_least": 2}, {"at_least": 3}, [("violated", H, H)]),
        ({"at_least": 3}, {"at_least": 2}, []),
        ({"at_least": 3}, {"at_most": 2}, []),
        ({"at_least": 3}, {"at_most": 1}, [("violated", 2, 3), ("resolved", 2, H)]),
        ({"at_most": 1}, {"at_most": 2}, [("violated", 2, 2), ("resolved", 2, 3)]),
        ({"at_most": 1}, {"at_least": 1}, [("violated", 2, 2), ("resolved", 2, 3)]),
        ({"at_most": 1}, {"at_most": 1, "at_least": 1}, [("violated", 2, 2), ("resolved", 2, H)]),
        ({"at_most": 2}, {"at_most": 1}, [("violated", 2, 3), ("resolved", 2, H)]),
        ({"at_least": 1}, {"at_least": 1, "at_most": 1}, [("violated", 2, 3), ("resolved", 2, H)]),
        ({"at_most": 2}, {"at_most": 0}, [("violated", 2, 3), ("resolved", 2, H)]),
    ],
)
def test_limits_may_change_and_what_was_counted_still_counts(
    before: dict[str, int], after: dict[str, int], told: list[Any]
) -> None:
    keys = {key: value for key, value in LEAST.items() if key != "at_least"}
    story = Story({**keys, **before}).reading(0).reading(2).start(3, {**keys, **after}).wait(H + 1)
    assert [each[:1] + each[2:] for each in story.told] == told


def test_a_lower_limit_is_broken_by_what_was_counted_and_the_period_is_missed() -> None:
    lower = {**MOST, "at_most": 1, "message": "{observed}"}
    story = Story({**MOST, "at_most": 5}).reading(0).reading(1).reading(2).start(3, lower)
    (verdict,) = [verdict for _, _, verdict in story.verdicts]
    assert (verdict.episode, verdict.cause_id, verdict.observed["count"]) == (1, 3, 3)
    assert [each.type for each in story.restart(4).reading(5).events] == ["contract.violated"]
    assert times(story.wait(H + 100))[1:] == [("resolved", "12:00:02", "13:00:00")]
    assert streaks(story.judge) == (0, 1, 0, 0)
    story.reading(H + 200).reading(H + 201)
    assert [verdict.episode for _, _, verdict in story.verdicts] == [1, 1, 2]


def test_a_lower_limit_leaves_what_is_out_of_force_and_an_episode_that_goes_on() -> None:
    story = Story({**MOST, "at_most": 2}).reading(0).reading(1).reading(2).start(3, {**MOST, "at_most": 1})
    assert times(story) == [("violated", "12:00:02", "12:00:02")]
    asleep = {**MOST, "active": {"times": "12:00-12:30", "timezone": "UTC"}}
    story = Story(asleep).reading(0).reading(1).wait(1900).start(1901, {**asleep, "at_most": 1}).wait(H + 1)
    assert (story.told, story.shown()) == ([], "suppressed")


def test_missed_periods_end_by_the_next_that_has_enough() -> None:
    story = Story(LEAST).reading(0).wait(H + 1).start(H + 2, {**LEAST, "at_least": 3}).reading(H + 3).reading(H + 4)
    assert times(story) == [("violated", "13:00:00", "13:00:00")]
    assert times(story.reading(H + 5))[1:] == [("resolved", "13:00:00", "13:00:05")]
    story = Story({**LEAST, "at_most": 9}).reading(0).wait(H + 1).start(H + 2, MOST)
    assert times(story) == [("violated", "13:00:00", "13:00:00"), ("resolved", "13:00:00", "13:00:02")]


def test_a_reminder_tells_of_the_event_that_was_one_too_many() -> None:
    story = Story({**MOST, "remind": "10m"}).reading(0).reading(1).reading(2).reading(3).wait(700)
    assert [(verdict.reminder, verdict.cause_id) for _, _, verdict in story.verdicts] == [(0, 3), (1, 3)]


def test_periods_that_nobody_could_judge_are_few() -> None:
    story = Story(LEAST)
    for hour in range(SPANS_MAX):
        story.reading(hour * H, trusted=False)
    assert story.skipped == []
    story.reading(SPANS_MAX * H, trusted=False)
    assert story.skipped == ["too_many_periods"]
    story.reading(SPANS_MAX * H - 1, trusted=False)
    assert story.skipped == []
    ((instance),) = story.judge.instances.values()
    assert len(msgspec.json.encode(instance.memory)) < 7000
    assert streaks(story.wait(200 * H + 1).judge) == (1, 199, 0, 1)


@pytest.mark.parametrize(
    ("mapping", "path", "message"),
    [
        ({**LEAST, "at_lest": 3}, "at_lest", "did you mean 'at_least'?"),
        ({**LEAST, "at_least": 0}, "at_least", "must be between 1 and 1000000000"),
        ({**LEAST, "at_most": -1}, "at_most", "must be between 0 and 1000000000"),
        ({**LEAST, "at_most": 1}, "at_least", "must be at most 1, which is at_most"),
        ({key: value for key, value in LEAST.items() if key != "at_least"}, "", "needs at_least or at_most, or both"),
        ({**LEAST, "per": "dya"}, "per", "did you mean 'day'?"),
        ({**LEAST, "per": "2h"}, "per", "hour, day, week or month"),
        ({key: value for key, value in LEAST.items() if key != "per"}, "per", "is missing"),
        ({**LEAST, "timezone": "Europe/Berln"}, "timezone", "did you mean 'Europe/Berlin'?"),
        ({**LEAST, "lateness": "31m"}, "lateness", "must be at most 30m, which is half of a period"),
        ({**MOST, "known": ["a"]}, "known", "is for at_least"),
        ({**LEAST, "subject": "b*", "known": ["a"]}, "known[0]", "'a' doesn't fit subject: b*"),
        ({**LEAST, "per": "day", "active": {"times": "08:00-18:00"}}, "active.times", "is about whole periods"),
        ({**LEAST, "per": "week", "active": {"days": "mon-fri"}}, "active.days", "is about whole periods"),
    ],
)
def test_a_mistake_is_named_with_its_key(mapping: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(mapping)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}".rstrip(".")]
    assert message in str(problems[0])
