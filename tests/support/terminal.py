"""A terminal in which a command runs: what it shows, keys that are pressed, the size of the window."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_SECONDS = 120.0
_CONTROL = re.compile(r"\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])")


class Terminal:
    """`edgeq` with these words, or the program `command`, in `folder`. With `output`, standard output goes there."""

    def __init__(
        self,
        *words: str,
        folder: Path,
        command: list[str] | None = None,
        columns: int = 120,
        lines: int = 40,
        output: int | None = None,
        **environ: str,
    ) -> None:
        self._ours, its = pty.openpty()
        self._set_size(its, columns, lines)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            kept.pop(name, None)
        self.raw = ""
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "edgeq.cli.main", *words],
            cwd=folder,
            env={**kept, "TERM": "xterm-256color", **environ},
            stdin=its,
            stdout=its if output is None else output,
            stderr=its,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C and resizing reach it
        )
        os.close(its)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(30)
        os.close(self._ours)

    @property
    def text(self) -> str:
        """All that it has shown, without what only moves and colours."""
        return plain(self.raw)

    def press(self, keys: str) -> None:
        """Press keys; what was shown before is forgotten."""
        self.raw = ""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size."""
        self.raw = ""
        self._set_size(self._ours, columns, lines)
        os.kill(self.process.pid, signal.SIGWINCH)

    def until(self, *expected: str | Callable[[str], bool]) -> str:
        """Return `text` when it has all of `expected`, or fulfils it."""
        deadline = time.monotonic() + _SECONDS
        while not all(each(self.text) if callable(each) else each in self.text for each in expected):
            left = deadline - time.monotonic()
            assert left > 0, f"it doesn't show {expected}:\n{self.text[-4000:]}"
            assert self._read(left) or all(
                each(self.text) if callable(each) else each in self.text for each in expected
            ), f"it ended without {expected}:\n{self.text[-4000:]}"
        return self.text

    def end(self) -> int:
        """Read until it ends; its exit status."""
        deadline = time.monotonic() + _SECONDS
        while self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, f"it doesn't end:\n{self.text[-4000:]}"
        return self.process.wait(_SECONDS)

    def _read(self, seconds: float) -> bool:
        """Read some more; False at the end."""
        if not select.select([self._ours], [], [], max(0.0, seconds))[0]:
            return True
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # what reading a terminal ends with, on Linux
            return False
        self.raw += piece.decode(errors="replace")
        return bool(piece)

    @staticmethod
    def _set_size(terminal: int, columns: int, lines: int) -> None:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def plain(text: str) -> str:
    """What is left to read: without what only moves and colours."""
    return _CONTROL.sub("", text).replace("\r\n", "\n")
