"""Contracts of kind `requires`: everything that can be said, at its edges, and against a slow model that looks through
all that has happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.contracts import Story, contracts_of, event, micro, problems_of
from support.histories import chances
from support.plays import Said, Scene, play, proven, scenes, told, told_event

from edgeq.config.section import Section
from edgeq.contracts import explain
from edgeq.contracts.conditions import COUNT_MAX
from edgeq.contracts.leaves import SPARE
from edgeq.contracts.lint import Seen, Written, warnings
from edgeq.contracts.records import from_row, to_row
from edgeq.contracts.requires import LEAVES_MAX, WAITING_MAX, RequiresMemory
from edgeq.contracts.rule import REASONS_CHARS_MAX, Case
from edgeq.events import from_json

Condition = dict[str, Any]

US = 1e-6
BEFORE: Condition = {"of": "x"}
RECENT: Condition = {"of": "x", "within": "10s"}
SINCE: Condition = {"of": "x", "since": "y"}
AFTER: Condition = {"of": "x", "within": "10s", "after": "5s"}
NOT_AFTER: Condition = {"not": {"of": "x", "after": "5s"}}
UTC = {"timezone": "UTC"}


def requires(condition: Condition, **keys: Any) -> dict[str, Any]:
    """A contract about the events `a`."""
    return {"name": "rule", "kind": "requires", "of": "a", "if": condition, **keys}


def night(*, hours: float) -> list[str]:
    """An event that many hours after noon, of Thursday, the first of January 2026."""
    return [f"a {hours * 3600:.6f}"]


@pytest.mark.parametrize(
    ("condition", "history", "allowed"),
    [
        # X happened before
        (BEFORE, [], True),
        (BEFORE, ["a 0"], False),
        (BEFORE, ["x 0", "a 100000"], True),
        (BEFORE, ["x 5", "a 5"], True),
        (BEFORE, ["a 5", "x 5"], False),
        # N times
        ({"of": "x", "count": 2}, ["x 0", "a 1"], False),
        ({"of": "x", "count": 2}, ["x 0", "x 0", "a 1"], True),
        # within T
        (RECENT, ["x 0", "a 9.999999"], True),
        (RECENT, ["x 0", "a 10"], True),
        (RECENT, ["x 0", "a 10.000001"], False),
        (RECENT, ["x 5", "a 5"], True),
        (RECENT, ["a 5", "x 5"], False),
        # N times within T
        ({**RECENT, "count": 2}, ["x 0", "x 1", "a 10"], True),
        ({**RECENT, "count": 2}, ["x 0", "x 1", "a 10.000001"], False),
        # at most 2 times within T
        ({"not": {**RECENT, "count": 3}}, ["a 0"], True),
        ({"not": {**RECENT, "count": 3}}, ["x 0", "x 1", "a 2"], True),
        ({"not": {**RECENT, "count": 3}}, ["x 0", "x 1", "x 2", "a 10"], False),
        ({"not": {**RECENT, "count": 3}}, ["x 0", "x 1", "x 2", "a 10.000001"], True),
        # X since Y
        (SINCE, ["a 0"], False),
        (SINCE, ["x 0", "a 1"], True),
        (SINCE, ["y 0", "a 1"], False),
        (SINCE, ["x 0", "y 1", "a 2"], False),
        (SINCE, ["y 0", "x 1", "a 2"], True),
        (SINCE, ["y 0", "x 1", "y 1.000001", "a 2"], False),
        (SINCE, ["x 0", "y 0", "a 0"], False),
        (SINCE, ["y 0", "x 0", "a 0"], True),
        # from a time of day on, and before one
        ({"between": "12:00-24:00", **UTC}, night(hours=0), True),
        ({"between": "12:01-24:00", **UTC}, night(hours=0), False),
        ({"between": "00:00-12:00", **UTC}, night(hours=0), False),
        ({"between": "00:00-12:00", **UTC}, ["a 86399.999999"], True),
        # between two, over midnight
        ({"between": "22:00-06:00", **UTC}, ["a 35999.999999"], False),
        ({"between": "22:00-06:00", **UTC}, night(hours=10), True),
        ({"between": "22:00-06:00", **UTC}, night(hours=12), True),
        ({"between": "22:00-06:00", **UTC}, ["a 64799.999999"], True),
        ({"between": "22:00-06:00", **UTC}, night(hours=18), False),
        ({"between": "13:00-13:01", "timezone": "Europe/Berlin"}, night(hours=0), True),
        ({"between": ["07:00-08:00", "12:00-12:01"], **UTC}, night(hours=0), True),
        # on days
        ({"days": "thu", **UTC}, night(hours=0), True),
        ({"days": ["mon-wed", "sat"], **UTC}, night(hours=0), False),
        ({"between": "22:00-06:00", "days": "thu", **UTC}, night(hours=15), True),
        ({"between": "22:00-06:00", "days": "fri", **UTC}, night(hours=15), False),
        # not, and, or, parentheses
        ({"not": BEFORE}, ["a 0"], True),
        ({"not": BEFORE}, ["x 0", "a 0"], False),
        ({"not": {"not": BEFORE}}, ["x 0", "a 0"], True),
        ({"all_of": [BEFORE, {"of": "y"}]}, ["x 0", "a 0"], False),
        ({"all_of": [BEFORE, {"of": "y"}]}, ["x 0", "y 0", "a 0"], True),
        ({"any_of": [BEFORE, {"of": "y"}]}, ["a 0"], False),
        ({"any_of": [BEFORE, {"of": "y"}]}, ["y 0", "a 0"], True),
        ({"all_of": [{"any_of": [BEFORE, {"of": "y"}]}, {"not": {"of": "z"}}]}, ["x 0", "a 0"], True),
        ({"all_of": [{"any_of": [BEFORE, {"of": "y"}]}, {"not": {"of": "z"}}]}, ["x 0", "z 0", "a 0"], False),
        ({"all_of": [{"any_of": [BEFORE, {"of": "y"}]}, {"not": {"of": "z"}}]}, ["a 0"], False),
        ({"all_of": [SINCE, RECENT]}, ["y 0", "x 1", "a 11"], True),
        ({"all_of": [SINCE, RECENT]}, ["y 0", "x 1", "a 11.000001"], False),
        # patterns, and an event that is counted itself
        ({"of": "badge.*"}, ["badge.read 0", "a 0"], True),
        ({"of": "a"}, ["a 0"], False),
        ({"not": {"of": "a", "count": 2, "within": "10s"}}, ["a 0", "a 5"], True),
        ({"not": {"of": "a", "count": 2, "within": "10s"}}, ["a 0", "a 5", "a 10"], False),
    ],
)
def test_what_can_be_said(condition: Condition, history: list[str], allowed: bool) -> None:
    until = float(history[-1].split()[1]) if history else 0
    said = told(requires(condition), scenes(*history), until)
    at = next((float(each.split()[1]) for each in reversed(history) if each[0] == "a"), 0)
    assert said == ([] if allowed else [("violated", at, at)])


def test_windows_begin_and_end_for_one_contract() -> None:
    history = scenes("a 0", "a 35999.999999", "a 36000", "a 64799.999999", "a 64800", "a 36001 recorded 64801")
    contract = requires({"between": "22:00-06:00", **UTC}, lateness="1d")
    assert told(contract, history, 70000) == [
        ("violated", 0, 0), ("resolved", 0, 36000), ("violated", 64800, 64800),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "history", "said"),
    [
        (AFTER, ["a 0", "x 4.999999"], []),
        (AFTER, ["a 0", "x 5"], []),
        (AFTER, ["a 0", "x 5.000001"], [("violated", 5, 5)]),
        (AFTER, ["a 0"], [("violated", 5, 5)]),
        (AFTER, ["x 0", "a 10"], []),
        (AFTER, ["x 0", "a 10.000001"], [("violated", 15.000001, 15.000001)]),
        ({**AFTER, "count": 2}, ["x 0", "a 1", "x 6"], []),
        ({**AFTER, "count": 2}, ["x 0", "a 1", "x 6.000001"], [("violated", 6, 6)]),
        ({"of": "x", "after": "5s"}, ["x 0", "a 100"], []),
        ({"of": "x", "after": "5s"}, ["a 0", "x 5"], []),
        # one that waits is found not to be allowed as soon as that is certain
        (NOT_AFTER, ["a 0"], []),
        (NOT_AFTER, ["a 0", "x 5"], [("violated", 5, 5)]),
        (NOT_AFTER, ["a 0", "x 5.000001"], []),
        ({"all_of": [AFTER, {"of": "y"}]}, ["a 0", "x 1"], [("violated", 0, 0)]),
        ({"any_of": [AFTER, {"of": "y"}]}, ["y 0", "a 0"], []),
        ({"all_of": [AFTER, {"of": "y", "after": "20s"}]}, ["a 0", "y 1"], [("violated", 5, 5)]),
        ({"all_of": [AFTER, {"of": "y", "after": "20s"}]}, ["a 0", "x 1", "y 20"], []),
        ({"all_of": [AFTER, {"of": "y", "after": "20s"}]}, ["a 0", "x 1"], [("violated", 20, 20)]),
        ({"any_of": [AFTER, {"of": "y", "after": "20s"}]}, ["a 0", "y 20"], []),
        ({"any_of": [AFTER, {"of": "y", "after": "20s"}]}, ["a 0"], [("violated", 20, 20)]),
        # several that wait
        (AFTER, ["a 0", "a 4", "x 5"], []),
        (AFTER, ["a 0", "a 4", "x 6"], [("violated", 5, 5), ("resolved", 5, 6)]),
        (AFTER, ["a 0", "a 4"], [("violated", 5, 5)]),
        (AFTER, ["a 0", "x 20", "a 21"], [("violated", 5, 5), ("resolved", 5, 21)]),
        # the newer one is allowed at once, the older isn't, after all
        (
            {"any_of": [AFTER, {"of": "y", "within": "1s"}]},
            ["a 0", "y 2", "a 3"],
            [("violated", 5, 5), ("resolved", 5, 5.000001)],
        ),
        # both at one moment: the older one is allowed, the newer isn't
        ({"all_of": [AFTER, {"not": {"of": "y", "within": "1s"}}]}, ["a 0", "y 1", "a 1", "x 2"], [("violated", 1, 1)]),
        (
            {"any_of": [{"of": "z", "within": "1s"}, AFTER]},
            ["a 0", "z 9", "a 9"],
            [("violated", 5, 5), ("resolved", 5, 9)],
        ),
    ],
)  # fmt: skip
def test_what_may_follow(condition: Condition, history: list[str], said: list[Any]) -> None:
    assert told(requires(condition), scenes(*history), 100) == said


@pytest.mark.parametrize(
    ("keys", "history", "said"),
    [
        ({}, ["a 0"], [("violated", 0, 0)]),
        ({}, ["a 0", "x 3"], [("violated", 0, 0)]),
        ({}, ["a 0", "a 1", "x 3", "a 4"], [("violated", 0, 0), ("resolved", 0, 4)]),
        ({}, ["a 0", "x 1", "a 2", "a 11", "a 13"], [("violated", 0, 0), ("resolved", 0, 2), ("violated", 13, 13)]),
        ({"clear_after": "5s"}, ["a 0"], [("violated", 0, 0), ("resolved", 0, 5)]),
        ({"clear_after": "5s"}, ["a 0", "a 5"], [("violated", 0, 0), ("resolved", 0, 10)]),
        (
            {"clear_after": "5s"},
            ["a 0", "a 5.000001"],
            [("violated", 0, 0), ("resolved", 0, 5), ("violated", 5.000001, 5.000001),
             ("resolved", 5.000001, 10.000001)],
        ),
        ({"clear_after": "5s"}, ["a 0", "x 1", "a 2"], [("violated", 0, 0), ("resolved", 0, 2)]),
        ({"clear_after": "5s"}, ["a 10", "a 5 recorded 11"], [("violated", 10, 10), ("resolved", 10, 15)]),
    ],
)  # fmt: skip
def test_when_it_is_over(keys: dict[str, Any], history: list[str], said: list[Any]) -> None:
    assert told(requires(RECENT, **keys), scenes(*history), 100) == said


@pytest.mark.parametrize(
    ("condition", "history", "said"),
    [
        # what is counted has its place in time
        ({**RECENT, "count": 2}, ["x 20", "x 12 recorded 21", "a 22"], []),
        ({**RECENT, "count": 2}, ["x 20", "x 11.999999 recorded 21", "a 22"], [("violated", 22, 22)]),
        (SINCE, ["y 5", "x 3 recorded 6", "a 7"], [("violated", 7, 7)]),
        (SINCE, ["x 5", "y 3 recorded 6", "a 7"], []),
        (SINCE, ["x 10", "y 7 recorded 10", "x 5 recorded 11", "a 12"], []),
        (SINCE, ["y 10", "x 9 recorded 10", "y 5 recorded 11", "a 12"], [("violated", 12, 12)]),
        ({"of": "x", "count": 2}, ["x 5", "x 3 recorded 6", "a 7"], []),
        # what comes after the verdict changes nothing
        (RECENT, ["a 10", "x 5 recorded 11"], [("violated", 10, 10)]),
        ({"not": RECENT}, ["a 10", "x 5 recorded 11"], []),
        # but what comes while the verdict waits does
        (AFTER, ["a 10", "x 1 recorded 11"], []),
        (AFTER, ["a 10", "x 0 recorded 11"], []),
        (AFTER, ["a 10", "x -0.000001 recorded 11"], [("violated", 15, 15)]),
        (NOT_AFTER, ["a 10", "x 1 recorded 11"], [("violated", 10, 10)]),
        (AFTER, ["a 0", "a 10", "x 9 recorded 11"], [("violated", 5, 5), ("resolved", 5, 10)]),
        # one that is to be judged is judged by what had happened by its time
        (RECENT, ["x 0", "y 14", "a 10 recorded 15"], []),
        (RECENT, ["x 0", "x 12", "a 11 recorded 15"], [("violated", 11, 11)]),
        ({"of": "x", "count": 2}, ["x 0", "x 12", "a 11 recorded 15"], [("violated", 11, 11)]),
        ({"of": "x", "count": 2}, ["x 0", "x 11", "a 11 recorded 15"], []),
        ({"of": "x", "count": 2}, ["x 10", "x 14", "x 5 recorded 14", "a 11 recorded 15"], []),
        (AFTER, ["x 20", "a 15 recorded 21"], []),
        (AFTER, ["x 20.000001", "a 15 recorded 20.3"], [("violated", 20, 20)]),
        (AFTER, ["x 20.000001", "a 15 recorded 20.300001"], [("violated", 15, 15)]),
        # an older one changes nothing for a newer one
        (RECENT, ["x 0", "a 11", "a 5 recorded 12"], [("violated", 11, 11)]),
        (RECENT, ["x 0", "x 20", "a 21", "a 15 recorded 22"], [("violated", 15, 15), ("resolved", 15, 21)]),
        (
            RECENT,
            ["x 20", "a 21", "a 15 recorded 22", "a 31"],
            [("violated", 15, 15), ("resolved", 15, 21), ("violated", 31, 31)],
        ),
    ],
)  # fmt: skip
def test_late_events(condition: Condition, history: list[str], said: list[Any]) -> None:
    # `y` is counted in each, so that it is seen.
    seen = {"all_of": [condition, {"not": {"of": "y", "count": 50}}]}
    assert told(requires(seen), scenes(*history), 31) == said


def test_a_late_one_is_skipped_when_too_much_came_after_it_to_tell() -> None:
    story = Story(requires({**RECENT, "count": 2})).event("x", 0).event("x", 1)
    for _ in range(SPARE):
        story.event("x", 9)
    assert story.event("a", 10, occurred=5).skipped == []
    assert story.event("x", 10).event("a", 10, occurred=5).skipped == ["late"]
    assert story.event("a", 10.1).skipped == []
    story = Story(requires(SINCE)).event("x", 0).event("y", 5)
    assert story.event("a", 6, occurred=4).skipped == ["late"]
    story = Story(requires(SINCE)).event("y", 0).event("x", 5)
    assert story.event("a", 6, occurred=4).skipped == ["late"]
    story = Story(requires({"any_of": [SINCE, BEFORE]})).event("x", 0).event("y", 5)
    assert story.event("a", 6, occurred=4).skipped == []
    story.event("a", 65.1).event("x", 66, occurred=10)
    assert story.event("a", 70, occurred=5.1).skipped == []
    assert story.event("a", 70, occurred=5).skipped == ["too_late"]
    assert story.told == []


def test_a_duplicate_changes_nothing() -> None:
    story = Story(requires({**AFTER, "count": 3})).event("x", 0).event("a", 1).event("x", 2)
    before = dict(story.judge.instances)
    with story.judge.turn() as turn:
        turn.observe(event(3, "x", 2), trusted=True)
    assert story.judge.instances == before


def test_each_subject_has_its_own() -> None:
    story = Story(requires(RECENT)).event("x", 0, subject="b").event("a", 1, subject="a").event("a", 1, subject="b")
    assert story.told == [("violated", "a", 1, 1)]
    story = Story(requires(RECENT, by="order")).event("x", 0, data={"order": 1}, subject="scale")
    story.event("a", 1, data={"order": 1}, subject="door").event("a", 2, data={"order": 2}, subject="door")
    assert story.told == [("violated", "2", 2, 2)]
    assert story.event("a", 3).skipped == ["missing_field"]


def test_same_any_says_of_which_subjects_it_judges() -> None:
    doors, safes = (requires(RECENT, name=name, same="any", subject=f"{name}-*") for name in ("door", "safe"))
    (contract, other) = contracts_of(doors, safes)
    assert explain.conditions(contract) == ["for subjects that fit door-*"]
    written = [Written(each, Section("contracts", {})) for each in (contract, other)]
    seen = Seen([event(1, "a", subject="safe-1"), event(2, "x", subject="door-1")])
    assert [warning.message for warning in warnings(written, None, seen)] == [
        "'door-*' fits no subject of a among the last 2 events"
    ]


def test_same_any_counts_events_of_any_subject_and_judges_those_that_fit() -> None:
    story = Story(requires(RECENT, same="any", subject="door-*"))
    story.event("a", 0, subject="window").event("x", 0, subject="reader").event("a", 1, subject="door-1")
    assert story.told == []
    story.event("a", 11, subject="door-2")
    assert told_event(story).description == "rule: a is not allowed: door-2: no x within 10s"
    story.event("x", 12, subject="window").event("a", 13, subject="door-1")
    assert story.told == [("violated", "", 11, 11), ("resolved", "", 11, 13)]
    (row,) = story.rows()
    (contract,) = contracts_of(requires(RECENT))
    assert from_row(contract, row) is None


def test_conditions_on_data() -> None:
    disarmed = {"of": "alarm", "where": {"state": "off"}}
    story = Story(requires({**disarmed, "since": {"of": "alarm", "where": {"state": "on"}}}, where={"side": "out"}))
    story.event("a", 0, data={"side": "in"}).event("alarm", 1, data={"state": "off"}).event(
        "a", 2, data={"side": "out"}
    )
    assert story.told == []
    story.event("alarm", 3, data={"state": "on"}).event("a", 4, data={"side": "in"})
    assert story.told == []
    story.event("a", 5, data={"side": "out"})
    assert told_event(story).description == ("rule: a a is not allowed: no alarm (state off) since alarm (state on)")
    assert Story(requires(disarmed)).event("alarm", 0, data={"state": "on"}).event("a", 1).told != []


@pytest.mark.parametrize(
    ("condition", "history", "why"),
    [
        (BEFORE, ["a 0"], "no x before"),
        (RECENT, ["a 0"], "no x within 10s"),
        (AFTER, ["a 0"], "no x within 10s before or 5s after"),
        ({"of": "x", "after": "5s"}, ["a 0"], "no x before or within 5s after"),
        ({**RECENT, "count": 3}, ["a 0"], "x 0 times within 10s, wanted at least 3"),
        ({**RECENT, "count": 3}, ["x 0", "a 0"], "x once within 10s, wanted at least 3"),
        ({**RECENT, "count": 3}, ["x 0", "x 0", "a 1"], "x 2 times within 10s, wanted at least 3"),
        ({**AFTER, "count": 2}, ["a 0", "x 1"], "x once within 10s before or 5s after, wanted at least 2"),
        ({"not": {**RECENT, "count": 3}}, ["x 0"] * 3 + ["a 0"], "x 3 times within 10s, wanted at most 2"),
        ({"not": {**RECENT, "count": 3}}, ["x 0"] * 5 + ["a 0"], "x 5 times within 10s, wanted at most 2"),
        ({"not": {**RECENT, "count": 3}}, ["x 0"] * 20 + ["a 0"], "x 13 times or more within 10s, wanted at most 2"),
        ({"not": RECENT}, ["x 0", "a 0"], "x once within 10s, wanted none"),
        ({"not": BEFORE}, ["x 0", "a 0"], "x once before, wanted none"),
        ({"not": {"of": "x", "count": 2}}, ["x 0"] * 3 + ["a 0"], "x 2 times or more before, wanted at most 1"),
        (SINCE, ["a 0"], "no x since y"),
        ({"not": SINCE}, ["x 0", "a 0"], "x since y, wanted none"),
        ({"between": "22:00-06:00", **UTC}, ["a 61.5"], "at 12:01:01, wanted 22:00-06:00"),
        ({"not": {"between": "10:00-14:00", **UTC}}, ["a 0"], "at 12:00:00, wanted not 10:00-14:00"),
        ({"days": ["sat", "sun"], "timezone": "Europe/Berlin"}, ["a 0"], "at Thu 13:00:00, wanted all day on sat, sun"),
        (
            {"between": ["07:00-08:00", "17:00-18:00"], "days": "mon-fri", **UTC},
            ["a 0"],
            "at Thu 12:00:00, wanted 07:00-08:00 or 17:00-18:00 on mon-fri",
        ),
        ({"all_of": [BEFORE, {"of": "y"}]}, ["a 0"], "no x before; no y before"),
        ({"all_of": [BEFORE, {"of": "y"}]}, ["y 0", "a 0"], "no x before"),
        ({"any_of": [BEFORE, {"of": "y"}]}, ["a 0"], "no x before; no y before, one of which would do"),
        ({"not": {"any_of": [BEFORE, {"of": "y"}]}}, ["x 0", "y 0", "a 0"],
         "x once before, wanted none; y once before, wanted none"),
        ({"not": {"all_of": [BEFORE, {"of": "y"}]}}, ["x 0", "y 0", "a 0"],
         "x once before, wanted none; y once before, wanted none, one of which would do"),
        ({"all_of": [{"of": "z"}, {"any_of": [BEFORE, {"of": "y"}]}]}, ["a 0"],
         "no z before; (no x before; no y before, one of which would do)"),
    ],
)  # fmt: skip
def test_why_an_event_is_not_allowed(condition: Condition, history: list[str], why: str) -> None:
    story = Story(requires(condition))
    for each in scenes(*history):
        story.event(each.type, each.recorded)
    event_ = told_event(story if story.turn and story.turn.verdicts else story.wait(100))
    assert event_.description == f"rule: a a is not allowed: {why}"
    assert from_json(event_.data_json)["observed"] == why


def test_reasons_without_end_are_cut() -> None:
    story = Story(requires({"all_of": [{"of": f"{number}{'x' * 50}"} for number in range(40)]})).event("a", 0)
    assert len(story.verdicts[0][2].observed) == REASONS_CHARS_MAX + 1


@pytest.mark.parametrize("restarted", [False, True])
def test_the_message_quotes_the_event_that_was_not_allowed(restarted: bool) -> None:
    story = Story(requires(AFTER, message="{data.who}: {observed}"))
    story.event("a", 0, data={"who": 1}).event("a", 3, data={"who": 2})
    if restarted:
        story.restart(3)
    event_ = told_event(story.wait(6))
    assert (event_.description, event_.cause_id) == ("rule: 1: no x within 10s before or 5s after", 1)


def test_a_reminder_tells_of_the_last_that_was_not_allowed() -> None:
    condition = {"all_of": [RECENT, {"not": {"of": "y"}}]}
    story = Story(requires(condition, remind="10s")).event("a", 0).event("x", 1).event("y", 2).event("a", 3).wait(11)
    assert "y once before, wanted none (reminder 1, for 10s)" in story.events[-1].description
    event_ = told_event(Story(requires(RECENT)).event("a", 0).event("x", 60).event("a", 61))
    assert event_.description == "rule: a resolved after 1m 1s (observed a)"


def test_of_several_at_one_moment_the_last_is_told() -> None:
    event_ = told_event(Story(requires(NOT_AFTER)).event("a", 0).event("a", 1).event("x", 2))
    assert event_.cause_id == 2


def test_one_that_was_over_already_is_told_to_be() -> None:
    story = Story(requires({"any_of": [AFTER, {"of": "y", "within": "1s"}]}))
    story.event("a", 0).event("y", 2).event("a", 3).wait(6)
    assert [event_.description for event_ in story.events] == [
        "rule: a a is not allowed: no x within 10s before or 5s after; no y within 1s, one of which would do",
        "rule: a resolved after 0s (observed a)",
    ]


def test_states() -> None:
    story = Story(requires(AFTER))
    assert story.event("x", 0).state() == "ok"
    assert story.event("a", 5).state() == "ok"
    assert story.event("a", 20).event("a", 22).state() == "pending"
    assert (story.judge.instances[("rule", "a")].since, story.judge.earliest()) == (micro(20), micro(25))
    assert story.event("x", 23).state() == "ok"
    assert story.judge.earliest() is None
    assert story.event("a", 40).wait(46).state() == "violated"
    assert story.event("a", 50).state() == "violated"
    assert story.event("x", 51).state() == "ok"


def test_there_is_a_most_of_events_that_wait() -> None:
    story = Story(requires(AFTER))
    for number in range(WAITING_MAX):
        assert story.event("a", number / 1000).skipped == []
    assert story.event("a", 1).skipped == ["too_many_waiting"]
    assert story.event("x", 2).event("a", 3).skipped == []
    assert (story.told, story.state()) == ([], "ok")


def test_what_is_remembered_is_bounded() -> None:
    story = Story(requires({"all_of": [{**RECENT, "count": 3}, {"of": "x", "count": 3}, SINCE]}))
    for number in range(100):
        story.event("x", number).event("y", number)
    memory = story.judge.instances[("rule", "a")].memory
    assert isinstance(memory, RequiresMemory)
    recent, ever, since = memory.marks
    assert recent == tuple(micro(number) for number in range(100 - 3 - SPARE, 100))
    assert ever == (micro(0), micro(1), micro(2))
    assert since == (micro(99), 199, micro(99), 200)


def test_what_waited_at_the_broker_proves_no_silence() -> None:
    story = Story(requires(AFTER)).event("a", 0).event("x", 3600, trusted=False)
    assert (story.told, story.state()) == ([], "ok")


def test_silence_while_nothing_could_be_heard_does_not_count() -> None:
    def heard_again() -> Story:
        story = Story(requires(AFTER, suppressed_by="link")).event("x", -60).event("a", 0)
        with story.judge.turn() as turn:
            turn.lose_link(micro(3))
        with story.judge.turn() as turn:
            turn.regain_link(micro(60))
        return story

    story = heard_again()
    assert story.wait(65).told == []
    assert story.wait(65.1).told == [("violated", "a", 65, 65)]
    assert heard_again().event("x", 65).state() == "ok"
    assert heard_again().event("x", 61, occurred=-5).state() == "ok"


@pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
def test_a_step_of_the_clock_leaves_what_was_left(step: float) -> None:
    def stepped(now: float, condition: Condition, *happened: str, **keys: Any) -> Story:
        story = Story(requires(condition, **keys))
        for each in scenes(*happened):
            story.event(each.type, each.recorded)
        with story.judge.turn() as turn:
            turn.set_clock(micro(now + step), round(step * 1e6))
        return story.restart(now + step)

    assert stepped(4, RECENT, "x 0").event("a", step + 10).told == []
    assert stepped(4, RECENT, "x 0").event("a", step + 10 + US).told != []
    assert stepped(4, {"of": "x", "count": 2}, "x 0", "x 1").event("a", step + 10).told == []
    assert stepped(4, SINCE, "y 0", "x 1").event("a", step + 10).told == []
    assert stepped(4, SINCE, "x 0", "y 1").event("a", step + 10).told != []
    assert stepped(4, AFTER, "a 0").event("x", step + 5).told == []
    assert stepped(4, AFTER, "a 0").wait(step + 5.1).told == [("violated", "a", step + 5, step + 5)]
    story = stepped(4, RECENT, "a 0", clear_after="10s").event("x", step + 5).wait(step + 10)
    assert story.state() == "violated"
    assert story.wait(step + 10.1).state() == "ok"
    assert stepped(4, RECENT, "x 0", "a 3").event("a", step + 20).wait(step + 21).state() == "violated"
    assert stepped(4, RECENT, "a 0", "x 1").event("a", step + 5).state() == "ok"


@pytest.mark.parametrize(
    ("before", "after", "resolved_at"),
    [
        ({"clear_after": "20s"}, {"clear_after": "50s"}, 52),
        ({}, {"clear_after": "50s"}, 52),
        ({"clear_after": "20s"}, {}, None),
    ],
)
def test_another_clear_after_holds_for_what_is_violated(
    before: dict[str, Any], after: dict[str, Any], resolved_at: float | None
) -> None:
    story = Story(requires(RECENT, **before)).event("a", 0).event("a", 2)
    story.start(5, requires(RECENT, **after)).wait(100)
    assert story.told[1:] == ([] if resolved_at is None else [("resolved", "a", 0, resolved_at)])


def test_what_may_change_of_a_rule_and_what_makes_it_another() -> None:
    story = Story(requires(AFTER)).event("a", 0)
    waits_longer = requires({**AFTER, "within": "20s", "after": "8s"})
    assert story.start(1, waits_longer).event("x", 8).event("a", 28).told == []
    (row,) = story.rows()
    for changed in (
        requires({**AFTER, "of": "z"}), requires({**AFTER, "count": 2}), requires({"of": "x"}),
        requires({"not": AFTER}), requires({"all_of": [AFTER]}), requires({**AFTER, "where": {"k": 1}}),
        requires(AFTER, of="z"), requires(AFTER, where={"k": 1}),
    ):  # fmt: skip
        (contract,) = contracts_of(changed)
        assert from_row(contract, row) is None
    (contract,) = contracts_of(requires({"of": "x", "within": "1h"}, clear_after="1s"))
    assert from_row(contract, row) is not None
    (row,) = Story(requires(SINCE)).event("x", 0).rows()
    (contract,) = contracts_of(requires({"of": "x", "since": {"of": "y", "where": {"k": 1}}}))
    assert from_row(contract, row) is None


def test_what_changes_within_a_nested_rule_holds_for_what_waits() -> None:
    story = Story(requires({"any_of": [{**AFTER, "after": "5s"}]})).event("a", 0)
    (before,) = story.judge.instances.values()
    story.start(1, requires({"any_of": [{**AFTER, "after": "8s"}]}))
    (after,) = story.judge.instances.values()
    assert (before.deadline_at, after.deadline_at) == (micro(5), micro(8))


def test_a_stored_memory_that_does_not_fit_the_rule_is_dropped() -> None:
    story = Story(requires(AFTER)).event("a", 0)
    (contract,) = story.judge.contracts.values()
    instance = story.judge.instances[("rule", "a")]
    assert from_row(contract, to_row(contract, instance)) == instance
    for memory in (
        replace(instance.memory, marks=((), ())),  # type: ignore[type-var]
        replace(instance.memory, waiting=(Case(1, 0, 0, 0, ()),)),
    ):
        assert from_row(contract, to_row(contract, replace(instance, memory=memory))) is None


@pytest.mark.parametrize(
    ("condition", "path", "message"),
    [
        ({}, "if", "needs one of: of, between, days, all_of, any_of, not"),
        ({"where": {"k": 1}}, "if", "needs one of: of"),
        (["x"], "if", "must be a mapping, not a list"),
        ("x", "if", "must be a mapping"),
        ({"all_of": []}, "if.all_of", "must not be empty"),
        ({"all_of": [BEFORE, {**RECENT, "within": "0s"}]}, "if.all_of[1].within", "must be more than 0"),
        ({"all_of": [BEFORE, {**RECENT, "within": 10}]}, "if.all_of[1].within", "no unit"),
        ({"not": {"any_of": [{**BEFORE, "withn": "1m"}]}}, "if.not.any_of[0].withn", "did you mean 'within'?"),
        ({"not": [BEFORE]}, "if.not", "must be a mapping, not a list"),
        ({"of": "contract.violated"}, "if.of", "never judges contracts"),
        ({**BEFORE, "count": 0}, "if.count", "must be between 1 and 1000"),
        ({**BEFORE, "count": COUNT_MAX + 1}, "if.count", "must be between 1 and 1000"),
        ({**BEFORE, "after": "0s"}, "if.after", "must be more than 0"),
        ({**SINCE, "count": 2}, "if.count", "can't stand beside since: both can be parts of all_of"),
        ({**SINCE, "within": "1m"}, "if.within", "can't stand beside since: both can be parts of all_of"),
        ({**SINCE, "after": "1m"}, "if.after", "can't stand beside since: both can be parts of all_of"),
        ({**BEFORE, "since": {"of": "y", "where": {"k": []}}}, "if.since.where.k", "must not be an empty list"),
        ({**BEFORE, "where": {"k": {"abov": 1}}}, "if.where.k.abov", "did you mean 'above'?"),
        ({**BEFORE, "between": "10:00-12:00"}, "if.between", "can't stand beside of: both can be parts of all_of"),
        ({"any_of": [BEFORE], "within": "1m"}, "if.within", "can't stand beside any_of: it belongs to of"),
        ({"any_of": [BEFORE], "not": BEFORE}, "if.not", "can't stand beside any_of: both can be parts of all_of"),
        ({**BEFORE, "timezone": "UTC"}, "if.timezone", "can't stand beside of: it belongs to between and days"),
        ({"between": "22-06"}, "if.between", "must be times of day"),
        ({"between": "22:00-22:00"}, "if.between", "must not end when it begins"),
        ({"between": "22:00-06:00", "days": "mo"}, "if.days", "must be a day or a range of days"),
        ({"between": "22:00-06:00", "timezone": "Europe/Berlim"}, "if.timezone", "did you mean 'Europe/Berlin'?"),
        ({"all_of": [BEFORE] * (LEAVES_MAX + 1)}, "if", "must hold at most 50 conditions, not 51"),
        ({"all_of": [{**BEFORE, "count": 501}, {**RECENT, "count": 500}]}, "if", "must count to at most 1000"),
    ],
)
def test_a_mistake_in_a_condition_is_named_with_its_key(condition: Any, path: str, message: str) -> None:
    problems = problems_of(requires(condition))
    assert [problem.path for problem in problems] == [f"contracts[0].{path}"]
    assert message in str(problems[0])


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"same": "all"}, "same", "must be subject or any"),
        ({"same": "any", "by": "order"}, "by", "can't stand beside same: any"),
        ({"clear_after": "0s"}, "clear_after", "must be more than 0"),
        ({"of": ""}, "of", "must be a type of events"),
        ({"if": None}, "if", "needs one of"),
    ],
)
def test_a_mistake_is_named_with_its_key(keys: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of({**requires(BEFORE), **keys})
    assert [problem.path for problem in problems] == [f"contracts[0].{path}"]
    assert message in str(problems[0])


def test_a_condition_may_be_nested_as_deep_as_a_file() -> None:
    condition = BEFORE
    for _ in range(60):
        condition = {"not": condition}
    assert told(requires(condition), scenes("a 0"), 1) == [("violated", 0, 0)]


# The model


@dataclass
class Asked:
    """An event that was to be judged: its place in the history, until when nothing more is waited for, the verdict."""

    place: int
    passed: int
    allowed: bool | None = None


class Model:
    """Judges by looking through the whole history each time."""

    def __init__(self, condition: Condition, history: Sequence[Scene], clear_after: int) -> None:
        self.condition = condition
        self.history = history
        self.clear_after = clear_after
        self.seen: list[int] = []  # places of what was taken in
        self.taken_at: dict[int, dict[int, int]] = {}
        self.asked: list[Asked] = []
        self.said: list[Said] = []
        self.since: int | None = None
        self.clear_at: int | None = None
        self.over: dict[tuple[int, int], bool] = {}  # which of those that were judged were allowed, by time and order

    def run(self, until: int) -> list[Said]:
        """What is said up to `until`."""
        for place, scene in enumerate(self.history):
            newest = max((self.history[each].at for each in self.seen), default=scene.at)
            kept = scene.type in wanted(self.condition) and scene.at >= newest - 60_000_000
            self.pass_time(proven(scene, kept=kept))
            if not kept:
                continue
            for asked in self.asked:
                if asked.allowed is None:
                    self.taken_at.setdefault(asked.place, {})[place] = asked.passed
            if scene.type == "a":
                self.asked.append(Asked(place, scene.recorded_at - 300_001))
            self.seen.append(place)
            self.decide(scene.at)
        self.pass_time(until)
        return self.said

    def pass_time(self, before: int) -> None:
        """Everything that was due before then, one after the other."""
        while True:
            due = [end for asked in self.asked if asked.allowed is None for end in self.ends(asked)]
            due += [self.clear_at] if self.clear_at is not None else []
            if not due or min(due) >= before:
                return
            at = min(due)
            for asked in self.asked:
                asked.passed = max(asked.passed, at)
            told_before = len(self.said)
            self.decide(at)
            if len(self.said) == told_before and self.clear_at == at:
                self.resolve(at)

    def ends(self, asked: Asked) -> list[int]:
        """The ends of times that it waits for."""
        ends = [self.history[asked.place].at + after for after in afters(self.condition)]
        return [end for end in ends if end > asked.passed]

    def decide(self, at: int) -> None:
        """Whatever can be decided."""
        decided = []
        for asked in self.asked:
            if asked.allowed is None:
                asked.allowed = self.holds(self.condition, asked)
                if asked.allowed is not None:
                    decided.append(asked)
        places = {(self.history[asked.place].at, asked.place): asked.allowed for asked in decided}
        self.over.update(places)  # type: ignore[arg-type]
        denied = [key for key, allowed in places.items() if not allowed]
        newest_allowed = max((key for key, allowed in self.over.items() if allowed), default=(-1, -1))
        newest_denied = max((key for key, allowed in self.over.items() if not allowed), default=(-1, -1))
        if self.since is not None:
            if newest_denied in denied and self.clear_after:
                self.clear_at = at + self.clear_after
            elif newest_denied in denied:
                self.clear_at = None
            if any(places.values()) and newest_allowed > newest_denied:
                self.resolve(max(at, newest_allowed[0]))
        elif denied:
            self.since = max(at, max(denied)[0])
            self.said.append(Said("violated", self.since, self.since))
            self.clear_at = self.since + self.clear_after if self.clear_after else None
            if newest_allowed > newest_denied:
                self.clear_at = max(newest_allowed[0], self.since + 1)

    def resolve(self, at: int) -> None:
        """The violation is over."""
        assert self.since is not None
        self.said.append(Said("resolved", self.since, max(self.since, at)))
        self.since = self.clear_at = None

    def holds(self, condition: Condition, asked: Asked) -> bool | None:
        """Whether a condition holds; None while that isn't certain."""
        if "not" in condition:
            value = self.holds(condition["not"], asked)
            return None if value is None else not value
        if "all_of" in condition or "any_of" in condition:
            deciding = "any_of" in condition
            values = [self.holds(each, asked) for each in condition["any_of" if deciding else "all_of"]]
            return deciding if deciding in values else None if None in values else not deciding
        at = self.history[asked.place].at
        if "since" in condition:
            return self.is_since(condition, asked)
        after = seconds(condition, "after")
        begin = at - seconds(condition, "within") if "within" in condition else 0
        count = 0
        for place in self.seen:
            scene = self.history[place]
            if scene.type != condition["of"] or scene.at < begin:
                continue
            if place < asked.place:
                count += scene.at <= at + after
            elif after and place in self.taken_at.get(asked.place, {}):
                count += self.taken_at[asked.place][place] < at + after
        if count >= condition.get("count", 1):
            return True
        return None if after and at + after > asked.passed else False

    def is_since(self, condition: Condition, asked: Asked) -> bool:
        """Whether the last X before comes after the last Y."""
        before = [(self.history[place].at, place) for place in self.seen if place < asked.place]
        last = max((key for key in before if self.history[key[1]].type == condition["of"]), default=(-2, 0))
        since = max((key for key in before if self.history[key[1]].type == condition["since"]), default=(-1, 0))
        return last > since if last[0] >= 0 else False


def seconds(condition: Condition, key: str) -> int:
    """A duration of the condition in microseconds; 0 without."""
    return int(condition.get(key, "0s")[:-1]) * 1_000_000


def parts(condition: Condition) -> Iterator[Condition]:
    """The conditions that aren't made of others."""
    if "not" in condition:
        yield from parts(condition["not"])
    elif "all_of" in condition or "any_of" in condition:
        for each in condition.get("all_of", condition.get("any_of")):
            yield from parts(each)
    else:
        yield condition


def afters(condition: Condition) -> set[int]:
    """The times for which it waits."""
    return {seconds(each, "after") for each in parts(condition)} - {0}


def wanted(condition: Condition) -> set[str]:
    """The types of events that matter."""
    return {"a", *(each[key] for each in parts(condition) for key in ("of", "since") if key in each)}


def conditions() -> st.SearchStrategy[Condition]:
    """Random conditions."""
    counted = st.fixed_dictionaries(
        {"of": st.sampled_from("axy")},
        optional={"count": st.integers(1, 3), "within": st.just("10s"), "after": st.sampled_from(["5s", "10s"])},
    )
    leaves = counted | st.just(SINCE)
    few = lambda part: st.lists(part, min_size=1, max_size=3)  # noqa: E731
    return st.recursive(
        leaves,
        lambda part: st.one_of(
            st.fixed_dictionaries({"all_of": few(part)}),
            st.fixed_dictionaries({"any_of": few(part)}),
            st.fixed_dictionaries({"not": part}),
        ),
        max_leaves=5,
    )


@st.composite
def asked_histories(draw: st.DrawFn) -> tuple[Condition, list[Scene]]:
    """A condition and a history with times at and around the edges. With `since`, what is to be judged isn't late: it
    would be skipped."""
    condition = draw(conditions())
    has_since = any("since" in each for each in parts(condition))
    gaps = st.sampled_from([0, 0, 0.1, 1, 2, 4.999999, 5, 5.000001, 9.999999, 10, 10.000001, 5.3, 5.300001, 30])
    lateness = st.sampled_from([0, 0, 0, 0.2, 0.3, 1, 5, 12, 61])
    recorded, newest, history = 0.0, 0.0, []
    for type_, gap, late in draw(st.lists(st.tuples(st.sampled_from("aaxxy"), gaps, lateness), max_size=20)):
        recorded = round(recorded + gap, 6)
        occurred = round(recorded - late, 6)
        if type_ == "a" and has_since:
            occurred = max(occurred, newest)
        newest = max(newest, occurred)
        history.append(Scene(type_, recorded, occurred))
    return condition, history


@settings(max_examples=300)
@given(asked_histories(), st.sampled_from([0.1, 5, 5.000001, 60]), st.sampled_from([0, 5]), chances())
def test_against_the_model(
    asked: tuple[Condition, list[Scene]], after: float, clear_after: int, chance: Iterator[bool]
) -> None:
    condition, history = asked
    until = round((history[-1].recorded if history else 0) + after, 6)
    contract = requires(condition, **({"clear_after": f"{clear_after}s"} if clear_after else {}))
    said = [Said(each.what, each.since, each.at) for each in play([contract], history, until, chance)]
    assert said == Model(condition, history, clear_after * 1_000_000).run(micro(until))


def test_the_model_sees_what_it_is_for() -> None:
    said = Model(AFTER, scenes("a 0", "a 4", "x 6"), 0).run(micro(100))
    assert [each.seconds for each in said] == [("violated", 5, 5), ("resolved", 5, 6)]
