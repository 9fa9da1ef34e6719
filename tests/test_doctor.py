"""`edgeq doctor` as people and scripts call it. Each check has its time, and none that is broken stops the others."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Edgeq, commands
from support.doctors import Patient, states
from support.terminal import Terminal

from edgeq.doctor import appliance, channels, checks, configuration, unit
from edgeq.doctor.case import Case
from edgeq.doctor.checks import CHECKS, Check, examine
from edgeq.doctor.finding import Finding, bad, ok

CONFIGURATION = """\
gateway: g
mqtt: {url: "mqtt://127.0.0.1:1"}
routes: [{topic: a, emit: x}]
"""


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    yield from commands(CONFIGURATION, tmp_path, monkeypatch, capsys)


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def test_it_says_what_is_wrong_why_and_what_to_do_and_ends_with_1(edgeq: Edgeq) -> None:
    done = edgeq("doctor")
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    at = next(at for at, line in enumerate(lines) if "127.0.0.1:1 can't be reached" in line)
    assert lines[at].split()[:2] == ["bad", "broker"]
    assert lines[at + 1].strip() == "nothing is taken in"
    assert lines[at + 2].strip() == "do: systemctl status mosquitto"
    assert "1 wrong" in lines[-1]


def test_scripts_get_an_object_for_each_finding(edgeq: Edgeq) -> None:
    done = edgeq("doctor", "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert {each["check"] for each in found} <= {check.name for check in CHECKS}
    assert all(set(each) == {"check", "state", "what", "why", "do"} for each in found)
    assert all(each["why"] for each in found if each["state"] != "ok")


def test_a_wrong_configuration_is_78_with_every_mistake(edgeq: Edgeq) -> None:
    Path("edgeq.yaml").write_text("gatway: g\nmqtt: {urll: x}\n")
    done = edgeq("doctor")
    assert done.status == 78
    assert "gatway" in done.err
    assert "urll" in done.err


def test_nothing_is_made_where_there_is_nothing(edgeq: Edgeq) -> None:
    edgeq("doctor")
    assert os.listdir() == ["edgeq.yaml"]


def test_when_nothing_is_wrong_it_ends_with_0(edgeq: Edgeq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.cli.doctor.CHECKS", CHECKS[:1])
    monkeypatch.setattr("edgeq.cli.doctor.examine", lambda case: examine(case, CHECKS[:1]))
    done = edgeq("doctor")
    assert (done.status, done.out.splitlines()[-1]) == (0, "1 fine")


def test_a_terminal_sees_colours_folded_lines_and_that_it_gets_on(edgeq: Edgeq, tmp_path: Path) -> None:
    with Terminal("doctor", folder=tmp_path, columns=80) as terminal:
        assert terminal.end() == 1
        assert "\x1b[31;1m" in terminal.raw or "\x1b[1;31m" in terminal.raw
        assert f"{len(CHECKS)}/{len(CHECKS)}" in terminal.text
        printed = [line.rpartition("\r")[2] for line in terminal.text.splitlines()]
        assert max(len(line) for line in printed if line.startswith(" " * 24)) <= 80


# The table


def _hangs(case: Case) -> Iterator[Finding]:
    """Whether it hangs."""
    yield ok("before")
    threading.Event().wait()


def _fails(case: Case) -> Iterator[Finding]:
    yield ok("before")
    raise RuntimeError("ouch")


def _finds(case: Case) -> Iterator[Finding]:
    yield bad("found", "because")


def test_a_check_that_hangs_or_fails_stops_none_of_the_others(patient: Patient) -> None:
    table = [Check("one", _hangs, 2.0), Check("two", _fails), Check("three", _finds)]
    found = dict(examine(patient.case(), table))
    assert [(each.state, each.what) for each in found["one"]] == [
        ("ok", "before"), ("unknown", "whether it hangs: couldn't be seen"),
    ]  # fmt: skip
    assert found["two"][1].why == "RuntimeError: ouch"
    assert states(found["three"]) == ["bad"]


def test_all_of_it_ends_within_half_a_minute() -> None:
    assert max(check.seconds for check in CHECKS) <= 30
    assert all(check.look.__doc__ for check in CHECKS), "that is what is said of one that doesn't end"


# Configuration, service, channels


def test_what_in_a_configuration_gives_a_guarantee_away(patient: Patient) -> None:
    patient.configure("store: {durability: normal}\nmqtt: {session_expiry: 5m}\n")
    told = patient.told(configuration.loaded)
    assert "edgeq.yaml:1)" in told
    assert "a power cut may take messages" in told
    assert "what is published while edgeq is down for longer is lost" in told
    assert "there are no routes" in told


UNIT = {
    "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled",
    "FragmentPath": "/etc/systemd/system/edgeq.service", "DropInPaths": "", "NeedDaemonReload": "no",
    "User": "nobody", "Type": "notify", "KillMode": "mixed", "WatchdogUSec": "1min", "NRestarts": "0",
    "RestartPreventExitStatus": "78",
}  # fmt: skip


def systemd(monkeypatch: pytest.MonkeyPatch, folder: Path, **facts: str) -> None:
    """Have a `systemctl` that says this of the service."""
    made = folder / "bin/systemctl"
    made.parent.mkdir(exist_ok=True)
    lines = "\n".join(f"{name}={value}" for name, value in {**UNIT, **facts}.items())
    made.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
    made.chmod(made.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{made.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_service_as_it_should_be(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd(monkeypatch, patient.folder)
    assert states(patient.found(unit.installed)) == ["ok"]
    assert states(patient.found(unit.settings)) == ["ok"]


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        ({"LoadState": "not-found"}, "warn", "isn't installed"),
        ({"UnitFileState": "disabled"}, "warn", "systemctl enable edgeq"),
        ({"NeedDaemonReload": "yes"}, "warn", "daemon-reload"),
        ({"NRestarts": "4"}, "warn", "again 4 times"),
        ({"WatchdogUSec": "infinity"}, "warn", "has no WatchdogSec"),
        ({"KillMode": "control-group"}, "warn", "KillMode=control-group and not KillMode=mixed"),
        ({"RestartPreventExitStatus": ""}, "warn", "again and again"),
        ({"User": ""}, "warn", "runs as root"),
        ({"DropInPaths": "/etc/systemd/system/edgeq.service.d/override.conf"}, "ok", "changed by /etc/systemd"),
        ({"ExecStart": "{ path=/no/such ; argv[]=/no/such/edgeq run -c edgeq.yaml ; }"}, "bad", "which isn't there"),
        ({"ExecStart": "{ path=/bin/sh ; argv[]=/bin/sh run ; }"}, "warn", "this is another edgeq"),
    ],
)
def test_a_service_that_is_not(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], state: str, said: str
) -> None:
    systemd(monkeypatch, patient.folder, **facts)
    found = [each for look in (unit.installed, unit.settings, unit.version) for each in patient.found(look)]
    assert [each.state for each in found if said in f"{each.what} {each.why} {each.do}"] == [state]


def test_a_service_with_another_configuration(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    start = "{ path=/bin/sh ; argv[]=/bin/sh run -c /etc/edgeq/other.yaml ; ignore_errors=no }"
    systemd(monkeypatch, patient.folder, ExecStart=start)
    assert "runs with /etc/edgeq/other.yaml" in patient.told(unit.version)


def test_a_service_that_runs_this_edgeq_by_a_link(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    version = patient.folder / "versions/1.0"
    (version / "bin").mkdir(parents=True)
    (version / "bin/edgeq").touch()
    (patient.folder / "link").symlink_to(version / "bin")
    monkeypatch.setattr(sys, "prefix", str(version))
    start = f"{{ path=x ; argv[]={patient.folder}/link/edgeq run -c {patient.folder}/edgeq.yaml ; }}"
    systemd(monkeypatch, patient.folder, ExecStart=start)
    assert patient.found(unit.version) == []


def test_a_unit_of_another_version(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = patient.folder / "share/edgeq/systemd/edgeq.service"
    shipped.parent.mkdir(parents=True)
    shipped.write_text("[Service]\n")
    monkeypatch.setattr(sys, "prefix", str(patient.folder))
    systemd(monkeypatch, patient.folder)
    patient.put("etc/systemd/system/edgeq.service", "[Service]\n")
    assert states(patient.found(unit.installed)) == ["ok"]
    patient.put("etc/systemd/system/edgeq.service", "[Service]\nUser=root\n")
    assert "isn't the unit of this version" in patient.told(unit.installed)


def test_where_there_is_no_systemd(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(patient.folder))
    assert states(patient.found(unit.installed)) == ["unknown"]
    assert patient.found(unit.settings) == patient.found(unit.version) == []


def test_a_service_that_runs_and_does_not_answer(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    patient.configure(f"store: {{url: {patient.folder}/edgeq.db}}\n")
    systemd(monkeypatch, patient.folder)
    assert patient.told(appliance.running).startswith("bad: edgeq.service runs, and nothing answers")
    systemd(monkeypatch, patient.folder, ActiveState="failed")
    assert patient.told(appliance.running).startswith("bad: edgeq.service has failed")


def test_hosts_that_can_not_be_found(patient: Patient) -> None:
    patient.configure(
        "channels:\n"
        "  hook: {kind: webhook, url: 'http://localhost:1/x'}\n"
        "  mail: {kind: smtp, host: no.such.host.invalid, from: a@b.c, to: [a@b.c]}\n"
        "  any: {kind: apprise, url: 'tgram://123456:secret/42'}\n"
        "notifications: {heartbeat: 'https://no.such.host.invalid/ping'}\n"
    )
    told = patient.told(channels.resolved)
    assert "ok: localhost of the channel hook can be found" in told
    assert "warn: no.such.host.invalid of the channel mail" in told
    assert told.count("no.such.host.invalid can't") + told.count("no.such.host.invalid of") == 1, "once for all"
    assert "secret" not in told
    assert "123456" not in told


def test_every_check_is_in_the_table_once() -> None:
    looks = [check.look for check in checks.CHECKS]
    assert len(looks) == len(set(looks))
