"""What contracts would have said: the same as they say live, over what is stored, and without touching any of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.appliance import Appliance
from support.commands import Edgeq, commands, store
from support.contracts import contracts_of, event, micro
from support.stores import Database, emptied
from support.watching import Bench, FakeLink

from edgeq.clock import Clock, rfc3339
from edgeq.contracts.replay import Replay, Said
from edgeq.contracts.watch import LINK_SECONDS, SETTLE_SECONDS
from edgeq.events import Event, NewEvent
from edgeq.store import events
from edgeq.testing import FakeClock
from edgeq.testing.clock import NOON

CONTRACTS: list[dict[str, Any]] = [
    {"name": "reports", "kind": "absence", "of": "reading", "every": "10s", "known": ["a", "k"], "remind": "30s"},
    {"name": "closes", "kind": "deadline", "after": "opened", "expect": "closed", "within": "5s"},
    {
        "name": "cold", "kind": "threshold", "of": "reading", "above": 5, "for": "5s", "cooldown": "20s",
        "flapping": {"changes": 4, "within": "40s"},
    },
    {"name": "busy", "kind": "rate", "of": "opened", "more_than": 2, "within": "10s"},
    {"name": "both", "kind": "composite", "any_of": ["reports", "closes"], "for": "3s"},
    {"name": "warm", "kind": "threshold", "of": "reading", "above": 3, "suppressed_by": ["closes", "link"]},
]  # fmt: skip

CONFIGURATION = """\
gateway: g
mqtt: {url: "mqtt://127.0.0.1:1"}
store: {url: edgeq.db}
contracts:
  - {name: cold, kind: threshold, of: reading, above: 5, for: 1m}
  - {name: closes, kind: deadline, after: opened, expect: closed, within: 5m}
"""
MINUTE = 60_000_000


# The same as live

moments_of_time = st.tuples(
    st.sampled_from((0.0, 0.1, 1.0, 4.7, 5.0, 5.3, 12.0, 45.0)),
    st.sampled_from(("reading", "reading", "opened", "closed", "noise")),
    st.sampled_from(("a", "b")),
    st.sampled_from((0, 4, 7, "x")),
    st.sampled_from((0.0, 0.0, 0.0, 2.0, 90.0, -5.0)),
)


async def live(
    database: Database, history: Sequence[tuple[float, str, str, Any, float]]
) -> tuple[list[Event], list[Said]]:
    """What the Sentinel says to a history, and what a replay of the events in its store says."""
    clock = FakeClock(NOON)
    async with database.opened(clock=clock, durability="normal") as made:
        await made.write(emptied)
        bench = await Bench(made, clock).start(*CONTRACTS)
        now = 0.0

        async def pass_time(until: float) -> None:
            while (due := bench.sentinel.due_at()) is not None and due <= micro(until):
                await bench.at((max(due, clock.now()) - NOON) / 1e6)
            await bench.at(until)

        for gap, kind, subject, value, late in history:
            now = round(now + gap, 6)
            await pass_time(now)
            await bench.hear(kind, subject=subject, value=value, occurred=now - late)
        await pass_time(now + 200)
        stored = await events.after(made, 0, 10_000)
    replay = Replay(contracts_of(*CONTRACTS))
    said = replay.begin(NOON)
    for each in stored:
        said += replay.observe(each)
    return [each for each in stored if each.type.startswith("contract.")], said + replay.wait(micro(now + 200))


@given(st.lists(moments_of_time, max_size=20))
@settings(max_examples=40)
def test_a_replay_says_what_the_sentinel_has_said(
    database: Database, history: list[tuple[float, str, str, Any, float]]
) -> None:
    told, said = asyncio.run(live(database, history))
    again = [each.event for each in said if each.event is not None]
    assert [(each.type, each.subject, each.data, each.idempotency_key, each.occurred_at) for each in told] == [
        (each.type, each.subject, json.loads(each.data_json), each.idempotency_key, each.occurred_at) for each in again
    ]


def test_each_deadline_passes_by_itself() -> None:
    replay = Replay(contracts_of(CONTRACTS[0]))
    said = [*replay.begin(NOON), *replay.observe(event(1, "noise", 3)), *replay.elapse(micro(75))]
    assert [(each.subject, each.reminder, each.at) for each in said if each.subject == "k"] == [
        ("k", 0, micro(10)), ("k", 1, micro(40)), ("k", 2, micro(70)),
    ]  # fmt: skip


def test_exactly_at_the_deadline_nothing_has_passed() -> None:
    replay = Replay(contracts_of(CONTRACTS[1]))
    replay.begin(NOON)
    assert replay.observe(event(1, "opened", 0)) == []
    assert replay.elapse(micro(5)) == []
    (said,) = replay.elapse(micro(5) + 1)
    assert (said.what, said.at, said.since, said.event_id) == ("violated", micro(5), micro(5), 1)
    assert said.message == "a no closed within 5s of opened"
    instance = replay.instance("closes", "a")
    assert instance is not None
    assert instance.state == "violated"
    assert replay.instance("closes", "b") is None


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize("text", ["{", "", '{"value": "\ud800"}', "[" * 100_000])
def test_what_is_not_json_is_skipped_by_those_who_look_at_it_and_judged_by_the_others(text: str) -> None:
    absence = {"kind": "absence", "of": "reading", "every": "10s"}
    others = [
        {"name": "plain", **absence},
        {"name": "quoting", **absence, "message": "{data.unit} of {subject}"},
        {"name": "once", "kind": "count", "of": "reading", "at_most": 0, "per": "hour", "message": "{data.unit}"},
        {"name": "closes", "kind": "deadline", "after": "reading", "expect": "closed", "within": "5s"},
    ]
    looking = [
        {"name": "choosing", **absence, "where": {"unit": ["C", "K"]}},
        {"name": "testing", **absence, "where": {"unit": {"exists": True}}},
        {"name": "one", **absence, "subject": "a", "where": {"unit": "C"}},
        {"name": "by", **absence, "by": "unit"},
        {"name": "cold", "kind": "threshold", "of": "reading", "above": 5},
        {**others[3], "name": "opens", "where": {"unit": "C"}},
    ]
    replay = Replay(contracts_of(*looking, *others))
    replay.begin(NOON)
    replay.observe(event(1, "reading", 0, data={"unit": "C", "value": 1}))
    said = replay.observe(Event(2, "reading", "a", None, text, "[]", "", micro(4), micro(4), None, None))
    skipped = [(each.contract, each.subject, each.reason) for each in said if each.what == "skipped"]
    assert sorted(skipped) == sorted((each["name"], "a", "failed") for each in looking)
    told = {each.contract: each.at for each in replay.elapse(micro(10) + 1) if each.what == "violated"}
    assert told == {name: micro(10) for name in ("choosing", "testing", "one", "by")} | {
        "closes": micro(5), "opens": micro(5),
    }  # fmt: skip
    (plain, quoting) = [each for each in replay.elapse(micro(14) + 1) if each.what == "violated"]
    assert (plain.at, quoting.at, quoting.message) == (micro(14), micro(14), "[no data.unit] of a")


def test_what_cannot_be_judged_is_said_and_changes_nothing() -> None:
    replay = Replay(contracts_of(CONTRACTS[2], CONTRACTS[1]))
    replay.begin(NOON)
    (said,) = replay.observe(event(1, "reading", 0, data={"value": "x"}))
    assert (said.what, said.contract, said.subject, said.reason, said.event_id) == (
        "skipped", "cold", "a", "not_a_number", 1,
    )  # fmt: skip
    broken = Event(2, "reading", "a", None, "{", "[]", "", NOON, NOON, None, None)
    (said,) = replay.observe(broken)
    assert (said.what, said.contract, said.subject, said.reason, said.event_id) == (
        "skipped", "cold", "a", "failed", 2,
    )  # fmt: skip
    assert replay.instances == {}
    assert [each.what for each in replay.observe(event(3, "opened", 1)) + replay.elapse(micro(60))] == ["violated"]


def test_a_clock_that_is_set_is_no_time_that_passed() -> None:
    replay = Replay(contracts_of(CONTRACTS[1]))
    replay.begin(NOON)
    replay.observe(event(1, "opened", 0))
    assert replay.set_clock(micro(-86400)) == []
    assert replay.elapse(micro(-86400 + 5)) == []
    (said,) = replay.elapse(micro(-86400 + 6))
    assert (said.what, said.at) == ("violated", micro(-86400 + 5))


def test_a_machine_without_a_clock_gets_one() -> None:
    replay = Replay(contracts_of(CONTRACTS[1]))
    replay.begin(0)
    replay.observe(Event(1, "opened", "a", None, "{}", "[]", "", 0, 0, None, None))
    assert replay.observe(event(2, "closed", 3)) == []


CARES = {"name": "warm", "kind": "threshold", "of": "reading", "above": 3, "suppressed_by": "link"}


def test_the_link_is_lost_as_it_is_live() -> None:
    replay = Replay(contracts_of(CONTRACTS[0], CARES))
    replay.begin(NOON)
    said = [*replay.observe(event(1, "reading", 1, data={"value": 1})), *replay.wait(micro(5)), *replay.lose_link()]
    said += [*replay.wait(micro(60)), *replay.regain_link(), *replay.wait(micro(100))]
    assert [(each.what, each.contract, each.subject, each.at) for each in said if not each.reminder] == [
        ("unknown", "warm", "", micro(5 + LINK_SECONDS)), ("resolved", "warm", "", micro(60 + SETTLE_SECONDS)),
        ("violated", "reports", "k", micro(10)), ("violated", "reports", "a", micro(11)),
    ]  # fmt: skip


async def test_the_link_is_lost_live_as_it_is_there(database: Database) -> None:
    clock, link = FakeClock(NOON), FakeLink(-100)
    async with database.opened(clock=clock) as made:
        bench = await Bench(made, clock).start(CARES, link=link)
        await (await bench.at(1)).hear()
        await bench.at(5)
        link.settled = None
        for second in range(5, 60):
            await bench.at(second)
        link.settled = 60
        for second in range(60, 70):
            await bench.at(second)
        told = [(each.type, each.occurred_at) for each in await bench.told()]
    assert told == [
        ("contract.unknown", micro(5 + LINK_SECONDS)), ("contract.resolved", micro(60 + SETTLE_SECONDS)),
    ]  # fmt: skip


# The command


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    """Calls commands in a folder with a configuration."""
    yield from commands(CONFIGURATION, tmp_path, monkeypatch, capsys)


def happened(*given: tuple[float, str, str, str]) -> int:
    """Store events that were recorded so many minutes ago, with type, subject and data; now."""
    now = Clock().now()
    new = [
        NewEvent(kind, subject=subject, data_json=data, occurred_at=at, recorded_at=at)
        for minutes, kind, subject, data in given
        for at in [now - round(minutes * MINUTE)]
    ]
    store(lambda tx: events.append(tx, new))
    return now


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


DAY = (
    (300, "opened", "north", "{}"), (290, "closed", "north", "{}"), (200, "opened", "south", "{}"),
    (120, "reading", "f1", '{"value":7}'), (110, "reading", "f1", '{"value":2}'),
    (108, "reading", "f1", '{"value":8}'), (100, "reading", "f1", '{"value":"x"}'),
    (90, "reading", "f1", '{"value":1}'),
)  # fmt: skip


def test_each_verdict_is_a_line_and_each_contract_a_row(edgeq: Edgeq) -> None:
    now = happened(*DAY)
    done = edgeq("contracts", "replay")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"{rfc3339(now - 295 * MINUTE)}  violated  closes  north no closed within 5m of opened"
    assert [line.split()[1:4] for line in lines[1:8]] == [
        ["resolved", "closes", "north"], ["violated", "closes", "south"], ["violated", "cold", "f1"],
        ["resolved", "cold", "f1"], ["violated", "cold", "f1"], ["resolved", "cold", "f1"], [],
    ]  # fmt: skip
    assert lines[8].split("  ")[0] == "contract"
    assert lines[9].split() == ["cold", "2", "26m", "1", "0", "1", "not_a_number"]
    assert lines[10].split() == ["closes", "2", "3h", "20m", "0", "0", "1:", "south"]
    assert lines[12].startswith("8 events from ")
    assert lines[13:] == [
        "the first event that is stored is of then",
        "what was before isn't known: each contract began as if it were new",
        "a flap is a violation that begins within 10m of the end of the one before it",
    ]


def test_json_says_the_same(edgeq: Edgeq) -> None:
    now = happened(*DAY)
    done = edgeq("contracts", "replay", "--json")
    *verdicts, cold, closes, whole = objects(done.out)
    assert [each["verdict"] for each in verdicts] == ["violated", "resolved", "violated", *["violated", "resolved"] * 2]
    assert verdicts[0] | {"since": 0} == {
        "at": now - 295 * MINUTE, "verdict": "violated", "subject": "north", "contract": "closes", "kind": "deadline",
        "severity": "warning", "message": "north no closed within 5m of opened", "episode": 1, "since": 0,
        "cause": 1, "observed": None,
    }  # fmt: skip
    assert cold == {
        "contract": "cold", "violations": 2, "violated_seconds": 26 * 60, "flaps": 1, "unknown": 0, "reminders": 0,
        "skipped": {"not_a_number": 1}, "open": [],
    }  # fmt: skip
    assert (closes["open"], whole["events"], whole["failed"]) == (
        [{"subject": "south", "since": now - 195 * MINUTE}], 8, 0,
    )  # fmt: skip


def test_a_stretch_begins_and_ends_where_it_is_told_to(edgeq: Edgeq) -> None:
    now = happened(*DAY)
    since, until = rfc3339(now - 250 * MINUTE), rfc3339(now - 105 * MINUTE)
    for words in (["--since", since, "--until", until], ["--since", "250m", "--until", "105m"]):
        *verdicts, cold, _, whole = objects(edgeq("contracts", "replay", "--json", *words).out)
        assert [(each["contract"], each["verdict"], each["subject"]) for each in verdicts] == [
            ("closes", "violated", "south"), ("cold", "violated", "f1"), ("cold", "resolved", "f1"),
            ("cold", "violated", "f1"),
        ]  # fmt: skip
        assert whole["events"] == 4
        assert cold["open"] == [{"subject": "f1", "since": now - 107 * MINUTE}]
        late = (Clock().now() - now) / 1e6 if "105m" in words else 0.0  # 105 minutes before the command, not the events
        assert 9 * 60 + 118 <= cold["violated_seconds"] <= 9 * 60 + 121 + late


def test_only_some_contracts_and_subjects(edgeq: Edgeq) -> None:
    happened(*DAY)
    done = edgeq("contracts", "replay", "--json", "--contract", "closes", "--subject", "no*")
    *verdicts, closes, whole = objects(done.out)
    assert [each["verdict"] for each in verdicts] == ["violated", "resolved"]
    assert (closes["contract"], closes["open"], whole["events"]) == ("closes", [], 8)
    done = edgeq("contracts", "replay", "--contract", "close")
    assert (done.status, done.out) == (1, "")
    assert done.err == "edgeq: there is no contract 'close' (did you mean 'closes'?)\n"


def test_those_that_a_contract_looks_at_are_judged_too(edgeq: Edgeq) -> None:
    happened(*DAY)
    Path("try.yaml").write_text(
        "contracts:\n"
        "  - {name: hot, kind: threshold, of: reading, above: 5}\n"
        "  - {name: any, kind: composite, any_of: [hot]}\n"
        "  - {name: other, kind: threshold, of: reading, above: 9}\n"
    )
    *verdicts, row, _ = objects(edgeq("contracts", "replay", "try.yaml", "--contract", "any", "--json").out)
    assert {each["contract"] for each in verdicts} == {"any"}
    assert (row["contract"], row["violations"]) == ("any", 2)


def test_contracts_of_a_file_are_tried_out(edgeq: Edgeq) -> None:
    happened(*DAY)
    Path("conf.d").mkdir()
    Path("conf.d/more.yaml").write_text("contracts: [{name: more, kind: absence, of: reading, every: 1h}]\n")
    Path("try.yaml").write_text("gateway: else\ncontracts: [{name: hot, kind: threshold, of: reading, above: 7}]\n")
    done = edgeq("contracts", "replay", "try.yaml", "--json")
    assert [each.get("contract") for each in objects(done.out)] == ["hot", "hot", "hot", None]
    assert {each.get("contract") for each in objects(edgeq("contracts", "replay", "--json").out)} == {
        "cold", "closes", "more", None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("contracts:\n  - {name: a, kind: absence, of: reading, evry: 5m}\n", "try.yaml:2: contracts[0].evry: unknown"),
        ("contracts:\n  - {name: a, kind: absense}\n", "did you mean 'absence'?"),
        ("contract: []\n", "try.yaml:1: contract: unknown key (did you mean 'contracts'?)"),
        ("contracts: [\n", "try.yaml:1: isn't YAML"),
        ("contracts: [{name: a, kind: threshold, of: r, above: 1, suppressed_by: cold}]\n", "there is no contract"),
    ],
)
def test_a_wrong_file_is_told_by_line(edgeq: Edgeq, text: str, says: str) -> None:
    store()
    Path("try.yaml").write_text(text)
    done = edgeq("contracts", "replay", "try.yaml")
    assert (done.status, done.out) == (78, "")
    assert says in done.err


def test_a_file_that_is_not_there_or_says_nothing(edgeq: Edgeq) -> None:
    store()
    done = edgeq("contracts", "replay", "try.yaml")
    assert (done.status, done.err.splitlines()[0]) == (78, "edgeq: try.yaml: there is no such file")
    Path("try.yaml").write_text("gateway: g\n")
    done = edgeq("contracts", "replay", "try.yaml")
    assert (done.status, done.out) == (1, "")
    assert "there are no contracts in try.yaml" in done.err


@pytest.mark.parametrize(
    "words", [["--since", "yesterday"], ["--until", "1x"], ["--since", "1h", "--until", "2h"], ["--since", "0"]]
)
def test_wrong_times_are_wrong_usage(edgeq: Edgeq, words: list[str]) -> None:
    store()
    done = edgeq("contracts", "replay", *words)
    assert (done.status, done.out) == (2, "")
    assert words[0] in done.err or "--since" in done.err


def test_an_empty_store(edgeq: Edgeq) -> None:
    done = edgeq("contracts", "replay")
    assert (done.status, "there is no database" in done.err) == (1, True)
    store()
    done = edgeq("contracts", "replay")
    assert (done.status, done.err) == (0, "")
    assert "0 events from " in done.out


def test_what_is_longer_ago_than_the_first_event_is_no_silence(edgeq: Edgeq) -> None:
    Path("edgeq.yaml").write_text(
        CONFIGURATION + "  - {name: reports, kind: absence, of: reading, every: 1h, known: [f1]}\n"
    )
    now = happened((90, "reading", "f1", "{}"), (50, "reading", "f1", "{}"))
    done = edgeq("contracts", "replay", "--since", "30d", "--json")
    assert objects(done.out)[-1]["since"] == now - 90 * MINUTE
    assert [each["violations"] for each in objects(done.out)[:-1]] == [0, 0, 0]


def test_broken_events_are_counted_and_passed_over(edgeq: Edgeq) -> None:
    happened(
        (60, "reading", "f1", "{broken"), (50, "reading", "f1", '{"value":7}'), (40, "reading", "f1", '{"value":NaN}'),
        (30, "reading", "f1", '{"value":1}'), (20, "reading", "f1", '{"value":1}'),
    )  # fmt: skip
    with closing(sqlite3.connect("edgeq.db")) as connection:
        connection.execute("UPDATE events SET recorded_at = 'never', type = x'ff' WHERE id = 4")
        connection.execute("UPDATE events SET data = x'ff00' WHERE id = 5")
        connection.commit()
    done = edgeq("contracts", "replay")
    assert done.status == 0
    assert " violated  cold  f1 value above 5 for 1m" in done.out
    assert done.err == ""
    assert [line.split()[0] for line in done.out.splitlines() if "3 failed" in line] == ["cold"]


def test_events_of_contracts_are_not_judged(edgeq: Edgeq) -> None:
    Path("try.yaml").write_text("contracts: [{name: all, kind: rate, of: '*', more_than: 1, within: 1h}]\n")
    happened((50, "contract.violated", "a", "{}"), (49, "contract.violated", "a", "{}"), (48, "in", "a", "{}"))
    assert objects(edgeq("contracts", "replay", "try.yaml", "--json").out)[0]["violations"] == 0


def test_a_clock_that_was_set_back_is_noticed(edgeq: Edgeq) -> None:
    """An hour ago it showed three hours less, and the door was closed in time."""
    before = [(200 - 0.5 * number, "noise", "n", "{}") for number in range(100)]  # until 150.5 minutes ago
    after = [(240 - 0.5 * number, "noise", "n", "{}") for number in range(120)]
    happened(*before, (150, "opened", "north", "{}"), (240, "closed", "north", "{}"), *after)
    verdicts = objects(edgeq("contracts", "replay", "--json").out)[:-3]
    assert verdicts == []


def test_what_was_stored_late_is_no_clock_that_was_set(edgeq: Edgeq) -> None:
    """A job that took twenty minutes emits what it saw when it began."""
    job = [(70, "noise", "n", "{}")] * 30
    happened((90, "noise", "n", "{}"), (50, "opened", "north", "{}"), *job, (47, "closed", "north", "{}"))
    assert objects(edgeq("contracts", "replay", "--json").out)[:-3] == []


# Nothing is touched


def digest(folder: Path) -> dict[str, str]:
    """What stands in the files of the store."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("edgeq.db*"))}


def test_nothing_in_the_store_is_touched(edgeq: Edgeq, tmp_path: Path) -> None:
    happened(*DAY)
    before = digest(tmp_path)
    assert "edgeq.db" in before
    assert edgeq("contracts", "replay").status == 0
    assert digest(tmp_path) == before


def test_beside_a_running_appliance(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path, CONFIGURATION)
    appliance.spawn()
    try:
        appliance.until(lambda: appliance.status().get("running", True) and appliance.database.exists(), "its store")
        appliance.until(lambda: appliance.sql("SELECT 1 FROM cursors WHERE processor = 'sentinel'"), "the sentinel")
        assert appliance.cli("emit", "opened", "--subject", "north").returncode == 0
        appliance.until(lambda: appliance.sql("SELECT 1 FROM contract_states"), "a state")
        with closing(sqlite3.connect(appliance.database)) as connection:
            version = connection.execute("PRAGMA data_version").fetchone()
            done = appliance.cli("contracts", "replay", "--json", "--since", "1h")
            assert connection.execute("PRAGMA data_version").fetchone() == version
        assert (done.returncode, done.stderr) == (0, "")
        assert objects(done.stdout)[-1]["events"] == 1
    finally:
        appliance.kill()


def slow_store(count: int) -> None:
    """So many events within the last day."""
    now = Clock().now()
    new = [
        NewEvent("reading", subject="f1", data_json='{"value":1}', occurred_at=at, recorded_at=at)
        for number in range(count)
        for at in [now - 86_000_000_000 + number * 400_000]
    ]
    store(lambda tx: events.append(tx, new))


def on_terminal(folder: Path, *words: str, both: bool = False) -> tuple[int, subprocess.Popen[bytes]]:
    """A command with standard error on a terminal (or `both` streams), and our end of that."""
    ours, its = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeq.cli.main", *words],
        cwd=folder,
        env={**environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=its if both else subprocess.PIPE,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    return ours, process


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What comes up to and with `wanted`; the test's own time limit ends it otherwise."""
    seen = b""
    while wanted not in seen:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            break
    return seen


def test_a_terminal_sees_how_far_it_is_and_a_pipe_the_result(edgeq: Edgeq, tmp_path: Path) -> None:
    slow_store(2000)
    ours, process = on_terminal(tmp_path, "contracts", "replay", "--json")
    out, _ = process.communicate(timeout=60)
    shown = read_until(ours, b"no such text")
    os.close(ours)
    assert process.returncode == 0
    assert b"events" in shown
    assert b"2000/2000" in shown
    assert objects(out.decode())[-1]["events"] == 2000


def test_the_bar_is_not_drawn_anew_for_every_verdict(edgeq: Edgeq, tmp_path: Path) -> None:
    now = Clock().now()
    new = [
        NewEvent("reading", subject="f1", data_json=f'{{"value":{number % 2 * 100}}}', occurred_at=at, recorded_at=at)
        for number in range(2000)
        for at in [now - 80_000_000_000 + number * 1_000_000]
    ]
    store(lambda tx: events.append(tx, new))
    Path("try.yaml").write_text("contracts: [{name: hot, kind: threshold, of: reading, above: 7}]\n")
    ours, process = on_terminal(tmp_path, "contracts", "replay", "try.yaml", both=True)
    shown = read_until(ours, b"no such text")
    os.close(ours)
    assert process.wait(60) == 0
    assert shown.count(b"violated  hot") == 1000
    assert shown.count(b"resolved  hot") == 999
    assert shown.count(b"\x1b[2K") < 500


def test_ctrl_c_ends_it(edgeq: Edgeq, tmp_path: Path) -> None:
    slow_store(200_000)
    before = digest(tmp_path)
    ours, process = on_terminal(tmp_path, "contracts", "replay")
    assert b"events" in read_until(ours, b"events")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    shown = read_until(ours, b"no such text")
    os.close(ours)
    assert process.returncode == 130
    assert b"Traceback" not in shown
    assert out == b""
    assert digest(tmp_path) == before
