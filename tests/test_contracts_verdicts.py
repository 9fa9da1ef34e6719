"""What the event of a verdict says, of each kind: its cause (of a violation the event to blame, of its end the last
that was judged), what was observed, how long it lasted."""

from __future__ import annotations

from typing import Any

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, Story, micro

from edgeq.events import from_json
from edgeq.testing.clock import NOON

RATE = {"name": "r", "kind": "rate", "of": "reading", "more_than": 1, "within": "10s"}
COUNT = {"name": "c", "kind": "count", "of": "reading", "per": "hour", "timezone": "UTC"}
SEQUENCE = {"name": "s", "kind": "sequence", "steps": ["opened", "closed"], "within": "10s"}
REQUIRES = {"name": "q", "kind": "requires", "of": "opened", "if": {"of": "badge", "within": "10s"}}
STUCK = {"name": "t", "kind": "stuck", "of": "reading", "for": "10s"}
ANY = {"name": "any", "kind": "composite", "any_of": ["cold", "closes"]}
SLOW = {**THRESHOLD, "clear": {"below": 3, "for": "10s"}}


Said = tuple[str, int | None, Any]


def said(mappings: list[dict[str, Any]], happened: str, until: float, name: str) -> list[Said]:
    """What one contract told of the events `"type at value"`, with cause and observed; ids are 1, 2, 3…"""
    story = Story(*mappings)
    for each in filter(None, map(str.strip, happened.split(","))):
        type_, at, *value = each.split()
        story.event(type_, float(at), data={"value": float(value[0]) if value else 0})
    story.wait(until)
    found = []
    for each in story.events:
        data = from_json(each.data_json)
        if data["contract"] != name:
            continue
        assert data["cause"] == each.cause_id
        assert data["episode"] == 1
        lasted = {"duration_seconds": (each.occurred_at - data["since"]) / 1e6}
        assert {key: data[key] for key in data if key == "duration_seconds"} == (
            lasted if each.type == "contract.resolved" else {}
        )
        found.append((each.type.removeprefix("contract."), each.cause_id, data["observed"]))
    return found


def in_hour(hour: int, **counts: int) -> dict[str, Any]:
    """What was observed of an hour."""
    return {"count": 0, "from": f"2026-01-01T{hour}:00+00:00", "met": 0, "missed": 0, "streak": 0, "best": 0} | counts


@pytest.mark.parametrize(
    ("mapping", "happened", "until", "expected"),
    [
        (ABSENCE, "reading 0, reading 5, reading 20", 21,
         [("violated", 2, "2026-01-01T12:00:05.000Z"), ("resolved", 3, "2026-01-01T12:00:20.000Z")]),
        ({**ABSENCE, "known": ["a"]}, "", 60, [("violated", None, None)]),
        (DEADLINE, "opened 0, opened 5, closed 20", 21, [("violated", 1, None), ("resolved", 3, "closed")]),
        (THRESHOLD, "reading 0 9, reading 1 8, reading 2 1", 3, [("violated", 1, 9), ("resolved", 3, 1)]),
        ({**THRESHOLD, "for": "5s"}, "reading 0 9, reading 1 8, reading 6 1", 9,
         [("violated", 1, 8), ("resolved", 3, 1)]),
        (SLOW, "reading 0 9, reading 1 1, reading 2 2", 60, [("violated", 1, 9), ("resolved", 3, 2)]),
        (RATE, "reading 0, reading 1, reading 2", 60, [("violated", 2, 2), ("resolved", 3, 1)]),
        (RATE, "reading 0, reading 1, reading 30", 60, [("violated", 2, 2), ("resolved", 2, 1)]),
        ({**RATE, "more_than": None, "fewer_than": 1, "known": ["a"]}, "reading 30", 35,
         [("violated", None, 0), ("resolved", 1, 1)]),
        ({**COUNT, "at_most": 1}, "reading 0, reading 1, reading 2", 4000,
         [("violated", 2, in_hour(12, count=2)), ("resolved", 3, in_hour(12, count=3))]),
        ({**COUNT, "at_least": 1, "known": ["a"]}, "reading 7300", 11000,
         [("violated", None, in_hour(12, missed=1)), ("resolved", 1, in_hour(14, count=1, missed=2))]),
        (SEQUENCE, "opened 0, opened 1, closed 20", 60, [("violated", 1, "opened"), ("resolved", 3, "closed")]),
        ({**SEQUENCE, "must": "not_happen"}, "opened 0, closed 1, opened 2", 60,
         [("violated", 2, "opened, then closed in 1s"), ("resolved", 3, None)]),
        (REQUIRES, "opened 0, badge 1, opened 2", 60,
         [("violated", 1, "no badge within 10s"), ("resolved", 3, "opened")]),
        ({**REQUIRES, "clear_after": "5s"}, "opened 0, opened 2, badge 3", 60,
         [("violated", 1, "no badge within 10s"), ("resolved", 3, None)]),
        (STUCK, "reading 0 1, reading 10 1, reading 11 1, reading 12 2", 60,
         [("violated", 2, 1), ("resolved", 4, 2)]),
    ],
)  # fmt: skip
def test_of_each_kind(mapping: dict[str, Any], happened: str, until: float, expected: list[Said]) -> None:
    keys = {key: value for key, value in mapping.items() if value is not None}
    assert said([keys], happened, until, keys["name"]) == expected


def test_of_a_composite_the_cause_is_that_of_the_part_that_made_the_difference() -> None:
    mappings = [ANY, THRESHOLD, DEADLINE]
    happened = "reading 0 1, opened 0, closed 1, reading 2 9, reading 3 9, reading 4 1"
    assert said(mappings, happened, 60, "any") == [
        ("violated", 4, "cold is violated"), ("resolved", 6, "cold is not violated; closes is not violated"),
    ]  # fmt: skip
    happened = "opened 0, reading 1 1, closed 20"
    assert said(mappings, happened, 60, "any") == [
        ("violated", 1, "closes is violated"), ("resolved", 3, "cold is not violated; closes is not violated"),
    ]  # fmt: skip


def test_of_a_composite_that_comes_into_force_the_cause_is_that_of_the_part_that_stands() -> None:
    later = {**ANY, "active": {"times": "12:01-13:00", "timezone": "UTC"}}
    happened = "opened 0, closed 1, reading 2 9"
    assert said([later, THRESHOLD, DEADLINE], happened, 90, "any") == [("violated", 3, "cold is violated")]


def test_what_ends_otherwise_than_by_what_was_judged_has_no_cause() -> None:
    noon = {**THRESHOLD, "active": {"times": "12:00-12:01", "timezone": "UTC", "at_end": "resolve"}}
    assert said([noon], "reading 0 9", 90, "cold") == [("violated", 1, 9), ("resolved", None, 9)]


def test_all_that_an_event_says() -> None:
    flaps = {**THRESHOLD, "severity": "critical", "flapping": {"changes": 2, "within": "10s"}}
    story = Story(flaps)
    for at, value in ((0, 9), (1, 1)):
        story.event("reading", at, data={"value": value})
    story.wait(60)
    told = [(each.type, from_json(each.data_json), each.occurred_at) for each in story.events]
    common = {"contract": "cold", "kind": "threshold", "severity": "critical", "episode": 1, "since": NOON}
    assert told == [
        ("contract.violated",
         common | {"message": "a value above 5 (observed 9)", "cause": 1, "observed": 9}, NOON),
        ("contract.flapping",
         common | {"message": "a flapping: 2 changes within 1s", "cause": 2, "observed": 1}, micro(1)),
        ("contract.resolved",
         common | {"message": "a resolved after 1s (observed 1)", "cause": 2, "observed": 1, "duration_seconds": 1.0},
         micro(11)),
    ]  # fmt: skip


def test_all_that_an_event_says_of_what_is_not_known() -> None:
    story = Story({**ABSENCE, "suppressed_by": "link"}).reading(0)
    for at, change in ((5, "lose_link"), (65, "regain_link")):
        with story.judge.turn() as turn:
            getattr(turn, change)(micro(at))
        story._heard(turn)
    data = [from_json(each.data_json) for each in story.events]
    common = {
        "contract": "reports", "kind": "absence", "severity": "warning", "episode": 0, "since": micro(5),
        "cause": None, "observed": None, "reason": "link",
    }  # fmt: skip
    assert data == [
        common | {"message": "unknown: there is no session to the broker"},
        common | {"message": "judged again: there is a session to the broker", "duration_seconds": 60.0},
    ]
    assert [each.type for each in story.events] == ["contract.unknown", "contract.resolved"]
