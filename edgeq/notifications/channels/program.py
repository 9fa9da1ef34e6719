"""Programs that channels run: something on standard input, what they say, and how they ended.

A program gets no shell, nothing of edgeq's descriptors, and so much time; then it is killed, with what it has started
in its process group. Of what it prints the last bytes are kept. What it leaves running in the background when it ends
by itself is left alone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import msgspec

from .channel import Outcome
from .line import in_thread

SAID_BYTES_MAX = 4096

_READ_BYTES = 64 * 1024
# So often it is looked whether the program has ended: what it left in the background may hold its pipes open.
_LOOK_SECONDS = 0.1
_FOLDER = "/"


class Ended(msgspec.Struct, frozen=True):
    """How a program ended: its exit status, negative for the number of a signal; and the last it said."""

    status: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line that it printed, if it did: on standard error, or else on standard output."""
        return last_line(self.err) or last_line(self.out)


async def run(
    command: Sequence[str],
    given: bytes,
    judge: Callable[[Ended], Outcome],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str],
) -> Outcome:
    """What `judge` makes of the end of `command`, which gets `given` on standard input; `Retry` when it can't be
    started, or is killed because its time is over."""
    program = _Program(command, environment)
    return await in_thread(lambda: judge(program.run(given)), program, timeout_seconds)


def last_line(text: str) -> str:
    """The last line with something in it, without what can't be seen."""
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join("".join(sign if sign.isprintable() else " " for sign in lines[-1]).split()) if lines else ""


class _Program:
    """One run of a program; see `line.Way`. `handed_over`: it runs."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.handed_over = False
        self._command = command
        self._environment = environment
        self._lock = threading.Lock()
        self._cut = False
        self._process: subprocess.Popen[bytes] | None = None

    def cut(self) -> None:
        """See Way."""
        with self._lock:
            self._cut = True
            # Until it is waited for, its number stays its own, and so does that of its group.
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def run(self, given: bytes) -> Ended:
        """Run it, and wait for its end. Raises OSError when it can't be started."""
        process = self._start()
        with _Pipes(process, given) as pipes:
            while pipes.exchange(_LOOK_SECONDS):
                if self._ended(process):
                    pipes.exchange(0.0)
                    break
            while not self._ended(process):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_SECONDS)
            return Ended(process.returncode, pipes.said(process.stdout), pipes.said(process.stderr))

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._cut:
                raise TimeoutError
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=_FOLDER,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise OSError(f"{self._command[0]} can't be run: {error.strerror or error}") from None
        self.handed_over = True
        return self._process

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        with self._lock:
            return process.poll() is not None


class _Pipes:
    """The three pipes of a program, none of which makes it wait for another."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._left = memoryview(given)
        self._tails: dict[IO[bytes] | None, bytes] = {process.stdout: b"", process.stderr: b""}
        self._pipes = (process.stdin, process.stdout, process.stderr)
        self._selector = selectors.DefaultSelector()
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_WRITE if pipe is process.stdin else selectors.EVENT_READ)

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()

    def exchange(self, seconds: float) -> bool:
        """Write and read what can be, waiting up to so long for the first; False when all pipes are closed."""
        for key, _ in self._selector.select(seconds):
            pipe = key.fileobj
            assert not isinstance(pipe, int)
            try:
                going_on = self._write(pipe.fileno()) if key.events & selectors.EVENT_WRITE else self._read(pipe)  # type: ignore[arg-type]
            except BlockingIOError:
                continue
            except OSError:  # it doesn't read on
                going_on = False
            if not going_on:
                self._selector.unregister(pipe)
                pipe.close()  # type: ignore[attr-defined]
        return bool(self._selector.get_map())

    def said(self, pipe: IO[bytes] | None) -> str:
        """The last that came through it."""
        return self._tails[pipe].decode(errors="replace")

    def _write(self, number: int) -> bool:
        self._left = self._left[os.write(number, self._left[:_READ_BYTES]) :]
        return bool(self._left)

    def _read(self, pipe: IO[bytes]) -> bool:
        read = os.read(pipe.fileno(), _READ_BYTES)
        self._tails[pipe] = (self._tails[pipe] + read)[-SAID_BYTES_MAX:]
        return bool(read)
