"""`edgeq demo` as somebody sees it who has just heard of edgeq: in a pipe, on a terminal, and ended early."""

from __future__ import annotations

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import urllib.request
from fcntl import ioctl
from pathlib import Path

import pytest

pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")

ALL_KINDS_SECONDS = 28.5
"""Each kind of contract was violated after 21 seconds, and one resolved after 22, on a machine that keeps up; see
`demo.scenario`. The sensors speak once a second: between two times all of it is stored."""


class Demo:
    """A demo as a child process, whose scratch folders lie in `scratch`."""

    def __init__(self, scratch: Path, *words: str, terminal: int | None = None) -> None:
        output = subprocess.PIPE if terminal is None else terminal
        environment = {**os.environ, "TMPDIR": str(scratch), "TERM": "xterm-256color", "EDGEQ_GATEWAY": "not-mine"}
        self.scratch = scratch
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeq.cli.main", "demo", *words],
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def ended(self) -> tuple[int, str, str]:
        """Its exit status, and what it printed, once it has ended."""
        out, err = self.process.communicate(timeout=180)
        assert list(self.scratch.iterdir()) == [], "the scratch folder is left behind"
        return self.process.returncode, (out or b"").decode(), (err or b"").decode()


def test_within_half_a_minute_every_kind_of_contract_is_broken_and_told(tmp_path: Path) -> None:
    status, out, err = Demo(tmp_path, "--seconds", str(ALL_KINDS_SECONDS)).ended()
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if re.match(r" +\d+\.\d+s  [A-Z]", line)]
    kinds = {line.split("s  ", 1)[1][:12].strip() for line in lines}
    assert kinds >= {"ARRIVED", "VIOLATED", "RESOLVED", "NOTIFIED", "DEAD LETTER"}
    for kind in ("absence", "deadline", "threshold"):
        assert re.search(rf"^  {kind} +[1-9]\d* violated", out, re.MULTILINE), out
    counts = re.search(r"(\d+) messages published, (\d+) events stored, (\d+) dead letters", out)
    assert counts is not None
    published, events, letters = map(int, counts.groups())
    assert published == events + letters > 40, "each message is an event or a dead letter"
    assert "\x1b" not in out, "a pipe gets no colours"


def test_its_status_page_shows_it_and_with_the_token_changes_it(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    assert demo.process.stdout is not None
    said = re.fullmatch(rb"status page: (http\S+) \(token (\S+)\)\n", demo.process.stdout.readline())
    assert said is not None
    address, token = said[1].decode(), said[2].decode()
    while b"ARRIVED" not in demo.process.stdout.readline():
        pass
    with urllib.request.urlopen(address, timeout=30) as page:
        assert b"<title>edgeq</title>" in page.read()
    path, headers = f"{address}api/processors/courier/pause", {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(path, method="POST", headers=headers), timeout=30) as answer:
        assert answer.status == 200
    demo.process.send_signal(signal.SIGINT)
    assert demo.ended()[0] == 0


def test_on_a_terminal_it_keeps_to_the_screen(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    demo = Demo(tmp_path, "--seconds", "9", terminal=its)
    os.close(its)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # what reading a terminal ends with
    finally:
        os.close(ours)
    assert demo.ended()[0] == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "")
    for expected in ("what arrives", "what is violated", "what happens", "freezer-1", "DEAD LETTER"):
        assert expected in text
    assert re.search(r"(?<!\d)(9|[1-9]\d) seconds: ", text), "so long, and what it took to end"
    assert b"\\x02ERR" not in shown
    last = text[text.rindex("edgeq demo ") :]
    screen = last[: last.rindex("╯") + 1].splitlines()
    assert len(screen) <= 24, screen
    assert all(len(line) <= 80 for line in screen), screen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_early_it_still_sums_up(tmp_path: Path, number: int) -> None:
    demo = Demo(tmp_path)
    assert demo.process.stdout is not None
    seen = b""
    while b"ARRIVED" not in seen:
        line = demo.process.stdout.readline()
        assert line, seen
        seen += line
    demo.process.send_signal(number)
    status, out, err = demo.ended()
    assert (status, err) == (0, "")
    assert " messages published, " in out


def test_without_its_broker_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "amqtt.py").write_text("raise ImportError('not installed')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hidden"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "edgeq.cli.main", "demo", "--seconds", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "edgeq: mqtt.url embedded:// needs the extra 'demo' (pip install 'edgeq[demo]')\n"
