"""Contracts as people write them: every mistake is found at load, with its place and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, contracts_of, problems_of

from edgeq.config.load import load
from edgeq.contracts import load_contracts
from edgeq.contracts.relations import ranks
from edgeq.errors import Problem
from edgeq.testing.clock import NOON


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
        ({**THRESHOLD, "below": 7}, "above", "must be more than below"),
        ({key: value for key, value in THRESHOLD.items() if key != "above"}, "", "needs above, below (or both)"),
        ({**THRESHOLD, "clear": {"below": 6}}, "clear.below", "must be at most 5"),
        ({**THRESHOLD, "clear": {"above": 4}}, "clear.above", "must be clear.below"),
        ({**THRESHOLD, "clear": {"belo": 4}}, "clear.belo", "did you mean 'below'?"),
        ({**THRESHOLD, "field": ""}, "field", "must be a field"),
        ({**ABSENCE, "name": "link"}, "name", "'link' is the session to the broker"),
        ({**ABSENCE, "message": "{data.}"}, "message", "not {data.}"),
        ({**ABSENCE, "message": "ok\n {subject"}, "message", "itself (line 2, column 2)"),
        ({**ABSENCE, "message": "{data.a}" * 9}, "message", "must hold at most 8 placeholders, not 9"),
        ({**ABSENCE, "message": "{data}"}, "message", "and {data.FIELD}, not {data}"),
        ({**ABSENCE, "where": {"unit": {"not": {"abov": 3}}}}, "where.unit.not.abov", "did you mean 'above'?"),
        ({**ABSENCE, "where": {"unit": {"not": []}}}, "where.unit.not", "must not be an empty list"),
        ({**ABSENCE, "where": {"unit": {"exists": "maybe"}}}, "where.unit.exists", "must be true or false"),
        ({**ABSENCE, "lateness": "-1s"}, "lateness", "is not a duration"),
        ({**ABSENCE, "cooldown": "0s"}, "cooldown", "must be more than 0"),
        ({**ABSENCE, "remind": 5}, "remind", "no unit"),
        ({**ABSENCE, "flapping": {"changes": 1, "within": "1m"}}, "flapping.changes", "between 2 and 100"),
        ({**ABSENCE, "flapping": {"changes": 3}}, "flapping.within", "is missing"),
        ({**ABSENCE, "active": {"day": "mon"}}, "active.day", "did you mean 'days'?"),
        ({**ABSENCE, "active": {"days": ["mon", "tusday"]}}, "active.days[1]", "must be a day"),
        ({**ABSENCE, "active": {"times": "8-17"}}, "active.times", "must be times of day such as"),
        ({**ABSENCE, "active": {"times": ["08:00-08:00"]}}, "active.times[0]", "must not end when it begins"),
        ({**ABSENCE, "active": {"timezone": "Europe/Berln"}}, "active.timezone", "did you mean 'Europe/Berlin'?"),
        ({**ABSENCE, "active": {"at_end": "close"}}, "active.at_end", "must be keep or resolve"),
        ({**ABSENCE, "valid_from": "soon"}, "valid_from", "must be a date"),
        ({**ABSENCE, "valid_from": "2026-02-02", "valid_until": "2026-02-01"}, "valid_until", "later than valid_from"),
        ({**ABSENCE, "suppressed_by": ["reprts"]}, "suppressed_by[0]", "there is no contract 'reprts'"),
        ({**ABSENCE, "suppressed_by": "reports"}, "suppressed_by", "must not look at itself: reports -> reports"),
    ],
)
def test_a_mistake_is_named_with_its_key(mapping: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(mapping)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}".rstrip(".")]
    assert message in str(problems[0])


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"valid_from": "0001-01-01"}, "valid_from"),
        ({"valid_until": "0001-01-01T00:00"}, "valid_until"),
        ({"valid_from": "0001-01-01", "valid_until": "2026-01-01"}, "valid_from"),
    ],
)
def test_a_date_that_calendars_have_elsewhere_only_is_a_mistake(keys: dict[str, str], path: str) -> None:
    (problem,) = problems_of({**ABSENCE, **keys, "active": {"timezone": "Asia/Tokyo"}})
    assert problem.path == f"contracts[0].{path}"
    assert "must be a date" in problem.message


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_the_last_day_of_the_calendar_is_for_ever(timezone: str) -> None:
    (contract,) = contracts_of({**ABSENCE, "valid_until": "9999-12-31", "active": {"timezone": timezone}})
    assert contract.calendar is not None
    assert contract.calendar.is_active(NOON)


@pytest.mark.parametrize("named", ["No/Zone", "EST5EDT,M3.2.0,M11.1.0", "/etc/passwd"])
@pytest.mark.parametrize(
    "mapping",
    [
        {**ABSENCE, "active": {"times": "08:00-16:00"}},
        {**ABSENCE, "valid_until": "2026-01-01"},
        {"name": "c", "kind": "count", "of": "reading", "at_least": 1, "per": "day"},
        {"name": "r", "kind": "requires", "of": "opened", "if": {"between": "08:00-16:00"}},
    ],
)
def test_a_time_zone_of_the_machine_that_cannot_be_used_is_a_mistake(
    mapping: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", named)
    (problem,) = problems_of(mapping)
    assert "the machine's time zone can't be used: " in problem.message
    assert named in problem.message


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


def test_contracts_that_look_at_each_other_in_a_circle() -> None:
    one, two, three = ({**ABSENCE, "name": name, "suppressed_by": by} for name, by in
                       (("one", ["link", "two"]), ("two", ["three"]), ("three", ["one"])))  # fmt: skip
    (problem,) = problems_of(one, two, three)
    assert problem.path == "contracts[0].suppressed_by[1]"
    assert "must not look at itself: one -> two -> three -> one" in str(problem)
    assert problems_of(one, two, {**three, "suppressed_by": ["link"]}) == []


def test_a_chain_of_contracts_may_be_as_long_as_somebody_likes() -> None:
    count = 1500
    chain = [{"name": f"c{number}", "kind": "composite", "not": f"c{number - 1}"} for number in range(count, 0, -1)]
    contracts = contracts_of(*chain, {**ABSENCE, "name": "c0"})
    assert ranks(contracts) == {f"c{number}": number for number in range(count + 1)}


def test_who_looks_at_a_contract_that_could_not_be_read_is_not_at_fault() -> None:
    (problem,) = problems_of({**ABSENCE, "suppressed_by": ["other"]}, {**ABSENCE, "name": "other", "every": "0s"})
    assert problem.path == "contracts[1].every"
    (problem,) = problems_of({**ABSENCE, "suppressed_by": ["othr"]}, {**ABSENCE, "name": "other"})
    assert "did you mean 'other'?" in str(problem)


def test_calendars_are_written_in_lists_or_without() -> None:
    one, many = contracts_of(
        {**ABSENCE, "active": {"days": "mon-fri", "times": "08:00-16:00", "timezone": "UTC"}},
        {**ABSENCE, "name": "b", "active": {"days": ["mon-wed", "thu-fri"], "times": ["08:00-12:00", "12:00-16:00"],
                                            "timezone": "UTC"}},
    )  # fmt: skip
    assert one.calendar is not None
    assert many.calendar is not None
    at = NOON
    for _ in range(10):
        assert one.calendar.is_active(at) is many.calendar.is_active(at)
        change = one.calendar.next_change(at)
        assert change == many.calendar.next_change(at)
        assert change is not None
        at = change


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
