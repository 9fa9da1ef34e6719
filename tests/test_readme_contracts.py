"""docs/contracts.md: every block and line, in one folder and in its order; and what it claims is true."""

from __future__ import annotations

import re
import time
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml
from support.commands import Edgeq, commands
from support.contracts import contracts_of
from support.mosquitto import free_port
from support.readme import PAGES, ROOT, Terminals, code, files, followed, printed, section, shows, steps, table

from edgeq.contracts import KINDS, Contract, conditions, count, deadline, limits, rate, requires, stuck, turn, watch
from edgeq.contracts.instance import Shown, Verdict
from edgeq.contracts.keys import Keys
from edgeq.contracts.verdict_event import TAGS, build
from edgeq.events import from_json
from edgeq.imports import load_class

CONTRACTS = followed(PAGES["docs/contracts.md"])
CLASSES = {kind: load_class(name, Contract) for kind, name in KINDS.items()}
FILES = {name: text for name, text in files(CONTRACTS).items() if name.startswith("conf.d/") and "typo" not in name}
WRITTEN = {each["name"]: each for text in FILES.values() for each in yaml.safe_load(text)["contracts"]}

# Every line that the reader types, and what it must show beside what the page prints below it.
TYPED = [
    ("edgeq check", ["contracts   9: freezer-reports, warm-and-open"]),
    ("edgeq run", []),
    ("edgeq emit temperature.reading --subject freezer-1 --data '{\"value\": -14.5}'", []),
    ("edgeq emit door.opened --subject north", []),
    ("edgeq emit badge.read --subject vault", []),
    ("edgeq emit vault.opened --subject vault", []),
    ("edgeq contracts list", []),
    ("edgeq contracts explain vault-by-badge vault", []),
    ("edgeq contracts replay stricter.yaml --since 7d", []),
    ("edgeq check", ["contracts   10: "]),
    ("edgeq contracts test tests", ["2 passed, 0 failed"]),
    ("sed -i 's/at: 15m/at: 10m/' tests/freezer.yaml", []),
    ("edgeq contracts test tests", []),
    ("sed -i 's/above: -15/above: -14/' conf.d/threshold.yaml", []),
    ("rm conf.d/requires.yaml conf.d/typo.yaml", []),
    ("edgeq reload", []),
    ("edgeq events list --type contract.resolved", ['"contract":"vault-by-badge"', '"reason":"removed"']),
]
LOGGED = [
    "contract freezer-cold was changed: one of its states is kept",
    "contract vault-by-badge was removed: one of its states is closed",
]


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


@pytest.mark.timeout(600)  # it types a dozen commands, and looks again at some
def test_it_works_as_it_is_written(terminals: Terminals) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    blocks, port = printed(CONTRACTS), str(free_port())
    for number, ((line, note), (expected, shown)) in enumerate(
        zip(steps(CONTRACTS, terminals.folder), TYPED, strict=True)
    ):
        assert line == expected
        if number == 0:
            configuration = terminals.folder / "edgeq.yaml"
            configuration.write_text(configuration.read_text().replace("18831", port))
        see(terminals, line, shown, blocks.pop(number, ""), 1 if note == "status=1" else 0)
    assert blocks == {}
    for text in LOGGED:
        terminals.wait_for(text)


def see(terminals: Terminals, line: str, shown: list[str], block: str, status: int) -> None:
    """Type a line, and look again until it shows all of that: what is emitted isn't judged at once."""
    deadline = time.monotonic() + 30
    while True:
        out = terminals.type(line, status=status)
        if all(text in out for text in shown) and shows(terminals.complaints + out, block):
            return
        assert time.monotonic() < deadline, f"{line}\n{terminals.complaints}{out}"
        time.sleep(0.1)


# What violates and what resolves, for each contract of the page

READING = "type: temperature.reading, subject: freezer-1"
CLAIMS = {
    "freezer-reports": f"""
  - name: more than eleven minutes old; exactly is in time; one that was never heard of
    events:
      - {{at: 0s, {READING}}}
      - {{at: 11m, {READING}}}
      - {{at: 23m, {READING}, occurred_at: 11m30s}}
      - {{at: 24m, {READING}}}
    expect:
      - {{at: 11m, verdict: violated, subject: freezer-2}}
      - {{at: 22m, verdict: violated, subject: freezer-1}}
      - {{at: 24m, verdict: resolved, subject: freezer-1}}
""",
    "door-closes": """
  - name: exactly in time, and one that closes two
    events:
      - {at: 0s, type: door.opened, subject: north}
      - {at: 5m, type: door.closed, subject: north}
      - {at: 10m, type: door.opened, subject: north}
      - {at: 14m, type: door.opened, subject: north}
      - {at: 17m, type: door.closed, subject: north}
    expect:
      - {at: 15m, verdict: violated, since: 15m}
      - {at: 17m, verdict: resolved, late_by: 2m}
    states:
      - {at: 17m, subject: north, state: ok}
""",
    "freezer-cold": f"""
  - name: without a break, and until it is beyond the other limit
    events:
      - {{every: 5m, {READING}, values: [-14, -15, -14, -14, -14, -16, -17]}}
    expect:
      - {{at: 20m, verdict: violated, message: freezer-1 is at -14 degrees}}
      - {{at: 30m, verdict: resolved}}
""",
    "door-not-busy": """
  - name: one too many within the hour, until enough are too old
    until: 3h
    events:
      - {every: 1m, until: 20m, type: door.opened, subject: north}
    expect:
      - {at: 20m, verdict: violated, observed: 21}
      - {at: 1h, verdict: resolved}

  - name: one that is an hour old doesn't count
    until: 3h
    events:
      - {every: 3m, until: 2h, type: door.opened, subject: north}
""",
    "store-cleaned": """
  - name: the first week isn't judged, the second one is good, the third isn't
    start: 2026-01-07T00:00:00+01:00
    until: 2026-01-30T00:00:00+01:00
    events:
      - {at: 2026-01-07T11:00:00Z, type: store.cleaned, subject: store}
      - {every: 1d, from: 2026-01-12T11:00:00Z, until: 2026-01-14T11:00:00Z, type: store.cleaned, subject: store}
      - {every: 1d, from: 2026-01-26T11:00:00Z, until: 2026-01-28T11:00:00Z, type: store.cleaned, subject: store}
    expect:
      - {at: 2026-01-26T00:00:00+01:00, verdict: violated, observed: {met: 1, missed: 1, streak: 0, best: 1}}
      - {at: 2026-01-28T11:00:00Z, verdict: resolved}
""",
    "sensor-lives": f"""
  - name: less than the change is none, and silence isn't either
    until: 9h
    events:
      - {{every: 1h, {READING}, values: [20, 20.05, 20.09, 20.1]}}
      - {{at: 8h, {READING}, data: {{value: 20.1}}}}
    expect:
      - {{at: 2h, verdict: violated}}
      - {{at: 3h, verdict: resolved}}
""",
    "delivery-signed": """
  - name: not complete in time, and at last
    until: 3h
    events:
      - {at: 0s, type: delivery.announced, subject: gate}
      - {at: 10m, type: delivery.weighed, subject: gate, data: {gross: 0}}
      - {at: 20m, type: delivery.signed, subject: gate}
      - {at: 61m, type: delivery.weighed, subject: gate, data: {gross: 900}}
      - {at: 62m, type: delivery.signed, subject: gate}
    expect:
      - {at: 1h, verdict: violated}
      - {at: 62m, verdict: resolved, late_by: 2m}

  - name: exactly in time
    until: 3h
    events:
      - {at: 0s, type: delivery.announced, subject: gate}
      - {at: 20m, type: door.opened, subject: gate}
      - {at: 30m, type: delivery.weighed, subject: gate, data: {gross: 900}}
      - {at: 1h, type: delivery.signed, subject: gate}
""",
    "vault-by-badge": """
  - name: without, with, and after too long
    events:
      - {at: 0s, type: badge.read, subject: vault}
      - {at: 1m, type: vault.opened, subject: vault}
      - {at: 2m, type: alarm.off, subject: vault}
      - {at: 10m, type: vault.opened, subject: vault}
      - {at: 11m, type: vault.opened, subject: vault}
      - {at: 12m, type: alarm.on, subject: vault}
      - {at: 13m, type: badge.read, subject: vault}
      - {at: 14m, type: alarm.off, subject: vault}
      - {at: 15m, type: vault.opened, subject: vault}
    expect:
      - {at: 1m, verdict: violated, observed: no alarm.off since alarm.on}
      - {at: 10m, verdict: resolved}
      - {at: 11m, verdict: violated, observed: no badge.read within 10m}
      - {at: 15m, verdict: resolved}
""",
    "warm-and-open": f"""
  - name: both, for long enough, whoever they are about
    events:
      - {{at: 0s, {READING}, data: {{value: -10}}}}
      - {{at: 9m, type: door.opened, subject: north}}
      - {{at: 18m, {READING}, data: {{value: -10}}}}
      - {{at: 19m, type: door.closed, subject: north}}
    expect:
      - {{at: 10m, verdict: violated, contract: freezer-cold, subject: freezer-1}}
      - {{at: 14m, verdict: violated, contract: door-closes, subject: north}}
      - {{at: 16m, verdict: violated, contract: warm-and-open, subject: ""}}
      - {{at: 19m, verdict: resolved, contract: warm-and-open, subject: ""}}
      - {{at: 19m, verdict: resolved, contract: door-closes, subject: north}}
""",
}


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    """Calls commands in a folder with the page's files."""
    (tmp_path / "conf.d").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    yield from commands(files(CONTRACTS)["edgeq.yaml"], tmp_path, monkeypatch, capsys)


def test_each_kind_has_its_example() -> None:
    told = re.findall(r"^\*\*(\w+)\*\*: ", section("## The kinds", CONTRACTS), re.MULTILINE)
    assert sorted(told) == sorted(KINDS)
    assert [each["kind"] for each in WRITTEN.values()] == told
    assert set(CLAIMS) == set(WRITTEN)


@pytest.mark.parametrize("name", CLAIMS)
def test_the_example_says_what_the_text_says(edgeq: Edgeq, name: str) -> None:
    parts = ["freezer-cold", "door-closes"] if name == "warm-and-open" else []
    Path("claims.yaml").write_text(f"config: edgeq.yaml\nonly: [{', '.join([name, *parts])}]\ntests:\n{CLAIMS[name]}")
    done = edgeq("contracts", "test", "claims.yaml")
    assert done.status == 0, done.out + done.err


# The same for what the text says beside the examples: keys, events as `TIME TYPE` or `TIME TYPE VALUE`, and verdicts.
VARIANTS = [
    ("deadline, after: a, expect: b, within: 1m, by: data.v", "0s a 1, 1s a 2, 2s b 2", "1m violated"),
    ("threshold, of: a, field: v, above: 8, below: 2", "0s a 2, 1s a 1, 2s a 8", "1s violated, 2s resolved"),
    ("threshold, of: a, field: v, between: [2, 8]", "0s a 1, 1s a 2, 2s a 9", "1s violated, 2s resolved"),
    ("threshold, of: a, field: v, equals: open", "0s a open, 1s a shut", "0s violated, 1s resolved"),
    (
        "threshold, of: a, field: v, above: 8, gap: 1h, on_gap: unknown",
        "0s a 1, 1h a 1, 3h30m a 1", "2h unknown, 3h30m resolved",
    ),
    (
        "threshold, of: a, field: v, above: 8, for: 30m, gap: 10m, on_gap: reset",
        "0s a 9, 5m a 9, 20m a 9, 29m a 9, 38m a 9, 47m a 9", "50m violated",
    ),
    ("rate, of: a, fewer_than: 2, within: 2h", "0s a, 1h a, 3h30m a, 3h40m a", "2h violated, 3h40m resolved"),
    ("rate, of: a, fewer_than: 1, within: 2h, known: [s]", "3h a", "2h violated, 3h resolved"),
    ("count, of: a, at_most: 1, per: hour", "5m a, 10m a", "10m violated, 1h resolved"),
    ("count, of: a, at_least: 1, per: hour, known: [s]", "3h30m a", "1h violated, 3h30m resolved"),
    ("sequence, steps: [a, b], within: 9m, must: not_happen", "0s a, 9m b, 1h a, 71m b", "9m violated, 18m resolved"),
    (
        "sequence, steps: [a, b], within: 10m, must: not_happen, clear_after: 1m",
        "0s a, 10m b", "10m violated, 11m resolved",
    ),
    ("requires, of: b, if: {of: a, within: 10m, after: 5s}", "0s b, 5s a, 20m b, 21m a", "20m5s violated"),
    ("requires, of: b, if: {of: a}, clear_after: 1h", "0s b", "0s violated, 1h resolved"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "events", "expected"), VARIANTS, ids=[each[0] for each in VARIANTS])
def test_what_else_is_said_of_the_kinds(edgeq: Edgeq, keys: str, events: str, expected: str) -> None:
    kind, _, rest = keys.partition(", ")
    said = [each.split() for each in events.split(", ")]
    test = {
        "name": "t",
        "until": "3h59m",
        "events": [
            {"at": at, "type": type_, "subject": "s", "data": {"v": yaml.safe_load(*value)} if value else {}}
            for at, type_, *value in said
        ],
        "expect": [dict(zip(("at", "verdict"), each.split(), strict=True)) for each in expected.split(", ")],
    }
    contract = {"name": "c", "kind": kind, **yaml.safe_load(f"{{{rest}}}")}
    Path("t.yaml").write_text(yaml.safe_dump({"contracts": [contract], "tests": [test]}))
    done = edgeq("contracts", "test", "t.yaml")
    assert done.status == 0, done.out + done.err


def test_every_key_of_every_kind_is_told() -> None:
    text = section("## The kinds", CONTRACTS)
    for kind, contract in CLASSES.items():
        own = {field.encode_name for field in msgspec.structs.fields(contract.keys_type)} - set(names(Keys))
        part = text[text.index(f"**{kind}**") :].partition("\n\n**")[0]
        assert {key for key in own if not re.search(rf"\b{key}\b", part)} == set(), kind


@pytest.mark.parametrize("row", table(section("## The kinds", CONTRACTS)), ids=lambda row: row[0])
def test_each_form_of_a_condition_is_one(row: list[str]) -> None:
    for form in code(row[0]):
        contracts_of({"name": "vault", "kind": "requires", "of": "vault.opened", "if": yaml.safe_load(form)})


# The tables


def names(keys: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(keys)]


def test_the_keys_for_all_kinds_are_those_of_the_table() -> None:
    rows = table(section("## Keys for all kinds", CONTRACTS))
    told = {name: code(default) for cell, default, _ in rows for name in code(cell)}
    assert list(told) == names(Keys)
    for field in msgspec.structs.fields(Keys):
        written, default = told[field.encode_name], field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if field.required:
            assert rows[0][1] == "required"
        elif written:
            assert str(yaml.safe_load(written[0])) == str(default)
        else:
            assert not default


@pytest.mark.parametrize(
    ("key", "index"), [("where", 0), ("by", 0), ("active", 0), ("suppressed_by", 0), ("flapping", 0)]
)
def test_the_values_in_the_table_are_possible(key: str, index: int) -> None:
    meanings = {code(cell)[0]: meaning for cell, _, meaning in table(section("## Keys for all kinds", CONTRACTS))}
    value = yaml.safe_load(code(meanings[key])[index])
    keys = {"where": {"field": value}}.get(key, value)
    contracts_of({**WRITTEN["freezer-reports"], "known": [], key: keys})


def test_the_states_are_those_of_the_table() -> None:
    assert [code(state)[0] for state, _ in table(section("## States and events", CONTRACTS))] == list(get_args(Shown))


def test_the_fields_of_the_events_are_those_of_the_table() -> None:
    text = section("## States and events", CONTRACTS)
    rows = table(text[text.index("Their data:") :])
    told = [name for cell, _ in rows for name in code(cell)]
    verdict = Verdict(what="resolved", at=2, since=1, late_by_seconds=1.0, reason="link", reminder=1)
    made = build("c", "absence", "warning", "s", verdict, "message", 3)
    assert sorted(told) == sorted(from_json(made.data_json))
    assert made.tags == TAGS == ("contract", "notification")
    whats = get_args(typing.get_type_hints(Verdict)["what"])
    assert set(code(text)) >= {f"contract.{what}" for what in whats}


def test_the_reasons_are_all_told() -> None:
    text = section("## States and events", CONTRACTS)
    told = set(code(text[text.index("| `reason` |") :].partition("\n")[0])) - {"reason", "contract.unknown"}
    stations = [ROOT / "edgeq" / name for name in ("contracts/instance.py", "contracts/reporting.py")]
    stations += [ROOT / "edgeq" / name for name in ("contracts/telling.py", "contracts/turn.py")]
    stations += [ROOT / "edgeq" / "processors" / "sentinel.py"]
    source = "".join(map(Path.read_text, stations))
    given = re.findall(r'(?:reason(?:: str)? ?= ?|close\(row, )"(\w+)"(?: if .* else "(\w+)")?', source)
    assert told == {word for pair in given for word in pair if word}


# What becomes of states

CHANGES: list[tuple[str, Mapping[str, Any], bool]] = [
    ("freezer-reports", {"every": "1h", "grace": "0s", "known": [], "severity": "info"}, True),
    ("freezer-reports", {"of": "humidity.reading"}, False),
    ("freezer-reports", {"where": {"unit": "C"}}, False),
    ("freezer-reports", {"by": "data.unit", "known": []}, False),
    ("door-closes", {"within": "1h"}, True),
    ("freezer-cold", {"above": -10, "for": "1m", "message": ""}, True),
    ("freezer-cold", {"field": "celsius"}, False),
    ("door-not-busy", {"more_than": 5}, False),
    ("door-not-busy", {"within": "2h"}, False),
    ("store-cleaned", {"at_least": 2}, True),
    ("store-cleaned", {"per": "month"}, False),
    ("store-cleaned", {"timezone": "UTC"}, False),
    ("sensor-lives", {"for": "3h"}, False),
    ("sensor-lives", {"change": 1}, False),
    ("delivery-signed", {"within": "2h"}, True),
    ("delivery-signed", {"steps": ["delivery.announced", "delivery.signed"]}, False),
    ("vault-by-badge", {"clear_after": "1h"}, True),
    ("vault-by-badge", {"if": {"of": "badge.read", "within": "10m"}}, False),
    ("warm-and-open", {"for": "1h"}, True),
    ("warm-and-open", {"over": "subjects"}, False),
]


@pytest.mark.parametrize(("name", "change", "kept"), CHANGES, ids=lambda value: str(value)[:40])
def test_which_changes_keep_the_states(name: str, change: Mapping[str, Any], kept: bool) -> None:
    others = [each for key, each in WRITTEN.items() if key in ("freezer-cold", "door-closes") and key != name]
    before, *_ = contracts_of(WRITTEN[name], *others)
    after, *_ = contracts_of({**WRITTEN[name], **change}, *others)
    assert (before.meaning_id == after.meaning_id) is kept


# Figures


@pytest.mark.parametrize(
    ("title", "text", "true"),
    [
        ("## Time", "until five seconds after its backlog", watch.SETTLE_SECONDS == 5.0),
        ("## Time", "after 30 seconds without a session", watch.LINK_SECONDS == 30.0),
        ("## What they are not", "at most 100,000 subjects, over all contracts", turn.INSTANCES_MAX == 100_000),
        ("## What they are not", "those of the last `lateness`, 1,000 at most", deadline.OPEN_MAX == 1000),
        ("## What they are not", "`rate` counts to 10,000", rate.EVENTS_MAX == 10_000),
        ("## What they are not", "at most 50 conditions", requires.LEAVES_MAX == 50),
        ("## What they are not", "that count to 1,000 together", conditions.COUNT_MAX == 1000),
        ("## What they are not", "100 events that wait", requires.WAITING_MAX == 100),
        ("## What they are not", "100 periods that aren't judged yet", count.SPANS_MAX == 100),
        ("## What they are not", "1,000 characters", stuck.TEXT_CHARS_MAX == limits.TEXT_CHARS_MAX == 1000),
    ],
)  # fmt: skip
def test_the_figures_in_the_text_are_true(title: str, text: str, true: bool) -> None:
    assert text in " ".join(section(title, CONTRACTS).split())
    assert true


def test_which_kinds_put_late_events_where_they_belong() -> None:
    text = " ".join(section("## Time", CONTRACTS).split())
    told = code(text[text.index("put where it belongs by") :].partition(";")[0])
    assert sorted(told) == sorted(kind for kind, contract in CLASSES.items() if contract.takes_late)


def test_the_examples_are_as_many_as_it_says() -> None:
    assert "has more than thirty from daily life" in CONTRACTS
    assert len(list((ROOT / "config/examples/contracts").glob("*.yaml"))) > 30
