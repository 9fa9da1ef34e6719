"""Contracts of kind `stuck`: at their edges, and against a slow model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Story, contracts_of, event, micro, problems_of
from support.histories import Happened, Told, chances, end_of, histories, told_of

from edgeq.contracts.stuck import TEXT_CHARS_MAX
from edgeq.events import from_json

US = 1e-6
FOR = 10_000_000
STUCK = {"name": "frozen", "kind": "stuck", "of": "reading", "for": "10s"}
CREEP = {**STUCK, "change": 0.5}


def stuck_model(history: Sequence[Happened], change: str | None) -> list[Told]:
    """From each value on: does it change, is there a gap, or has it been there for too long, whichever is first?"""
    events: list[Happened] = []
    for each in history:
        if not events or each.at >= max(other.at for other in events):
            events.append(each)

    def is_other(first: Happened, second: Happened) -> bool:
        if change is None:
            return type(first.value) is not type(second.value) or first.value != second.value
        return abs(Fraction(str(first.value)) - Fraction(str(second.value))) >= Fraction(change)

    told: list[Told] = []
    first = 0
    while first < len(events):
        rest = range(first + 1, len(events))
        changed = next((index for index in rest if is_other(events[first], events[index])), len(events))
        paused = next((index for index in rest if events[index].at - events[index - 1].at > FOR), len(events))
        held = next((index for index in rest if events[index].at - events[first].at >= FOR), len(events))
        if held < min(changed, paused):
            since = events[held].at
            told.append(("violated", since, since))
            if changed < len(events):
                told.append(("resolved", since, events[changed].at))
            first = changed
        else:
            first = min(changed, paused)
    return told


GAPS = [0, 1, 3, 5 - US, 5, 5 + US, 10 - US, 10, 10 + US, 40]
LATE = [0, 0, 0, 0, 0.2, 4, 12]
NUMBERS = [20.1, 20.1, 20.2, 20.3, 20.6, 20.7, 21]
ANYTHING = ["open", "open", "open", "", None, False, True, "1", 0.5]


@settings(max_examples=300)
@given(histories(GAPS, LATE, NUMBERS), st.sampled_from(["0.1", "0.5", "2"]), chances())
def test_a_change_is_what_a_slow_model_says(history: list[Happened], change: str, chance: Iterator[bool]) -> None:
    told = told_of({**STUCK, "change": float(change)}, history, end_of(history, 100), chance)
    assert told == stuck_model(history, change)


@settings(max_examples=300)
@given(histories(GAPS, LATE, ANYTHING), chances())
def test_any_difference_is_what_a_slow_model_says(history: list[Happened], chance: Iterator[bool]) -> None:
    assert told_of(STUCK, history, end_of(history, 100), chance) == stuck_model(history, None)


class TestStuck:
    """`for: 10s`."""

    def test_nothing_ever_came(self) -> None:
        assert Story(STUCK).wait(1000).told == []

    @pytest.mark.parametrize(
        ("last", "told"),
        [
            (10 - US, []),
            (10, [("violated", "a", 10, 10)]),
            (10 + US, [("violated", "a", 10 + US, 10 + US)]),
        ],
    )
    def test_the_same_value_comes_at_the_limit(self, last: float, told: list[Any]) -> None:
        story = Story(STUCK).reading(0, 21).reading(5, 21).reading(last, 21).wait(1000)
        assert story.told == [pytest.approx(each) for each in told]

    @pytest.mark.parametrize("last", [10 - US, 10, 10 + US])
    def test_another_value_comes_at_the_limit(self, last: float) -> None:
        story = Story(STUCK).reading(0, 21).reading(5, 21).reading(last, 22)
        assert (story.told, story.state()) == ([], "ok")

    def test_it_ends_with_another_value_and_each_time_is_an_episode_of_its_own(self) -> None:
        story = Story(STUCK)
        for second, value in enumerate([1, 1, 1, 2, 2, 2]):
            story.reading(second * 5, value)
        assert story.told == [("violated", "a", 10, 10), ("resolved", "a", 10, 15), ("violated", "a", 25, 25)]
        assert story.judge.instances[("frozen", "a")].episode == 2

    @pytest.mark.parametrize(
        ("gap", "told"),
        [(10, [("violated", "a", 13, 13)]), (10 + US, [])],
    )
    def test_silence_counts_unless_it_is_longer_than_the_limit(self, gap: float, told: list[Any]) -> None:
        assert Story(STUCK).reading(0, 21).reading(3, 21).reading(3 + gap, 21).told == told

    def test_after_a_longer_silence_time_begins_anew(self) -> None:
        story = Story(STUCK).reading(0, 21).reading(3, 21).reading(500, 21).reading(509, 21)
        assert story.told == []
        assert story.reading(510, 21).told == [("violated", "a", 510, 510)]
        assert story.wait(1000).reading(2000, 21).told[1:] == []
        assert story.reading(2001, 22).told[1:] == [("resolved", "a", 510, 2001)]

    @pytest.mark.parametrize(
        ("first", "second", "is_same"),
        [
            (1, 1.0, True), (1, True, False), (0, False, False), ("1", 1, False), (None, None, True),
            (None, "", False), (None, 0, False), ("open", "open", True), ("open", "Open", False),
            (2**53, 2**53 + 1, False), (0.1 + 0.2, 0.3, False),
        ],
    )  # fmt: skip
    def test_what_is_the_same(self, first: Any, second: Any, is_same: bool) -> None:
        story = Story(STUCK).reading(0, first).reading(5, first).restart(6).reading(10, second)
        assert bool(story.told) is is_same

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            ({}, "missing_field"),
            ([], "missing_field"),
            ({"value": []}, "not_a_scalar"),
            ({"value": {"celsius": 21}}, "not_a_scalar"),
            ({"value": "x" * (TEXT_CHARS_MAX + 1)}, "too_long"),
            ({"value": 10**400}, "not_a_number"),
        ],
    )
    def test_what_cannot_be_judged_is_passed_over(self, data: Any, reason: str) -> None:
        story = Story(STUCK).event("reading", 0, data=data)
        assert (story.skipped, dict(story.judge.instances)) == ([reason], {})
        story.reading(1, 5).reading(6, 5).event("reading", 7, data=data).reading(11, 5)
        assert story.told == [("violated", "a", 11, 11)]

    def test_the_longest_text(self) -> None:
        story = Story(STUCK)
        for second in range(0, 11, 5):
            story.reading(second, "x" * TEXT_CHARS_MAX)
        assert story.told == [("violated", "a", 10, 10)]

    def test_a_duplicate_and_a_late_one_change_nothing(self) -> None:
        story = Story(STUCK).reading(0, 21).reading(5, 21)
        with story.judge.turn() as turn:
            turn.observe(event(1, recorded=0, data={"value": 3}), trusted=True)
        assert turn.changed == {}
        story.reading(6, 22, occurred=4)
        assert story.skipped == ["late"]
        assert story.reading(10, 21).told == [("violated", "a", 10, 10)]

    def test_each_has_its_own_value(self) -> None:
        story = Story({**STUCK, "field": "data.door.state", "by": "door.id", "where": {"ok": True}})
        for second, (door, state, is_ok) in enumerate(
            [(1, "a", True), (2, "b", True), (1, "c", False), (2, "b", True)]
        ):
            story.event("reading", second * 5, data={"door": {"id": door, "state": state}, "ok": is_ok})
        assert story.told == [("violated", "2", 15, 15)]
        story.event("reading", 19, data={"door": {"id": 1, "state": "a"}, "ok": True})
        assert story.told[1:] == []  # silent for longer than that

    def test_what_had_waited_at_the_broker_is_judged_by_when_it_says_it_happened(self) -> None:
        story = Story(STUCK)
        for second in range(3):
            story.reading(100, 21, trusted=False)
            story.reading(100, 21, trusted=False, occurred=second * 5, subject="b")
        assert story.told == [("violated", "b", 10, 10)]

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
    def test_a_step_of_the_clock_is_no_time_that_passed(self, step: int) -> None:
        story = Story(STUCK).reading(0, 21).reading(5, 21)
        with story.judge.turn() as turn:
            turn.set_clock(micro(7 + step), step * 1_000_000)
        assert story.reading(10 - US + step, 21).told == []
        assert [told[0] for told in story.reading(10 + step, 21).told] == ["violated"]

    def test_a_clock_that_is_behind_after_a_start_makes_nothing_older(self) -> None:
        story = Story(STUCK).reading(1000, 21).reading(1005, 21).restart(50).reading(54, 21)
        assert story.told == []
        assert story.reading(55, 21).told == [("violated", "a", 55, 55)]

    def test_out_of_force_nothing_is_seen(self) -> None:
        story = Story({**STUCK, "active": {"times": "12:00-12:01", "timezone": "UTC"}})
        day = 86400
        story.reading(51, 21).reading(59, 21).reading(65, 21).reading(day, 21).reading(day + 5, 21)
        assert story.told == []
        assert story.reading(day + 10, 21).told == [("violated", "a", day + 10, day + 10)]

    def test_what_it_says(self) -> None:
        story = Story({**STUCK, "for": "2h", "field": "open"})
        for hour in range(3):
            story.event("reading", hour * 3600, data={"open": False})
        told = story.events[-1]
        assert (told.description, told.cause_id) == ("frozen: a open unchanged for 2h (observed false)", 3)
        assert from_json(told.data_json)["observed"] is False
        told = story.event("reading", 3 * 3600, data={"open": True}).events[-1]
        assert told.description == "frozen: a resolved after 1h (observed true)"


class TestChange:
    """`for: 10s`, `change: 0.5`."""

    @pytest.mark.parametrize(
        ("value", "is_stuck"),
        [(21.4999, True), (21.5, False), (21.5001, False), (20.5001, True), (20.5, False), (21, True)],
    )
    def test_a_change_of_exactly_as_much_is_one(self, value: float, is_stuck: bool) -> None:
        assert bool(Story(CREEP).reading(0, 21).reading(5, 21).reading(10, value).told) is is_stuck

    @pytest.mark.parametrize(("first", "second"), [(0.2, 0.3), (0.3, 0.2), (1.1, 1.2), (2**53, 2**53 + 0.1)])
    def test_numbers_are_taken_as_they_are_written(self, first: float, second: float) -> None:
        story = Story({**STUCK, "change": 0.1}).reading(0, first).reading(10, second)
        assert bool(story.told) is (first == second)

    def test_it_is_measured_against_the_first_and_not_the_last(self) -> None:
        story = Story(CREEP)
        for second in range(9):
            story.reading(second * 4, 20 + second * 0.25)
        assert story.told == []  # every other one is far enough from the one before the last
        story = Story(CREEP)
        for second in range(6):
            story.reading(second * 4, 20 + second * 0.125)
        assert story.told == [("violated", "a", 12, 12), ("resolved", "a", 12, 16)]

    def test_while_it_is_stuck_it_is_measured_against_where_it_got_stuck(self) -> None:
        story = Story(CREEP).reading(0, 20).reading(5, 20.4).reading(10, 20.4)
        assert story.told == [("violated", "a", 10, 10)]
        assert story.reading(11, 19.9).reading(12, 20.49).told[1:] == []
        assert story.reading(13, 20.5).told[1:] == [("resolved", "a", 10, 13)]

    @pytest.mark.parametrize("value", ["21", True, None])
    def test_only_numbers_can_change_by_so_much(self, value: Any) -> None:
        assert Story(CREEP).reading(0, value).skipped == ["not_a_number"]

    def test_what_it_says(self) -> None:
        story = Story(CREEP).reading(0, 20).reading(5, 20.4).reading(10, 20.4)
        expected = "frozen: a value changed by less than 0.5 for 10s (observed 20.4)"
        assert story.events[-1].description == expected


@pytest.mark.parametrize(
    ("mapping", "path", "message"),
    [
        ({**STUCK, "chnge": 3}, "chnge", "did you mean 'change'?"),
        ({**STUCK, "change": 0}, "change", "must be more than 0"),
        ({**STUCK, "change": "some"}, "change", "must be a number"),
        ({**STUCK, "for": "0s"}, "for", "must be more than 0"),
        ({key: value for key, value in STUCK.items() if key != "for"}, "for", "is missing"),
        ({**STUCK, "field": "a..b"}, "field", "must be a field"),
        ({**STUCK, "of": "contract.violated"}, "of", "never judges contracts"),
    ],
)
def test_a_mistake_is_named_with_its_key(mapping: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(mapping)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}"]
    assert message in str(problems[0])


def test_under_other_keys_a_state_would_mean_something_else() -> None:
    (contract, *others) = contracts_of(
        STUCK, {**CREEP, "name": "c"}, {**STUCK, "name": "f", "for": "11s"}, {**STUCK, "name": "x", "field": "x"},
        {**STUCK, "name": "same", "lateness": "5s", "severity": "info", "message": "!"},
    )  # fmt: skip
    assert [other.name for other in others if other.meaning == contract.meaning] == ["same"]
