"""Contracts of kind `composite`: what is known and what isn't, their edges, parts of all sorts, and a slow model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product, repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Story, contracts_of, event, micro, problems_of
from support.histories import chances
from support.plays import Scene, play

from edgeq.contracts.contract import Contract
from edgeq.contracts.instance import Change, Instance, Shown, Step
from edgeq.contracts.logic import AtLeast, Fact, Not, Truth, all_of, any_of
from edgeq.contracts.records import from_row, to_row
from edgeq.contracts.relations import Standing, overall
from edgeq.events import from_json
from edgeq.testing.clock import NOON

Form = Any

TRUTHS: tuple[Truth, ...] = (True, False, None)


def part(name: str, **keys: Any) -> dict[str, Any]:
    """A contract that is violated while the last event of that type has a value above 0."""
    return {"name": name, "kind": "threshold", "of": name, "above": 0, **keys}


def composite(form: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    """A contract made of others."""
    return {"name": "whole", "kind": "composite", **form, **keys}


COLD, OPEN = part("cold"), part("open")
BOTH = composite({"all_of": ["cold", "open"]})
EITHER = composite({"any_of": ["cold", "open"]})


def happened(*lines: str) -> list[Scene]:
    """`"cold 1 at 5"`, `"open 0 at 6 of b"`: type, value, seconds, subject."""
    found = []
    for line in lines:
        type_, value, _, at, *rest = line.split()
        found.append(Scene(type_, float(at), subject=rest[1] if rest else "a", data={"value": float(value)}))
    return found


def said(*mappings: Mapping[str, Any], history: list[Scene], until: float = 100) -> list[tuple[str, str, float, float]]:
    """What the contract `whole` says of which subject, whether it is restarted all the time or never."""
    never, always = (play(mappings, history, until, repeat(chance)) for chance in (False, True))
    assert always == never
    return [
        (each.what, each.subject, (each.since - NOON) / 1e6, (each.at - NOON) / 1e6)
        for each in never
        if each.contract == "whole"
    ]


# Logic


@pytest.mark.parametrize(
    ("parts", "of_all", "of_any"),
    [
        ((True,), True, True),
        ((True, None), None, True),
        ((True, False), False, True),
        ((True, False, None), False, True),
        ((None,), None, None),
        ((False, None), False, None),
        ((False,), False, False),
    ],
)
def test_and_and_or_with_what_is_not_known(parts: tuple[Truth, ...], of_all: Truth, of_any: Truth) -> None:
    for twice in (parts, parts * 2, parts[::-1]):
        facts = [Fact(index) for index in range(len(twice))]
        assert all_of(facts).value(twice) is of_all
        assert any_of(facts).value(twice) is of_any
        assert Not(any_of(facts)).value(twice) is (None if of_any is None else not of_any)


@pytest.mark.parametrize(
    ("parts", "at_least_two"),
    [
        ((True, True, None), True),
        ((True, True, False), True),
        ((True, None, None), None),
        ((True, None, False), None),
        ((True, False, False), False),
        ((None, None, False), None),
        ((None, False, False), False),
        ((None, None, None), None),
        ((False, False, False), False),
    ],
)
def test_at_least_two_of_three(parts: tuple[Truth, ...], at_least_two: Truth) -> None:
    assert AtLeast(2, [Fact(0), Fact(1), Fact(2)]).value(parts) is at_least_two


# A contract that is told the states of its parts


class Told:
    """A composite of `cold` and `open`, told of states; `said` as in `said`. `instance` goes through JSON each time."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        (self.contract,) = (each for each in contracts_of(mapping, COLD, OPEN) if each.name == "whole")
        self.instance = Instance(subject="a", state="unknown", since=NOON)
        self.said: list[tuple[str, float, float]] = []
        self.turned = 0

    def elapse(self, before: float) -> Told:
        """Let time pass."""
        deadline_at = self.instance.deadline_at
        if deadline_at is not None and deadline_at < micro(before):
            self._take(self.contract.elapse(self.instance))
        return self

    def states(self, at: float, cold: Shown, open_: Shown) -> Told:
        """The parts stand so from `at` on."""
        self.elapse(at)
        states: dict[str, Shown] = {"cold": cold, "open": open_}
        step = self.contract.observe_state(self.instance, Change("cold", "a", cold, micro(at), 7), states)
        self._take(step)
        again = self.contract.observe_state(self.instance, Change("cold", "a", cold, micro(at), 0), states)
        assert again == Step(self.instance)  # as after a start: it stands right already
        return self

    @property
    def state(self) -> str:
        """Where it stands."""
        return self.instance.state

    def _take(self, step: Step) -> None:
        stored = from_row(self.contract, to_row(self.contract, step.instance))
        assert stored == step.instance
        self.instance = stored
        if step.verdict:
            since, at = (step.verdict.since - NOON) / 1e6, (step.verdict.at - NOON) / 1e6
            self.said.append((step.verdict.what, since, at))


@pytest.mark.parametrize(
    ("cold", "open_", "both", "either"),
    [
        ("violated", "violated", "violated", "violated"),
        ("violated", "ok", "ok", "violated"),
        ("violated", "pending", "ok", "violated"),
        ("violated", "unknown", "unknown", "violated"),
        ("violated", "suppressed", "unknown", "violated"),
        ("ok", "ok", "ok", "ok"),
        ("ok", "unknown", "ok", "unknown"),
        ("pending", "suppressed", "ok", "unknown"),
        ("unknown", "suppressed", "unknown", "unknown"),
    ],
)
def test_how_parts_stand_and_how_the_whole_does(cold: Shown, open_: Shown, both: str, either: str) -> None:
    for mapping, state in ((BOTH, both), (EITHER, either)):
        assert Told(mapping).states(0, cold, open_).state == state
        assert Told(mapping).states(0, "ok", "ok").states(1, cold, open_).state == state


@pytest.mark.parametrize(
    ("form", "violated"),
    [
        ({"not": "cold"}, False),
        ({"not": {"not": "cold"}}, True),
        ({"none_of": ["cold", "open"]}, False),
        ({"none_of": ["open"]}, True),
        ({"at_least": {"count": 1, "of": ["cold", "open"]}}, True),
        ({"at_least": {"count": 2, "of": ["cold", "open"]}}, False),
        ({"all_of": ["cold", {"not": "open"}]}, True),
        ({"any_of": ["open", {"all_of": ["cold", {"none_of": ["open"]}]}]}, True),
        ({"at_least": {"count": 2, "of": ["cold", "open", {"not": "open"}]}}, True),
    ],
)
def test_forms(form: Form, violated: bool) -> None:
    assert Told(composite(form)).states(0, "violated", "ok").state == ("violated" if violated else "ok")


def test_what_is_not_known_is_neither_a_violation_nor_a_recovery() -> None:
    told = Told(BOTH).states(0, "ok", "violated").states(1, "unknown", "violated")
    assert (told.state, told.said) == ("unknown", [])
    told.states(2, "violated", "violated").states(3, "unknown", "violated").states(4, "suppressed", "unknown")
    assert (told.state, told.said) == ("violated", [("violated", 2, 2)])
    told.states(5, "unknown", "ok")
    assert (told.state, told.said[1:]) == ("ok", [("resolved", 2, 5)])


@pytest.mark.parametrize(
    ("end", "violated"), [(9.999999, False), (10, False), (10.000001, True)]
)  # fmt: skip
def test_for_must_have_lasted_as_long(end: float, violated: bool) -> None:
    told = Told({**BOTH, "for": "10s"}).states(0, "violated", "violated")
    assert (told.state, told.instance.deadline_at) == ("pending", micro(10))
    told.states(end, "violated", "ok")
    assert told.said == ([("violated", 10, 10), ("resolved", 10, end)] if violated else [])
    assert told.state == "ok"


def test_for_begins_anew_after_a_break_also_of_what_is_known() -> None:
    told = Told({**BOTH, "for": "10s"}).states(0, "violated", "violated").states(5, "violated", "unknown")
    assert told.state == "unknown"
    told.states(6, "violated", "violated").elapse(16)
    assert told.said == []
    assert told.elapse(16.000001).said == [("violated", 16, 16)]


def test_for_goes_on_when_others_of_the_parts_are_violated() -> None:
    told = Told({**EITHER, "for": "10s"}).states(0, "violated", "ok").states(5, "ok", "violated").elapse(10.000001)
    assert told.said == [("violated", 10, 10)]


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ([], "unknown"), (["ok"], "ok"), (["ok", "pending"], "ok"), (["ok", "violated"], "violated"),
        (["unknown", "violated"], "violated"), (["ok", "unknown"], "unknown"), (["suppressed"], "unknown"),
    ],
)  # fmt: skip
def test_a_contract_as_a_whole(states: list[Shown], whole: Shown) -> None:
    assert overall(states) == whole


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "pending", "violated", "unknown"]))))
def test_a_contract_as_a_whole_is_known_at_once(changes: list[tuple[str, Shown]]) -> None:
    standing, states = Standing(), dict[str, Shown]()
    for subject, state in changes:
        standing.note(subject, state)
        states[subject] = state
        assert standing.overall == overall(states.values())


# With other contracts


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([], []),
        (["cold 1 at 0"], []),
        (["cold 1 at 0", "open 1 at 5"], [("violated", "a", 5, 5)]),
        (["cold 1 at 0", "open 1 at 0"], [("violated", "a", 0, 0)]),
        (["cold 1 at 0", "open 1 at 5", "cold 0 at 7"], [("violated", "a", 5, 5), ("resolved", "a", 5, 7)]),
        (["cold 1 at 0", "cold 0 at 5", "open 1 at 5"], []),
        (["cold 1 at 0", "open 1 at 5", "cold 1 at 6", "open 1 at 6"], [("violated", "a", 5, 5)]),
    ],
)
def test_parts_of_one_subject(history: list[str], told: list[Any]) -> None:
    assert said(BOTH, COLD, OPEN, history=happened(*history)) == told


def test_a_duplicate_changes_nothing() -> None:
    story = Story(BOTH, COLD, OPEN).event("cold", 0, data={"value": 1}).event("open", 5, data={"value": 1})
    before = dict(story.judge.instances)
    with story.judge.turn() as turn:
        turn.observe(event(2, "open", 5, data={"value": 1}), trusted=True)
    assert story.judge.instances == before
    story.event("cold", 6, occurred=-1, data={"value": 0})
    assert (story.skipped, story.state("whole")) == (["late"], "violated")


def test_subjects_are_judged_apart() -> None:
    history = happened("cold 1 at 0", "cold 1 at 1 of b", "open 0 at 2", "open 1 at 3 of b", "open 0 at 4 of b")
    assert said(BOTH, COLD, OPEN, history=history) == [("violated", "b", 3, 3), ("resolved", "b", 3, 4)]
    assert said({**BOTH, "subject": "a"}, COLD, OPEN, history=history) == []


def test_a_part_that_stands_for_all_subjects() -> None:
    # The heating has a subject of its own; it counts for every freezer, and the freezers for the heating.
    history = happened("cold 1 at 0", "cold 0 at 0 of b", "open 1 at 5 of heating", "cold 0 at 7", "cold 1 at 8 of b")
    assert said({**BOTH, "subject": "nobody"}, COLD, OPEN, history=history) == []
    assert said({**BOTH, "subject": "heating"}, COLD, OPEN, history=history) == [
        ("violated", "heating", 5, 5), ("resolved", "heating", 5, 7), ("violated", "heating", 8, 8),
    ]  # fmt: skip
    assert [each for each in said(BOTH, COLD, OPEN, history=history) if each[1] != "heating"] == [
        ("violated", "a", 5, 5), ("resolved", "a", 5, 7), ("violated", "b", 8, 8),
    ]  # fmt: skip


def test_over_all_is_one_instance() -> None:
    history = happened("cold 1 at 0", "open 1 at 3 of b", "cold 1 at 4 of c", "cold 0 at 5", "cold 0 at 6 of c")
    assert said({**BOTH, "over": "all"}, COLD, OPEN, history=history) == [
        ("violated", "", 3, 3),
        ("resolved", "", 3, 6),
    ]


def test_over_all_sees_parts_as_a_whole_also_if_one_has_a_subject_without_a_name() -> None:
    history = happened("open 1 at 0", "cold 1 at 1")
    nameless = [Scene("cold", 2, subject="", data={"value": 0}), Scene("cold", 3, subject="", data={"value": 1})]
    whole = {**BOTH, "over": "all"}
    assert said(whole, COLD, OPEN, history=[*history, *nameless, *happened("cold 0 at 4")]) == [("violated", "", 1, 1)]
    assert said(whole, COLD, OPEN, history=[*nameless[:1], *happened("open 1 at 3", "cold 1 at 4")]) == [
        ("violated", "", 4, 4),
    ]  # fmt: skip


def test_what_is_for_all_is_suppressed_by_a_contract_as_a_whole() -> None:
    rule = {"name": "rule", "kind": "requires", "of": "x", "if": {"of": "a"}, "same": "any", "suppressed_by": "cold"}
    story = Story(rule, COLD).event("cold", 0, subject="", data={"value": 0}).event("a", 0)
    assert story.shown("rule", "") == "ok"
    assert story.event("cold", 1, data={"value": 1}).shown("rule", "") == "suppressed"
    assert story.event("cold", 2, data={"value": 0}).shown("rule", "") == "ok"


def test_a_part_as_a_whole_is_not_known_to_be_ok_while_one_of_its_subjects_is_not() -> None:
    """Otherwise what nobody knows would be a recovery."""
    late = {"name": "late", "kind": "absence", "of": "cold", "every": "10s", "known": ["a", "b"]}
    whole = composite({"any_of": ["late"]}, over="all")
    story = Story(whole, late).event("cold", 0)
    assert story.state("whole", "") == "unknown"
    assert story.event("cold", 1, subject="b").state("whole", "") == "ok"
    inner = composite({"not": "whole"}, name="outer", over="all")
    story = Story(whole, late, inner).event("cold", 0)
    assert story.state("outer", "") == "unknown"


def test_a_part_that_does_not_exist_for_anybody_is_not_known() -> None:
    story = Story(BOTH, EITHER | {"name": "other"}, COLD, OPEN).event("cold", 0, data={"value": 1})
    assert (story.state("whole"), story.state("other")) == ("unknown", "violated")
    story.event("open", 1, subject="b", data={"value": 0})
    assert (story.state("whole"), story.state("other")) == ("ok", "violated")


def test_for_passes_by_the_clock() -> None:
    history = happened("cold 1 at 0", "open 1 at 3")
    assert said({**BOTH, "for": "10s"}, COLD, OPEN, history=history, until=13) == []
    assert said({**BOTH, "for": "10s"}, COLD, OPEN, history=history, until=13.000001) == [("violated", "a", 13, 13)]


def test_parts_that_are_violated_by_the_clock() -> None:
    late = {"name": "late", "kind": "absence", "of": "cold", "every": "10s"}
    whole = composite({"all_of": ["late", "open"]})
    history = happened("cold 0 at 0", "open 1 at 3", "cold 0 at 12", "open 0 at 13")
    assert said(whole, late, OPEN, history=history) == [("violated", "a", 10, 10), ("resolved", "a", 10, 12)]


def test_a_part_that_is_not_in_force_is_not_known() -> None:
    night = part("cold", active={"times": "12:00-12:01", "timezone": "UTC", "at_end": "resolve"})
    history = happened("cold 1 at 0", "open 1 at 3", "open 1 at 65", "open 0 at 70", "open 1 at 75")
    assert said(BOTH, night, OPEN, history=history) == [("violated", "a", 3, 3), ("resolved", "a", 3, 70)]


def test_a_composite_of_composites() -> None:
    inner = composite({"not": "cold"}, name="inner")
    whole = composite({"all_of": ["inner", "open"]})
    history = happened("open 1 at 0", "cold 1 at 1", "cold 0 at 5", "open 0 at 6")
    assert said(whole, inner, COLD, OPEN, history=history) == [("violated", "a", 5, 5), ("resolved", "a", 5, 6)]


def test_nothing_is_told_twice_after_a_start() -> None:
    story = Story(BOTH, COLD, OPEN).event("cold", 0, data={"value": 1}).event("open", 5, data={"value": 1})
    count = len(story.told)
    assert len(story.restart(6).restart(7).told) == count
    story.start(8, {**BOTH, "any_of": ["cold", "open"], "all_of": None}, COLD, OPEN)
    assert story.told[count:] == [("violated", "a", 8, 8)]


def test_what_it_says() -> None:
    three = composite({"any_of": [{"all_of": ["cold", "open"]}, {"not": "cold"}]})
    story = Story(three, COLD, OPEN).event("open", 0, data={"value": 1}).event("cold", 1, data={"value": 1})
    told = story.events[-1]
    assert (told.description, told.cause_id) == ("whole: a cold is violated; open is violated", 2)
    assert from_json(told.data_json)["observed"] == "cold is violated; open is violated"
    story.event("open", 6, data={"value": 0})
    assert story.events[-1].description == (
        "whole: a resolved after 5s (observed open is not violated; cold is violated)"
    )
    story.event("cold", 7, data={"value": 0})
    assert story.events[-1].description == "whole: a cold is not violated"
    lasting = Story({**EITHER, "for": "5s"}, COLD, OPEN).event("cold", 0, data={"value": 1}).wait(6)
    assert lasting.events[-1].description == "whole: a cold is violated for 5s"
    assert lasting.events[-1].cause_id == 1


@pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
def test_a_step_of_the_clock_leaves_what_was_left(step: float) -> None:
    story = Story({**EITHER, "for": "10s"}, COLD, OPEN).event("cold", 0, data={"value": 1})
    count = len(story.told)
    with story.judge.turn() as turn:
        turn.set_clock(micro(4 + step), round(step * 1e6))
    assert story.restart(4 + step).wait(step + 10).told[count:] == []
    assert story.wait(step + 10.1).told[count:] == [("violated", "a", step + 10, step + 10)]


def test_another_for_holds_for_what_is_pending_and_another_form_is_another_promise() -> None:
    story = Story({**EITHER, "for": "10s"}, COLD, OPEN).event("cold", 0, data={"value": 1})
    count = len(story.told)
    story.start(1, {**EITHER, "for": "20s"}, COLD, OPEN).wait(20)
    assert story.told[count:] == []
    assert story.wait(20.1).told[count:] == [("violated", "a", 20, 20)]
    row = next(row for row in story.rows() if row.contract == "whole")
    for changed in (BOTH, composite({"none_of": ["cold", "open"]}), {**EITHER, "over": "all"}):
        assert from_row(whole_of(changed), row) is None
    assert from_row(whole_of(EITHER), row) is not None


def whole_of(mapping: Mapping[str, Any]) -> Contract:
    """The composite that a mapping describes."""
    return contracts_of(mapping, COLD, OPEN)[0]


@pytest.mark.parametrize(
    ("form", "path", "message"),
    [
        ({}, "", "needs one of: any_of, all_of, none_of, at_least, not"),
        ({"all_of": []}, "all_of", "must not be empty"),
        ({"all_of": "cold"}, "all_of", "must be a list"),
        ({"all_of": ["cold", {}]}, "all_of[1]", "needs one of: any_of"),
        ({"all_of": ["cold", {"any": ["open"], "not": "cold"}]}, "all_of[1].any", "did you mean 'any_of'?"),
        ({"all_of": ["cold", ["open"]]}, "all_of[1]", "must be text or a mapping"),
        ({"all_of": ["cold"], "any_of": ["open"]}, "all_of", "can't stand beside any_of: both can be parts of all_of"),
        ({"not": ["cold"]}, "not", "must be text or a mapping"),
        ({"not": {"not": "link"}}, "not.not", "must be another name"),
        ({"at_least": {"of": ["cold"]}}, "at_least.count", "is missing"),
        ({"at_least": {"count": 0, "of": ["cold"]}}, "at_least.count", "must be at least 1"),
        ({"at_least": {"count": 3, "of": ["cold", "open"]}}, "at_least.count", "must be at most 2: there are no more"),
        ({"all_of": ["cold"], "for": "-1s"}, "for", "is not a duration"),
        ({"all_of": ["cold"], "over": "subject"}, "over", "did you mean 'subjects'?"),
        ({"all_of": ["cold"], "over": "all", "subject": "a"}, "subject", "can't stand beside over: all"),
        ({"all_of": ["cold"], "where": {"unit": "C"}}, "where", "a composite judges contracts"),
        ({"all_of": ["cold"], "by": "order"}, "by", "a composite judges contracts"),
        ({"all_of": ["cold"], "lateness": "1m"}, "lateness", "a composite judges contracts"),
        ({"all_of": ["cold", {"not": "opne"}]}, "all_of[1].not", "there is no contract 'opne' (did you mean 'open'?)"),
        ({"at_least": {"count": 1, "of": ["cold", "wet"]}}, "at_least.of[1]", "there is no contract 'wet'"),
        ({"any_of": ["cold", "whole"]}, "any_of[1]", "must not look at itself: whole -> whole"),
    ],
)
def test_a_mistake_is_named_with_its_key(form: Form, path: str, message: str) -> None:
    problems = problems_of(composite(form), COLD, OPEN)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}".rstrip(".")]
    assert message in str(problems[0])


def test_circles_through_others_are_found() -> None:
    one = composite({"not": {"any_of": ["cold", "two"]}}, name="one")
    two = composite({"all_of": ["open"]}, name="two", suppressed_by="three")
    three = composite({"any_of": ["cold", "one"]}, name="three")
    (problem,) = problems_of(COLD, OPEN, one, two, three)
    assert problem.path == "contracts[2].not.any_of[1]"
    assert "must not look at itself: one -> two -> three -> one" in problem.message
    assert problems_of(COLD, OPEN, one, {**two, "suppressed_by": "cold"}, three) == []


# The model


def value_of(form: Form, facts: Mapping[str, bool]) -> bool:
    """Whether a form is true when everything is known."""
    if isinstance(form, str):
        return facts[form]
    ((key, below),) = form.items()
    if key == "not":
        return not value_of(below, facts)
    count, parts = (below["count"], below["of"]) if key == "at_least" else (0, below)
    true = sum(value_of(each, facts) for each in parts)
    return {"all_of": true == len(parts), "any_of": true > 0, "none_of": true == 0, "at_least": true >= count}[key]


def known_value(form: Form, states: Mapping[str, str]) -> Truth:
    """What a form is, however what isn't known may be; None when that makes a difference."""
    open_ = [name for name, state in states.items() if state in ("unknown", "suppressed")]
    values = set()
    for guess in product((True, False), repeat=len(open_)):
        facts = {name: state == "violated" for name, state in states.items()} | dict(zip(open_, guess, strict=True))
        values.add(value_of(form, facts))
    return values.pop() if len(values) == 1 else None


def model(
    form: Form, lasting: int, changes: list[tuple[int, dict[str, Shown]]], until: int
) -> list[tuple[str, int, int]]:
    """Since when has it been true, without a break?"""
    told: list[tuple[str, int, int]] = []
    true_since = since = None
    for at, states in [*changes, (until, None)]:
        if since is None and true_since is not None and true_since + lasting < at:
            since = true_since + lasting
            told.append(("violated", since, since))
        value = known_value(form, states) if states is not None else None
        if value is True and true_since is None and since is None:
            true_since = at
            if not lasting:
                since = at
                told.append(("violated", at, at))
        elif value is False and since is not None:
            told.append(("resolved", since, at))
        if value is False:
            since = None
        if value is not True:
            true_since = None
    return told


@st.composite
def forms(draw: st.DrawFn) -> Form:
    """Random forms of four names, each at most once: what a form says doesn't depend on what isn't known then."""
    names = draw(st.permutations(["p", "q", "r", "s"]))
    parts: list[Form] = list(names[: draw(st.integers(1, 4))])
    while len(parts) > 1 or isinstance(parts[0], str) or draw(st.integers(0, 3)) == 3:
        count = draw(st.integers(1, len(parts)))
        below, parts = parts[:count], parts[count:]
        key = draw(st.sampled_from(["all_of", "any_of", "none_of", "at_least", "not"]))
        if key == "not":
            parts += below[1:]
            parts.append({"not": below[0]})
        elif key == "at_least":
            parts.append({"at_least": {"count": draw(st.integers(1, count)), "of": below}})
        else:
            parts.append({key: below})
    return parts[0]


STATES: list[Shown] = ["violated", "violated", "violated", "ok", "ok", "pending", "unknown", "suppressed"]


@settings(max_examples=300)
@given(
    forms(),
    st.sampled_from([0, 10]),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 9.999999, 10, 10.000001, 20]), st.sampled_from("pqrs"), st.sampled_from(STATES)
        ),
        max_size=25,
    ),
    st.sampled_from([10, 10.000001]),
    chances(),
)
def test_against_the_model(
    form: Form, lasting: int, steps: list[tuple[float, str, Shown]], after: float, chance: Iterator[bool]
) -> None:
    states: dict[str, Shown] = dict.fromkeys("pqrs", "unknown")
    at, changes = NOON, []
    for gap, name, state in steps:
        at += round(gap * 1e6)
        states = states | {name: state}
        changes.append((at, states))
    until = at + round(after * 1e6)
    (contract, *_) = contracts_of(composite(form, **{"for": f"{lasting}s"}), *map(part, "pqrs"))
    instance = Instance(subject="a", state="unknown", since=NOON)
    told: list[tuple[str, int, int]] = []

    def take(step: Step) -> None:
        nonlocal instance
        instance = step.instance
        if step.verdict:
            told.append((step.verdict.what, step.verdict.since, step.verdict.at))

    for (at, states), (_, name, state) in zip(changes, steps, strict=True):
        if next(chance):
            stored = from_row(contract, to_row(contract, instance))
            assert stored is not None
            instance = stored
        if instance.deadline_at is not None and instance.deadline_at < at:
            take(contract.elapse(instance))
        if name in contract.of_contracts:
            take(contract.observe_state(instance, Change(name, "a", state, at, 0), states))
    if instance.deadline_at is not None and instance.deadline_at < until:
        take(contract.elapse(instance))
    assert told == model(form, lasting * 1_000_000, changes, until)
