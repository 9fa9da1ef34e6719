"""What `edgeq check` warns of: contracts that can be loaded, and won't do what they are meant to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import Edgeq, commands, store

from edgeq.clock import Clock
from edgeq.events import NewEvent, to_json
from edgeq.patterns import overlap, pattern
from edgeq.store import contract_states, events
from edgeq.store.contract_states import ContractState
from edgeq.store.store import Tx

BASE = """\
gateway: g
store: {url: edgeq.db}
routes:
  - {topic: "sensors/{device}/{metric}", emit: "{metric}.reading", subject: "{device}"}
  - {topic: "doors/{door}", emit: {map: "{payload}", to: {"1": door.opened, "0": door.closed}}, subject: "{door}"}
contracts:
"""
MINUTE = 60_000_000


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    """Calls commands in a folder with a configuration."""
    yield from commands(BASE, tmp_path, monkeypatch, capsys)


def warned(edgeq: Edgeq, *contracts: str, base: str = BASE) -> list[str]:
    """The warnings about contracts, one in each line from the seventh on of the file. Nothing is wrong with them."""
    Path("edgeq.yaml").write_text(base + "".join(f"  - {contract}\n" for contract in contracts))
    done = edgeq("check")
    assert done.status == 0, done.err
    as_json = edgeq("check", "--json")
    assert as_json.err == ""
    found = [line.removeprefix("edgeq: warning: ") for line in done.err.splitlines()]
    assert json.loads(as_json.out)["warnings"] == found
    return found


def readings(count: int, gap: float, subject: str = "f-1", **fields: Any) -> None:
    """Store readings, with a gap of so many minutes between them."""
    now = Clock().now()

    def unit(tx: Tx) -> None:
        times = [now - round(step * gap * MINUTE) for step in range(count)][::-1]
        given = {"topic": f"sensors/{subject}/t", "data_json": to_json({"value": 1, "unit": "C"})} | fields
        events.append(
            tx, [NewEvent("t.reading", occurred_at=at, recorded_at=at, subject=subject, **given) for at in times]
        )

    store(unit)


ABSENCE = "{name: n, kind: absence, of: t.reading, every: 10m}"


def test_what_is_right_is_not_warned_of(edgeq: Edgeq) -> None:
    readings(20, 5)
    assert (
        warned(edgeq, ABSENCE, "{name: d, kind: deadline, after: door.opened, expect: door.closed, within: 5m}") == []
    )


# Types that nobody emits


def test_a_type_that_no_route_emits(edgeq: Edgeq) -> None:
    (one,) = warned(edgeq, "{name: n, kind: absence, of: temperature.readings, every: 1m}")
    assert one.startswith("edgeq.yaml:7: contracts[0].of: no route, processor or job emits temperature.readings (")
    (two,) = warned(edgeq, "{name: n, kind: deadline, after: door.opend, expect: door.closed, within: 1m}")
    assert two.startswith("edgeq.yaml:7: contracts[0].after: no route, processor or job emits door.opend (")
    assert two.endswith("did you mean 'door.opened'?)")


@pytest.mark.parametrize("of", ["t.reading", "*.reading", "t.*", "*", "door.*", "*.closed"])
def test_a_type_that_a_route_may_emit(edgeq: Edgeq, of: str) -> None:
    assert warned(edgeq, f'{{name: n, kind: absence, of: "{of}", every: 1m}}') == []


def test_each_of_several_types_is_looked_at(edgeq: Edgeq) -> None:
    found = warned(
        edgeq,
        "{name: s, kind: sequence, steps: [door.opened, {of: alarm.off}, door.closed], within: 1m}",
        "{name: r, kind: requires, of: door.opened, if: {any_of: [{of: badge.read}, {of: door.closed}]}}",
        "{name: c, kind: composite, any_of: [s, r]}",
    )
    assert [each.split(" (")[0] for each in found] == [
        "edgeq.yaml:7: contracts[0].steps[1].of: no route, processor or job emits alarm.off",
        "edgeq.yaml:8: contracts[1].if.any_of[0].of: no route, processor or job emits badge.read",
    ]


@pytest.mark.parametrize(
    "more",
    [
        "app: {path: ., modules: [owned]}\n",
        'processors: {own: {kind: "owned:Own"}}\napp: {path: .}\n',
        'schedules: [{name: s, every: 1h, job: "owned:work"}]\napp: {path: .}\n',
    ],
)
def test_what_is_ones_own_may_emit_anything(edgeq: Edgeq, more: str) -> None:
    Path("owned.py").write_text(
        "from edgeq import QueueProcessor, job\n\n"
        "class Own(QueueProcessor):\n    async def process_item(self, event, ctx): ...\n\n"
        "@job\ndef work() -> None: ...\n"
    )
    contract = "{name: n, kind: absence, of: nobody.says, every: 1m}"
    assert warned(edgeq, contract, base=more + BASE) == []
    assert warned(edgeq, contract) != []


def test_a_type_that_was_stored_by_hand_has_somebody_who_emits_it(edgeq: Edgeq) -> None:
    contract = "{name: n, kind: absence, of: backup.done, every: 1d}"
    store()
    assert len(warned(edgeq, contract)) == 1
    assert edgeq("emit", "backup.done").status == 0
    assert warned(edgeq, contract) == []


words = st.text(alphabet="ab*", max_size=6)


@given(one=words, other=words, text=st.text(alphabet="ab", max_size=8))
def test_patterns_overlap_when_a_text_fits_both(one: str, other: str, text: str) -> None:
    assert overlap(one, other) == overlap(other, one)
    if pattern(one)(text) and pattern(other)(text):
        assert overlap(one, other)
    if "*" not in other:
        assert overlap(one, other) == pattern(one)(other)


@pytest.mark.parametrize(("one", "other"), [("a*", "b*"), ("*a", "*b"), ("a*b", "a"), ("", "a"), ("a*a", "a")])
def test_patterns_that_no_text_fits_both(one: str, other: str) -> None:
    assert not overlap(one, other)


# Periods


@pytest.mark.parametrize(
    ("contract", "key", "told"),
    [
        ("{name: n, kind: absence, of: t.reading, every: 3m, grace: 1m}", "every", "violated between any two"),
        ("{name: n, kind: rate, of: t.reading, fewer_than: 4, within: 15m}", "within", "never 4 of them"),
        ("{name: n, kind: count, of: t.reading, at_least: 20, per: hour}", "per", "never 20 of them"),
        ("{name: n, kind: stuck, of: t.reading, for: 4m}", "for", "never sees a value stay the same"),
        ("{name: n, kind: threshold, of: t.reading, above: 5, for: 4m}", "for", "a single value beyond the limit"),
    ],
)
def test_a_period_shorter_than_what_lies_between_events(edgeq: Edgeq, contract: str, key: str, told: str) -> None:
    readings(20, 5)
    (one,) = warned(edgeq, contract)
    assert one.startswith(f"edgeq.yaml:7: contracts[0].{key}: is too short: t.reading of f-1 comes every 5m as a rule")
    assert told in one


@pytest.mark.parametrize(
    "contract",
    [
        "{name: n, kind: absence, of: t.reading, every: 4m, grace: 1m}",
        "{name: n, kind: rate, of: t.reading, fewer_than: 3, within: 15m}",
        "{name: n, kind: rate, of: t.reading, more_than: 4, within: 1m}",
        "{name: n, kind: count, of: t.reading, at_least: 12, per: hour}",
        "{name: n, kind: count, of: t.reading, at_most: 100, per: hour}",
        "{name: n, kind: stuck, of: t.reading, for: 5m}",
        "{name: n, kind: threshold, of: t.reading, above: 5}",
        "{name: n, kind: threshold, of: t.reading, above: 5, for: 5m}",
    ],
)
def test_a_period_that_is_long_enough(edgeq: Edgeq, contract: str) -> None:
    readings(20, 5)
    assert warned(edgeq, contract) == []


@pytest.mark.parametrize(("within", "is_warned"), [("4m", True), ("5m", False)])
def test_a_deadline_shorter_than_what_answers_take(edgeq: Edgeq, within: str, is_warned: bool) -> None:
    start = Clock().now() - 600 * MINUTE
    happened = (("door.opened", 0), ("door.opened", 1), ("door.closed", 5), ("door.closed", 29))
    times = [(name, start + (30 * number + minute) * MINUTE) for number in range(5) for name, minute in happened]
    store(lambda tx: events.append(tx, [NewEvent(name, at, at, "d-1", "doors/d-1") for name, at in times]))
    found = warned(edgeq, f"{{name: n, kind: deadline, after: door.opened, expect: door.closed, within: {within}}}")
    told = (
        "edgeq.yaml:7: contracts[0].within: is too short: door.closed of d-1 comes 5m after door.opened as a rule, so "
        "it is violated as a rule (give it more time)"
    )
    assert found == [told] * is_warned


def test_the_slowest_subject_counts_and_a_pause_of_a_fast_one_does_not(edgeq: Edgeq) -> None:
    readings(6, 1, "f-1")
    readings(2, 300, "f-1")
    readings(6, 30, "f-2")
    (one,) = warned(edgeq, ABSENCE)
    assert "t.reading of f-2 comes every 30m" in one
    assert warned(edgeq, ABSENCE.replace("every", 'subject: "*-1", every')) == []


def test_what_was_seen_too_seldom_says_nothing(edgeq: Edgeq) -> None:
    readings(5, 60)
    assert warned(edgeq, ABSENCE) == []
    readings(6, 60, "f-2")
    assert len(warned(edgeq, ABSENCE)) == 1


def test_only_events_that_the_contract_is_about_count(edgeq: Edgeq) -> None:
    readings(20, 60)
    assert warned(edgeq, ABSENCE.replace("every", "where: {unit: F}, every")) == []
    assert len(warned(edgeq, ABSENCE.replace("every", "where: {unit: C}, every"))) == 1


# Subjects


def test_a_subject_that_nothing_has(edgeq: Edgeq) -> None:
    readings(3, 1, "fridge-1")
    readings(3, 1, "fridge-2")
    contract = '{name: n, kind: absence, of: t.reading, subject: "freezer-*", every: 10m}'
    (one,) = warned(edgeq, contract)
    assert one == (
        "edgeq.yaml:7: contracts[0].subject: 'freezer-*' fits no subject of t.reading among the last 6 events "
        "(seen: 'fridge-1', 'fridge-2')"
    )
    assert warned(edgeq, contract.replace("freezer", "fridge")) == []
    assert warned(edgeq, contract.replace("t.reading", "humidity.reading")) == [], "nothing of that type was seen"


def test_a_subject_that_was_seen_long_ago(edgeq: Edgeq) -> None:
    readings(3, 1, "fridge-1")
    contract = '{name: n, kind: absence, of: t.reading, subject: "freezer-*", every: 10m}'
    state = ContractState("n", "freezer-1", "violated", 1, None, 1, "{}")
    store(lambda tx: contract_states.put(tx, [state]))
    assert warned(edgeq, contract) == []
    known = contract.replace("every", "known: [freezer-1], every")
    assert len(warned(edgeq, known)) == 1, "it is there because it is known, not because it was seen"
    assert len(warned(edgeq, contract.replace("freezer", "cooler"))) == 1, "it was seen by the contract as it was"


def test_many_subjects_are_not_all_shown(edgeq: Edgeq) -> None:
    for number in range(8):
        readings(1, 1, f"f-{number}")
    (one,) = warned(edgeq, '{name: n, kind: absence, of: t.reading, subject: "freezer-*", every: 10m}')
    assert one.endswith("(seen: 'f-0', 'f-1', 'f-2', 'f-3', 'f-4' and 3 more)")


# Contracts that are the same


def test_two_contracts_that_differ_only_by_name(edgeq: Edgeq) -> None:
    found = warned(
        edgeq,
        "{name: a, kind: absence, of: t.reading, every: 10m, description: one}",
        "{name: b, kind: absence, every: 600s, of: t.reading}",
        "{name: c, kind: absence, of: t.reading, every: 10m, severity: critical}",
        "{name: d, kind: absence, of: t.reading, every: 10m}",
    )
    assert found == [
        f"edgeq.yaml:{line}: contracts[{index}].name: is the same as a at edgeq.yaml:7, apart from the name "
        "(each violation is told twice: remove one of them)"
        for index, line in ((1, 8), (3, 10))
    ]


# The store


def test_without_a_store_nothing_is_compared_and_none_is_made(edgeq: Edgeq) -> None:
    assert warned(edgeq, ABSENCE) == []
    assert not Path("edgeq.db").exists()


def test_a_store_that_cannot_be_read_is_told_of_and_no_mistake(edgeq: Edgeq) -> None:
    Path("edgeq.db").write_text("a shopping list, more than sixteen bytes of it")
    (one,) = warned(edgeq, ABSENCE)
    assert one.startswith("the store could not be looked at: the database file is damaged")
    assert Path("edgeq.db").read_text().startswith("a shopping list")


def test_what_is_stored_may_be_strange(edgeq: Edgeq) -> None:
    now = Clock().now()
    strange = [
        NewEvent("t.reading", occurred_at=0, recorded_at=now, data_json=data, subject="\x1b[2J", topic="a")
        for data in ("[1, 2]", '"text"', "null", '{"value": "high"}', '{"unit": {"a": [1]}}')
    ]
    store(lambda tx: events.append(tx, strange))
    contract = '{name: n, kind: stuck, of: t.reading, subject: "f-*", for: 1m, by: data.id, where: {unit: C}}'
    (one,) = warned(edgeq, contract)
    assert "\x1b" not in one
