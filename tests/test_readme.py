"""The README's tour, done as it says, in an empty folder; and every file it names is there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
TOUR = README[README.index("## A tour in five minutes") : README.index("## Configuration")]


class Terminals:
    """The reader's two terminals: `edgeq run` stays in the first, everything else is typed into the second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "first-terminal.log"
        self.running: subprocess.Popen[bytes] | None = None
        bin_folder = str(Path(sys.executable).parent)
        self.environment = {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self.environment.pop("EDGEQ_CONFIG", None)

    def type(self, command: str) -> str:
        if command == "edgeq run":
            self._run()
            return ""
        if "pkill" in command:  # the reader has one edgeq running; this machine may have others
            assert self.running is not None
            self.running.send_signal(signal.SIGHUP)
            self.wait_for("the configuration was read again")
            self.wait_for("connected to", times=2)
            self._subscribed()
            return ""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _run(self) -> None:
        self.stop()
        with self.log.open("wb") as log:
            self.running = subprocess.Popen(
                ["edgeq", "run"], cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.wait_for("connected to")
        self._subscribed()

    def _subscribed(self) -> None:
        """A reader types slower than a broker answers; a test must look."""
        self.until("edgeq status --json", '"state":"connected"')

    def wait_for(self, text: str, times: int = 1) -> None:
        """Return when the first terminal has shown `text` so often."""
        deadline = time.monotonic() + 30
        while self.log.read_text().count(text) < times:
            assert self.running is not None
            assert self.running.poll() is None, f"edgeq run ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"{text!r} did not appear:\n{self.log.read_text()}"
            time.sleep(0.05)

    def until(self, command: str, *expected: str) -> str:
        """Type `command` until its output has all of `expected`, as a reader would look again."""
        deadline = time.monotonic() + 20
        while True:
            shown = self.type(command)
            if all(text in shown for text in expected):
                return shown
            assert time.monotonic() < deadline, f"{command} does not show {expected}:\n{shown}"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.running is not None:
            self.running.send_signal(signal.SIGINT)
            assert self.running.wait(30) == 0, self.log.read_text()
            self.running = None


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    if made.running is not None:
        made.running.kill()
        made.running.wait()


# What a reader must see after typing a line of the tour, in the order of the tour.
SHOWN = {
    "edgeq events list": ["temperature.reading", "bed-1", '{"value": 21.5}'],
    "edgeq dead-letters list": ["undecodable", "greenhouse/bed-1/temperature", "not JSON"],
    "edgeq events list --tag contract": ["contract.violated", "contract.resolved", "not-too-hot"],
    "edgeq jobs list": ["greenhouse:Water", "completed", "bed-1"],
    "edgeq processors list": ["gardener", "courier", "sentinel"],
    "edgeq status": ["running", "connected", "sentinel"],
}


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed (mosquitto-clients)")
def test_the_tour_works_as_it_is_written(terminals: Terminals) -> None:
    typed = []
    for language, note, body in BLOCK.findall(TOUR):
        if note.startswith("file="):
            path = terminals.folder / note.removeprefix("file=")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
            continue
        assert language == "sh", f"the tour has a block that no test runs: {language} {note}"
        if note == "restart":
            terminals.stop()
        for line in body.strip().splitlines():
            typed.append(line)
            terminals.until(line, *SHOWN.get(line, []))
    assert set(SHOWN) <= set(typed)
    log = terminals.log.read_text()
    assert "Traceback" not in log
    terminals.stop()


def test_the_tour_shows_its_notifications(terminals: Terminals) -> None:
    """The sentence about the first terminal is true: violated and resolved are both logged by the channel."""
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    files = {note.removeprefix("file="): body for _, note, body in BLOCK.findall(TOUR) if note.startswith("file=")}
    (terminals.folder / "conf.d").mkdir()
    (terminals.folder / "edgeq.yaml").write_text(files["edgeq.yaml"].replace(":18830", ""))
    (terminals.folder / "conf.d/promises.yaml").write_text(files["conf.d/promises.yaml"])
    terminals.type("edgeq run")
    terminals.type("edgeq emit temperature.reading --subject bed-1 --data '{\"value\": 33}'")
    terminals.wait_for("not-too-hot")
    terminals.type("edgeq emit temperature.reading --subject bed-1 --data '{\"value\": 24}'")
    terminals.wait_for("resolved")


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:config|scripts|systemd)/[\w./-]+)`", README))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_command_that_the_readme_names_is_one() -> None:
    table = README[README.index("## Commands") : README.index("## As a service")]
    for words in re.findall(r"`edgeq ([\w-]+)", table):
        subprocess.run([sys.executable, "-m", "edgeq.cli.main", words, "--help"], check=True, capture_output=True)
