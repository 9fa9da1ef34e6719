"""`edgeq new`: what it writes is right, runs, and passes its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Peer, free_port


def edgeq(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
    command = [sys.executable, "-m", "edgeq.cli.main", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A new app."""
    done = edgeq("new", "green-house", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "next: cd green-house && edgeq check && edgeq run" in done.stdout
    return tmp_path / "green-house"


def test_it_holds_one_of_each_and_passes_the_check(app: Path) -> None:
    done = edgeq("check", cwd=app)
    assert done.returncode == 0, done.stderr
    assert "routes      2: " in done.stdout
    assert "processors  3: fan, sentinel, courier" in done.stdout
    assert "contracts   1: not-too-hot" in done.stdout


def test_its_tests_pass(app: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    assert not list(app.glob("*.db*")), "tests use a scratch folder"


def test_the_tests_of_its_contract_pass_and_notice_another_limit(app: Path) -> None:
    done = edgeq("contracts", "test", "tests", cwd=app)
    assert (done.returncode, done.stdout) == (0, "2 passed, 0 failed (1 file)\n"), done.stdout + done.stderr
    configuration = app / "edgeq.yaml"
    configuration.write_text(configuration.read_text().replace("above: 40", "above: 39.5"))
    done = edgeq("contracts", "test", "tests", cwd=app)
    assert done.returncode == 1
    assert "1 passed, 1 failed" in done.stdout


@pytest.fixture
def running(app: Path) -> Iterator[Appliance]:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    port = free_port()
    configuration = (app / "edgeq.yaml").read_text()
    assert "embedded://127.0.0.1:1883" in configuration
    made = Appliance(app, configuration.replace("embedded://127.0.0.1:1883", f"embedded://127.0.0.1:{port}"))
    made.database = app / "green_house.db"
    made.start()
    yield made
    made.kill()


def test_it_runs(running: Appliance) -> None:
    port = int(running.status()["session"]["url"].rpartition(":")[2])
    with Peer(port) as peer:
        peer.publish("sensors/oven/temperature", '{"value": 41}')
    running.until(lambda: "fan.switched" in [row[0] for row in running.sql("SELECT type FROM events")], "the fan")
    running.until(lambda: "not-too-hot" in running.log, "the notification")
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.mark.parametrize(
    ("folder", "status", "told"),
    [
        ("full", 1, "full is not empty (name a folder that isn't there yet)"),
        ("a-file", 1, "can't write into a-file: Not a directory"),
        ("a-file/below", 1, "can't write into a-file/below: Not a directory"),
        ("1st", 2, "'1st' can't be the name of an app: begin it with a letter"),
        ("class", 2, "'class' can't be the name of an app"),
        ("...", 2, "can't be the name of an app"),
    ],
)
def test_where_no_app_can_be_it_says_why_and_writes_nothing(
    tmp_path: Path, folder: str, status: int, told: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "a-file").touch()
    done = edgeq("new", folder, cwd=tmp_path)
    assert done.returncode == status
    assert told in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a-file", "full", "mine"]


@pytest.mark.parametrize("name", ["json", "edgeq", "asyncio"])
def test_an_app_hides_no_module_that_is_there_already(tmp_path: Path, name: str) -> None:
    assert edgeq("new", name, cwd=tmp_path).returncode == 0
    assert (tmp_path / name / "app" / f"{name}_app.py").exists()
    done = edgeq("check", cwd=tmp_path / name)
    assert done.returncode == 0, done.stderr


def test_a_folder_whose_name_a_shell_would_take_apart(tmp_path: Path) -> None:
    done = edgeq("new", "my house; reboot", cwd=tmp_path)
    assert "next: cd 'my house; reboot' && edgeq check" in done.stdout
    assert (tmp_path / "my house; reboot" / "app" / "my_house__reboot.py").exists()
