"""Contracts as people write them: every mistake is found at load, with its place and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, contracts_of, event, problems_of

from edgeq.config.load import load
from edgeq.contracts import load_contracts
from edgeq.errors import Problem


@pytest.mark.parametrize(
    ("mapping", "path", "message"),
    [
        ({**ABSENCE, "kind": "absense"}, "kind", "no such kind: 'absense'; did you mean 'absence'?"),
        ({**ABSENCE, "kind": "zzz"}, "kind", "; there is: absence, "),
        ({**ABSENCE, "kind": None}, "kind", "is missing (there is: absence, "),
        ({**ABSENCE, "kind": ["absence"]}, "kind", "must be the name of a kind"),
        ({**ABSENCE, "evry": "1m"}, "evry", "did you mean 'every'?"),
        ({**ABSENCE, "name": ""}, "name", "must be a name"),
        ({**ABSENCE, "every": "0s"}, "every", "must be more than 0"),
        ({**ABSENCE, "every": 10}, "every", "no unit"),
        ({**ABSENCE, "every": "99999999999999w"}, "every", "too large"),
        ({**ABSENCE, "grace": "-1s"}, "grace", "is not a duration"),
        ({**ABSENCE, "of": ""}, "of", "must be a type of events"),
        ({**ABSENCE, "of": "contract.violated"}, "of", "never judges contracts"),
        ({**ABSENCE, "of": "contract.*"}, "of", "never judges contracts"),
        ({**ABSENCE, "of": "contract*"}, "of", "never judges contracts"),
        ({**ABSENCE, "subject": "freezer-*", "known": ["freezer-1", "fridge-1"]}, "known[1]", "'fridge-1' doesn't fit"),
        ({**ABSENCE, "severity": "warn"}, "severity", "did you mean 'warning'?"),
        ({**ABSENCE, "message": "{subjekt} is silent"}, "message", "not {subjekt}"),
        ({**ABSENCE, "by": "data..id"}, "by", "must be a field"),
        ({**ABSENCE, "where": {"unit": {"abov": 3}}}, "where.unit.abov", "did you mean 'above'?"),
        ({**ABSENCE, "where": {"unit": {"above": "3"}}}, "where.unit.above", "must be a number"),
        ({**ABSENCE, "where": {"unit": {"above": float("nan")}}}, "where.unit.above", "must be a number"),
        (
            {**ABSENCE, "where": {"unit": {"above": 3, "below": 3}}},
            "where.unit.above",
            "nothing is above 3 and below 3",
        ),
        ({**ABSENCE, "where": {"unit": {}}}, "where.unit", "must be a value"),
        ({**ABSENCE, "where": {"unit": []}}, "where.unit", "must not be an empty list"),
        ({**ABSENCE, "where": {"unit": ["C", {"above": 1}]}}, "where.unit[1]", "must be a text"),
        ({**ABSENCE, "where": {"a.b.": 1}}, 'where."a.b."', "must be a field"),
        ({**DEADLINE, "within": "0s"}, "within", "must be more than 0"),
        ({**DEADLINE, "after": "contract.violated"}, "after", "never judges contracts"),
        ({**THRESHOLD, "above": "warm"}, "above", "must be a number"),
        ({**THRESHOLD, "below": 3}, "above", "either above or below"),
        ({key: value for key, value in THRESHOLD.items() if key != "above"}, "", "either above or below"),
        ({**THRESHOLD, "clear": {"below": 6}}, "clear.below", "must be at most 5"),
        ({**THRESHOLD, "clear": {"above": 4}}, "clear.above", "must be clear.below"),
        ({**THRESHOLD, "clear": {"belo": 4}}, "clear.belo", "did you mean 'below'?"),
        ({**THRESHOLD, "field": ""}, "field", "must be a field"),
    ],
)
def test_a_mistake_is_named_with_its_key(mapping: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(mapping)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}".rstrip(".")]
    assert message in str(problems[0])


def test_mistakes_of_a_limit_below_are_told_the_other_way_round() -> None:
    below = {**{key: value for key, value in THRESHOLD.items() if key != "above"}, "below": 5}
    assert "must be at least 5" in str(problems_of({**below, "clear": {"above": 4}})[0])
    assert "must be clear.above" in str(problems_of({**below, "clear": {"below": 4}})[0])
    assert problems_of({**below, "clear": {"above": 5}}) == []


def test_all_mistakes_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "edgeq.yaml"
    file.write_text(
        "contracts:\n"
        "  - {name: one, kind: absence, of: reading, every: 1m}\n"
        "  - name: two\n"
        "    kind: threshhold\n"
        "  - name: three\n"
        "    kind: threshold\n"
        "    of: reading\n"
        "    above: 3\n"
        "    clear:\n"
        "      below: 4\n"
        "  - name: one\n"
        "    kind: deadline\n"
        "    after: a\n"
        "    expect: b\n"
        "    within: 1m\n"
    )
    problems: list[Problem] = []
    loaded = load(str(file), environ={})
    found = load_contracts(loaded.config.contracts, problems)
    assert [contract.name for contract in found] == ["one"]
    assert [(problem.where.rpartition("/")[2], problem.path) for problem in problems] == [
        ("edgeq.yaml:4", "contracts[1].kind"),
        ("edgeq.yaml:10", "contracts[2].clear.below"),
        ("edgeq.yaml:11", "contracts[3].name"),
    ]
    assert "edgeq.yaml:2" in problems[2].hint


def test_the_examples_of_the_specification_load(tmp_path: Path) -> None:
    file = tmp_path / "edgeq.yaml"
    file.write_text(
        "contracts:\n"
        '  - {name: a, kind: absence, of: reading, subject: "f-*", every: 10m, grace: 1m, known: [f-1, f-2]}\n'
        "  - {name: d, kind: deadline, after: door.opened, expect: door.closed, within: 5m}\n"
        '  - {name: t, kind: threshold, of: reading, subject: "f-*", field: value, above: -15, for: 10m,\n'
        "     clear: {below: -16, for: 1m}, severity: critical, where: {unit: C, value: {above: -40}}, by: data.id}\n"
    )
    problems: list[Problem] = []
    found = load_contracts(load(str(file), environ={}).config.contracts, problems)
    assert problems == []
    assert [contract.kind for contract in found] == ["absence", "deadline", "threshold"]


def test_a_pattern_for_every_type_still_leaves_out_the_events_of_contracts() -> None:
    from edgeq.contracts.judge import Judge

    judge = Judge(contracts_of({**ABSENCE, "of": "*"}))
    assert judge.index.cares("reading")
    assert not judge.index.cares("contract.violated")
    assert not judge.index.entries("contract.violated", "a")


@pytest.mark.parametrize(
    ("where", "data", "fits"),
    [
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


def test_kinds_of_other_packages_come_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other_kind.py").write_text(
        "from edgeq.contracts.absence import Absence\n\n\nclass Other(Absence):\n    kind = 'other'\n\n\nNOTHING = 1\n"
    )
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edgeq.contracts]\nother = other_kind:Other\nwrong = other_kind:NOTHING\nbroken = no_such_module:X\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (contract,) = contracts_of({**ABSENCE, "kind": "other"})
    assert contract.kind == "other"
    assert "is not a class made from Contract" in str(problems_of({**ABSENCE, "kind": "wrong"})[0])
    assert "there is no module 'no_such_module'" in str(problems_of({**ABSENCE, "kind": "broken"})[0])
    assert "did you mean 'other'?" in str(problems_of({**ABSENCE, "kind": "othr"})[0])
