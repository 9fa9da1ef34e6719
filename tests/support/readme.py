"""The README and docs/ as a reader follows them: blocks, tables, links, and the terminals in which lines are typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DEADLINE_SECONDS = 120.0
ROOT = Path(__file__).parent.parent.parent
_PATHS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in _PATHS}
README = PAGES["README.md"]
FOLLOWED: list[str] = []
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def followed(text: str) -> str:
    """`text`, of which the module that says so runs or checks every block. test_readme.py looks that each is in one."""
    FOLLOWED.append(text)
    return text


def section(title: str, page: str = README) -> str:
    """What stands in the text `page` below the heading `title`, up to the next one of its level."""
    marks = title.partition(" ")[0]
    text = page[page.index(f"\n{title}\n") + len(title) + 2 :]
    found = re.search(rf"^#{{1,{len(marks)}}} ", outside_blocks(text), re.MULTILINE)
    return text[: found.start()] if found else text


def blocks(text: str) -> list[str]:
    """Every fenced block, whole."""
    return [found[0] for found in _BLOCK.finditer(text)]


def outside_blocks(text: str) -> str:
    """The same with spaces in place of the blocks."""
    return _FENCED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def links(text: str) -> list[str]:
    """Where the links lead that don't leave the project."""
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(text)) if not to.startswith(("https:", "http:"))]


def anchors(text: str) -> set[str]:
    """What a link may have behind `#`: of each heading its letters, digits and hyphens, and a hyphen for each space."""
    titles = re.findall(r"^#+ (.*)$", outside_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}


def steps(text: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Each line that the reader types, with the word beside `sh` of its block. A block that names a file is written to
    `folder` when its turn comes. What a block of `text` shows is for `printed`."""
    for language, note, body in _BLOCK.findall(text):
        if language == "text":
            continue
        if note.startswith("file="):
            path = folder / note.removeprefix("file=")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
            continue
        assert language == "sh", f"a block that no test runs: {language} {note}"
        yield from ((line, note) for line in body.strip().splitlines())


def printed(text: str) -> dict[int, str]:
    """What the reader sees, by the number of the line that prints it: the last one before each block of `text`."""
    found, typed = {}, 0
    for language, _, body in _BLOCK.findall(text):
        if language == "sh":
            typed += len(body.strip().splitlines())
        elif language == "text":
            found[typed - 1] = body
    return found


def shows(out: str, block: str) -> bool:
    """Whether `out` has the lines of `block` in their order. Times, and the spaces between columns, may differ."""
    lines = iter(_timeless(out))
    return all(line in lines for line in _timeless(block))


def _timeless(text: str) -> list[str]:
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"\b\d+(\.\d+)?[dhms]( \d+[hms])?\b", "LENGTH", text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def files(text: str) -> dict[str, str]:
    """The blocks that name a file."""
    return {note.removeprefix("file="): body for _, note, body in _BLOCK.findall(text) if note.startswith("file=")}


def table(text: str) -> list[list[str]]:
    """The rows of the first table in `text`, without its head."""
    lines = text[text.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


class Terminals:
    """The reader's two terminals: `edgeq run` stays in the first, everything else is typed into the second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "first-terminal.log"
        self.running: subprocess.Popen[bytes] | None = None
        self.complaints = ""
        bin_folder = str(Path(sys.executable).parent)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
        self.environment = {
            **kept,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }

    def type(self, command: str, *, status: int = 0) -> str:
        """What the command prints; what it complains of is in `complaints`. Fails unless it ends with `status`."""
        if command == "edgeq run":
            self._run()
            return ""
        before = self._shown() if command == "edgeq reload" else ""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=DEADLINE_SECONDS,
        )  # fmt: skip
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"
        self.complaints = done.stderr
        if command == "edgeq reload":
            for text in ("the configuration was read again", "connected to"):
                self.wait_for(text, times=before.count(text) + 1)
            self._subscribed()
        return done.stdout

    def start(self, command: str, until: str) -> None:
        """Begin a command in the first terminal; returns when it has shown `until`."""
        self.stop()
        with self.log.open("wb") as log:
            self.running = subprocess.Popen(
                command.split(), cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.wait_for(until)

    def _run(self) -> None:
        self.start("edgeq run", "connected to")
        self._subscribed()

    def _subscribed(self) -> None:
        """A reader types slower than a broker answers; a test must look."""
        self.until("edgeq status --json", '"state":"connected"')

    def wait_for(self, text: str, times: int = 1) -> None:
        """Return when the first terminal has shown `text` so often."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            assert self.running is not None
            ended = self.running.poll() is not None  # before the look: what it said last is said by then
            if self._shown().count(text) >= times:
                return
            assert not ended, f"it ended:\n{self._shown()}"
            assert time.monotonic() < deadline, f"{text!r} did not appear:\n{self._shown()}"
            time.sleep(0.05)

    def _shown(self) -> str:
        """What the first terminal has shown; the last character may not be whole yet."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def until(self, command: str, *expected: str) -> str:
        """Type `command` until its output has all of `expected`, as a reader would look again."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            shown = self.type(command)
            if all(text in shown for text in expected):
                return shown
            assert time.monotonic() < deadline, f"{command} does not show {expected}:\n{shown}"
            time.sleep(0.1)

    def stop(self) -> None:
        """Ctrl-C in the first terminal."""
        if self.running is not None:
            self.running.send_signal(signal.SIGINT)
            assert self.running.wait(DEADLINE_SECONDS) == 0, self._shown()
            self.running = None

    def kill(self) -> None:
        """Leave nothing running."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()
            self.running = None
