"""Which event a verdict names as its cause: of a violation the one to blame, of its end the last that was judged."""

from __future__ import annotations

from typing import Any

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, Story

from edgeq.events import from_json

DAY = 86400.0
RATE = {"name": "r", "kind": "rate", "of": "reading", "more_than": 1, "within": "10s"}
COUNT = {"name": "c", "kind": "count", "of": "reading", "per": "hour", "timezone": "UTC"}
SEQUENCE = {"name": "s", "kind": "sequence", "steps": ["opened", "closed"], "within": "10s"}
REQUIRES = {"name": "q", "kind": "requires", "of": "opened", "if": {"of": "badge", "within": "10s"}}
STUCK = {"name": "t", "kind": "stuck", "of": "reading", "for": "10s"}
ANY = {"name": "any", "kind": "composite", "any_of": ["cold", "closes"]}
SLOW = {**THRESHOLD, "clear": {"below": 3, "for": "10s"}}


def causes(mappings: list[dict[str, Any]], happened: str, until: float, name: str) -> list[tuple[str, int | None]]:
    """What one contract told of the events `"type at value"`, with its causes; ids are 1, 2, 3…"""
    story = Story(*mappings)
    for each in filter(None, map(str.strip, happened.split(","))):
        type_, at, *value = each.split()
        story.event(type_, float(at), data={"value": float(value[0]) if value else 0})
    story.wait(until)
    told = [from_json(each.data_json) | {"type": each.type, "id": each.cause_id} for each in story.events]
    assert all(each["cause"] == each["id"] for each in told)
    return [(each["type"].removeprefix("contract."), each["cause"]) for each in told if each["contract"] == name]


@pytest.mark.parametrize(
    ("mapping", "happened", "until", "expected"),
    [
        (ABSENCE, "reading 0, reading 5, reading 20", 21, [("violated", 2), ("resolved", 3)]),
        ({**ABSENCE, "known": ["a"]}, "", 60, [("violated", None)]),
        (DEADLINE, "opened 0, opened 5, closed 20", 21, [("violated", 1), ("resolved", 3)]),
        (THRESHOLD, "reading 0 9, reading 1 9, reading 2 1", 3, [("violated", 1), ("resolved", 3)]),
        ({**THRESHOLD, "for": "5s"}, "reading 0 9, reading 1 9, reading 6 1", 9, [("violated", 1), ("resolved", 3)]),
        (SLOW, "reading 0 9, reading 1 1, reading 2 1", 60, [("violated", 1), ("resolved", 3)]),
        (RATE, "reading 0, reading 1, reading 2", 60, [("violated", 2), ("resolved", 3)]),
        (RATE, "reading 0, reading 1, reading 30", 60, [("violated", 2), ("resolved", 2)]),
        ({**RATE, "more_than": None, "fewer_than": 1, "known": ["a"]}, "reading 30", 35,
         [("violated", None), ("resolved", 1)]),
        ({**COUNT, "at_most": 1}, "reading 0, reading 1, reading 2", 4000, [("violated", 2), ("resolved", 3)]),
        ({**COUNT, "at_least": 1, "known": ["a"]}, "reading 7300", 11000, [("violated", None), ("resolved", 1)]),
        (SEQUENCE, "opened 0, opened 1, closed 20", 60, [("violated", 1), ("resolved", 3)]),
        ({**SEQUENCE, "must": "not_happen"}, "opened 0, closed 1, opened 2", 60, [("violated", 2), ("resolved", 3)]),
        (REQUIRES, "opened 0, badge 1, opened 2", 60, [("violated", 1), ("resolved", 3)]),
        ({**REQUIRES, "clear_after": "5s"}, "opened 0, opened 2, badge 3", 60, [("violated", 1), ("resolved", 3)]),
        (STUCK, "reading 0 1, reading 10 1, reading 11 1, reading 12 2", 60, [("violated", 2), ("resolved", 4)]),
    ],
)  # fmt: skip
def test_of_each_kind(
    mapping: dict[str, Any], happened: str, until: float, expected: list[tuple[str, int | None]]
) -> None:
    keys = {key: value for key, value in mapping.items() if value is not None}
    assert causes([keys], happened, until, keys["name"]) == expected


def test_of_a_composite_it_is_that_of_the_part_that_made_the_difference() -> None:
    mappings = [ANY, THRESHOLD, DEADLINE]
    happened = "reading 0 1, opened 0, closed 1, reading 2 9, reading 3 9, reading 4 1"
    assert causes(mappings, happened, 60, "any") == [("violated", 4), ("resolved", 6)]
    happened = "opened 0, reading 1 1, closed 20"
    assert causes(mappings, happened, 60, "any") == [("violated", 1), ("resolved", 3)]


def test_of_a_composite_that_comes_into_force_it_is_that_of_the_part_that_stands() -> None:
    later = {**ANY, "active": {"times": "12:01-13:00", "timezone": "UTC"}}
    assert causes([later, THRESHOLD, DEADLINE], "opened 0, closed 1, reading 2 9", 90, "any") == [("violated", 3)]


def test_what_ends_otherwise_than_by_what_was_judged_has_none() -> None:
    noon = {**THRESHOLD, "active": {"times": "12:00-12:01", "timezone": "UTC", "at_end": "resolve"}}
    assert causes([noon], "reading 0 9", 90, "cold") == [("violated", 1), ("resolved", None)]
