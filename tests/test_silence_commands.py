"""`edgeq silence` and `edgeq notifications ack`, beside an appliance that runs and without one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.appliance import Appliance
from support.commands import Edgeq, commands, store
from support.stores import Database

from edgeq.clock import Clock
from edgeq.config.schema import NotificationMatch
from edgeq.notifications.match import Facts, compile_match, read_match
from edgeq.notifications.rows import detail_of
from edgeq.store import threads
from edgeq.store.store import Tx
from edgeq.store.threads import Thread, ThreadText

CONFIGURATION = """
gateway: g
store: {url: edgeq.db}
mqtt: {url: "mqtt://127.0.0.1:1"}
contracts:
  - {name: freezer-cold, kind: threshold, of: temperature, field: value, above: -15}
channels: {box: {kind: inbox}}
notifications: {routes: [{channels: [box], repeat: [1h]}]}
"""
HOUR = 3_600_000_000


@pytest.fixture
def edgeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Database
) -> Iterator[Edgeq]:
    """Calls commands in a folder without a database."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield from commands(CONFIGURATION, tmp_path, monkeypatch, capsys, database)
    monkeypatch.undo()
    time.tzset()


def add(edgeq: Edgeq, *words: str) -> dict[str, Any]:
    """`silence add` with these words, and what it says as JSON."""
    done = edgeq("silence", "add", *words, "--comment", "c", "--json")
    assert done.status == 0, done.err
    answer: dict[str, Any] = json.loads(done.out)
    return answer


def matched(edgeq: Edgeq, *words: str) -> NotificationMatch:
    """The match of a silence with these conditions."""
    match = read_match(add(edgeq, *(part for word in words for part in ("--match", word)), "--for", "1h")["match"], [])
    assert match is not None
    return match


def silences(edgeq: Edgeq, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in edgeq("silence", "list", "--json", *words).out.splitlines()]


def open_thread(*subjects: str, contract: str = "freezer-cold") -> None:
    """Have a contract violated for these subjects, as the courier stores it."""
    now = Clock().now()

    def unit(tx: Tx) -> None:
        for subject in subjects:
            facts = Facts(type="contract.violated", subject=subject, severity="warning", contract=contract, episode="1")
            thread = Thread(
                fingerprint=f"of {subject}", route="r", event_id=1, severity="warning", channels=("box",),
                opened_at=now, endless=True,
            )  # fmt: skip
            threads.begin(tx, thread, ThreadText(f"{subject} is too warm", "", detail_of(facts, now)))

    store(unit)


# Silences


def test_a_silence_is_added_listed_and_expires(edgeq: Edgeq) -> None:
    before = Clock().now()
    added = add(edgeq, "--match", "subject=freezer-*", "--for", "2h")
    assert before + 2 * HOUR <= added["ends_at"] <= Clock().now() + 2 * HOUR
    (row,) = silences(edgeq)
    assert row.items() >= {"id": 1, "state": "active", "comment": "c", "match": {"subject": "freezer-*"}}.items()
    assert row["created_by"]
    assert "subject=freezer-*" in edgeq("silence", "list").out

    assert edgeq("silence", "expire", "1").out == "silence 1 is over\n"
    assert silences(edgeq) == []
    assert [(row["id"], row["state"]) for row in silences(edgeq, "--all")] == [(1, "over")]
    done = edgeq("silence", "expire", "1")
    assert (done.status, "there is no silence 1 that isn't over" in done.err) == (1, True)


def test_looking_for_silences_makes_no_database(edgeq: Edgeq) -> None:
    """One that somebody else makes, such as root, is none that the appliance may write to."""
    for words in (("list",), ("expire", "--all")):
        done = edgeq("silence", *words)
        assert (done.status, done.out) == (1, "")
        assert "start edgeq once" in done.err


def test_all_silences_expire_also_those_to_come(edgeq: Edgeq) -> None:
    add(edgeq, "--match", "type=*", "--for", "1h")
    add(edgeq, "--match", "type=*", "--from", f"{datetime.now() + timedelta(hours=2):%H:%M}", "--for", "1h")
    assert {row["state"] for row in silences(edgeq)} == {"active", "to come"}
    assert edgeq("silence", "expire", "--all").out == "2 ended\n"
    assert silences(edgeq) == []


@pytest.mark.parametrize(
    ("words", "fits", "fits_not"),
    [
        (["contract=freezer-*"], {"contract": "freezer-cold"}, {"contract": "fridge"}),
        (["type=door.*", "type=gate.*"], {"type": "gate.opened"}, {"type": "window.opened"}),
        (["tag=a", "tag=b"], {"tags": ("b", "a")}, {"tags": ("a",)}),
        (["severity=info", "severity=warning"], {"severity": "warning"}, {"severity": "critical"}),
        (["subject=a=b"], {"subject": "a=b"}, {"subject": "a"}),
        (["data.value=5"], {"data": {"value": 5}}, {"data": {"value": "5"}}),
        (["data.on=true"], {"data": {"on": True}}, {"data": {"on": "true"}}),
        (["data.a.b=x"], {"data": {"a": {"b": "x"}}}, {"data": {"a": "x"}}),
        (['data.value={"above": 5}'], {"data": {"value": 6}}, {"data": {"value": 5}}),
        (['data.mode=["a", "b"]'], {"data": {"mode": "b"}}, {"data": {"mode": "c"}}),
        (['data.value="5"'], {"data": {"value": "5"}}, {"data": {"value": 5}}),
    ],
)
def test_conditions_mean_what_they_mean_in_a_route(
    edgeq: Edgeq, words: list[str], fits: dict[str, Any], fits_not: dict[str, Any]
) -> None:
    matches = compile_match(matched(edgeq, *words))
    plain = {"type": "contract.violated", "subject": "f1", "severity": "info"}
    assert matches(Facts(**{**plain, **fits}))
    assert not matches(Facts(**{**plain, **fits_not}))
    (row,) = silences(edgeq)
    shown = edgeq("silence", "list").out
    assert row["match"]
    assert words[0].partition("=")[0] in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--match", "contrct=x", "--for", "1h"], "unknown key; did you mean 'contract'?"),
        (["--match", "data.=x", "--for", "1h"], "unknown key"),
        (["--match", "contract", "--for", "1h"], "takes KEY=VALUE, not 'contract'"),
        (["--match", "contract=", "--for", "1h"], "takes KEY=VALUE"),
        (["--match", "severity=warn", "--for", "1h"], "did you mean 'warning'?"),
        (["--match", "subject=a", "--match", "subject=b", "--for", "1h"], "--match subject is given twice"),
        (["--match", 'data.v={"abov": 1}', "--for", "1h"], "did you mean 'above'?"),
        (["--match", "type=*"], "say how long: --for or --until"),
        (["--match", "type=*", "--for", "1h", "--until", "23:00"], "say how long"),
        (["--match", "type=*", "--for", "367d"], "a silence is 366d long at most"),
        (["--match", "type=*", "--for", "0s"], "0s is less than 1s"),
        (["--match", "type=*", "--for", "-1h"], "-1h"),
        (["--match", "type=*", "--for", "2"], "2"),
        (["--match", "type=*", "--until", "2001-01-01"], "it would be over already"),
        (["--match", "type=*", "--from", "2001-01-01", "--for", "1h"], "it would be over already"),
        (["--match", "type=*", "--from", "9999-01-01", "--for", "1h"], "ahead"),
        (["--match", "type=*", "--until", "tomorrow"], "takes a time such as 22:30"),
        (["--match", "type=*", "--until", "0001-01-01"], ""),
        (["--for", "1h"], "Missing option '--match'"),
    ],
)
def test_what_makes_no_sense_is_said_and_nothing_is_silenced(edgeq: Edgeq, words: list[str], said: str) -> None:
    done = edgeq("silence", "add", *words, "--comment", "c")
    assert done.status == 2
    assert said in done.err
    assert silences(edgeq, "--all") == []


def test_a_comment_is_asked_for_and_bounded(edgeq: Edgeq) -> None:
    assert "Missing option '--comment'" in edgeq("silence", "add", "--match", "type=*", "--for", "1h").err
    done = edgeq("silence", "add", "--match", "type=*", "--for", "1h", "--comment", "c" * 2000)
    assert "is 2000 characters long, and may be 1000" in done.err


@pytest.mark.parametrize(
    ("behind", "hour", "zone"), [("T12:00:00Z", 12, "UTC"), ("T12:00", 12, "Europe/Berlin"), ("", 0, "Europe/Berlin")]
)
@pytest.mark.parametrize("days", [2, 180], ids=["soon", "in half a year"])  # one of them may be in summer
def test_times_are_those_of_the_machine_unless_they_say_otherwise(
    edgeq: Edgeq, behind: str, hour: int, zone: str, days: int
) -> None:
    day = datetime.now().date() + timedelta(days=days)
    at = datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(zone))
    starts_at = add(edgeq, "--match", "type=*", "--from", f"{day}{behind}", "--for", "1h")["starts_at"]
    assert starts_at == round(at.timestamp()) * 1_000_000


def test_a_time_of_day_is_the_next_one(edgeq: Edgeq) -> None:
    now = Clock().now()
    for text in ("00:00", "11:59", "23:30"):
        ends_at = add(edgeq, "--match", "type=*", "--until", text)["ends_at"]
        assert now < ends_at <= now + 25 * HOUR, "a day may have 25 hours"
        assert f"{datetime.fromtimestamp(ends_at / 1_000_000):%H:%M:%S}" == f"{text}:00"


def test_it_shows_what_it_silences_right_now(edgeq: Edgeq) -> None:
    open_thread("freezer-1", "freezer-2", "fridge")
    words = ("silence", "add", "--match", "subject=freezer-*", "contract=freezer-cold", "--for", "1h", "--comment", "c")
    out = edgeq(*words).out
    assert "open now, and silenced by it: 2" in out
    assert "freezer-2 is too warm, since" in out
    assert "fridge" not in out
    assert add(edgeq, "--match", "subject=fridge", "--for", "1h")["open"] == ["fridge is too warm"]
    done = edgeq("silence", "add", "--match", "contract=freezer-old", "--for", "1h", "--comment", "c")
    assert done.status == 0
    assert "nothing that it is about is open now" in done.out
    assert "no contract fits 'freezer-old' now; did you mean 'freezer-cold'?" in done.err


# Acknowledging


def test_acknowledged_without_an_appliance_by_contract_and_once(edgeq: Edgeq) -> None:
    open_thread("f1", "f2")
    ack = ("notifications", "ack", "--contract", "freezer-cold")
    done = edgeq(*ack, "--subject", "f1", "--by", "ann", "--comment", "x")
    assert done.out == "acknowledged: f1 is too warm\n"
    done = edgeq(*ack, "--by", "bob", "--json")
    rows = {row["subject"]: row for row in map(json.loads, done.out.splitlines())}
    assert {name: (row["acknowledged"], row["acknowledged_by"]) for name, row in rows.items()} == {
        "f1": (False, "ann"), "f2": (True, "bob")
    }  # fmt: skip
    assert "acknowledged before by ann at 2" in edgeq(*ack).out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "say which"),
        (("1", "--contract", "x"), 2, "say which"),
        (("1", "--subject", "x"), 2, "--subject goes with --contract"),
        (("0",), 2, "0"),
        (("7",), 1, "there is no notification 7"),
        (("--contract", "freezer"), 1, "nothing to acknowledge: nothing is open of it"),
        (("--contract", "x" * 5000), 2, "is 5000 characters long, and may be 1000"),
    ],
)
def test_what_can_not_be_acknowledged_is_said(edgeq: Edgeq, words: tuple[str, ...], status: int, said: str) -> None:
    open_thread("f1")
    done = edgeq("notifications", "ack", *words)
    assert (done.status, said in done.err) == (status, True), done.err


# Beside an appliance


@pytest.fixture
def appliance(tmp_path: Path, database: Database) -> Iterator[Appliance]:
    """One that runs, without a broker."""
    made = Appliance(tmp_path, CONFIGURATION, database)
    made.spawn()
    made.until(lambda: made.status().get("running", True), "its start")
    yield made
    made.kill()


def emit(edgeq: Appliance, subject: str) -> str:
    """Have something happen, and return the state of its notification."""
    count = len(edgeq.sql("SELECT id FROM notifications"))
    data = json.dumps({"contract": "freezer-cold", "episode": 1, "severity": "warning"})
    words = ("--subject", subject, "--tag", "notification", "--data", data)
    assert edgeq.cli("emit", "contract.violated", *words).returncode == 0
    edgeq.until(lambda: len(edgeq.sql("SELECT id FROM notifications")) > count, "the notification")
    return str(edgeq.sql("SELECT state FROM notifications ORDER BY id DESC LIMIT 1")[0][0])


def test_an_appliance_that_runs_sees_a_silence_at_once_and_after_a_restart(appliance: Appliance) -> None:
    assert emit(appliance, "f1") != "silenced"
    add_f = ("silence", "add", "--match", "subject=f*", "--for", "2h", "--comment", "defrosting")
    done = appliance.cli(*add_f)
    assert "silenced by it: 1" in done.stdout, done.stderr
    assert emit(appliance, "f2") == "silenced"
    assert emit(appliance, "g1") != "silenced"
    appliance.stop()
    appliance.spawn()
    appliance.until(lambda: appliance.status().get("running", True), "its start")
    assert emit(appliance, "f3") == "silenced"
    assert appliance.cli("silence", "expire", "1").returncode == 0
    told = "SELECT count(*) FROM notifications WHERE state != 'silenced' AND title LIKE '%f3%'"
    appliance.until(lambda: appliance.sql(told)[0][0] == 1, "what was silenced and is still open to be told")


def test_an_appliance_that_runs_sees_an_acknowledgement_and_keeps_it(appliance: Appliance) -> None:
    emit(appliance, "f1")
    done = appliance.cli("notifications", "ack", "1", "--by", "ann", "--comment", "on my way")
    assert done.returncode == 0, done.stderr
    appliance.kill()
    appliance.spawn()
    appliance.until(lambda: appliance.status().get("running", True), "its start")
    shown = appliance.cli("notifications", "show", "1").stdout
    assert "by ann: on my way" in shown
    rows = appliance.sql("SELECT subject, data FROM events WHERE type = 'notification.acknowledged'")
    assert [(subject, json.loads(data)["how"]) for subject, data in rows] == [("f1", "command")]
