"""What the world is told doesn't depend on when the Sentinel ran: with every key that holds back, delays or repeats
what a kind says, random histories with restarts, crashes and backlogs at random points are told as those without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import ABSENCE, DEADLINE, THRESHOLD
from support.model_runs import Fate, all_told, end_of, fates, run, scene_lists
from support.plays import Scene
from support.stores import Database

from edgeq.events import Event
from edgeq.testing.clock import NOON

US = 1e-6
BATCHES = st.sampled_from([1, 2, 5, 100])
GAPS = [0, 0.1, 1, 1, 2, 3, 4, 5 - US, 5, 5 + US, 10 - US, 10, 10 + US, 10.3, 10.3 + US, 20, 60]
LATE = [0, 0, 0, 0, 0, 0, 0.2, 0.3, 5]

KINDS: list[dict[str, Any]] = [
    ABSENCE, DEADLINE, THRESHOLD, THRESHOLD, THRESHOLD, {**THRESHOLD, "for": "10s", "clear": {"below": 5, "for": "5s"}},
    {**THRESHOLD, "gap": "10s", "on_gap": "unknown"}, {**THRESHOLD, "gap": "10s", "on_gap": "unknown", "for": "5s"},
    {"name": "seldom", "kind": "rate", "of": "reading", "fewer_than": 2, "within": "10s"},
    {"name": "often", "kind": "rate", "of": "reading", "more_than": 2, "within": "10s"},
    {"name": "frozen", "kind": "stuck", "of": "reading", "for": "10s"},
    {"name": "order", "kind": "sequence", "steps": ["opened", "closed", "reading"], "within": "10s"},
    {"name": "allowed", "kind": "requires", "of": "opened", "if": {"of": "reading", "within": "10s", "after": "5s"}},
]  # fmt: skip
ODD_MINUTES = {"times": ["12:00-12:01", "12:02-12:03", "12:04-12:05", "12:06-12:30"], "timezone": "UTC"}
ANY: dict[str, list[Any]] = {
    "active": [None, None, None, ODD_MINUTES, {**ODD_MINUTES, "at_end": "resolve"}],
    "valid_from": [None, None, None, None, "2026-01-01T12:00:10Z"],
    "valid_until": [None, None, None, None, "2026-01-01T12:01:30Z"],
    "cooldown": [None, None, "5s", "20s"],
    "flapping": [None, None, {"changes": 2, "within": "10s"}, {"changes": 4, "within": "60s"}],
    "message": ["", "{subject} says {data.value}: {observed} since {since}"],
}


def contracts(*, remind: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    """One contract or a few, with keys that all kinds share; each may be suppressed by those before it."""

    def build(drawn: list[tuple[dict[str, Any], dict[str, Any], list[bool]]]) -> list[dict[str, Any]]:
        built: list[dict[str, Any]] = []
        for number, (kind, keys, suppressing) in enumerate(drawn):
            given_keys = {key: value for key, value in keys.items() if value is not None}
            others = [each["name"] for each, is_one in zip(built, suppressing, strict=False) if is_one]
            built.append({**kind, **given_keys, "name": f"{kind['name']}-{number}", "suppressed_by": others})
        return built

    keys = {**ANY, "remind": [None, "5s", "10s"] if remind else [None]}
    drawn_keys = st.fixed_dictionaries({key: st.sampled_from(values) for key, values in keys.items()})
    suppressing = st.lists(st.booleans(), min_size=3, max_size=3)
    return st.lists(st.tuples(st.sampled_from(KINDS), drawn_keys, suppressing), min_size=1, max_size=3).map(build)


def histories() -> st.SearchStrategy[list[Scene]]:
    """Random histories for all of the contracts."""
    return scene_lists(["reading"] * 4 + ["opened", "closed"], GAPS, LATE, [4, 6], "aaab", at_least=10)


@settings(max_examples=60)
@given(contracts(remind=False), histories(), st.sampled_from([0.4, 10, 60]), fates(at_least=8), BATCHES)
def test_told_as_without_restarts(
    database: Database,
    mappings: list[Mapping[str, Any]],
    history: list[Scene],
    after: float,
    fate: list[Fate],
    batch_size: int,
) -> None:
    until = end_of(history, after)
    found = run(mappings, history, until, fate, batch_size, database)
    assert all_told(found) == all_told(run(mappings, history, until))


@settings(max_examples=60)
@given(contracts(remind=True), histories(), st.sampled_from([0.4, 10, 60]), fates("sleep", at_least=8))
def test_reminders_too_unless_nobody_was_there(
    mappings: list[Mapping[str, Any]], history: list[Scene], after: float, fate: list[Fate]
) -> None:
    until = end_of(history, after)
    assert all_told(run(mappings, history, until, fate)) == all_told(run(mappings, history, until))


@settings(max_examples=60)
@given(contracts(remind=True), histories(), st.sampled_from([0.4, 10, 60]), fates(at_least=8), BATCHES)
def test_reminders_that_nobody_was_there_to_tell_change_nothing_else(
    mappings: list[Mapping[str, Any]], history: list[Scene], after: float, fate: list[Fate], batch_size: int
) -> None:
    until = end_of(history, after)
    always, found = run(mappings, history, until), run(mappings, history, until, fate, batch_size)
    assert without_reminders(found) == without_reminders(always)
    assert set(all_told(found)) <= set(all_told(always))


def without_reminders(found: Iterable[Event]) -> list[tuple[Any, ...]]:
    """Everything but these."""
    return all_told(each for each in found if "reminder" not in each.data)


def test_reminders_count_from_when_the_violation_began_also_if_a_late_event_told_of_it() -> None:
    """They counted from that event, so that the first one could fall on the beginning, and get lost under its key."""
    mapping = {"name": "often", "kind": "rate", "of": "reading", "more_than": 2, "within": "10s", "remind": "4s"}
    history = [Scene("reading", 10), Scene("reading", 10), Scene("reading", 10, occurred=6)]
    assert reminders(run([mapping], history, 22)) == [("often", None, 10), ("often", 1, 14), ("often", None, 16)]


def test_what_is_suppressed_before_the_last_reminder_is_not_reminded_of() -> None:
    """Nobody was there when the reminders were due, nor when the other contract came to be violated."""
    power = {**THRESHOLD, "name": "power", "of": "power", "for": "12s"}
    cold = {**THRESHOLD, "remind": "5s", "suppressed_by": "power"}
    history = [Scene("power", 0, data={"value": 6}), Scene("reading", 1, data={"value": 6}), Scene("noise", 30)]
    assert reminders(run([power, cold], history, 40)) == [
        ("cold", None, 1), ("cold", 1, 6), ("cold", 2, 11), ("power", None, 12),
    ]  # fmt: skip
    assert reminders(run([power, cold], history, 40, ["", "sleep"])) == [("cold", None, 1), ("power", None, 12)]


def reminders(found: Iterable[Event]) -> list[tuple[str, int | None, float]]:
    """The contract, the number of the reminder, and when it is told, in seconds after `NOON`."""
    told = [(each.data["contract"], each.data.get("reminder"), (each.occurred_at - NOON) / 1e6) for each in found]
    return sorted(told, key=lambda each: each[2])
