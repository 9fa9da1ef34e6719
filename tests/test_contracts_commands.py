"""`edgeq contracts list` and `explain`, called on a store that a Sentinel has left."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.commands import Edgeq, commands, store
from support.contracts import ABSENCE, contracts_of
from support.judged import add, ago, judge
from support.stores import Database

from edgeq.clock import Clock, rfc3339
from edgeq.config.schema import LoadedConfig
from edgeq.contracts import KINDS
from edgeq.contracts.explain import conditions, held_back
from edgeq.contracts.instance import Instance, Report
from edgeq.store import contract_states, cursors, events
from edgeq.store.contract_states import ContractState
from edgeq.store.cursors import Failure
from edgeq.testing.clock import NOON

BASE = "gateway: g\nstore: {url: edgeq.db}\ncontracts:\n"
DOORS = "{name: doors, kind: deadline, after: opened, expect: closed, within: 5m, description: Doors get closed.}"
COLD = (
    '{name: cold, kind: threshold, of: reading, subject: "f-*", above: -15, for: 10m, clear: {below: -16, for: 5m}, '
    "severity: critical, suppressed_by: doors}"
)
REPORTS = '{name: reports, kind: absence, of: reading, subject: "f-*", every: 10m, grace: 1m, known: [f-1]}'
MINUTE = 60_000_000


def noon_zone() -> str:
    """A time zone in which it is about noon: no day and no month begins while a test runs, or a little before."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


@pytest.fixture
def edgeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Database
) -> Iterator[Edgeq]:
    """Calls commands in a folder, about noon."""
    monkeypatch.setenv("TZ", noon_zone())
    yield from commands(BASE, tmp_path, monkeypatch, capsys, database)


def configure(*contracts: str) -> None:
    """Write the configuration of the present folder."""
    Path("edgeq.yaml").write_text(BASE + "".join(f"  - {contract}\n" for contract in contracts))


def lines(done: Any) -> list[str]:
    """What a command that went well printed."""
    assert (done.status, done.err) == (0, "")
    return [line.rstrip() for line in done.out.splitlines()]


def objects(done: Any) -> list[dict[str, Any]]:
    """The JSON that a command that went well printed."""
    return [json.loads(line) for line in lines(done)]


def said(edgeq: Edgeq, *words: str) -> dict[str, Any]:
    """What `explain --json` says."""
    (one,) = objects(edgeq("contracts", "explain", *words, "--json"))
    return one


def on_terminal(columns: int, *words: str) -> str:
    """What a command prints on a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "edgeq.cli.main", *words]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**environment, "TERM": "dumb"}) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            pass  # it has ended
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode().replace("\r\n", "\n")


# list


def test_a_line_for_each_contract_with_its_subjects_by_state(edgeq: Edgeq) -> None:
    configure(DOORS, REPORTS, "{name: quiet, kind: stuck, of: nothing, for: 1h}")
    judge(
        ago(30, "opened", "d-1"), ago(3, "opened", "d-2"), ago(12, "opened", "d-3"), ago(9, "closed", "d-3"),
        ago(2, "reading", "f-1"),
    )  # fmt: skip
    assert [line.split("  ")[0] for line in lines(edgeq("contracts", "list"))] == [
        "contract", "doors", "reports", "quiet",
    ]  # fmt: skip
    doors, reports, quiet = lines(edgeq("contracts", "list"))[1:]
    assert "1 violated, 1 pending, 1 ok" in doors
    assert re.search(r" 2[5-9]m", doors), "since the oldest of the worst"
    assert re.search(r"in (2m|1m( \d+s)?) ", doors)
    assert doors.endswith("  1")
    assert "ok" in reports
    assert re.search(r"in (9|10|11)m", reports), "it is watched since it was loaded"
    assert "nothing seen yet" in quiet
    first, second, third = objects(edgeq("contracts", "list", "--json"))
    assert first["states"] == {"violated": 1, "pending": 1, "ok": 1}
    assert (first["contract"], first["kind"], first["severity"]) == ("doors", "deadline", "warning")
    assert (first["violations_today"], first["configured"]) == (1, True)
    assert 9 * MINUTE < second["deadline_at"] - Clock().now() <= 11 * MINUTE
    assert (third["states"], third["since"], third["deadline_at"]) == ({}, None, None)


def test_a_line_for_each_subject_the_worst_first(edgeq: Edgeq) -> None:
    configure(DOORS, REPORTS)
    judge(ago(30, "opened", "z"), ago(3, "opened", "d-2"), ago(3, "closed", "d-3"), ago(1, "reading", "f-1"))
    found = objects(edgeq("contracts", "list", "doors", "--json"))
    assert [(each["subject"], each["state"], each["violations_today"]) for each in found] == [
        ("z", "violated", 1), ("d-2", "pending", 0), ("d-3", "ok", 0),
    ]  # fmt: skip
    assert [each["subject"] for each in objects(edgeq("contracts", "list", "--state", "violated", "--json"))] == ["z"]
    assert len(objects(edgeq("contracts", "list", "--all", "--json"))) == 4
    assert lines(edgeq("contracts", "list", "doors", "--state", "unknown")) == ["no subject is unknown"]
    table = lines(edgeq("contracts", "list", "doors"))
    assert table[0].split() == ["contract", "subject", "state", "since", "next", "deadline", "today"]
    assert table[1].split()[:3] == ["doors", "z", "violated"]


def test_only_violations_of_today_count_and_reminders_do_not(edgeq: Edgeq) -> None:
    configure(DOORS.replace("within: 5m", "within: 5m, remind: 1m"))
    judge(ago(30, "opened", "a"))
    assert edgeq("contracts", "list", "--json").out.count('"violations_today":1') == 1
    assert len(objects(edgeq("events", "list", "--type", "contract.violated", "--json"))) > 1, "there are reminders"
    store(lambda tx: tx.run(events.Events.update({events.Events.recorded_at: Clock().now() - 25 * 60 * MINUTE})))
    assert edgeq("contracts", "list", "--json").out.count('"violations_today":0') == 1


def test_events_of_others_with_such_a_key_are_no_violations(edgeq: Edgeq) -> None:
    configure(DOORS)
    store()
    for number, (kind, data) in enumerate((("contract.violated", "[1]"), ("reading", '{"contract": "doors"}'))):
        key = ("--idempotency-key", f"contract:doors:a:{number}:violated:5")
        assert edgeq("emit", kind, "--subject", "a", "--data", data, *key).status == 0
    (one,) = objects(edgeq("contracts", "list", "--json"))
    assert one["violations_today"] == 0


def test_before_the_first_start_and_without_contracts(edgeq: Edgeq) -> None:
    configure(DOORS)
    assert "nothing seen yet" in lines(edgeq("contracts", "list"))[1]
    assert lines(edgeq("contracts", "list", "--all")) == ["no subject was seen yet"]
    assert not Path("edgeq.db").exists()
    Path("edgeq.yaml").write_text("gateway: g\n")
    assert lines(edgeq("contracts", "list")) == ["no contracts"]


def test_a_contract_that_is_gone_is_there_until_it_is_closed(edgeq: Edgeq) -> None:
    configure(DOORS, REPORTS)
    judge(ago(30, "opened", "a"))
    configure(REPORTS)
    assert "violated, no longer configured" in lines(edgeq("contracts", "list"))[2]
    assert objects(edgeq("contracts", "list", "doors", "--json"))[0]["subject"] == "a"


def test_names_that_nothing_has(edgeq: Edgeq) -> None:
    configure(DOORS)
    store()
    for verb in ("list", "explain"):
        done = edgeq("contracts", verb, "dors")
        assert (done.status, done.out) == (1, "")
        assert done.err == "edgeq: there is no contract 'dors' (did you mean 'doors'?)\n"
    done = edgeq("contracts", "explain", "doors", "d-1")
    assert (done.status, done.err) == (1, "edgeq: doors has no subject 'd-1' (it has none yet)\n")
    judge(ago(1, "opened", "door-1"))
    assert "(did you mean 'door-1'?)" in edgeq("contracts", "explain", "doors", "dor-1").err
    assert edgeq("contracts", "list", "--state", "odd").status == 2


def test_wrong_contracts_are_told_as_everywhere(edgeq: Edgeq) -> None:
    configure("{name: a, kind: absense}", "{name: b, kind: stuck}")
    for verb in (["list"], ["explain", "a"]):
        done = edgeq("contracts", *verb)
        assert done.status == 78
        assert "edgeq.yaml:4: contracts[0].kind: " in done.err
        assert "edgeq.yaml:5: contracts[1].of: is missing" in done.err


# explain: one subject


def test_what_is_violated_why_and_by_what_it_is_resolved(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(30, "opened", "d-1", {"by": "tom"}), ago(9, "closed", "d-2"))
    found = said(edgeq, "doors", "d-1")
    assert found["rule"] == "after opened, closed comes within 5m"
    assert (found["state"], found["judged"], found["episode"], found["held_back"]) == ("violated", "violated", 1, [])
    assert (found["cause"]["type"], found["cause"]["data"]) == ("opened", {"by": "tom"})
    assert found["cure"] == "closed of d-1"
    assert [each["type"] for each in found["events"]] == ["opened"], "those of other subjects aren't shown"
    assert [(each["what"], each["episode"]) for each in found["history"]] == [("violated", 1)]
    text = lines(edgeq("contracts", "explain", "doors", "d-1"))
    assert text[:4] == [
        "contract     doors, deadline, warning",
        "             Doors get closed.",
        "rule         after opened, closed comes within 5m",
        "subject      d-1",
    ]
    assert text[4].startswith("state        violated since 20")
    assert re.search(r"\(2[5-9]m( \d+s)? ago\), episode 1$", text[4])
    assert 'opened of d-1 {"by":"tom"}' in text[5]
    assert "resolved by  closed of d-1" in text
    assert "d-1 no closed within 5m of opened" in text[-1]


def test_what_is_pending_and_until_when(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(3, "opened", "d-1"))
    found = said(edgeq, "doors")
    assert found["subject"] == "d-1", "the only one"
    (coming,) = found["coming"]
    assert coming["at"] == found["since"] + 5 * MINUTE
    text = lines(edgeq("contracts", "explain", "doors"))
    assert any(re.search(r"^next .*\(in (2m|1m( \d+s)?)\)", line) for line in text)
    assert "kept by      closed of d-1" in text


def test_what_is_right_has_nothing_to_blame(edgeq: Edgeq) -> None:
    configure(REPORTS)
    judge(ago(3, "reading", "f-1"))
    found = said(edgeq, "reports")
    assert (found["state"], found["cause_id"], found["cure"]) == ("ok", 0, "reading of f-1 that isn't older than 11m")
    assert "because of" not in edgeq("contracts", "explain", "reports").out


def test_a_cause_that_is_no_longer_stored(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(30, "opened", "d-1"))
    store(lambda tx: tx.run(events.Events.delete().where(events.Events.type == "opened")))
    found = said(edgeq, "doors", "d-1")
    assert (found["cause_id"], found["cause"], found["events"]) == (1, None, [])
    assert "because of   event 1, which is no longer stored" in lines(edgeq("contracts", "explain", "doors", "d-1"))


def test_numbers_and_the_conditions_of_a_threshold(edgeq: Edgeq) -> None:
    configure(COLD.replace(", suppressed_by: doors", ", where: {unit: C}, by: id"))
    new = [ago(40 - step, "reading", "f-1", {"value": -10, "unit": "C", "id": "x"}) for step in range(0, 30, 5)]
    judge(*new, ago(3, "reading", "f-1", {"value": -20, "unit": "C", "id": "x"}))
    found = said(edgeq, "cold", "x")
    assert found["rule"] == "value of reading isn't above -15 for 10m"
    assert found["conditions"] == ["for subjects that fit f-*", "for each id on its own", "only events (unit C)"]
    assert (found["state"], found["observed"]) == ("violated", -20)
    assert found["recalls"].startswith("value below -16 since 20")
    assert found["cure"] == "value below -16 for 5m in reading with id x"
    assert len(found["coming"]) == 1, "the end of clear.for"


def test_what_was_skipped_and_why(edgeq: Edgeq) -> None:
    configure(COLD.replace(", suppressed_by: doors", ""), DOORS)
    judge(
        ago(9, "reading", "f-1", {"value": -20}),
        ago(8, "reading", "f-1", {"value": "warm"}),
        ago(7, "reading", "f-1", {}),
        ago(6, "reading", "f-1", {"value": -20}, late=30),
        ago(5, "reading", "f-1", {"value": -20}, late=-30),
        ago(4, "reading", "other", {"value": "warm"}),
    )
    found = said(edgeq, "cold", "f-1")
    assert [(each["id"], each["reasons"]) for each in found["events"]] == [
        (5, ["future_timestamp"]), (4, ["too_late"]), (3, ["missing_field"]), (2, ["not_a_number"]), (1, []),
    ]  # fmt: skip
    text = lines(edgeq("contracts", "explain", "cold"))
    outcomes = [line.rpartition("  ")[2] for line in text if line[:1].isdigit()]
    assert outcomes == [
        "judged as of its arrival: it says later", "skipped: later than lateness allows", "skipped: a field is missing",
        "skipped: not a number", "judged",
    ]  # fmt: skip


def test_a_subject_that_was_never_judged_for_what_was_skipped(edgeq: Edgeq) -> None:
    configure(COLD.replace(", suppressed_by: doors", ""))
    judge(ago(9, "reading", "f-1", {"value": "warm"}))
    found = said(edgeq, "cold")
    assert found["subjects"] == []
    assert [each["reasons"] for each in found["skipped_events"]] == [["not_a_number"]]
    text = lines(edgeq("contracts", "explain", "cold"))
    assert "state        no subject was seen yet" in text
    assert text[-1].endswith("skipped: not a number")


def test_what_the_running_appliance_has_counted(edgeq: Edgeq, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(COLD.replace(", suppressed_by: doors", ""))
    judge(ago(9, "reading", "f-1", {"value": -20}))
    last = {"event_id": 7, "reason": "late", "subject": "f-1"}

    async def ask(loaded: LoadedConfig) -> dict[str, Any]:
        return {"contracts": [{"contract": "cold", "ok": 1, "skipped": {"late": 3}, "last_skipped": last}]}

    monkeypatch.setattr("edgeq.cli.contracts.explain.ask_appliance", ask)
    assert said(edgeq, "cold")["skipped"] == {"late": 3}
    told = "skipped      3 late since the start, the last one event 7 of f-1"
    assert told in lines(edgeq("contracts", "explain", "cold"))


# explain: what holds back


def test_what_is_suppressed_by_another_contract(edgeq: Edgeq) -> None:
    configure(DOORS, COLD)
    new = [ago(40 - step, "reading", "f-1", {"value": -10}) for step in range(0, 40, 5)]
    judge(ago(60, "opened", "d-1"), *new)
    found = said(edgeq, "cold")
    assert (found["state"], found["judged"]) == ("suppressed", "violated")
    assert found["held_back"] == ["suppressed by doors: judged, and not told"]
    assert found["looks_at"] == {"doors": "violated"}
    assert "silent while doors is violated" in found["conditions"]
    assert found["history"] == []
    text = lines(edgeq("contracts", "explain", "cold"))
    assert any(line.startswith("state        suppressed, judged to be violated since ") for line in text)
    assert "looks at     doors, which is violated" in text


def test_what_is_not_in_force(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(30, "opened", "violated"), ago(3, "opened", "pending"))
    configure(DOORS.replace("within", "valid_until: 2020-01-01, within"))
    judge()
    found = said(edgeq, "doors", "pending")
    assert (found["state"], found["conditions"]) == ("suppressed", ["until 2020-01-01"])
    assert found["held_back"] == ["not in force: nothing is judged"]
    found = said(edgeq, "doors", "violated")
    assert found["held_back"] == ["no longer in force: judged on until it is resolved"]
    configure(DOORS.replace("within", 'active: {days: [mon-fri], times: "08:00-17:00", timezone: UTC}, within'))
    assert said(edgeq, "doors", "violated")["conditions"] == ["active mon-fri 08:00-17:00 UTC"]


def test_a_contract_that_was_never_in_force(edgeq: Edgeq) -> None:
    configure(DOORS.replace("within", "valid_from: 2120-01-01T00:00:00Z, within"))
    judge(ago(30, "opened", "d-1"))
    found = said(edgeq, "doors")
    assert (found["subjects"], found["conditions"]) == ([], ["from 2120-01-01T00:00:00Z"])
    assert found["notes"] == ["not in force until 2120-01-01T00:00:00.000Z: nothing is judged"]


def test_what_waits_for_a_cooldown_and_what_is_told_again(edgeq: Edgeq) -> None:
    configure(DOORS.replace("within", "cooldown: 1h, within"))
    judge(ago(30, "opened", "a"), ago(20, "closed", "a"), ago(15, "opened", "a"))
    found = said(edgeq, "doors")
    assert (found["state"], found["judged"]) == ("pending", "violated")
    assert found["held_back"][0].startswith("violated, and not told before the end of the cooldown, 20")
    assert found["coming"] == []
    configure(DOORS.replace("within", "remind: 1h, within"))
    judge(ago(10, "opened", "b"))
    assert [each["what"] for each in said(edgeq, "doors", "b")["coming"]] == ["told again"]


def test_what_flaps(edgeq: Edgeq) -> None:
    configure(DOORS.replace("within", "flapping: {changes: 2, within: 1h}, within"))
    judge(ago(30, "opened", "a"), ago(20, "closed", "a"))
    found = said(edgeq, "doors")
    assert found["state"] == "suppressed"
    assert found["held_back"][0].startswith("flapping: told again when it was quiet until 20")


def test_what_keeps_the_state_from_being_that_of_this_moment(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(3, "opened", "a"))
    assert said(edgeq, "doors")["notes"] == []
    add(ago(1, "closed", "a"))
    assert said(edgeq, "doors")["notes"] == ["1 stored event not judged yet"]
    text = lines(edgeq("contracts", "explain", "doors"))
    assert "note         1 stored event not judged yet" in text
    assert any(line.startswith("2 ") and line.endswith("not judged yet") for line in text)

    def fail(tx: Any) -> None:
        cursors.fail(tx, cursors.take(tx, "sentinel", "latest", 0), Failure(2, 1, 0, "Traceback\nValueError: no"))
        cursors.pause(tx, "sentinel", True)

    store(fail)
    assert said(edgeq, "doors")["notes"][1:] == [
        "the processor sentinel fails at event 2: ValueError: no", "the processor sentinel is paused",
    ]  # fmt: skip


def test_a_state_that_means_nothing_under_the_keys_as_they_are_now(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(30, "opened", "a"))
    configure(DOORS.replace("after: opened", "after: unlocked"))
    found = said(edgeq, "doors", "a")
    assert found["held_back"] == [
        "stored under other keys, by which it meant something else: closed when edgeq reads these"
    ]
    assert [each["what"] for each in found["history"]] == ["violated"]
    store(lambda tx: contract_states.put(tx, [ContractState("doors", "b", "ok", -(2**62), 2**62, 0, "{not json")]))
    assert said(edgeq, "doors", "b")["held_back"] == found["held_back"]
    assert lines(edgeq("contracts", "explain", "doors", "b"))


# explain: several subjects, and strange ones


def test_several_subjects_the_worst_first_and_how_to_ask_for_one(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(*[ago(3, "opened", f"d-{number:02}") for number in range(30)], ago(30, "opened", "z"))
    found = said(edgeq, "doors")
    assert [each["subject"] for each in found["subjects"]][:2] == ["z", "d-00"]
    text = lines(edgeq("contracts", "explain", "doors"))
    place = next(index for index, line in enumerate(text) if line.startswith("subject "))
    assert text[place + 1].split()[:2] == ["z", "violated"]
    assert "and 11 more: edgeq contracts list doors" in text
    assert text[-1] == "edgeq contracts explain doors z says more of one"
    hint = edgeq("contracts", "explain", "doors", "nobody").err
    assert hint.endswith("d-18 and 11 more)\n")


def test_a_subject_that_begins_like_another(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(30, "opened", "a"), ago(30, "opened", "a:1"))
    assert [each["message"] for each in said(edgeq, "doors", "a")["history"]] == ["a no closed within 5m of opened"]


def test_events_without_a_subject(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(30, "opened"))
    assert "subject      (none)" in lines(edgeq("contracts", "explain", "doors"))
    assert said(edgeq, "doors", "")["state"] == "violated"


def test_what_strangers_wrote_reaches_no_terminal_raw(edgeq: Edgeq) -> None:
    hostile = "\x1b]0;owned\x07\x9b31m\u202e"
    configure(DOORS)
    judge(ago(30, "opened", hostile, {"x": hostile}), ago(30, "opened", "a"))
    for words in (["list", "--all"], ["explain", "doors"], ["explain", "doors", hostile]):
        shown = on_terminal(80, "contracts", *words)
        assert not set(shown) & set(hostile.replace("0;owned", "").replace("31m", "").replace("]", "")), words


def test_data_that_is_no_json_is_shown_as_it_stands(edgeq: Edgeq) -> None:
    configure(DOORS)
    judge(ago(30, "opened", "a"))
    store(lambda tx: tx.run(events.Events.update({events.Events.data: "{oops"})))
    found = said(edgeq, "doors")
    assert found["cause"]["data"] == "{oops"


# Every kind says its rule

RULES = [
    ("{name: n, kind: absence, of: x, every: 10m, grace: 1m}", "x comes at least every 10m, with 1m of grace"),
    ("{name: n, kind: threshold, of: x, between: [2, 8]}", "value of x isn't between 2 and 8"),
    ("{name: n, kind: threshold, of: x, above: 8, below: 2}", "value of x isn't above 8 or below 2"),
    ("{name: n, kind: threshold, of: x, field: a.b, equals: off}", "a.b of x isn't equal to off"),
    ("{name: n, kind: deadline, after: a, expect: b, within: 5m}", "after a, b comes within 5m"),
    ("{name: n, kind: rate, of: x, more_than: 2, within: 1h}", "there are never more than 2 x within 1h"),
    ("{name: n, kind: rate, of: x, fewer_than: 2, within: 1h}", "there are never fewer than 2 x within 1h"),
    ("{name: n, kind: sequence, steps: [a, b], within: 1h}", "a, then b happen within 1h"),
    (
        "{name: n, kind: sequence, steps: [a, {of: b, where: {kg: {above: 1}}}], within: 1h, must: not_happen}",
        "a, then b (kg above 1) never happen within 1h",
    ),
    (
        '{name: n, kind: requires, of: x, if: {any_of: [{of: a, count: 3, within: 24h}, {all_of: [{of: b, since: c}, '
        '{not: {between: ["22:00-06:00"], days: [sat, sun]}}]}]}}',
        "x happens only if (a 3 times within 1d) or ((b since c) and (not (it is 22:00-06:00 on sat, sun)))",
    ),
    (
        "{name: n, kind: count, of: x, at_least: 1, at_most: 3, per: day, timezone: Europe/Berlin}",
        "there are at least 1 and at most 3 x in each day in Europe/Berlin",
    ),
    ("{name: n, kind: stuck, of: x, for: 2h}", "value of x changes within 2h"),
    ("{name: n, kind: stuck, of: x, for: 2h, change: 0.5}", "value of x changes by at least 0.5 within 2h"),
    ("{name: n, kind: composite, any_of: [doors, cold], for: 1m}", "for 1m that any of doors, cold is violated"),
    (
        "{name: n, kind: composite, at_least: {count: 1, of: [doors, {all_of: [doors, cold]}]}}",
        "at least 1 of these hold: (doors is violated); (all of doors, cold are violated)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("contract", "rule"), RULES)
def test_every_kind_says_its_rule(edgeq: Edgeq, contract: str, rule: str) -> None:
    configure(contract, DOORS, COLD)
    store()
    assert rule in said(edgeq, "n")["rule"]


def test_the_rules_above_are_of_all_kinds() -> None:
    assert {contract.split("kind: ")[1].split(",")[0] for contract, _ in RULES} == set(KINDS)


def test_what_every_kind_remembers_and_would_be_put_right_by(edgeq: Edgeq) -> None:
    configure(
        DOORS, COLD, REPORTS,
        "{name: rate, kind: rate, of: opened, more_than: 1, within: 1h}",
        "{name: sequence, kind: sequence, steps: [opened, painted, closed], within: 10m}",
        "{name: requires, kind: requires, of: opened, if: {of: badge, after: 1m, within: 1m}}",
        "{name: count, kind: count, of: opened, at_most: 1, per: month}",
        "{name: stuck, kind: stuck, of: reading, for: 5m}",
        "{name: composite, kind: composite, not: doors}",
    )  # fmt: skip
    judge(
        ago(30, "opened", "d"), ago(29, "opened", "d"), ago(28, "closed", "d"),
        *[ago(20 - step, "reading", "f-1", {"value": -10}) for step in range(20)],
    )  # fmt: skip
    found = {name: said(edgeq, name) for name in ("rate", "sequence", "requires", "count", "stuck", "composite")}
    assert {name: each["state"] for name, each in found.items()} == dict.fromkeys(found, "violated")
    assert {name: each["cure"] for name, each in found.items()} == {
        "rate": "no more than 1 opened of d within 1h",
        "sequence": "painted, then closed of d",
        "requires": "the next opened of d that is allowed",
        "count": "the end of the month",
        "stuck": "value other than -10 in reading of f-1",
        "composite": "a change of doors by which that isn't so",
    }
    assert found["rate"]["recalls"].startswith("2 that count, from 20")
    assert found["sequence"]["recalls"].startswith("opened since 20")
    assert found["count"]["recalls"].startswith("2 in the month from 20")
    assert found["stuck"]["recalls"].startswith("value -10 since 20")


# How it looks


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_is_not_overrun(edgeq: Edgeq, columns: int) -> None:
    configure(DOORS.replace("Doors get closed.", "Doors get closed. " * 20), COLD, REPORTS)
    new = [ago(40 - step, "reading", "f-1", {"value": -10, "unit": "C" * 40}) for step in range(0, 40, 5)]
    judge(ago(60, "opened", "d-1"), ago(50, "opened", "d-2"), *new)
    for words in (["list"], ["list", "--all"], ["explain", "doors"], ["explain", "doors", "d-1"], ["explain", "cold"]):
        shown = on_terminal(columns, "contracts", *words)
        assert max(map(len, shown.splitlines())) <= columns, words
        assert "…" not in shown


def test_a_pipe_has_no_width(edgeq: Edgeq) -> None:
    description = "Doors get closed. " * 20
    configure(DOORS.replace("Doors get closed.", description))
    judge(ago(60, "opened", "d-1"))
    assert lines(edgeq("contracts", "explain", "doors"))[1] == f"             {description}".rstrip()


def test_what_cannot_be_heard_is_told_apart() -> None:
    (contract,) = contracts_of({**ABSENCE, "suppressed_by": "link"})
    assert conditions(contract) == ["silent while there is no session to the broker"]
    unheard = Instance(subject="a", state="ok", since=NOON, report=Report(unheard=NOON))
    assert held_back(contract, unheard, {}) == [
        f"nothing can be heard since {rfc3339(NOON)}: there is no session to the broker"
    ]


def test_a_time_zone_of_the_machine_that_cannot_be_used_is_told(edgeq: Edgeq, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(DOORS)
    judge(ago(30, "opened", "a"))
    monkeypatch.setenv("TZ", "No/Zone")
    done = edgeq("contracts", "list")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines() == [
        "edgeq: the machine's time zone can't be used: there is no time zone 'No/Zone' "
        "(set TZ to a name such as Europe/Berlin)"
    ]
