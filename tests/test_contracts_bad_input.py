"""Contracts as people get them wrong, and events that no contract expects: every mistake is told with its place and a
way out, all of them at once, and at run time nothing stops."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.commands import Edgeq, commands, store
from support.mosquitto import Mosquitto

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.store import events

BASE = """\
gateway: g
store: {url: edgeq.db}
routes:
  - {topic: "sensors/{device}", emit: reading, subject: "{device}"}
contracts:
"""
FIRST_LINE = BASE.count("\n") + 1


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    """Calls commands in a folder with a configuration."""
    yield from commands(BASE, tmp_path, monkeypatch, capsys)


def mistakes(edgeq: Edgeq, *contracts: str) -> list[str]:
    """What `edgeq check` says of a file with these contracts, one on each line from `FIRST_LINE` on."""
    Path("edgeq.yaml").write_text(BASE + "".join(f"  - {contract}\n" for contract in contracts))
    done = edgeq("check")
    assert (done.status, done.out) == (78, "")
    *found, last = [line.removeprefix("edgeq: ") for line in done.err.splitlines()]
    assert last == f"the configuration has {len(found)} mistake{'s' if len(found) > 1 else ''}"
    return found


@pytest.mark.parametrize(
    ("contract", "key", "message"),
    [
        ("{name: a, kind: absense, of: reading, every: 1m}", "kind", "did you mean 'absence'?"),
        ("{name: a, of: reading, every: 1m}", "kind", "is missing (there is: absence, composite, count, "),
        ("{name: a, kind: absence, of: reading, every: 1m, evry: 1m}", "evry", "unknown key (did you mean 'every'?)"),
        ("{name: a, kind: threshold, of: reading, abuve: 3, above: 4}", "abuve", "did you mean 'above'?"),
        ("{name: a, kind: deadline, after: x, expect: y, within: 0s}", "within", "must be more than 0, not '0s'"),
        ("{name: a, kind: rate, of: reading, more_than: 3, within: 0}", "within", "must be more than 0"),
        ("{name: a, kind: stuck, of: reading, for: 0s}", "for", "must be more than 0"),
        ("{name: a, kind: sequence, steps: [x, y], within: 0s}", "within", "must be more than 0"),
        ("{name: a, kind: threshold, of: reading, above: warm}", "above", "must be a number, not 'warm'"),
        ("{name: a, kind: threshold, of: reading, above: .nan}", "above", "must be a finite number"),
        ("{name: a, kind: threshold, of: reading, above: true}", "above", "must be a number, not true"),
        ("{name: a, kind: threshold, of: reading, above: [1]}", "above", "must be a number, not a list"),
        ("{name: a b, kind: absence, of: reading, every: 1m}", "name", "must be a name without spaces, not 'a b'"),
        ("{kind: absence, of: reading, every: 1m}", "name", "is missing"),
        ("{name: a, kind: absence, of: reading}", "every", "is missing"),
        ("{name: a, kind: absence, of: reading, every: 5}", "every", "5 has no unit: write 5s, 5m or 5h"),
        (
            '{name: a, kind: absence, of: reading, every: 1m, message: "{sbject}"}',
            "message",
            "no placeholder but {subject}, {observed}, {since} and {data.FIELD}, not {sbject}",
        ),
        (
            "{name: a, kind: absence, of: reading, every: 1m, active: {timezone: Europe/Berln}}",
            "active.timezone",
            "there is no time zone 'Europe/Berln' (did you mean 'Europe/Berlin'?)",
        ),
        (
            "{name: a, kind: absence, of: reading, every: 1m, active: {times: 25:00-26:00}}",
            "active.times",
            'must be times of day such as "08:00-17:30", over midnight "22:00-06:00", not \'25:00-26:00\'',
        ),
        (
            "{name: a, kind: absence, of: reading, every: 1m, active: {days: [mon, tusday]}}",
            "active.days[1]",
            "must be a day or a range of days, such as sat or mon-fri",
        ),
        ("{name: a, kind: absence, of: reading, every: 1m, valid_from: soon}", "valid_from", "must be a date such as"),
        (
            "{name: a, kind: absence, of: reading, every: 1m, suppressed_by: [b]}",
            "suppressed_by[0]",
            "there is no contract 'b'",
        ),
        ("{name: a, kind: composite, any_of: [b]}", "any_of[0]", "there is no contract 'b'"),
        ("{name: a, kind: composite, not: a}", "not", "must not look at itself: a -> a"),
        (
            '{name: a, kind: absence, of: reading, subject: "f-*", every: 1m, known: [g-1]}',
            "known[0]",
            "'g-1' doesn't fit subject: f-*",
        ),
        ("{name: a, kind: absence, of: contract.violated, every: 1m}", "of", "a contract never judges contracts"),
        ("{name: a, kind: requires, of: reading, if: {of: x, cont: 3}}", "if.cont", "did you mean 'count'?"),
        ("{name: a, kind: absence, of: reading, every: 1m, where: {v: {abov: 1}}}", "where.v.abov", "'above'"),
        ("just text", "", "must be a mapping, not 'just text'"),
    ],
)
def test_a_mistake_is_told_with_its_file_line_and_key(edgeq: Edgeq, contract: str, key: str, message: str) -> None:
    found = mistakes(edgeq, contract)
    assert len(found) == 1, found
    path = f"contracts[0].{key}" if key else "contracts[0]"
    assert found[0].startswith(f"edgeq.yaml:{FIRST_LINE}: {path}: ")
    assert message in found[0]


def test_contracts_that_are_no_list(edgeq: Edgeq) -> None:
    for wrong in ("{a: b}", "5"):
        Path("edgeq.yaml").write_text(f"gateway: g\ncontracts: {wrong}\n")
        done = edgeq("check")
        assert done.status == 78
        assert "edgeq.yaml:2: contracts: must be a list" in done.err


def test_a_contract_that_is_no_mapping_hides_no_mistake_in_another(edgeq: Edgeq) -> None:
    found = mistakes(
        edgeq,
        "{name: a, kind: absence, of: reading, evry: 1m}",
        "just text",
        "{name: c, kind: absence, of: reading, every: 0s}",
    )
    assert [each.split(": ")[1] for each in found] == [
        "contracts[0].evry", "contracts[0].every", "contracts[1]", "contracts[2].every",
    ]  # fmt: skip


def test_conditions_nested_without_end(edgeq: Edgeq) -> None:
    nested = "{not: " * 5000 + "{of: x}" + "}" * 5000
    (one,) = mistakes(edgeq, f"{{name: a, kind: requires, of: reading, if: {nested}}}")
    assert one == f"edgeq.yaml:{FIRST_LINE}: lists and mappings are nested more than 64 deep"


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(edgeq: Edgeq) -> None:
    found = mistakes(
        edgeq,
        "{name: fine, kind: absence, of: reading, every: 1m}",
        "{name: a, kind: absense, of: reading, every: 1m}",
        "{name: b, kind: deadline, after: x, expect: y, within: 0s, severity: urgent, colour: red}",
        "{name: c, kind: composite, all_of: [d]}",
        "{name: d, kind: absence, of: reading, every: 1m, suppressed_by: [c, nobody]}",
        "{name: a, kind: absence, of: reading, every: 1m}",
        "{name: fine, kind: threshold, of: reading, above: warm}",
    )
    assert [each.split(": ")[:2] for each in found] == [
        [f"edgeq.yaml:{FIRST_LINE + line}", path]
        for line, path in (
            (1, "contracts[1].kind"),
            (2, "contracts[2].within"),
            (2, "contracts[2].severity"),
            (2, "contracts[2].colour"),
            (3, "contracts[3].all_of[0]"),
            (4, "contracts[4].suppressed_by[1]"),
            (5, "contracts[5].name"),
            (6, "contracts[6].above"),
            (6, "contracts[6].name"),
        )
    ]
    assert "must not look at itself: c -> d -> c" in found[4]


def test_two_contracts_of_one_name_in_two_files(edgeq: Edgeq) -> None:
    Path("edgeq.yaml").write_text(BASE + "  - {name: a, kind: absence, of: reading, every: 1m}\n")
    Path("conf.d").mkdir()
    Path("conf.d/more.yaml").write_text("contracts:\n  - {name: a, kind: stuck, of: reading, for: 1m}\n")
    done = edgeq("check")
    assert done.status == 78
    assert done.err.splitlines()[0] == (
        "edgeq: conf.d/more.yaml:2: contracts[1].name: there is another contract 'a' (at edgeq.yaml:6)"
    )


def test_a_name_that_reads_as_a_number_is_a_name(edgeq: Edgeq) -> None:
    Path("edgeq.yaml").write_text(
        BASE + "  - {name: 5, kind: absence, of: reading, every: 1m}\n  - {name: c, kind: composite, any_of: [5]}\n"
    )
    assert edgeq("check").status == 0


def test_a_subject_pattern_that_matches_nothing_is_a_warning(edgeq: Edgeq) -> None:
    now = Clock().now()
    store(lambda tx: events.append(tx, [NewEvent("reading", now, now, "fridge-1", "sensors/fridge-1")]))
    Path("edgeq.yaml").write_text(BASE + '  - {name: a, kind: absence, of: reading, subject: "f-*", every: 1m}\n')
    done = edgeq("check")
    assert done.status == 0
    assert "edgeq.yaml:6: contracts[0].subject: 'f-*' fits no subject of reading" in done.err


# At run time

RUNNING = """\
gateway: g
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db, durability: normal}}
routes:
  - {{topic: "sensors/{{device}}", emit: reading, subject: "{{device}}"}}
contracts:
  - {{name: warm, kind: threshold, of: reading, above: 5}}
  - {{name: byid, kind: absence, of: reading, every: 1h, by: data.id}}
  - {{name: closes, kind: deadline, after: opened, expect: closed, within: 1h}}
"""
BAD = (
    '{"value": "hot"}',
    '{"value": null}',
    "{}",
    "[1, 2]",
    '"text"',
    "null",
    '{"value": {"a": [1e300]}}',
    '{"id": []}',
)
DOORS = 10_000


@pytest.fixture
def appliance(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    """One that isn't started yet."""
    made = Appliance(tmp_path / "edgeq", RUNNING.format(url=broker.url))
    yield made
    made.kill()


def test_events_that_no_contract_expects_are_skipped_counted_and_explained(appliance: Appliance) -> None:
    appliance.start()
    for data in (*BAD, '{"value": 9, "id": 5}'):
        assert appliance.cli("emit", "reading", "--subject", "s", "--data", data).returncode == 0

    def skipped() -> dict[str, Any]:
        return {each["contract"]: each.get("skipped") for each in appliance.status().get("contracts", [])}

    def violated() -> bool:
        return bool(appliance.sql("SELECT 1 FROM contract_states WHERE contract = 'warm' AND state = 'violated'"))

    appliance.until(violated, "the event that can be judged")
    counts = {"warm": {"missing_field": 5, "not_a_number": 3}, "byid": {"missing_field": 8}}
    appliance.until(lambda: skipped() == counts, "the others to be counted")
    assert not appliance.sql("SELECT 1 FROM dead_letters")
    found = json.loads(appliance.cli("contracts", "explain", "warm", "s", "--json").stdout)
    assert found["state"] == "violated"
    assert found["skipped"] == {"missing_field": 5, "not_a_number": 3}
    reasons = [reason for each in found["events"] for reason in each["reasons"]]
    assert sorted(reasons) == ["missing_field"] * 5 + ["not_a_number"] * 3
    text = appliance.cli("contracts", "explain", "byid").stdout
    assert "8 missing_field since the start, the last one event 8 of s" in text
    assert "Traceback" not in appliance.log


def test_ten_thousand_open_deadlines(appliance: Appliance) -> None:
    appliance.command = (*appliance.command, "--once")
    appliance.spawn()
    assert appliance.ended() == 0
    now = Clock().now()
    then = now - 30 * 60_000_000
    with closing(sqlite3.connect(appliance.database)) as connection, connection:
        connection.executemany(
            "INSERT INTO events (type, subject, data, tags, description, occurred_at, recorded_at) "
            "VALUES ('opened', ?, '{}', '[]', '', ?, ?)",
            [(f"door-{number}", then, then) for number in range(DOORS)],
        )
    appliance.spawn()
    assert appliance.ended() == 0
    (overall,) = [
        each for line in appliance.cli("contracts", "list", "--json").stdout.splitlines()
        if (each := json.loads(line))["contract"] == "closes"
    ]  # fmt: skip
    assert (overall["states"], overall["deadline_at"]) == ({"pending": DOORS}, then + 60 * 60_000_000)
    assert len(appliance.cli("contracts", "list", "closes").stdout.splitlines()) == DOORS + 1
    text = appliance.cli("contracts", "explain", "closes").stdout
    assert f"and {DOORS - 20} more: edgeq contracts list closes" in text
    found = json.loads(appliance.cli("contracts", "explain", "closes", "door-777", "--json").stdout)
    assert (found["state"], found["cure"]) == ("pending", "closed of door-777")
    assert "Traceback" not in appliance.log
