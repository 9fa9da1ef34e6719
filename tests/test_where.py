"""Which events a contract wants to see, and which instance they belong to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.contracts import ABSENCE, DEADLINE, contracts_of, event

from edgeq.contracts.judge import Judge
from edgeq.patterns import pattern


@pytest.mark.parametrize(
    ("where", "data", "fits"),
    [
        ({"value": {"above": 1}}, {"value": float("inf")}, False),
        ({"value": {"below": 1}}, {"value": float("-inf")}, False),
        ({"value": {"above": 1}}, {"value": 10**400}, False),
        ({"value": {"below": 1}}, {"value": False}, False),
        ({"unit": {"not": "C"}}, {"unit": "F"}, True),
        ({"unit": {"not": "C"}}, {"unit": "C"}, False),
        ({"unit": {"not": "C"}}, {}, True),
        ({"unit": {"not": "C", "exists": True}}, {}, False),
        ({"unit": {"not": ["C", "K"]}}, {"unit": "K"}, False),
        ({"value": {"not": {"above": 3}}}, {"value": 3}, True),
        ({"value": {"not": {"above": 3}}}, {"value": "warm"}, True),
        ({"value": {"not": {"not": 3}}}, {"value": 3}, True),
        ({"error": {"exists": False}}, {}, True),
        ({"error": {"exists": False}}, {"error": None}, False),
        ({"error": {"exists": True}}, {"error": None}, True),
        ({"a.b": {"exists": False}}, {"a": 3}, True),
        ({"value": {"exists": False}}, [1], True),
        ({"value": {"above": 1, "not": 2}}, {"value": 2}, False),
        ({"value": {"above": 1, "not": 2}}, {"value": 3}, True),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3}, True),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 4}, False),
        ({"unit": "C"}, {"unit": "C"}, True),
        ({"unit": "C"}, {"unit": "F"}, False),
        ({"unit": "C"}, {}, False),
        ({"unit": ["C", "K"]}, {"unit": "K"}, True),
        ({"unit": ["C", "K"]}, {"unit": "F"}, False),
        ({"value": {"above": 30}}, {"value": 30}, False),
        ({"value": {"above": 30}}, {"value": 30.1}, True),
        ({"value": {"above": 30}}, {"value": "31"}, False),
        ({"value": {"above": 0}}, {"value": True}, False),
        ({"value": {"above": 1, "below": 3}}, {"value": 2}, True),
        ({"value": {"above": 1, "below": 3}}, {"value": 3}, False),
        ({"value": 1}, {"value": True}, False),
        ({"value": True}, {"value": True}, True),
        ({"value": 1}, {"value": 1.0}, True),
        ({"error": None}, {"error": None}, True),
        ({"error": None}, {}, False),
        ({"battery.level": {"below": 3}}, {"battery": {"level": 1}}, True),
        ({"data.battery.level": 1}, {"battery": {"level": 1}}, True),
        ({"battery.level": 1}, {"battery": [1]}, False),
        ({"unit": "C", "value": 1}, {"unit": "C", "value": 2}, False),
    ],
)
def test_where(where: dict[str, Any], data: dict[str, Any], fits: bool) -> None:
    (contract,) = contracts_of({**ABSENCE, "where": where})
    assert contract.wants(event(1, data=data)) is fits


@pytest.mark.parametrize(
    ("by", "data", "subject"),
    [
        ("subject", {}, "a"),
        ("id", {"id": 7}, "7"),
        ("id", {"id": 7.0}, "7"),
        ("data.id", {"id": True}, "true"),
        ("data.subject", {"subject": "inner"}, "inner"),
        ("id", {}, None),
        ("id", {"id": None}, None),
        ("id", {"id": {"deep": 1}}, None),
        ("id", {"id": "x" * 256}, None),
        ("id", {"id": "a\0b"}, None),
    ],
)
def test_what_makes_an_instance(by: str, data: dict[str, Any], subject: str | None) -> None:
    (contract,) = contracts_of({**ABSENCE, "by": by})
    assert contract.subject_of(event(1, data=data)) == subject


def wanting(judge: Judge, type_: str, subject: str, data: Any = None) -> list[str]:
    """The names of the contracts that are asked about an event."""
    return [entry.contract.name for entry in judge.index.entries(event(1, type_, subject=subject, data=data))]


def test_a_pattern_for_every_type_still_leaves_out_the_events_of_contracts() -> None:
    judge = Judge(contracts_of({**ABSENCE, "of": "*"}))
    assert judge.index.cares("reading")
    assert not judge.index.cares("contract.violated")
    assert wanting(judge, "contract.violated", "a") == []


PATTERNS = st.sampled_from(["*", "a", "b", "a*", "*b", "ab"])


@given(
    st.lists(st.tuples(PATTERNS, PATTERNS), max_size=8), st.sampled_from("ab"), st.sampled_from(["a", "b", "ab", ""])
)
def test_contracts_are_found_by_type_and_subject_in_their_order(
    made: list[tuple[str, str]], type_: str, subject: str
) -> None:
    mappings = [
        {**ABSENCE, "name": f"c{number}", "of": of, "subject": wanted} for number, (of, wanted) in enumerate(made)
    ]
    expected = [
        f"c{number}" for number, (of, wanted) in enumerate(made) if pattern(of)(type_) and pattern(wanted)(subject)
    ]
    judge = Judge(contracts_of(*mappings))
    assert wanting(judge, type_, subject) == expected
    assert judge.index.cares(type_) is any(pattern(of)(type_) for of, _ in made)


VALUES = st.sampled_from(["C", "K", 0, 1, 1.0, True, False, None, 10**30])
CONDITIONS = st.one_of(VALUES, st.lists(VALUES, min_size=1, max_size=3), st.just({"above": 0}))
DATA = st.one_of(VALUES, st.lists(VALUES), st.dictionaries(st.sampled_from(["a", "b"]), VALUES))
WHERES = st.dictionaries(st.sampled_from(["unit", "value", "unit.a"]), CONDITIONS, max_size=2)


@given(
    st.lists(st.tuples(WHERES, PATTERNS), max_size=8),
    st.dictionaries(st.sampled_from(["unit", "value"]), DATA),
    PATTERNS,
)
def test_all_that_want_an_event_are_found_by_its_data(
    made: list[tuple[dict[str, Any], str]], data: dict[str, Any], subject: str
) -> None:
    contracts = contracts_of(
        *({**ABSENCE, "name": f"c{n}", "where": where, "subject": wanted} for n, (where, wanted) in enumerate(made))
    )
    happened = event(1, subject=subject, data=data)
    fitting = [each.name for each in contracts if each.fits_subject(subject) and each.wants(happened)]
    found = wanting(Judge(contracts), "reading", subject, data)
    assert [name for name in found if name in fitting] == fitting
    assert found == sorted(set(found))


def test_only_those_are_asked_for_which_a_field_is_as_it_must_be() -> None:
    wheres = [
        {"line": 1},
        {"line": [1, 2], "unit": "C"},
        {"line": True},
        {"line": "1"},
        {"line": {"above": 0}},
        {"a.b": 1},
    ]
    judge = Judge(contracts_of(*({**ABSENCE, "name": f"c{n}", "where": where} for n, where in enumerate(wheres))))
    assert wanting(judge, "reading", "a", {"line": 1.0}) == ["c0", "c1", "c4"]
    assert wanting(judge, "reading", "a", {"line": 2}) == ["c1", "c4"]
    assert wanting(judge, "reading", "a", {"line": True}) == ["c2", "c4"]
    assert wanting(judge, "reading", "a", {"line": [1], "a": {"b": 1}}) == ["c4", "c5"]
    assert wanting(judge, "reading", "a", {"line": {}, "a": []}) == ["c4"]
    assert wanting(judge, "reading", "a", [1]) == ["c4"]


def test_those_that_others_look_at_are_asked_first() -> None:
    first, second, third = ({**ABSENCE, "name": name} for name in ("c1", "c2", "c3"))
    judge = Judge(
        contracts_of({**first, "suppressed_by": "c3"}, {**second, "subject": "a"}, {**third, "subject": "a*"})
    )
    assert wanting(judge, "reading", "a") == ["c2", "c3", "c1"]


def test_one_contract_is_asked_once_however_many_of_its_types_fit() -> None:
    judge = Judge(contracts_of({**DEADLINE, "after": "a*", "expect": "*b"}))
    assert wanting(judge, "ab", "x") == ["closes"]
