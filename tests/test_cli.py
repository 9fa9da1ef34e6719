"""The commands as a person and a script call them: what they print, where, and with which status they end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Edgeq, commands, store
from support.stores import Database

from edgeq.clock import Clock
from edgeq.events import NewEvent, to_json
from edgeq.store import cursors, dead_letters, events, jobs
from edgeq.store.cursors import Failure
from edgeq.store.dead_letters import NewDeadLetter
from edgeq.store.jobs import NewJob
from edgeq.store.store import Tx

CONFIGURATION = """\
gateway: g
store: {url: edgeq.db}
routes:
  - {topic: "sensors/{device}", emit: reading}
"""
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
"""Sets a terminal's title, empties its screen, turns red, and runs backwards."""


@pytest.fixture
def edgeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Database
) -> Iterator[Edgeq]:
    """Calls commands in a folder with a configuration."""
    yield from commands(CONFIGURATION, tmp_path, monkeypatch, capsys, database)


@pytest.fixture
def edgeq_on_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Edgeq]:
    """The same, always with a file as the database."""
    yield from commands(CONFIGURATION, tmp_path, monkeypatch, capsys)


def event(kind: str = "reading", **fields: Any) -> NewEvent:
    now = Clock().now()
    return NewEvent(kind, occurred_at=now, recorded_at=now, **fields)


def letter(**fields: Any) -> NewDeadLetter:
    given = {"source": "intake", "reason": "undecodable", "error": "not JSON", "created_at": Clock().now()} | fields
    return NewDeadLetter(**given)


# Statuses and wrong usage


def test_what_is_right_ends_with_0_and_nothing_on_standard_error(edgeq: Edgeq) -> None:
    store()
    for words in (
        ["check"], ["status"], ["events", "list"], ["events", "export"], ["jobs", "list"], ["processors", "list"],
        ["dead-letters", "list"], ["emit", "a"], ["--version"], ["--help"], ["events", "list", "--help"], ["queues"],
        ["queues", "list"], ["queues", "breakers"], ["queues", "pause", "default"], ["queues", "resume", "default"],
    ):  # fmt: skip
        done = edgeq(*words)
        assert (done.status, done.err) == (0, ""), words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("evnts list", "did you mean 'events'?"),
        ("events lst", "Did you mean 'list'?"),
        ("frobnicate", "there is: run, work, demo, check"),
        ("check --jsn", "No such option '--jsn'. Did you mean '--json'?"),
        ("check surplus", "unexpected extra argument (surplus)"),
        ("jobs show", "Missing argument 'ID'"),
        ("jobs show seven", "'seven' is not a valid integer"),
        ("jobs show 99999999999999999999", "not in the range"),
        ("jobs list --limit 99999999999999999999", "not in the range"),
        ("jobs list --state odd", "'odd' is not one of"),
        ("events list --since 5", "--since: '5' is not a duration such as"),
        ("events tail --since -1s --limit 1", "--since: '-1s' is not a duration such as"),
        ("events export --format xml", "'xml' is not one of 'jsonl', 'csv'"),
        ("emit", "Missing argument 'TYPE'"),
        ("emit a --data {", "--data is not JSON"),
        ("emit a --data NaN", "--data is not JSON"),
        ("emit \udcff", "an argument isn't UTF-8: \\udcff"),
        ("dead-letters redrive", "say which: by id, --source, --reason, or --all"),
        ("dead-letters discard 1 --all", "ids don't go together with"),
        ("dead-letters show 99999999999999999999", "not in the range"),
        ("processors seek courier", "Missing option '--to'"),
        ("processors seek courier --to -5", "--to takes an event id, start or latest"),
        ("processors seek courier --to ²", "--to takes an event id, start or latest"),
        ("-c", "Option '-c' requires an argument"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(edgeq: Edgeq, words: str, told: str) -> None:
    store()
    done = edgeq(*words.split(" "))
    assert done.status == 2
    assert told in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("jobs show 7", "there is no job 7"),
        ("dead-letters show 7", "there is no dead letter 7"),
        ("dead-letters redrive 7", "no dead letter fits"),
        ("dead-letters discard --source intake", "no dead letter fits"),
        ("processors pause curier", "there is no processor 'curier' (did you mean 'courier'?)"),
        ("processors seek odd --to start", "there is no processor 'odd' (there is: courier)"),
    ],
)
def test_what_is_not_there_ends_with_1(edgeq: Edgeq, words: str, told: str) -> None:
    store(lambda tx: cursors.take(tx, "courier", "latest", 0))
    done = edgeq(*words.split(" "))
    assert (done.status, done.out) == (1, "")
    assert done.err == f"edgeq: {told}\n"


def test_without_a_database_each_command_says_so_and_status_says_it_too(
    edgeq: Edgeq, tmp_path: Path, database: Database
) -> None:
    told = f"there is no database at {tmp_path}/edgeq.db" if database.kind == "sqlite" else "has no tables of edgeq yet"
    for words in (["events", "list"], ["jobs", "show", "1"], ["emit", "a"], ["processors", "pause", "courier"]):
        done = edgeq(*words)
        assert done.status == 1
        assert told in done.err
        assert "start edgeq once" in done.err
    done = edgeq("status")
    assert done.status == 0
    assert "edgeq is not running" in done.out
    assert told in done.out
    assert not (tmp_path / "edgeq.db").exists(), "looking makes no database"


def test_a_wrong_configuration_ends_with_78_and_every_mistake(edgeq: Edgeq, tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text(
        "gatway: g\nmqtt: {keepalive: 5}\nroutes:\n  - {topic: a/#/b, emit: x}\napp: {modules: [nowhere]}\n"
    )
    for command in ("check", "run", "status"):
        done = edgeq(command)
        assert done.status == 78
        assert "edgeq.yaml:1: gatway: unknown key (did you mean 'gateway'?)" in done.err
        assert "edgeq.yaml:2: mqtt.keepalive: " in done.err
    (tmp_path / "edgeq.yaml").write_text("routes:\n  - {topic: a/#/b, emit: x}\napp: {modules: [nowhere]}\n")
    done = edgeq("check")
    assert done.status == 78
    assert "edgeq.yaml:2: routes[0].topic: " in done.err
    assert "edgeq.yaml:3: app.modules[0]: there is no module 'nowhere'" in done.err
    assert done.err.splitlines()[-1] == "edgeq: the configuration has 2 mistakes"


def test_without_a_configuration_it_says_where_it_looked(edgeq: Edgeq, tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").unlink()
    done = edgeq("status")
    assert done.status == 78
    assert "looked at $EDGEQ_CONFIG (not set), ./edgeq.yaml, ./config/edgeq.yaml, /etc/edgeq/edgeq.yaml" in done.err


def test_the_file_and_wordiness_may_be_said_before_and_after_the_command(edgeq: Edgeq, tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text("gateway: [wrong]\n")
    (tmp_path / "other.yaml").write_text(CONFIGURATION)
    store()
    for words in (
        "-c other.yaml -v jobs list",
        "jobs list -c other.yaml -v",
        "-c edgeq.yaml jobs list -v -c other.yaml",
    ):
        assert edgeq(*words.split(" ")).status == 0
    assert edgeq("-c", "other.yaml", "jobs", "-c", "edgeq.yaml", "list").status == 2
    assert edgeq("jobs", "list", "-c", "gone.yaml").err.startswith("edgeq: gone.yaml: there is no such file")


def test_a_file_that_is_no_database_is_left_alone(edgeq_on_file: Edgeq, tmp_path: Path) -> None:
    (tmp_path / "edgeq.db").write_text("a shopping list, more than sixteen bytes of it")
    done = edgeq_on_file("events", "list")
    assert done.status == 1
    assert "the database file is damaged" in done.err
    assert (tmp_path / "edgeq.db").read_text().startswith("a shopping list")


def test_what_to_do_with_a_damaged_database_is_told(edgeq_on_file: Edgeq, tmp_path: Path) -> None:
    store()
    with (tmp_path / "edgeq.db").open("r+b") as database:
        database.seek(100)  # after what makes it a database
        database.write(b"\xde\xad" * 2000)
    done = edgeq_on_file("jobs", "list")
    assert done.status == 1
    assert "the database file is damaged" in done.err
    assert "edgeq run puts it aside at its next start" in done.err


# What is printed


def test_listings_print_one_object_a_line_on_request(edgeq: Edgeq) -> None:
    def unit(tx: Any) -> None:
        events.append(tx, [event(subject="oven", data_json='{"value": 1}', tags=("hot",)), event()])
        dead_letters.add(tx, [letter(topic="a/b", payload=b"\xff\x00"), letter(payload=b"text")])
        jobs.add(tx, [NewJob(queue="default", kind="a:B", args='{"x": [1]}', run_at=1, created_at=1)])
        cursors.take(tx, "courier", "beginning", 0)

    store(unit)
    listed = {
        name: [json.loads(line) for line in edgeq(name, "list", "--json").out.splitlines()]
        for name in ("events", "dead-letters", "jobs", "processors")
    }
    assert [each["subject"] for each in listed["events"]] == ["oven", ""]
    assert (listed["events"][0]["data"], listed["events"][0]["tags"]) == ({"value": 1}, ["hot"])
    assert listed["dead-letters"][0]["payload"] == "text"
    assert listed["dead-letters"][1]["payload_base64"] == "/wA="
    assert listed["jobs"][0]["args"] == {"x": [1]}
    assert [(each["name"], each["lag_events"]) for each in listed["processors"]] == [("courier", 2)]
    assert json.loads(edgeq("jobs", "show", "1", "--json").out) == listed["jobs"][0]
    assert json.loads(edgeq("dead-letters", "show", "1", "--json").out) == listed["dead-letters"][1]
    assert json.loads(edgeq("status", "--json").out)["store"]["head"] == 2
    assert json.loads(edgeq("check", "--json").out)["gateway"] == "g"
    assert json.loads(edgeq("emit", "a", "--json").out) == {"stored": True, "id": 3}
    assert 'args              {"x":[1]}' in edgeq("jobs", "show", "1").out


def test_the_options_of_a_listing_choose(edgeq: Edgeq) -> None:
    now = Clock().now()
    old = NewEvent("door.opened", occurred_at=0, recorded_at=now - 3_600_000_000, subject="back", tags=("door",))
    store(lambda tx: events.append(tx, [old, event("door.closed", subject="front"), event("reading", tags=("hot",))]))

    def ids(*words: str) -> list[int]:
        listed = [json.loads(line)["id"] for line in edgeq("events", "list", "--json", *words).out.splitlines()]
        exported = [json.loads(line)["id"] for line in edgeq("events", "export", *words).out.splitlines()]
        assert listed == exported
        return listed

    assert ids() == [1, 2, 3]
    assert ids("--type", "door.*") == [1, 2]
    assert ids("--type", "*o*e*") == [1, 2]
    assert ids("--type", "door.?losed") == []
    assert ids("--type", "[d]oor.*") == []
    assert ids("--type", "DOOR.*") == []
    assert ids("--subject", "front") == [2]
    assert ids("--tag", "hot") == [3]
    assert ids("--tag", "HOT") == []
    assert ids("--since", "30m") == [2, 3]
    assert [json.loads(line)["id"] for line in edgeq("events", "list", "--json", "--limit", "2").out.splitlines()] == [
        2,
        3,
    ]


def test_events_are_exported_as_csv_that_reads_back(edgeq: Edgeq) -> None:
    import csv
    import io

    nasty = 'a,"b"\nc;=1+1'
    store(lambda tx: events.append(tx, [event(subject=nasty, data_json=to_json({"value": nasty}), tags=("x",))]))
    (row,) = csv.DictReader(io.StringIO(edgeq("events", "export", "--format", "csv").out))
    assert row["subject"] == nasty
    assert json.loads(row["data"]) == {"value": nasty}
    assert json.loads(row["tags"]) == ["x"]
    assert row["idempotency_key"] == ""


def test_an_event_with_a_known_key_is_not_stored_again(edgeq: Edgeq) -> None:
    store()
    assert edgeq("emit", "a", "--idempotency-key", "k").out == "stored a as event 1\n"
    assert edgeq("emit", "a", "--idempotency-key", "k").out == "not stored: there is an event with the key 'k'\n"
    assert json.loads(edgeq("emit", "a", "--idempotency-key", "k", "--json").out) == {"stored": False, "id": None}
    assert edgeq("emit", "b").out.startswith("stored b as event ")


def test_an_empty_list_is_a_sentence_and_no_json(edgeq: Edgeq) -> None:
    store()
    assert edgeq("events", "list").out == "no events\n"
    assert edgeq("jobs", "list").out == "no jobs\n"
    assert edgeq("dead-letters", "list").out == "no dead letters\n"
    assert edgeq("processors", "list").out == "no processor has run yet\n"
    assert edgeq("events", "list", "--json").out == ""


def test_a_processor_that_gave_up_is_told_from_one_that_somebody_paused(edgeq: Edgeq) -> None:
    def halt_and_pause(tx: Tx) -> None:
        for name in ("stuck", "held", "tries", "idle"):
            cursor = cursors.take(tx, name, "beginning", 1)
            if name in ("stuck", "tries"):
                cursors.fail(tx, cursor, Failure(1, 5, 1, "ValueError: no", halts=name == "stuck"))
        cursors.pause(tx, "held", True)

    store(halt_and_pause)
    configured = "".join(f"  {name}: {{kind: 'app:Copy'}}\n" for name in ("stuck", "held", "tries", "idle"))
    Path("edgeq.yaml").write_text(f"{CONFIGURATION}processors:\n{configured}")
    listed = [json.loads(line) for line in edgeq("processors", "list", "--json").out.splitlines()]
    states = {each["name"]: each["state"] for each in listed}
    assert states == {"stuck": "halted", "held": "paused", "tries": "retrying", "idle": "idle"}
    assert "stuck: halted, at event 0" in edgeq("status").out


def test_a_processor_that_is_not_configured_is_told_so_and_does_not_lag(edgeq: Edgeq) -> None:
    def stand(tx: Tx) -> None:
        for name in ("sentinel", "courier", "gone"):
            cursors.take(tx, name, "beginning", 1)
        cursors.pause(tx, "gone", True)
        events.append(tx, [event()])

    store(stand)
    contracts = "contracts: [{name: reports, kind: absence, of: reading, every: 1h}]\n"
    Path("edgeq.yaml").write_text(CONFIGURATION + contracts)
    states = {line.split()[0]: line.split()[1:5] for line in edgeq("processors", "list").out.splitlines()[1:]}
    assert states.pop("sentinel")[:3] == ["idle", "0", "1"]
    assert {name: row[:3] for name, row in states.items()} == {name: ["not", "configured", "0"] for name in states}
    shown = edgeq("status").out
    assert "processor     sentinel: idle, at event 0, 1 events" in shown
    assert "processor     gone: not configured; events up to 0 were read\n" in shown
    assert edgeq("processors", "list", "--json").out.count('"state":"not configured"') == 2


@pytest.fixture
def hostile(edgeq: Edgeq) -> Edgeq:
    """`edgeq` on a database in which strangers wrote what they could."""

    def unit(tx: Any) -> None:
        data = to_json({"text": HOSTILE})  # ESC is escaped in it, U+009B and U+202E aren't
        events.append(tx, [event(subject=HOSTILE, data_json=f"{{\n {data[1:]}", tags=(HOSTILE,), description=HOSTILE)])
        dead_letters.add(tx, [letter(topic=HOSTILE, error=f"first\n{HOSTILE}\nlast", payload=HOSTILE.encode())])
        jobs.add(tx, [NewJob(queue=HOSTILE, kind="a:B", args=data, run_at=1, created_at=1)])
        cursor = cursors.take(tx, "courier", "latest", 0)
        cursors.fail(tx, cursor, cursors.Failure(1, 1, 0, f"ValueError: {HOSTILE}"))

    store(unit)
    return edgeq


COMMANDS = [
    f"{words}{form}"
    for words in (
        "events list", "jobs list", "jobs show 1", "queues list", "dead-letters list", "dead-letters show 1",
        "processors list", "status", "events tail",
    )
    for form in ("", " --json")
] + ["events export", "events export --format csv"]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_no_command_gives_a_stranger_the_terminal(hostile: Edgeq, words: str, tmp_path: Path) -> None:
    shown = on_a_terminal(words.split(" "), tmp_path)
    assert "owned" in shown
    assert not [sign for sign in shown if not sign.isprintable() and sign != "\n"], repr(shown)


def on_a_terminal(words: list[str], folder: Path) -> str:
    """What a command shows on a terminal without colours, wide enough for names to stay whole."""
    ours, its = pty.openpty()
    environ = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    child = subprocess.Popen(
        [sys.executable, "-m", "edgeq.cli.main", *words], cwd=folder, env=environ, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    try:
        while words[:2] != ["events", "tail"] or b"owned" not in shown:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # what reading a terminal ends with
                break
            if not piece:
                break
            shown += piece
    finally:
        child.terminate()
        child.wait(60)
        os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_what_a_pipe_gets_is_what_a_terminal_gets_but_for_its_width(hostile: Edgeq) -> None:
    lines = hostile("dead-letters", "list").out.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["id", "when", "source", "reason", "topic", "error"]
    assert lines[1].endswith("last")
    assert "\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202e" in lines[1]
    (line,) = hostile("events", "list", "--json").out.splitlines()
    assert json.loads(line)["data"] == {"text": HOSTILE}, "escaped, and whole"
    assert json.loads(line)["subject"] == HOSTILE


def test_a_very_long_value_is_cut_in_a_list_and_whole_elsewhere(edgeq: Edgeq) -> None:
    long = "x" * 100_000
    store(lambda tx: events.append(tx, [event(data_json=to_json({"value": long}))]))
    lines = edgeq("events", "list").out.splitlines()
    assert len(lines) == 2
    assert len(lines[1]) < 1000
    assert lines[1].endswith("…")
    assert long in edgeq("events", "list", "--json").out


def test_a_stream_without_the_characters_gets_escapes(edgeq: Edgeq, tmp_path: Path) -> None:
    store(lambda tx: events.append(tx, [event(subject="Küche ☃")]))
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main", "events", "list"], cwd=tmp_path, env=environ, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"K\\xfcche \\u2603" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_json_stays_json_on_a_stream_without_the_characters(edgeq: Edgeq, tmp_path: Path, encoding: str) -> None:
    store(lambda tx: events.append(tx, [event(subject="Küche ☃ 😀")]))
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main", "events", "list", "--json"],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode(encoding))["subject"] == "Küche ☃ 😀"


@pytest.mark.parametrize("words", ["events list", "events export", "events tail --limit 1000", "check"])
def test_a_reader_who_leaves_early_is_no_error(edgeq: Edgeq, tmp_path: Path, words: str) -> None:
    store(lambda tx: events.append(tx, [event(data_json=to_json("x" * 500)) for _ in range(1000)]))
    command = f"{sys.executable} -m edgeq.cli.main {words} | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_a_full_disk_behind_a_pipe_is_a_sentence(edgeq: Edgeq, tmp_path: Path) -> None:
    store(lambda tx: events.append(tx, [event()]))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgeq.cli.main", "events", "list"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr == b"edgeq: [Errno 28] No space left on device\n"


def test_check_says_what_would_run(edgeq: Edgeq, tmp_path: Path, database: Database) -> None:
    (tmp_path / "edgeq.yaml").write_text(
        CONFIGURATION.replace("emit: reading", "emit: reading, qos: 2")
        + "mqtt: {url: 'mqtts://h', username: me, password: geheim}\n"
        + "channels: {hook: {kind: webhook, url: 'https://me:geheim@h/?token=geheim'}}\n"
        + "contracts:\n  - {name: alive, kind: absence, of: reading, every: 5m}\n"
    )
    done = edgeq("check")
    assert done.status == 0
    for expected in (
        "routes      1: sensors/{device}",
        "contracts   1: alive",
        "channels    1: hook",
        "sentinel, courier",
        f"store       {tmp_path}/edgeq.db (" if database.kind == "sqlite" else "store       database test_",
        " (durability full)",
    ):
        assert expected in done.out
    assert "routes[0].qos: 2 is taken as 1" in done.err
    assert "geheim" not in done.out + done.err
