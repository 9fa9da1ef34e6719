"""What systemd is told, and the unit file."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.config.environment import NOT_KEYS
from edgeq.telemetry.systemd import Notifier

UNIT = Path(__file__).parents[1] / "systemd" / "edgeq.service"
WORKER = UNIT.with_name("edgeq-worker@.service")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket in systemd's place, and the address that it would put into the environment."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgeq-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name if request.param == "path" else "\0" + name[1:])
        receiver.settimeout(60)
        yield receiver, name


def test_systemd_hears_how_the_service_is(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
    notifier.ready()
    notifier.status("broker: connected")
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping()
    heard = [receiver.recv(4096).decode() for _ in range(5)]
    assert heard[:3] == ["READY=1", "STATUS=broker: connected", "WATCHDOG=1"]
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", heard[3])
    assert heard[4] == "STOPPING=1"


def test_a_status_is_one_line_and_sent_once(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.status("store: no space left\nMAINPID=1\ud800" + "x" * 100_000)
    notifier.status("broker: connected")
    notifier.status("broker: connected")
    notifier.ready()
    first = receiver.recv(200_000).decode()
    assert first.startswith("STATUS=store: no space left MAINPID=1?xxx")
    assert "\n" not in first
    assert len(first) < 1000
    assert receiver.recv(4096) == b"STATUS=broker: connected"
    assert receiver.recv(4096) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_socket_nothing_is_sent(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environ({**environ, "WATCHDOG_USEC": "60000000"})
    assert notifier.watchdog_interval_seconds is None
    notifier.ready()
    notifier.status("fine")
    assert not caplog.records


@pytest.mark.parametrize("address", ["/nowhere/notify", "/" + "x" * 500, "@nobody-listens"])
def test_a_socket_that_is_gone_is_said_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    with caplog.at_level(logging.WARNING):
        notifier.ready()
        notifier.status("fine")
        notifier.stopping()
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        f"systemd can't be told anything over {address}"
    ]


def test_a_status_that_was_not_heard_is_sent_again(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.status("fine")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(60)
        notifier.status("fine")
        assert receiver.recv(4096) == b"STATUS=fine"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier.from_environ({"NOTIFY_SOCKET": "/x", **environ}).watchdog_interval_seconds == seconds


def settings(unit: Path = UNIT) -> dict[str, list[str]]:
    """A unit file's assignments, by section and key: `Service.Type`."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def test_the_unit_runs_edgeq_as_its_commands_expect() -> None:
    unit = settings()
    assert unit["Service.Type"] == ["notify"]
    assert unit["Service.ExecStart"] == ["/opt/edgeq/bin/edgeq run -c /etc/edgeq/edgeq.yaml"]
    assert unit["Service.ExecReload"] == ["/bin/sh -c 'kill -HUP ${MAINPID}'"]
    assert unit["Service.RestartPreventExitStatus"] == ["78"], "a wrong configuration doesn't get right by a restart"
    assert unit["Service.StateDirectory"] == ["edgeq"]
    assert unit["Service.Environment"] == ["EDGEQ_BOOT_ID=%b"]
    assert "EDGEQ_BOOT_ID" in NOT_KEYS, "it is no key of the configuration"
    assert int(unit["Service.TimeoutStopSec"][0]) > 30, "draining takes up to 30 seconds"
    assert "time-sync.target" in unit["Unit.After"][0]
    assert not {"Unit.Wants", "Unit.Requires", "Unit.BindsTo"} & unit.keys(), "a site without a network starts too"


def test_the_unit_of_a_worker_differs_from_it_only_where_it_must() -> None:
    unit, worker = settings(), settings(WORKER)
    different = {name for name in unit.keys() | worker.keys() if unit.get(name) != worker.get(name)}
    assert different == {
        "Unit.Description", "Unit.After", "Service.Environment", "Service.ExecStart", "Service.ExecReload",
        "Service.RuntimeDirectory", "Install.DefaultInstance",
    }  # fmt: skip
    assert worker["Service.ExecStart"] == ["/opt/edgeq/bin/edgeq work %i -c /etc/edgeq/edgeq.yaml"]
    assert "Service.ExecReload" not in worker, "SIGHUP changes nothing"


@pytest.fixture(params=[UNIT, WORKER], ids=["edgeq", "edgeq-worker"])
def installed_unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit as it is after an installation, with a program that exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze isn't installed: apt-get install systemd")
    unit: Path = request.param
    copy = tmp_path / unit.name.replace("@", "@video")
    copy.write_text(unit.read_text().replace("/opt/edgeq/bin/edgeq", "/bin/true"))
    return copy


def test_systemd_understands_every_line_of_the_unit(installed_unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", installed_unit],
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if installed_unit.name in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_leaves_little_open(installed_unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", installed_unit],
        capture_output=True,
        text=True,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze can't judge a file: it needs systemd 250")
    assert done.returncode == 0, done.stdout + done.stderr
