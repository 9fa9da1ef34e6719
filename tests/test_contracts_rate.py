"""Contracts of kind `rate`: at their edges, and against a slow model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.contracts import Story, contracts_of, event, micro, problems_of
from support.histories import IN_FLIGHT, Happened, Told, chances, end_of, histories, told_of

from edgeq.contracts.instance import Instance
from edgeq.contracts.moments import Moments
from edgeq.contracts.rate import EVENTS_MAX, RateMemory
from edgeq.events import from_json
from edgeq.testing.clock import NOON

US = 1e-6
WITHIN = 10_000_000
MORE = {"name": "often", "kind": "rate", "of": "reading", "more_than": 2, "within": "10s"}
FEWER = {"name": "seldom", "kind": "rate", "of": "reading", "fewer_than": 2, "within": "10s"}


def counted(times: Sequence[int], at: int) -> int:
    """How many count at that moment."""
    return sum(at - WITHIN < each <= at for each in times)


def edges(times: Sequence[int]) -> list[int]:
    """The moments at which that number may change."""
    return sorted({edge for each in times for edge in (each, each + WITHIN)})


def more_than_model(history: Sequence[Happened], until: int, most: int, lateness: int) -> list[Told]:
    """Of all that is known after each event: when, of the time of which nothing was told yet, were there too many?"""
    told: list[Told] = []
    times: list[int] = []
    told_until = over_at = timer = 0
    since: int | None = None
    for each in history:
        if times and each.at < max(times) - lateness:
            continue
        watermark = each.recorded_at - IN_FLIGHT
        if since is not None and timer < max(watermark, each.at):
            told.append(("resolved", since, over_at))
            since, told_until = None, over_at
        times.append(each.at)
        begins = edges(times)
        many = [(begin, end) for begin, end in pairwise(begins) if counted(times, begin) > most and end > told_until]
        over_at = many[-1][1] if many else 0
        timer = over_at if over_at >= watermark else watermark + lateness
        if since is None and many:
            since = max(many[0][0], told_until)
            told.append(("violated", since, since))
        elif since is not None and over_at <= max(times):
            told.append(("resolved", since, over_at))
            since, told_until = None, over_at
    if since is not None and timer < until:
        told.append(("resolved", since, over_at))
    return told


def fewer_than_model(history: Sequence[Happened], until: int, least: int, lateness: int, known: bool) -> list[Told]:
    """From the newest event on, when are there too few, as far as is known?"""
    told: list[Told] = []
    times: list[int] = []
    since: int | None = None
    start = NOON if known else None
    falls_at = NOON + WITHIN

    for each in [*history, None]:
        watermark = until if each is None else each.recorded_at - IN_FLIGHT
        if each is not None and times and each.at < max(times) - lateness:
            continue
        proof = watermark if each is None else max(watermark, each.at)
        if start is not None and since is None and falls_at < proof:
            since = falls_at
            told.append(("violated", since, since))
        if each is None:
            break
        start = max(each.at, watermark) if start is None else start
        times.append(each.at)
        newest = max(times)
        moments = [at for at in (start + WITHIN, *edges(times)) if at >= max(newest, start + WITHIN)]
        falls_at = min(at for at in moments if counted(times, at) < least)
        if since is not None and counted(times, newest) >= least and falls_at >= watermark:
            told.append(("resolved", since, max(since, newest)))
            since = None
    return told


GAPS = [0, 0.1, 1, 3, 5 - US, 5, 5 + US, 9.9, 10 - US, 10, 10 + US, 10.3, 15, 40, 70]
LATE = [0, 0, 0, 0, 0.2, 0.3, 1, 5, 10 - US, 10, 10 + US, 30, 60, 60 + US, 200]


@settings(max_examples=300)
@given(
    histories(GAPS, LATE), st.sampled_from([0, 1, 2, 3]), st.sampled_from([0, 4, 60]), st.sampled_from([0.1, 10, 100]),
    chances(),
)  # fmt: skip
def test_more_than_is_what_a_slow_model_says(
    history: list[Happened], most: int, lateness: int, after: float, chance: Iterator[bool]
) -> None:
    until = end_of(history, after)
    mapping = {**MORE, "more_than": most, "lateness": f"{lateness}s"}
    assert told_of(mapping, history, until, chance) == more_than_model(history, until, most, lateness * 1_000_000)


@settings(max_examples=300)
@given(
    histories(GAPS, LATE), st.sampled_from([1, 2, 3]), st.sampled_from([0, 4, 60]), st.sampled_from([0.1, 10, 100]),
    st.booleans(), chances(),
)  # fmt: skip
def test_fewer_than_is_what_a_slow_model_says(
    history: list[Happened], least: int, lateness: int, after: float, known: bool, chance: Iterator[bool]
) -> None:
    until = end_of(history, after)
    mapping = {**FEWER, "fewer_than": least, "lateness": f"{lateness}s", "known": ["a"] if known else []}
    expected = fewer_than_model(history, until, least, lateness * 1_000_000, known)
    assert told_of(mapping, history, until, chance) == expected


class TestMoreThan:
    """`more_than: 2`, `within: 10s`."""

    @pytest.mark.parametrize(
        ("third", "told"),
        [
            (10 - US, [("violated", "a", 10 - US, 10 - US)]),
            (10, []),
            (10 + US, []),
        ],
    )
    def test_one_too_many_comes_as_the_first_becomes_too_old(self, third: float, told: list[Any]) -> None:
        assert Story(MORE).reading(0).reading(5).reading(third).told == [pytest.approx(each) for each in told]

    @pytest.mark.parametrize(
        ("fourth", "told"),
        [
            (10 - US, []),
            (10, []),
            (10 + US, [("resolved", "a", 2, 10), ("violated", "a", 10 + US, 10 + US)]),
        ],
    )
    def test_another_comes_as_there_cease_to_be_too_many(self, fourth: float, told: list[Any]) -> None:
        story = Story(MORE).reading(0).reading(1).reading(2).reading(fourth)
        assert story.told == [("violated", "a", 2, 2), *(pytest.approx(each) for each in told)]

    def test_those_of_the_moment_at_which_it_would_be_over_make_it_last_together(self) -> None:
        story = Story(MORE).reading(0).reading(0).reading(0)
        for _ in range(3):
            story.reading(10)
        assert story.wait(20).told == [("violated", "a", 0, 0)]
        assert story.wait(20.1).told[1:] == [("resolved", "a", 0, 20)]

    def test_it_is_over_at_the_moment_when_one_has_become_too_old_and_not_with_the_next_event(self) -> None:
        story = Story(MORE).reading(0).reading(1).reading(2).wait(10)
        assert (story.told, story.state()) == ([("violated", "a", 2, 2)], "violated")
        story.wait(10 + US)
        assert story.told[1:] == [("resolved", "a", 2, 10)]
        assert Story(MORE).reading(0).reading(1).reading(2).reading(500).told[1:] == [("resolved", "a", 2, 10)]

    def test_each_more_makes_it_last(self) -> None:
        story = Story(MORE).reading(0).reading(1).reading(2).reading(3).reading(9).wait(100)
        assert story.told == [("violated", "a", 2, 2), ("resolved", "a", 2, 12)]

    def test_not_even_one(self) -> None:
        story = Story({**MORE, "more_than": 0}).wait(100).reading(200).wait(300)
        assert story.told == [("violated", "a", 200, 200), ("resolved", "a", 200, 210)]

    def test_each_has_its_own_window(self) -> None:
        story = Story(MORE).reading(0).reading(1, subject="b").reading(2).reading(3, subject="b")
        assert story.told == []
        by_door = Story({**MORE, "by": "door"})
        for at, door in enumerate([1, 2, 1, 2, 1]):
            by_door.event("reading", at, data={"door": door})
        assert by_door.told == [("violated", "1", 4, 4)]

    def test_only_what_fits_counts(self) -> None:
        story = Story({**MORE, "where": {"value": {"above": 5}}})
        story.reading(0, 6).reading(1, 5).reading(2, 6).reading(3, 1)
        assert story.told == []
        assert story.reading(4, 7).told == [("violated", "a", 4, 4)]

    def test_the_same_event_again_does_not_count(self) -> None:
        story = Story(MORE).reading(0).reading(1)
        with story.judge.turn() as turn:
            turn.observe(event(2, recorded=1), trusted=True)
        assert turn.changed == {}
        assert story.reading(1, occurred=1).told == [("violated", "a", 1, 1)]

    def test_a_late_one_counts_when_it_happened(self) -> None:
        story = Story(MORE).reading(0).reading(12).reading(13, occurred=3)
        assert (story.told, story.skipped) == ([], [])
        story.reading(13, occurred=11)
        assert story.told == [("violated", "a", 12, 12)]
        assert story.wait(100).told[1:] == [("resolved", "a", 12, 13)]

    def test_a_late_one_shows_what_was_over_before_it_came(self) -> None:
        story = Story(MORE).reading(0).reading(4).reading(40).reading(41, occurred=2)
        assert story.told == [("violated", "a", 4, 4)]
        assert story.reading(42).told[1:] == [("resolved", "a", 4, 10)]
        story = Story(MORE).reading(0).reading(4).reading(40).reading(41, occurred=2).reading(42, occurred=30)
        assert story.told == [("violated", "a", 4, 4), ("resolved", "a", 4, 10)]

    def test_a_late_one_makes_it_last_and_takes_nothing_back(self) -> None:
        story = Story(MORE).reading(0).reading(1).reading(5).reading(6, occurred=3)
        assert story.wait(11).told == [("violated", "a", 5, 5)]
        story.wait(11 + US)
        assert story.told[1:] == [("resolved", "a", 5, 11)]
        assert story.reading(12, occurred=4).told[2:] == [("violated", "a", 11, 11)]
        assert story.wait(100).told[3:] == [("resolved", "a", 11, 13)]

    @pytest.mark.parametrize(("occurred", "skipped"), [(40, []), (40 - US, ["too_late"])])
    def test_later_than_lateness_does_not_count(self, occurred: float, skipped: list[str]) -> None:
        story = Story(MORE).reading(41).reading(42).reading(100).reading(100.1, occurred=occurred)
        assert story.skipped == skipped
        assert bool(story.told) is not bool(skipped)

    def test_what_a_device_had_stored_up_is_one_violation(self) -> None:
        story = Story(MORE)
        for second in range(1000):
            story.reading(5000 + second / 1000, occurred=second)
        assert story.told == [("violated", "a", 2, 2)]
        story.wait(5065)
        assert story.told[1:] == [("resolved", "a", 2, 1007)]

    def test_what_had_waited_at_the_broker_ends_nothing_before_its_time(self) -> None:
        story = Story(MORE).reading(0).reading(1).reading(2).reading(10.1, trusted=False)
        assert story.told == [("violated", "a", 2, 2)]
        assert story.wait(100).told[1:] == [("resolved", "a", 2, 11)]
        story = Story(MORE).reading(0).reading(1).reading(2).reading(50, trusted=False)
        assert story.told[1:] == [("resolved", "a", 2, 10)]

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
    def test_a_step_of_the_clock_is_no_time_that_passed(self, step: int) -> None:
        story = Story(MORE).reading(0).reading(1)
        with story.judge.turn() as turn:
            turn.set_clock(micro(4 + step), step * 1_000_000)
        story.reading(5 + step)
        assert story.told == [("violated", "a", 5 + step, 5 + step)]
        with story.judge.turn() as turn:
            turn.set_clock(micro(6), -step * 1_000_000)
        assert story.wait(9.9).state() == "violated"
        assert story.wait(10 + US).state() == "ok"

    def test_what_happened_before_a_step_of_the_clock_happened_that_long_ago(self) -> None:
        step = 6 * 3600
        story = Story(MORE).reading(0).reading(12)
        with story.judge.turn() as turn:
            turn.set_clock(micro(13 + step), step * 1_000_000)
        story.reading(14 + step).reading(15 + step, occurred=9 + step)
        assert story.told == [("violated", "a", 14 + step, 14 + step)]
        story = Story(MORE).reading(0).reading(1).reading(12)
        with story.judge.turn() as turn:
            turn.set_clock(micro(13 + step), step * 1_000_000)
        story.reading(14 + step, occurred=5 + step)
        assert story.told == [("violated", "a", 5 + step, 5 + step)]
        story = Story(MORE).reading(0).reading(1).reading(2).wait(11)
        with story.judge.turn() as turn:
            turn.set_clock(micro(11 + step), step * 1_000_000)
        story.reading(12 + step, occurred=5 + step)
        assert story.told[2:] == [("violated", "a", 10 + step, 10 + step)]

    def test_a_clock_that_is_behind_after_a_start_moves_all_into_its_past(self) -> None:
        story = Story(MORE).reading(1000).reading(1001).reading(1004)
        story.judge.load([("often", instance) for instance in story.judge.instances.values()], micro(50))
        assert story.wait(55).state() == "violated"
        assert story.wait(56 + US).state() == "ok"
        assert story.reading(57).told[2:] == []
        assert story.reading(58).told[2:] == [("violated", "a", 58, 58)]

    def test_out_of_force_nothing_counts(self) -> None:
        story = Story({**MORE, "active": {"times": "12:00-12:01", "timezone": "UTC"}})
        assert story.reading(58).reading(59).reading(60).told == []
        day = 86400
        assert story.reading(day).reading(day + 1).told == []
        assert story.reading(day + 2).told == [("violated", "a", day + 2, day + 2)]

    def test_what_it_says(self) -> None:
        story = Story({**MORE, "of": "door.opened", "more_than": 4, "within": "10m"})
        for at in range(5):
            story.event("door.opened", at, subject="front")
        told = story.events[-1]
        assert (told.description, told.cause_id) == ("often: front 5 door.opened within 10m, more than 4", 5)
        assert from_json(told.data_json)["observed"] == 5
        told = story.wait(601).events[-1]
        assert told.description == "often: front resolved after 9m 56s (observed 4)"

    def test_what_it_remembers_is_small(self) -> None:
        story = Story({**MORE, "more_than": EVENTS_MAX, "within": "1d"})
        for index in range(EVENTS_MAX + 5):
            story.reading(index * 8)
        (instance,) = story.judge.instances.values()
        assert (instance.state, story.told) == ("violated", [("violated", "a", EVENTS_MAX * 8, EVENTS_MAX * 8)])
        assert len(msgspec.json.encode(instance.memory)) < 55_000
        story = Story({**MORE, "lateness": "1w"})
        for index in range(EVENTS_MAX + 20):
            story.reading(index * 5)
        (instance,) = story.judge.instances.values()
        assert story.told == []
        assert len(msgspec.json.encode(instance.memory)) < 55_000
        assert isinstance(instance.memory, RateMemory)
        assert instance.memory.past.count == EVENTS_MAX
        small = Story({**MORE, "more_than": 5})
        for index in range(100):
            small.reading(index)
        (instance,) = small.judge.instances.values()
        assert len(msgspec.json.encode(instance.memory)) < 250


class TestFewerThan:
    """`fewer_than: 2`, `within: 10s`."""

    def test_nothing_ever_came_and_nothing_is_known(self) -> None:
        assert Story(FEWER).wait(1000).told == []

    @pytest.mark.parametrize(
        ("third", "told"),
        [
            (14 - US, []),
            (14, []),
            (14 + US, [("violated", "a", 14, 14), ("resolved", "a", 14, 14 + US)]),
        ],
    )
    def test_the_next_comes_as_one_becomes_too_old(self, third: float, told: list[Any]) -> None:
        story = Story(FEWER).reading(0).reading(4).reading(7).reading(third)
        assert story.told == [pytest.approx(each) for each in told]

    def test_it_takes_as_many_as_there_must_be_to_end_it(self) -> None:
        story = Story(FEWER).reading(0).reading(1).wait(50)
        assert story.told == [("violated", "a", 10, 10)]
        assert story.reading(60).reading(70).told[1:] == []
        assert story.reading(80 - US).told[1:] == [pytest.approx(("resolved", "a", 10, 80 - US))]
        assert story.wait(80).told[2:] == []
        assert story.wait(80 + US).told[2:] == [("violated", "a", 80, 80)]

    def test_it_is_judged_from_a_full_window_after_the_first_event(self) -> None:
        story = Story(FEWER).reading(3)
        assert story.wait(13).state() == "unknown"
        assert story.wait(13 + US).told == [("violated", "a", 13, 13)]
        story = Story(FEWER).reading(3).reading(13)
        assert (story.told, story.state()) == ([], "unknown")
        assert Story(FEWER).reading(3).reading(13 - US).state() == "ok"
        assert Story({**FEWER, "fewer_than": 1}).reading(3).state() == "ok"

    def test_what_a_device_had_stored_up_before_it_was_first_heard_gives_it_a_window(self) -> None:
        story = Story(FEWER)
        for second in range(0, 1000, 5):
            story.reading(1000 + second / 1000, occurred=second)
        assert story.told == []
        assert story.wait(1009.6).told == []
        assert story.wait(1010).told == [pytest.approx(("violated", "a", 1009.7, 1009.7))]

    def test_what_a_device_had_stored_up_ends_it_only_when_it_is_up_to_date(self) -> None:
        story = Story(FEWER).reading(0).reading(1).wait(1000)
        for second in range(2, 1000, 5):
            story.reading(1000 + second / 1000, occurred=second)
        assert story.told == [("violated", "a", 10, 10), ("resolved", "a", 10, 997)]

    def test_known_subjects_are_watched_from_the_start(self) -> None:
        (contract,) = contracts_of({**FEWER, "known": ["a", "b"]})
        first, second = contract.initial(NOON)
        assert (first.subject, first.state, first.deadline_at) == ("a", "unknown", micro(10))
        story = Story({**FEWER, "known": ["a", "b"]})
        story.judge.load([("seldom", first), ("seldom", second)], NOON)
        story.reading(9, subject="b").reading(9.1, subject="b").wait(19)
        assert story.told == [("violated", "a", 10, 10)]
        assert story.wait(20).told[1:] == [("violated", "b", 19, 19)]

    def test_who_is_no_longer_known_and_was_never_seen_is_forgotten(self) -> None:
        (known,) = contracts_of({**FEWER, "known": ["a"]})
        (unknown,) = contracts_of(FEWER)
        (instance,) = known.initial(NOON)
        assert known.keeps(instance)
        assert not unknown.keeps(instance)

    def test_a_late_one_counts_when_it_happened(self) -> None:
        story = Story(FEWER).reading(0).reading(2).reading(9).reading(9.5, occurred=6)
        assert story.wait(16).told == []
        assert story.wait(16 + US).told == [("violated", "a", 16, 16)]
        assert story.reading(22).reading(22.1, occurred=15).told[1:] == [("resolved", "a", 16, 22)]

    def test_one_that_waited_at_the_broker_proves_no_silence(self) -> None:
        story = Story(FEWER).reading(0).reading(1).reading(500, trusted=False).reading(500, trusted=False)
        assert story.told == []
        assert story.wait(510).told == []
        assert story.wait(510 + US).told == [("violated", "a", 510, 510)]

    def test_while_nothing_can_be_heard_nothing_is_too_few(self) -> None:
        story = Story({**FEWER, "suppressed_by": "link"}).reading(0).reading(1)
        with story.judge.turn() as turn:
            turn.lose_link(micro(5))
            turn.regain_link(micro(9))
        assert story.wait(19).told == []
        assert story.wait(19 + US).told == [("violated", "a", 19, 19)]

    def test_it_begins_anew_when_it_is_in_force_again(self) -> None:
        story = Story({**FEWER, "active": {"times": "12:00-12:01", "timezone": "UTC"}})
        day = 86400
        story.reading(50).reading(59).wait(day + 10)
        assert story.told == []
        assert story.wait(day + 10 + US).told == [("violated", "a", day + 10, day + 10)]

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400])
    def test_a_step_of_the_clock_is_no_time_that_passed(self, step: int) -> None:
        story = Story(FEWER).reading(0).reading(4)
        with story.judge.turn() as turn:
            turn.set_clock(micro(6 + step), step * 1_000_000)
        assert story.wait(10 + step).told == []
        assert story.wait(10 + step + US).told == [("violated", "a", 10 + step, 10 + step)]
        story = Story(FEWER).reading(0)
        with story.judge.turn() as turn:
            turn.set_clock(micro(6 + step), step * 1_000_000)
        assert story.reading(7 + step, occurred=-1 + step).wait(10 + step).told == []
        assert story.wait(10 + step + US).told == [("violated", "a", 10 + step, 10 + step)]

    def test_what_it_says(self) -> None:
        story = Story(FEWER).reading(0).reading(9)
        told = story.wait(11).events[-1]
        assert told.description == "seldom: a 1 reading within 10s, fewer than 2"
        assert from_json(told.data_json)["observed"] == 1


@pytest.mark.parametrize(
    ("mapping", "path", "message"),
    [
        ({**MORE, "more_then": 3}, "more_then", "did you mean 'more_than'?"),
        ({**MORE, "more_than": -1}, "more_than", "must be between 0 and 10000"),
        ({**MORE, "more_than": 10_001}, "more_than", "must be between 0 and 10000"),
        ({**MORE, "more_than": 2.5}, "more_than", "must be a whole number"),
        ({**FEWER, "fewer_than": 0}, "fewer_than", "must be between 1 and 10000"),
        ({**MORE, "fewer_than": 1}, "more_than", "needs either more_than or fewer_than"),
        ({key: value for key, value in MORE.items() if key != "more_than"}, "", "needs either more_than or fewer_than"),
        ({**MORE, "within": "0s"}, "within", "must be more than 0"),
        ({**MORE, "within": 10}, "within", "has no unit"),
        ({key: value for key, value in MORE.items() if key != "within"}, "within", "is missing"),
        ({**MORE, "of": "contract.violated"}, "of", "never judges contracts"),
        ({**MORE, "known": ["a"]}, "known", "is for fewer_than"),
        ({**FEWER, "subject": "b*", "known": ["bb", "a"]}, "known[1]", "'a' doesn't fit subject: b*"),
    ],
)
def test_a_mistake_is_named_with_its_key(mapping: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(mapping)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}".rstrip(".")]
    assert message in str(problems[0])


def test_under_other_limits_a_state_would_mean_something_else() -> None:
    (contract, *others) = contracts_of(
        MORE, {**MORE, "name": "n", "more_than": 3}, {**MORE, "name": "w", "within": "11s"}, {**FEWER, "name": "f"},
        {**MORE, "name": "same", "lateness": "5s", "severity": "info", "message": "!"},
    )  # fmt: skip
    assert [other.name for other in others if other.meaning == contract.meaning] == ["same"]


@pytest.mark.parametrize(
    ("keys", "falls_at"),
    [({"within": "20s"}, 21), ({"within": "5s"}, 6), ({"fewer_than": 1}, 14), ({"fewer_than": 3}, 14)],
)
def test_who_was_silent_is_not_forgotten_when_limits_change(keys: dict[str, Any], falls_at: float) -> None:
    story = Story(FEWER).reading(0).reading(1).reading(4).start(4.5, {**FEWER, **keys})
    assert story.wait(falls_at).told == []
    assert story.wait(falls_at + US).told == [("violated", "a", falls_at, falls_at)]
    story = Story(FEWER).reading(0).reading(1).wait(50).start(51, {**FEWER, "fewer_than": 1})
    assert story.wait(100).told == [("violated", "a", 10, 10)]
    assert story.reading(100).told[1:] == [("resolved", "a", 10, 100)]


@given(st.lists(st.integers(-(2**40), 2**62)), st.integers(-(2**40), 2**62), st.integers(0, 30))
def test_moments_are_kept_as_they_are(moments: list[int], moment: int, count: int) -> None:
    kept = Moments()
    for each in moments:
        kept = kept.added(each)
    ordered = sorted(moments)
    assert list(kept) == ordered
    assert kept.count == len(ordered)
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Moments) == kept
    assert list(kept.newest(count)) == ordered[max(0, len(ordered) - count) :]
    early, rest = kept.split(moment)
    assert (early, list(rest)) == ([x for x in ordered if x <= moment], [x for x in ordered if x > moment])
    assert list(kept.shifted(-5)) == [each - 5 for each in ordered]
    assert Moments().extended(ordered) == kept


@pytest.mark.parametrize("which", ["window", "past"])
@pytest.mark.parametrize(
    "moments",
    [
        Moments(2, 0, 9, b"\x08"), Moments(3, 0, 9, b"\x09"), Moments(2, 0, 9, b"\x09\x80"), Moments(0, 0, 0, b"\x09"),
        Moments(-1), Moments(1, 5, 9),
    ],
)  # fmt: skip
def test_moments_that_contradict_themselves_are_not_taken_from_the_store(which: str, moments: Moments) -> None:
    (contract,) = contracts_of(MORE)
    instance = Instance(subject="a", state="ok", since=0)
    assert contract.keeps(replace(instance, memory=RateMemory(event_id=1, **{which: Moments(2, 0, 9, b"\x09")})))
    assert not contract.keeps(replace(instance, memory=RateMemory(event_id=1, **{which: moments})))
