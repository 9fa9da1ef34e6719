"""Unit tests of contracts: the examples that are shipped, what a test that fails says, and what is wrong with files."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec
import pytest
from support.commands import Done, Edgeq, commands

from edgeq.config.load import load_file
from edgeq.contracts import KINDS
from edgeq.contracts.keys import Keys
from edgeq.contracts.scenario import load_scenarios
from edgeq.contracts.scenario_keys import EventKeys, ExpectedKeys, ScenarioFile, ScenarioKeys, StateKeys

FOLDER = Path(__file__).parent.parent / "config" / "examples" / "contracts"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))

DOORS = """\
contracts:
  - {name: closes, kind: deadline, after: door.opened, expect: door.closed, within: 5m}
tests:
  - name: left open
"""


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    """Calls commands in a folder without a store."""
    yield from commands("gateway: g\n", tmp_path, monkeypatch, capsys)


def run(edgeq: Edgeq, text: str, *words: str) -> Done:
    """Run the tests in a file `t.yaml` with this text."""
    Path("t.yaml").write_text(text)
    return edgeq("contracts", "test", "t.yaml", *words)


def doors(text: str) -> str:
    """A file with a contract about doors, and a test with these keys."""
    return DOORS + "".join(f"    {line}\n" for line in dedent(text).strip().splitlines())


# The examples


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_passes(edgeq: Edgeq, path: Path) -> None:
    done = edgeq("contracts", "test", str(path))
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed \(1 file\)\n", done.out)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_notices_what_is_wrong(edgeq: Edgeq, path: Path, tmp_path: Path) -> None:
    """Without what it expects, each test that expects something fails."""
    text = re.sub(r"(?m)^    (expect|states):\n(      .*\n)+", "", path.read_text())
    text = re.sub(r"(?m)^    complete: false.*\n", "", text)
    text = text.replace("config: ../", f"config: {FOLDER.parent}/")
    scenarios = load_scenarios(path)
    Path("t.yaml").write_text(text)
    found = [json.loads(line) for line in edgeq("contracts", "test", "t.yaml", "--json").out.splitlines()]
    assert len(found) == len(scenarios)
    assert all(not each["passed"] for each, scenario in zip(found, scenarios, strict=True) if scenario.expected)
    assert any(scenario.expected for scenario in scenarios)


def test_there_are_thirty_and_all_can_be_run_at_once(edgeq: Edgeq) -> None:
    assert len(EXAMPLES) >= 30
    done = edgeq("contracts", "test", str(FOLDER))
    assert done.status == 0
    assert done.out.endswith(f" passed, 0 failed ({len(EXAMPLES)} files)\n")


def test_the_examples_show_every_kind_and_every_key() -> None:
    kinds, keys = set(), set()
    for path in EXAMPLES:
        read, problems = load_file(path, ScenarioFile)
        assert read is not None
        assert problems == []
        for section in read.contracts:
            kinds.add(section.data["kind"])
            keys |= set(section.data)
    assert kinds == set(KINDS)
    assert {field.encode_name for field in msgspec.structs.fields(Keys)} - keys == {"description"}
    text = "".join(path.read_text() for path in EXAMPLES)
    records = (ScenarioFile, ScenarioKeys, EventKeys, ExpectedKeys, StateKeys)
    fields = {field.encode_name for record in records for field in msgspec.structs.fields(record)}
    assert {name for name in fields if not re.search(rf"(?m)(^ *|- |{{|, ){name}: ?", text)} == set()


def test_every_example_says_what_it_is_for() -> None:
    for path in EXAMPLES:
        assert path.read_text().startswith("# "), path


def test_the_example_in_the_help_passes(edgeq: Edgeq) -> None:
    text = edgeq("contracts", "test", "--help").out
    found = re.search(r"(?m)^  contracts:\n(  .*\n)+?(?=\n)", text)
    assert found is not None
    assert run(edgeq, dedent(found[0])).out == "1 passed, 0 failed (1 file)\n"


# A test that fails


def test_a_verdict_that_does_not_come(edgeq: Edgeq) -> None:
    done = run(
        edgeq,
        doors("""
        until: 8m
        events:
          - {at: 4m, type: door.opened, subject: north}
        expect:
          - {at: 7m, verdict: violated, subject: north}
    """),
    )
    assert (done.status, done.err) == (1, "")
    assert done.out == (
        "FAILED t.yaml:4: left open\n"
        "      expected                   got\n"
        "    - 7m violated closes north   nothing\n"
        "        expected at t.yaml:9\n"
        "        in the end closes north is pending, due at 9m\n"
        "\n"
        "0 passed, 1 failed (1 file)\n"
    )


def test_a_verdict_that_was_not_expected(edgeq: Edgeq) -> None:
    done = run(
        edgeq,
        doors("""
        until: 8m
        events:
          - {at: 1m30s, type: door.opened, subject: north}
    """),
    )
    assert done.status == 1
    assert done.out.splitlines()[1:5] == [
        "      expected   got",
        "    + nothing    6m30s violated closes north",
        "        because of door.opened north at 1m30s (t.yaml:7)",
        "        says: north no door.closed within 5m of door.opened",
    ]


def test_a_verdict_at_another_time_and_with_other_words(edgeq: Edgeq) -> None:
    done = run(
        edgeq,
        doors("""
        events:
          - {at: 0s, type: door.opened, subject: north}
          - {at: 7m, type: door.closed, subject: north}
        expect:
          - {at: 5m, verdict: violated, subject: north, severity: critical, episode: 2}
          - {at: 6m, verdict: resolved, late_by: 1m, message: "*early"}
    """),
    )
    assert done.status == 1
    assert done.out.splitlines()[1:8] == [
        "      expected                                                 got",
        "    ! 5m violated closes north, severity critical, episode 2   5m violated closes north, severity warning, "
        "episode 1",
        "        expected at t.yaml:9",
        "        because of door.opened north at 0s (t.yaml:6)",
        "    ! 6m resolved closes, message *early, late_by 1m           7m resolved closes north, message north "
        "resolved, 2m late, late_by 2m",
        "        expected at t.yaml:10",
        "        because of door.closed north at 7m (t.yaml:7)",
    ]


def test_what_is_right_stands_beside_what_is_wrong(edgeq: Edgeq) -> None:
    done = run(
        edgeq,
        doors("""
        events:
          - {at: 0s, type: door.opened, subject: north}
          - {at: 7m, type: door.closed, subject: north}
        expect:
          - {at: 5m, verdict: violated}
    """),
    )
    assert done.out.splitlines()[2:4] == [
        "      5m violated closes   5m violated closes north", "    + nothing              7m resolved closes north",
    ]  # fmt: skip


def test_a_contract_that_stands_otherwise(edgeq: Edgeq) -> None:
    done = run(
        edgeq,
        doors("""
        events:
          - {at: 0s, type: door.opened, subject: north}
        states:
          - {at: 4m59s, subject: north, state: ok}
          - {at: 3m, subject: north, state: pending}
          - {at: 1m, subject: south, state: ok}
    """),
    )
    assert (done.status, done.out.splitlines()[1:3]) == (
        1,
        [
            "    ! 1m closes south is none, expected ok (t.yaml:10)",
            "    ! 4m59s closes north is pending, expected ok (t.yaml:8)",
        ],
    )


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        ("{at: 0s, type: door.open, subject: north}",
         "closes looks at events of type door.opened, door.closed; did you mean 'door.open'?"),
        ("{at: 0s, link: down}", "closes looks at events of type door.opened, door.closed; nothing happens"),
        ("{at: 0s, type: door.opened, subject: norht}", "closes has no subject 'north'; did you mean 'norht'?"),
        ("{at: 0s, type: door.closed, subject: north}", "in the end closes north is ok"),
    ],
)  # fmt: skip
def test_a_hint_at_what_may_be_wrong(edgeq: Edgeq, happens: str, says: str) -> None:
    done = run(
        edgeq,
        doors(f"""
        until: 5m
        events:
          - {happens}
        expect:
          - {{at: 5m, verdict: violated, subject: north}}
    """),
    )
    assert done.status == 1
    assert f"        {says}\n" in done.out


def test_events_that_were_skipped_are_told_of(edgeq: Edgeq) -> None:
    done = run(
        edgeq,
        """\
contracts: [{name: hot, kind: threshold, of: reading, above: 5}]
tests:
  - name: it says nothing
    events:
      - {every: 1s, type: reading, subject: a, values: [warm, 3]}
      - {every: 1s, from: 1m, until: 1m20s, type: reading, subject: a}
    expect: [{at: 0s, verdict: violated}]
""",
    )
    assert done.status == 1
    assert '      skipped by hot as not_a_number: reading a at 0s {"value":"warm"} (t.yaml:5)\n' in done.out
    assert done.out.count("as missing_field") == 9
    assert "      and 12 more events were skipped\n" in done.out


def test_times_of_the_calendar_are_told_so(edgeq: Edgeq) -> None:
    text = doors("""
        start: 2026-03-29T00:00
        until: 2026-03-29T04:00
        events:
          - {at: 2026-03-29T01:57:00.5, type: door.opened, subject: north}
    """)
    done = run(edgeq, f"timezone: Europe/Berlin\n{text}")
    assert "    + nothing    2026-03-29T03:02:00.5+02:00 violated closes north\n" in done.out


def test_what_else_comes_may_be_left_out(edgeq: Edgeq) -> None:
    text = doors("""
        complete: false
        events:
          - {at: 0s, type: door.opened, subject: north}
          - {at: 7m, type: door.closed, subject: north}
        expect:
          - {at: 7m, verdict: resolved}
    """)
    assert run(edgeq, text).status == 0
    assert run(edgeq, text.replace("at: 7m, verdict", "at: 8m, verdict")).status == 1


def test_json_says_the_same(edgeq: Edgeq) -> None:
    done = run(
        edgeq,
        doors("""
        events:
          - {at: 0s, type: door.opened, subject: north}
        expect:
          - {at: 6m, verdict: violated, late_by: 1m}
          - {at: 7m, verdict: resolved}
        states:
          - {at: 7m, subject: north, state: ok}
    """),
        "--json",
    )
    (result,) = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    first, second = result["differences"]
    assert (result["file"], result["test"], result["passed"]) == ("t.yaml", "left open", False)
    assert (first["expected"]["at"], first["got"]["at"], first["fields"]) == (
        "2026-01-05T00:06:00.000Z", "2026-01-05T00:05:00.000Z", ["at", "late_by"],
    )  # fmt: skip
    assert (first["expected"]["place"], first["got"]["cause"]) == ("t.yaml:8", 1)
    assert (second["got"], second["fields"]) == (None, [])
    assert second["expected"] == {
        "at": "2026-01-05T00:07:00.000Z", "verdict": "resolved", "contract": "closes", "place": "t.yaml:9",
    }  # fmt: skip
    assert result["states"] == ["7m closes north is violated, expected ok (t.yaml:11)"]
    assert json.loads(run(edgeq, doors("complete: true"), "--json").out)["passed"] is True


def test_a_test_may_find_the_same_verdict_twice(edgeq: Edgeq) -> None:
    """Each expected verdict takes one that came, the most precise one first."""
    text = doors("""
        until: 6m
        events:
          - {at: 0s, type: door.opened, subject: north}
          - {at: 0s, type: door.opened, subject: south}
        expect:
          - {at: 5m, verdict: violated}
          - {at: 5m, verdict: violated, subject: north}
    """)
    assert run(edgeq, text).status == 0
    assert run(edgeq, text + "      - {at: 5m, verdict: violated, subject: north}\n").status == 1


def test_the_zone_of_the_machine_is_that_of_the_file(edgeq: Edgeq, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """\
contracts: [{name: some, kind: count, of: x, at_most: 0, per: day}]
tests:
  - name: until midnight
    start: 2026-05-05T12:00:00Z
    until: 1d
    events: [{at: 0s, type: x}]
    expect:
      - {at: 0s, verdict: violated}
      - {at: MIDNIGHT, verdict: resolved}
"""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert run(edgeq, text.replace("MIDNIGHT", "12h")).status == 0
    assert run(edgeq, "timezone: America/New_York\n" + text.replace("MIDNIGHT", "16h")).status == 0


# Files that are wrong

WRONG: list[tuple[str, list[str]]] = [
    (DOORS + "    evnts: []\n", ["t.yaml:5: tests[0].evnts: unknown key (did you mean 'events'?)"]),
    (DOORS.replace("kind: deadline", "kind: deadlin"), ["contracts[0].kind: there is no such kind", "'deadline'?"]),
    (DOORS.replace("within: 5m", "within: 5"), ["t.yaml:2: contracts[0].within: 5 has no unit"]),
    (DOORS + "    start: today\n    until: soon\n", [
        "t.yaml:5: tests[0].start: must be a date such as", "t.yaml:6: tests[0].until: must be a time since the start",
    ]),
    ("tests: [{name: a}]\n", ["t.yaml:1: needs either contracts or config"]),
    ("contracts: [{name: a, kind: absence, of: x, every: 1m}]\n", ["t.yaml:1: tests: is missing"]),
    (DOORS.replace("  - name: left open", "  - {}"), ["t.yaml:4: tests[0].name: is missing"]),
    ("timezone: Europe/Berln\n" + DOORS, ["t.yaml:1: timezone: must be a time zone", "did you mean 'Europe/Berlin'?"]),
    ("only: [closed]\n" + DOORS, ["t.yaml:1: only[0]: there is no contract 'closed' (did you mean 'closes'?)"]),
    (doors("events: [{type: x}]"), ["t.yaml:5: tests[0].events[0]: needs either at or every"]),
    (doors("events: [{at: 1m, every: 1m, type: x}]"), ["events[0].at: needs either at or every"]),
    (doors("events: [{at: 1m}]"), ["events[0].type: is missing"]),
    (doors("events: [{every: 1m, type: x}]"), ["events[0]: a series needs either until or values"]),
    (doors("events: [{every: 1m, until: 1h, values: [1], type: x}]"), ["until: a series needs either until or values"]),
    (doors("events: [{every: 0s, until: 1h, type: x}]"), ["events[0].every: must be"]),
    (doors("events: [{every: 1ms, until: 1h, type: x}]"), ["tests[0].events: there are more than 100000 of them"]),
    (doors("events: [{every: 1m, until: 1h, type: x, occurred_at: 1m}]"), ["occurred_at: isn't for a series"]),
    (doors("events: [{at: 1m, until: 1h, type: x}]"), ["until: is for a series, which has every"]),
    (doors("events: [{every: 1m, values: [1], data: {a: 1}, type: x}]"), ["data: can't be given beside values"]),
    (doors("events: [{at: 1m, link: down, type: x}]"), ["events[0].type: isn't for what becomes of the link"]),
    (doors("events: [{at: 1m, link: dwn}]"), ["events[0].link: must be", "did you mean 'down'?"]),
    (doors("events: [{at: 1m, type: x, data: {a: .nan}}]"), ["events[0].data: can't be the data of an event"]),
    (doors("events: [{at: 2026-01-01, type: x}]"), ["events[0].at: lies before the start of the test"]),
    ("timezone: Asia/Tokyo\n" + doors("start: 0001-01-01"), ["t.yaml:6: tests[0].start: must be a date such as"]),
    ("timezone: Asia/Tokyo\n" + doors("events: [{at: 0001-01-01, type: x}]"), ["events[0].at: must be a date such as"]),
    (doors("expect: [{at: 1m, verdict: violatd}]"), ["expect[0].verdict: must be", "did you mean 'violated'?"]),
    (doors("expect: [{at: 1m, verdict: violated, contract: close}]"), ["no contract 'close' (did you mean 'closes'?)"]),
    (doors("states: [{at: 1m, state: bad}]"), ["states[0].state: must be"]),
    (doors("until: 1m\nexpect: [{at: 2m, verdict: violated}]"), ["until: lies before the last time that the test"]),
    (DOORS.replace("tests:", "  - {name: b, kind: absence, of: x, every: 1m}\ntests:")
     + "    expect: [{at: 1m, verdict: violated}]\n", ["expect[0].contract: is missing: there are several contracts"]),
    ("config: other.yaml\ntests: [{name: a}]\n", ["other.yaml: there is no such file"]),
    ("config: other.yaml\n" + DOORS, ["t.yaml:1: needs either contracts or config"]),
    ("tests: {\n", ["t.yaml:1: isn't YAML"]),
    ("", ["t.yaml:1: needs either contracts or config"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_a_wrong_file_is_told_by_line(edgeq: Edgeq, text: str, says: list[str]) -> None:
    done = run(edgeq, text)
    assert (done.status, done.out) == (78, "")
    for each in says:
        assert each in done.err


def test_all_mistakes_of_all_files_are_told_and_nothing_is_run(edgeq: Edgeq) -> None:
    Path("tests").mkdir()
    Path("tests/right.yaml").write_text(doors("until: 1m"))
    Path("tests/deeper").mkdir()
    Path("tests/deeper/wrong.yaml").write_text(DOORS + "    a: 1\n    b: 2\n")
    done = edgeq("contracts", "test", "tests", "missing.yaml")
    assert (done.status, done.out) == (78, "")
    assert done.err.splitlines() == [
        "edgeq: tests/deeper/wrong.yaml:5: tests[0].a: unknown key (there is: name, start, until, events, expect, "
        "states, complete)",
        "edgeq: tests/deeper/wrong.yaml:6: tests[0].b: unknown key (there is: name, start, until, events, expect, "
        "states, complete)",
        "edgeq: missing.yaml: there is no such file",
        "edgeq: the configuration has 3 mistakes",
    ]


def test_a_folder_without_tests_and_no_file_at_all(edgeq: Edgeq) -> None:
    Path("empty").mkdir()
    done = edgeq("contracts", "test", "empty")
    assert (done.status, done.err.splitlines()[0]) == (78, "edgeq: empty: has no files that end in .yaml in it")
    assert edgeq("contracts", "test").status == 2


def test_a_file_that_one_might_wait_at_for_ever(edgeq: Edgeq) -> None:
    os.mkfifo("pipe.yaml")
    says = "edgeq: pipe.yaml: is not a regular file"
    assert [edgeq("contracts", verb, "pipe.yaml").err.splitlines()[0] for verb in ("test", "replay")] == [says] * 2
    assert edgeq("-c", "pipe.yaml", "check").err.splitlines()[0] == says


def test_series_without_end_are_refused_before_they_are_written_out(edgeq: Edgeq) -> None:
    series = "    - {every: 1us, until: 365d, type: noise}\n"
    tracemalloc.start()
    try:
        done = run(edgeq, doors("") + "    events:\n" + series * 60)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (done.status, "there are more than 100000 of them" in done.err) == (78, True)
    assert used < 100 * 2**20, "of one such series: about 40 MB"


def test_mistakes_elsewhere_in_a_configuration_do_not_matter(edgeq: Edgeq, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration under test need not be able to run on the machine that tests it."""
    contract = DOORS.partition("tests:")[0]
    Path("edgeq.yaml").write_text("mqtt: {password: '${NOT_SET_HERE}'}\nstore: {url: 17}\n" + contract)
    test = "config: edgeq.yaml\ntests: [{name: a, until: 1h}]\n"
    assert run(edgeq, test).status == 0
    Path("edgeq.yaml").write_text(contract.replace("within", "wthin"))
    done = run(edgeq, test)
    assert (done.status, "edgeq.yaml:2: contracts[0].wthin: unknown key" in done.err) == (78, True)


def test_what_a_file_says_reaches_no_terminal_raw(edgeq: Edgeq) -> None:
    hostile: Any = "\x1b]0;owned\x07"
    done = run(
        edgeq,
        doors(f"""
        events:
          - {{at: 0s, type: door.opened, subject: {json.dumps(hostile)}}}
        until: 6m
    """),
    )
    assert done.status == 1
    assert "\x1b" not in done.out
