"""Contracts of kind `threshold` at their edges: exactly at the limit, a microsecond before and after, nothing yet,
twice, late, out of order, and what becomes of a value that grows old."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import THRESHOLD, Story, contracts_of, event, micro, problems_of
from support.histories import chances
from support.plays import Scene, play, told

from edgeq.contracts.limits import TEXT_CHARS_MAX
from edgeq.events import from_json

US = 1e-6
BARE = {key: value for key, value in THRESHOLD.items() if key != "above"}
FOR = {**THRESHOLD, "for": "10s"}
CLEAR = {**THRESHOLD, "clear": {"below": 3}}
CLEAR_FOR = {**THRESHOLD, "clear": {"below": 3, "for": "10s"}}
UNKNOWN = {**THRESHOLD, "gap": "10s", "on_gap": "unknown"}
RESET = {**THRESHOLD, "for": "20s", "gap": "10s", "on_gap": "reset"}


def readings(*values: tuple[float, Any]) -> list[Scene]:
    """Readings, each as (seconds, value)."""
    return [Scene("reading", second, data={"value": value}) for second, value in values]


def says(mapping: dict[str, Any], values: Sequence[tuple[float, Any]], until: float = 0) -> list[Any]:
    """What is told of readings, whether there are restarts or not."""
    return told(mapping, readings(*values), max([until, *(second for second, _ in values)]))


def is_violated_by(keys: dict[str, Any], value: Any) -> bool:
    """Whether one value violates."""
    return bool(Story({**BARE, **keys}).reading(0, value).told)


class TestLimits:
    """Which values violate, and which end it."""

    @pytest.mark.parametrize(
        ("keys", "bad", "good"),
        [
            ({"above": 5}, [5.0000001, 6, 10**300], [5, 5.0, 4.9, -(10**300)]),
            ({"below": 5}, [4.9999999, -(10**300)], [5, 5.0, 6]),
            ({"above": 8, "below": 2}, [8.1, 1.9, -5, 100], [8, 2, 5]),
            ({"between": [2, 8]}, [2, 8, 5, 2.0], [1.9999999, 8.0000001, -3]),
            ({"equals": 85}, [85, 85.0], [84.9999, 0, -85]),
            ({"equals": 0}, [0, 0.0, -0.0], [1e-9]),
            ({"equals": "open"}, ["open"], ["Open", "", "open ", "x" * TEXT_CHARS_MAX]),
            ({"equals": ""}, [""], [" "]),
            ({"equals": True}, [True], [False]),
            ({"equals": False}, [False], [True]),
        ],
    )
    def test_what_violates(self, keys: dict[str, Any], bad: list[Any], good: list[Any]) -> None:
        assert [value for value in bad if not is_violated_by(keys, value)] == []
        assert [value for value in good if is_violated_by(keys, value)] == []

    @pytest.mark.parametrize(
        ("keys", "bad", "clear", "not_clear"),
        [
            ({"above": 5}, 6, [5, 4], [5.1]),
            ({"above": 5, "clear": {"below": 3}}, 6, [2.99], [5, 3]),
            ({"above": 5, "clear": {"below": 5}}, 6, [4.99], [5]),
            ({"below": 5, "clear": {"above": 6}}, 4, [6.1], [5, 6]),
            ({"above": 8, "below": 2}, 9, [8, 5, 2], [1, 9]),
            ({"above": 8, "below": 2, "clear": {"below": 7}}, 1, [6.9, 2], [7, 1.9, 9]),
            ({"above": 8, "below": 2, "clear": {"above": 3, "below": 7}}, 9, [3.1, 6.9], [3, 7, 2, 8]),
            ({"between": [2, 8]}, 5, [1.9, 8.1], [2, 8]),
            ({"between": [2, 8], "clear": {"above": 9}}, 5, [1.9, 9.1], [9, 2, 8.5]),
            ({"between": [2, 8], "clear": {"above": 9, "below": 1}}, 5, [0.9, 9.1], [9, 1, 2]),
            ({"equals": "open"}, "open", ["closed", ""], ["open"]),
            ({"equals": 85}, 85, [84], [85.0]),
        ],
    )
    def test_what_ends_it(self, keys: dict[str, Any], bad: Any, clear: list[Any], not_clear: list[Any]) -> None:
        def ends_it(value: Any) -> bool:
            return Story({**BARE, **keys}).reading(0, bad).reading(1, value).state() == "ok"

        assert [value for value in clear if not ends_it(value)] == []
        assert [value for value in not_clear if ends_it(value)] == []

    @pytest.mark.parametrize(
        ("keys", "data", "reason"),
        [
            ({"above": 5}, {}, "missing_field"),
            ({"above": 5}, [1], "missing_field"),
            ({"above": 5}, {"value": "6"}, "not_a_number"),
            ({"above": 5}, {"value": True}, "not_a_number"),
            ({"above": 5}, {"value": None}, "not_a_number"),
            ({"above": 5}, {"value": [6]}, "not_a_number"),
            ({"above": 5}, {"value": 10**400}, "not_a_number"),
            ({"between": [2, 8]}, {"value": "6"}, "not_a_number"),
            ({"equals": 1}, {"value": True}, "not_a_number"),
            ({"equals": 85}, {"value": "85"}, "not_a_number"),
            ({"equals": "open"}, {}, "missing_field"),
            ({"equals": "85"}, {"value": 85}, "not_a_text"),
            ({"equals": "open"}, {"value": None}, "not_a_text"),
            ({"equals": "open"}, {"value": "x" * (TEXT_CHARS_MAX + 1)}, "too_long"),
            ({"equals": True}, {}, "missing_field"),
            ({"equals": True}, {"value": 1}, "not_true_or_false"),
            ({"equals": False}, {"value": "false"}, "not_true_or_false"),
        ],
    )
    def test_what_cannot_be_compared_is_passed_over(self, keys: dict[str, Any], data: Any, reason: str) -> None:
        story = Story({**BARE, **keys}).event("reading", 0, data=data)
        assert (story.skipped, dict(story.judge.instances)) == ([reason], {})
        bad = keys.get("equals", 7)
        story.reading(1, bad).event("reading", 2, data=data)
        assert (story.skipped, story.state()) == ([reason], "violated")

    def test_a_field_further_down(self) -> None:
        story = Story({**THRESHOLD, "field": "data.probe.celsius"})
        assert story.event("reading", 0, data={"probe": {"celsius": 6}}).state() == "violated"


@pytest.mark.parametrize(
    ("mapping", "values", "until", "expected"),
    [
        (THRESHOLD, [], 100, []),
        (THRESHOLD, [(0, 6), (0, 6), (1, 4), (1, 4)], 9, [("violated", 0, 0), ("resolved", 0, 1)]),
        (THRESHOLD, [(0, 6), (1, 7), (2, 5), (3, 6)], 9, [("violated", 0, 0), ("resolved", 0, 2), ("violated", 3, 3)]),
        (FOR, [(0, 6), (10 - US, 5)], 99, []),
        (FOR, [(0, 6), (10, 5)], 99, []),
        (FOR, [(0, 6), (10 + US, 5)], 99, [("violated", 10, 10), ("resolved", 10, 10 + US)]),
        (FOR, [(0, 6)], 10, []),
        (FOR, [(0, 6)], 10 + US, [("violated", 10, 10)]),
        (FOR, [(0, 6), (4, 9), (8, 6)], 11, [("violated", 10, 10)]),
        (FOR, [(0, 6), (9, 5), (9.5, 6)], 19.5, []),
        (FOR, [(0, 6), (9, 5), (9.5, 6)], 20, [("violated", 19.5, 19.5)]),
        ({**FOR, "above": 5, "below": 2}, [(0, 6), (5, 1), (9, 7)], 11, [("violated", 10, 10)]),
        (CLEAR_FOR, [(0, 6), (1, 2), (5, 1)], 11, [("violated", 0, 0)]),
        (CLEAR_FOR, [(0, 6), (1, 2), (5, 1)], 11 + US, [("violated", 0, 0), ("resolved", 0, 11)]),
        (CLEAR_FOR, [(0, 6), (1, 2), (11, 6)], 99, [("violated", 0, 0)]),
        (CLEAR_FOR, [(0, 6), (1, 2), (5, 4), (6, 2)], 16, [("violated", 0, 0)]),
        (CLEAR_FOR, [(0, 6), (1, 2), (5, 4), (6, 2)], 17, [("violated", 0, 0), ("resolved", 0, 16)]),
        ({**THRESHOLD, "clear": {"for": "9s"}}, [(0, 6), (1, 5)], 12, [("violated", 0, 0), ("resolved", 0, 10)]),
        ({**BARE, "equals": "open", "for": "5s"}, [(0, "open"), (3, "open")], 6, [("violated", 5, 5)]),
        ({**BARE, "equals": "open", "for": "5s"}, [(0, "open"), (3, "shut"), (4, "open")], 9, []),
    ],
)  # fmt: skip
def test_what_it_says_with_and_without_restarts(
    mapping: dict[str, Any], values: list[tuple[float, Any]], until: float, expected: list[Any]
) -> None:
    assert says(mapping, values, until) == expected


@pytest.mark.parametrize(
    ("values", "until", "expected"),
    [
        ([(0, 4)], 10, []),
        ([(0, 4)], 10 + US, [("unknown", 10, 10)]),
        ([(0, 4), (10, 4)], 20, []),
        ([(0, 4), (10 + US, 4)], 11, [("unknown", 10, 10), ("resolved", 10, 10 + US)]),
        ([(0, 4), (11, 6)], 12, [("unknown", 10, 10), ("violated", 11, 11)]),
        ([(0, 6)], 99, [("violated", 0, 0), ("unknown", 10, 10)]),
        ([(0, 6), (20, 7)], 20, [("violated", 0, 0), ("unknown", 10, 10), ("violated", 0, 20)]),
        ([(0, 6), (20, 4)], 20, [("violated", 0, 0), ("unknown", 10, 10), ("resolved", 0, 20)]),
        ([(0, 6), (20, 7), (21, 4)], 22,
         [("violated", 0, 0), ("unknown", 10, 10), ("violated", 0, 20), ("resolved", 0, 21)]),
        ([(0, 6), (20, 4), (21, 6)], 22,
         [("violated", 0, 0), ("unknown", 10, 10), ("resolved", 0, 20), ("violated", 21, 21)]),
    ],
)  # fmt: skip
def test_after_a_gap_nothing_is_known(values: list[tuple[float, Any]], until: float, expected: list[Any]) -> None:
    assert says(UNKNOWN, values, until) == expected


@pytest.mark.parametrize(
    ("mapping", "values", "until", "expected"),
    [
        # for begins anew after the gap
        ({**UNKNOWN, "for": "20s"}, [(0, 6), (9, 6), (18, 6)], 20 + US, [("violated", 20, 20)]),
        ({**UNKNOWN, "for": "20s"}, [(0, 6), (9, 6), (19.5, 6), (29, 6), (39, 6)], 39.5,
         [("unknown", 19, 19), ("resolved", 19, 19.5)]),
        ({**UNKNOWN, "for": "20s"}, [(0, 6), (9, 6), (19.5, 6), (29, 6), (39, 6)], 40,
         [("unknown", 19, 19), ("resolved", 19, 19.5), ("violated", 39.5, 39.5)]),
        # at one moment the gap comes first
        ({**UNKNOWN, "for": "10s"}, [(0, 6)], 99, [("unknown", 10, 10)]),
        ({**UNKNOWN, "for": "10s"}, [(0, 6), (US, 6)], 10 + US, [("violated", 10, 10)]),
        # a violation that was open needs no for to go on, and a value on the good side of clear to end
        ({**UNKNOWN, "for": "5s", "clear": {"below": 3}}, [(0, 6), (30, 4), (31, 2)], 32,
         [("violated", 5, 5), ("unknown", 10, 10), ("violated", 5, 30), ("resolved", 5, 31)]),
        ({**UNKNOWN, "clear": {"for": "5s"}}, [(0, 6), (30, 4)], 36,
         [("violated", 0, 0), ("unknown", 10, 10), ("violated", 0, 30), ("resolved", 0, 35)]),
        ({**UNKNOWN, "clear": {"for": "15s"}}, [(0, 6), (1, 4)], 30, [("violated", 0, 0), ("unknown", 11, 11)]),
        # reset
        (RESET, [(0, 6), (10, 6), (20, 6)], 20 + US, [("violated", 20, 20)]),
        (RESET, [(0, 6), (10 + US, 6), (20, 6)], 30, []),
        (RESET, [(0, 6), (10 + US, 6), (20, 6), (30, 6)], 31, [("violated", 30 + US, 30 + US)]),
        (RESET, [(0, 6)], 999, []),
        (RESET, [(0, 6), (10, 6), (20, 6)], 999, [("violated", 20, 20)]),
        ({**RESET, "for": "0s", "clear": {"for": "15s"}}, [(0, 6), (50, 4), (61, 4), (70, 4)], 76,
         [("violated", 0, 0)]),
        ({**RESET, "for": "0s", "clear": {"for": "15s"}}, [(0, 6), (50, 4), (61, 4), (70, 4)], 77,
         [("violated", 0, 0), ("resolved", 0, 76)]),
        # hold
        ({**FOR, "on_gap": "hold"}, [(0, 6)], 11, [("violated", 10, 10)]),
    ],
)  # fmt: skip
def test_a_gap_and_what_lasts(
    mapping: dict[str, Any], values: list[tuple[float, Any]], until: float, expected: list[Any]
) -> None:
    assert says(mapping, values, until) == [pytest.approx(each) for each in expected]


def gap_model(mode: str, for_: int, clear: int, values: Sequence[tuple[int, int]], until: int) -> list[tuple[str, int]]:
    """Second by second, with a gap of 10 s: what is the value, how old is it, and how long has it been bad (above 5),
    or good (below 3)? What was told, and when."""
    told_: list[tuple[str, int]] = []
    is_bad, is_known, was = False, True, "ok"
    bad_from = good_from = last = None

    def look(at: int) -> None:
        nonlocal was
        stands = "unknown" if not is_known else "violated" if is_bad else "resolved"
        if stands != was and (stands, was) != ("resolved", "ok"):
            told_.append((stands, at))
            was = stands

    for now in range(until + 1):
        before = now - 1  # what was to come by then, hasn't
        if mode != "hold" and last is not None and last + 10 == before:
            is_known, bad_from, good_from = mode != "unknown", None, None
        elif bad_from is not None and bad_from + for_ == before:
            is_bad, bad_from = True, None
        elif good_from is not None and good_from + clear == before:
            is_bad, good_from = False, None
        look(before)
        for value in (value for at, value in values if at == now):
            is_known, last = True, now
            if is_bad:
                good_from = None if value >= 3 else now if good_from is None else good_from
                is_bad, good_from = (False, None) if good_from is not None and not clear else (True, good_from)
            else:
                bad_from = None if value <= 5 else now if bad_from is None else bad_from
                is_bad, bad_from = (True, None) if bad_from is not None and not for_ else (False, bad_from)
            look(now)
    return told_


@settings(max_examples=300)
@given(
    st.sampled_from(["unknown", "reset", "hold"]),
    st.sampled_from([(0, 0), (5, 0), (15, 0), (0, 5), (0, 15), (15, 15), (10, 10)]),
    st.lists(st.tuples(st.sampled_from([0, 1, 4, 5, 6, 9, 10, 11, 30]), st.sampled_from([1, 4, 7])), max_size=20),
    chances(),
)
def test_a_gap_is_what_a_slow_model_says(
    mode: str, lasting: tuple[int, int], drawn: list[tuple[int, int]], chance: Iterator[bool]
) -> None:
    for_, clear = lasting
    mapping = {**THRESHOLD, "for": f"{for_}s", "clear": {"below": 3, "for": f"{clear}s"}}
    if mode != "hold" and (mode == "unknown" or for_ or clear):
        mapping |= {"gap": "10s", "on_gap": mode}
    values, now = [], 0
    for gap, value in drawn:
        now += gap
        values.append((now, value))
    said = [each.seconds for each in play([mapping], readings(*values), now + 20, chance)]
    assert [(what, at) for what, _, at in said] == gap_model(mode, for_, clear, values, now + 20)


class TestThreshold:
    """`above: 5`, and what the time of a value and the clock make of it."""

    def test_the_state_is_seen(self) -> None:
        story = Story({**UNKNOWN, "for": "5s"})
        assert story.reading(0, 6).state() == "pending"
        assert story.wait(6).state() == "violated"
        assert story.wait(11).state() == "unknown"
        assert story.reading(12, 4).state() == "ok"

    def test_an_episode_goes_on_after_the_gap(self) -> None:
        story = Story(UNKNOWN).reading(0, 6).reading(20, 7).restart(21).reading(40, 8).reading(41, 3).reading(42, 6)
        told_ = [(verdict.what, verdict.episode) for _, _, verdict in story.verdicts]
        assert told_[:-1] == [
            ("violated", 1), ("unknown", 1), ("violated", 1), ("unknown", 2), ("violated", 1), ("resolved", 1),
        ]  # fmt: skip
        assert told_[-1] == ("violated", 4)
        assert len({each.idempotency_key for each in story.events}) == len(story.events)

    def test_what_was_judged_already_changes_nothing(self) -> None:
        story = Story(THRESHOLD).reading(0, 4)
        with story.judge.turn() as turn:
            turn.observe(event(1, recorded=0, data={"value": 6}), trusted=True)
        assert turn.changed == {}

    @pytest.mark.parametrize(("lateness", "reason"), [("1m", "late"), ("1s", "too_late")])
    def test_an_older_value_is_passed_over_and_counted(self, lateness: str, reason: str) -> None:
        story = Story({**THRESHOLD, "lateness": lateness}).reading(5, 6).reading(6, 4, occurred=3.9)
        assert (story.skipped, story.state()) == ([reason], "violated")

    def test_values_that_a_device_had_stored_up_are_too_old_to_end_a_gap(self) -> None:
        story = Story(UNKNOWN).reading(0, 4).wait(60)
        for second in range(10, 50, 5):
            story.reading(60, 9, occurred=second)
        assert story.told == [("unknown", "a", 10, 10)]
        assert story.reading(60, 4, occurred=55).told[1:] == [("resolved", "a", 10, 55)]
        assert story.wait(65 + US).told[2:] == [("unknown", "a", 65, 65)]

    def test_values_that_a_device_had_stored_up_begin_nothing(self) -> None:
        story = Story(UNKNOWN).reading(60, 9, occurred=10)
        assert (story.told, story.state(), story.judge.earliest()) == ([], "unknown", None)

    def test_silence_while_the_link_was_down_is_no_gap(self) -> None:
        story = Story({**UNKNOWN, "suppressed_by": "link"}).reading(0, 4)
        with story.judge.turn() as turn:
            turn.lose_link(micro(5))
            turn.regain_link(micro(1000))
        story.restart(1001).reading(1001, 4, occurred=995).wait(1010)
        assert story.told == []
        assert story.wait(1010 + US).told == [("unknown", "a", 1010, 1010)]

    def test_out_of_force_values_do_not_grow_old(self) -> None:
        story = Story({**UNKNOWN, "active": {"times": "12:00-12:01", "timezone": "UTC"}}).reading(55, 4).wait(5000)
        assert story.told == []
        assert story.reading(86400 + 1, 6).told == [("violated", "a", 86401, 86401)]

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
    @pytest.mark.parametrize(
        ("mapping", "values", "what", "at"),
        [
            (FOR, [6], "violated", 10),
            (UNKNOWN, [4], "unknown", 10),
            ({**UNKNOWN, "for": "8s"}, [6], "violated", 8),
            (CLEAR_FOR, [6, 2], "resolved", 10),
        ],
    )
    def test_a_step_of_the_clock_is_no_time_that_passed(
        self, mapping: dict[str, Any], values: list[Any], what: str, at: float, step: int
    ) -> None:
        story = Story(mapping)
        for value in values:
            story.reading(0, value)
        with story.judge.turn() as turn:
            turn.set_clock(micro(4 + step), step * 1_000_000)
        before = len(story.told)
        assert story.restart(5 + step).wait(at + step).told[before:] == []
        ((told_what, _, since, told_at),) = story.wait(at + step + US).told[before:]
        assert (told_what, told_at) == (what, max(at + step, since))

    def test_a_clock_that_is_behind_after_a_start(self) -> None:
        story = Story({**UNKNOWN, "for": "5s"}).reading(1000, 6).restart(50).wait(55)
        assert story.told == []
        assert story.wait(55 + US).told == [("violated", "a", 55, 55)]
        assert story.wait(60 + US).told[1:] == [("unknown", "a", 60, 60)]

    def test_what_it_says(self) -> None:
        contract = {**FOR, "above": -15, "clear": {"below": -16}}
        story = Story(contract).reading(0, -14).reading(5, -12.5).wait(11)
        assert story.events[-1].description == "cold: a value above -15 for 10s (observed -12.5)"
        assert (story.events[-1].cause_id, from_json(story.events[-1].data_json)["observed"]) == (1, -12.5)
        assert story.reading(3611, -17.0).events[-1].description == "cold: a resolved after 1h (observed -17)"
        story = Story({**THRESHOLD, "message": "{observed} degrees!"}).reading(0, 6.5)
        assert story.events[-1].description == "cold: 6.5 degrees!"

    @pytest.mark.parametrize(
        ("keys", "value", "words"),
        [
            ({"below": 2}, 1, "below 2"),
            ({"above": 8, "below": 2}, 1, "below 2"),
            ({"above": 8, "below": 2}, 9, "above 8"),
            ({"between": [2, 8.5]}, 3, "between 2 and 8.5"),
            ({"equals": "open"}, "open", "equal to open"),
            ({"equals": True}, True, "equal to true"),
        ],
    )
    def test_it_says_which_limit(self, keys: dict[str, Any], value: Any, words: str) -> None:
        told_ = Story({**BARE, **keys}).reading(0, value).events[-1].description
        assert told_.startswith(f"cold: a value {words} (observed ")

    def test_it_says_that_nothing_is_known(self) -> None:
        story = Story(UNKNOWN).reading(0, 6).wait(11)
        assert (story.events[-1].type, story.events[-1].cause_id) == ("contract.unknown", 1)
        assert from_json(story.events[-1].data_json)["reason"] == "gap"

    def test_ten_thousand_that_grow_old(self) -> None:
        story = Story(UNKNOWN)
        for number in range(10_000):
            story.reading(0, 4, subject=str(number))
        story.restart(5)
        assert len(story.wait(10).told) == 0
        assert len(story.wait(10 + US).told) == 10_000
        assert story.judge.earliest() is None


class TestOtherKeys:
    """What the last value makes of the state when the contract is loaded with other keys, at 5."""

    @pytest.mark.parametrize(
        ("first", "value", "second", "at_once", "in_time"),
        [
            (THRESHOLD, 6, {**THRESHOLD, "above": 5.5}, [], []),
            (THRESHOLD, 6, {**THRESHOLD, "above": 6}, [("resolved", 0, 5)], [("resolved", 0, 5)]),
            (THRESHOLD, 6, {**THRESHOLD, "above": 6, "clear": {"for": "9s"}}, [], [("resolved", 0, 9)]),
            (THRESHOLD, 6, {**BARE, "between": [6, 7]}, [], []),
            (THRESHOLD, 5, {**THRESHOLD, "above": 4}, [], [("violated", 0, 0)]),
            (THRESHOLD, 5, {**THRESHOLD, "above": 4, "for": "9s"}, [], [("violated", 9, 9)]),
            (THRESHOLD, 5, {**THRESHOLD, "gap": "9s", "on_gap": "unknown"}, [], [("unknown", 9, 9)]),
            (FOR, 6, {**FOR, "for": "20s"}, [], [("violated", 20, 20)]),
            (FOR, 6, {**FOR, "for": "7s"}, [], [("violated", 7, 7)]),
            (FOR, 6, {**FOR, "above": 7}, [], []),
            (UNKNOWN, 5, {**UNKNOWN, "gap": "1m"}, [], [("unknown", 60, 60)]),
            (UNKNOWN, 5, THRESHOLD, [], []),
        ],
    )
    def test_the_last_value_is_judged_by_them(
        self, first: dict[str, Any], value: Any, second: dict[str, Any], at_once: list[Any], in_time: list[Any]
    ) -> None:
        story = Story(first).reading(0, value)
        before = len(story.told)

        def since_then() -> list[Any]:
            return [(what, since, at) for what, _, since, at in story.told[before:]]

        story.start(5, second)
        assert since_then() == at_once
        story.wait(100)
        assert since_then() == in_time

    def test_the_last_value_is_to_blame(self) -> None:
        story = Story(THRESHOLD).reading(0, 3).reading(1, 5).start(5, {**THRESHOLD, "above": 4}).wait(6)
        assert (story.told, story.events[-1].cause_id) == ([("violated", "a", 1, 1)], 2)

    def test_what_nothing_is_known_of_stays_so(self) -> None:
        story = Story(UNKNOWN).reading(0, 6).wait(11).start(12, {**UNKNOWN, "above": 7}).wait(100)
        assert [each[0] for each in story.told] == ["violated", "unknown"]
        assert story.reading(101, 6.5).told[2:] == [("resolved", "a", 0, 101)]

    def test_what_means_something_else(self) -> None:
        (contract, *others) = contracts_of(
            THRESHOLD, {**THRESHOLD, "name": "limit", "above": 7}, {**BARE, "name": "below", "below": 7},
            {**FOR, "name": "for"}, {**CLEAR, "name": "clear"}, {**UNKNOWN, "name": "gap"},
            {**BARE, "name": "equals", "equals": 7}, {**THRESHOLD, "name": "field", "field": "x"},
            {**BARE, "name": "text", "equals": "7"}, {**BARE, "name": "truth", "equals": True},
        )  # fmt: skip
        kept = [other.name for other in others if other.meaning == contract.meaning]
        assert kept == ["limit", "below", "for", "clear", "gap", "equals"]


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"above": "warm"}, "above", "must be a number, not 'warm'"),
        ({"above": [1]}, "above", "must be a number"),
        ({"above": float("nan")}, "above", "must be a finite number"),
        ({"above": True}, "above", "must be a number"),
        ({}, "", "needs above, below (or both), between or equals"),
        ({"above": None}, "", "needs above"),
        ({"above": 5, "below": 5}, "above", "must be more than below, 5; for values within a range there is between"),
        ({"above": 5, "between": [1, 2]}, "between", "can't stand beside above"),
        ({"equals": 5, "between": [1, 2]}, "between", "can't stand beside equals"),
        ({"below": 5, "equals": 3}, "equals", "can't stand beside below"),
        ({"between": [8, 2]}, "between", "must be a low number and a higher one, not 8 and 2"),
        ({"between": [2, 2]}, "between", "must be a low number and a higher one"),
        ({"between": [2]}, "between", "must be two numbers, such as [2, 8]"),
        ({"between": "2-8"}, "between", "must be a list"),
        ({"between": ["2", "warm"]}, "between[1]", "must be a number"),
        ({"equals": ["open"]}, "equals", "must be a number, a text, true or false"),
        ({"equals": float("inf")}, "equals", "must be a number, a text, true or false"),
        ({"equals": "x" * (TEXT_CHARS_MAX + 1)}, "equals", "must be at most 1000 characters"),
        ({"equals": 5, "clear": {"below": 4}}, "clear.below", "can't stand beside equals"),
        ({"above": 5, "clear": {"below": 6}}, "clear.below", "must be at most 5"),
        ({"above": 5, "clear": {"above": 6}}, "clear.above", "must be clear.below"),
        ({"below": 5, "clear": {"below": 4}}, "clear.below", "must be clear.above"),
        ({"below": 5, "clear": {"above": 4}}, "clear.above", "must be at least 5"),
        ({"between": [2, 8], "clear": {"below": 3}}, "clear.below", "must be at most 2"),
        ({"between": [2, 8], "clear": {"above": 7}}, "clear.above", "must be at least 8"),
        ({"above": 8, "below": 2, "clear": {"below": 2}}, "clear.below", "nothing is above 2 and below 2"),
        ({"above": 8, "below": 2, "clear": {"above": 5, "below": 4}}, "clear.above", "nothing is above 5 and below 4"),
        ({"above": 5, "for": "-1s"}, "for", "is not a duration"),
        ({"above": 5, "gap": "0s", "on_gap": "reset"}, "gap", "must be more than 0"),
        ({"above": 5, "gap": "1m"}, "gap", "needs on_gap: unknown or reset"),
        ({"above": 5, "on_gap": "unknown"}, "on_gap", "needs gap"),
        ({"above": 5, "gap": "1m", "on_gap": "reset"}, "on_gap", "needs for or clear.for"),
        ({"above": 5, "gap": "1m", "on_gap": "resett"}, "on_gap", "did you mean 'reset'?"),
        ({"abov": 5}, "abov", "did you mean 'above'?"),
    ],
)
def test_a_mistake_is_named_with_its_key(keys: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of({**BARE, **keys})
    assert problems[0].path == f"contracts[0].{path}".rstrip(".")
    assert message in str(problems[0])
