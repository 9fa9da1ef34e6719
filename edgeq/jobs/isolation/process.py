"""One process of jobs, as its worker sees it: it is started, runs one job at a time, and ends.

It isn't a fork of the worker: a fresh Python runs `child.main`, with the worker's environment, search path and standard
output. It leads a session and a process group of its own, so what a terminal sends to the worker's group doesn't reach
it, and the programs that its jobs have started end with it. Its end is noticed through a pidfd, its answers arrive at a
transport: waiting for it costs neither a thread nor a look now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable

from ...errors import EdgeqError
from ...units import Duration
from . import wire

START_SECONDS = 300.0  # to import everything and to make the context
SLOW_SECONDS = 30.0  # to do so without a word in the log
BEGIN_SECONDS = 10.0  # to take a job
CLEANUP_SECONDS = 5.0  # for an `async def` to end after it was cancelled
WHERE_SECONDS = 1.0  # to write down where the code is
EXIT_SECONDS = 5.0  # to end when asked to, or when killed
REST_SECONDS = 0.5  # for the last bytes of a process that has ended

_WHERE_BYTES_MAX = 64 * 1024
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
_EDGEQ_JOBS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_BOOT = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    "from edgeq.jobs.isolation.child import main; main(*map(int, sys.argv[1:4]))"
)


class NotStarted(EdgeqError):
    """A process could not be started, or it didn't get ready."""


class NotBegun(EdgeqError):
    """The process ended or was silent before it took the job, which had no part in that."""


class JobProcess(asyncio.Protocol):
    """See the module's text. `jobs` counts those it has taken, `idle_since` is for its owner; `ended` is done when the
    process is gone.

    Making one starts it, with `path` before the folders where this process looks for modules. Raises NotStarted.
    """

    def __init__(self, path: str | None, log: logging.Logger) -> None:
        self.jobs = 0
        self.idle_since = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log = log
        self._frames = wire.answers()
        self._answers: asyncio.Queue[wire.Answer | None] = asyncio.Queue()
        self._report: Callable[[str], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._leaving = False
        self._fault = ""
        self._where_text = ""
        self._socket = self._spawn([path] if path else [])
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return not self._leaving and self._process.returncode is None

    async def ready(self, setup: wire.Setup) -> None:
        """Returns when it has imported everything and made the context. Raises NotStarted, which says why not."""
        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._is_slow)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._socket)
            self._write(wire.pack(setup))
            answer = await self._answer(START_SECONDS)
        except TimeoutError:
            where = await self.stop()
            raise NotStarted(f"it was not ready within {Duration(START_SECONDS)}{where}") from None
        except OSError as error:
            self.kill()
            raise NotStarted(f"a process can't be reached: {error}") from None
        except BaseException:
            self.kill()
            raise
        finally:
            slow.cancel()
        if isinstance(answer, wire.Ready):
            return
        if isinstance(answer, wire.Unable):
            self.dismiss()
            raise NotStarted(answer.error)
        raise NotStarted(f"it {await self._end()}")

    def _is_slow(self) -> None:
        self._log.warning(
            "process %d has not been ready for jobs for %s; it is waited for, up to %s",
            self.pid, Duration(SLOW_SECONDS), Duration(START_SECONDS),
        )  # fmt: skip

    async def run(self, order: bytes, timeout_seconds: float, report: Callable[[str], None]) -> wire.Ended:
        """Run the job of a packed wire.Run to its end; by force when it takes longer than `timeout_seconds`. `report`
        gets its progress. Raises NotBegun. When it is cancelled, the process is killed.
        """
        cleanup = 0.0
        try:
            self._report = report
            self._write(order)
            if await self._begun():
                cleanup = CLEANUP_SECONDS
            answer = await self._answer(timeout_seconds + cleanup)
        except TimeoutError:
            heed = f", did not end within {Duration(cleanup)} of its cancellation" if cleanup else ""
            text = f"took longer than {Duration(timeout_seconds)}{heed}, and its process was ended"
            return wire.Broken("timeout", text + await self.stop())
        except BaseException:
            self.kill()
            raise
        finally:
            self._report = None
        if isinstance(answer, wire.Ended):
            return answer
        return wire.Broken("crashed", f"its process {await self._end()}")

    def dismiss(self) -> None:
        """Have an idle process end by itself, with its exit handlers. Killed if that takes longer than EXIT_SECONDS."""
        self._leaving = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
        self._kill_later()

    async def stop(self) -> str:
        """End it; where its code was, to be put after another text, or nothing when that can't be found out."""
        self._leaving = True
        try:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, wire.WHERE_SIGNAL)
            await asyncio.wait([self.ended], timeout=WHERE_SECONDS)
        finally:
            self.kill()
        await self._end()
        return self._where_text

    def kill(self) -> None:
        """End it at once, and the programs that its jobs have started."""
        self._leaving = True
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def how_it_ended(self) -> str:
        """For people to read, after "it"; where its code was then is on lines of its own."""
        status = self._process.returncode
        if status is None:
            return "does not end"
        if status >= 0:
            return f"ended with exit status {status}{self._fault}{self._where_text}"
        hint = " (out of memory?)" if status == -signal.SIGKILL and not self._fault else ""
        return f"was ended by {_name(-status)}{hint}{self._fault}{self._where_text}"

    # What it says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for answer in self._frames.feed(data):
                if isinstance(answer, wire.Logged):
                    self._write_down(answer)
                elif not isinstance(answer, wire.Progress):
                    self._answers.put_nowait(answer)
                elif self._report is not None:
                    self._report(answer.text)
        except ValueError as error:
            self._fault = f" after it had written into edgeq's connection ({error})"
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lost = True
        if self._process.returncode is None:
            self._leaving = True
            self._kill_later()
        else:
            self._conclude()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _write_down(self, entry: wire.Logged) -> None:
        log = logging.getLogger(entry.logger)
        if log.isEnabledFor(entry.level):
            log.handle(log.makeRecord(entry.logger, entry.level, "", 0, entry.text, (), None))

    async def _begun(self) -> bool:
        """Whether the job, which the process now has in hand, is cooperative."""
        try:
            answer = await self._answer(BEGIN_SECONDS)
        except TimeoutError:
            where = await self.stop()
            raise NotBegun(f"process {self.pid} took no job within {Duration(BEGIN_SECONDS)}{where}") from None
        if not isinstance(answer, wire.Begun):
            raise NotBegun(f"process {self.pid} {await self._end()} before it took a job")
        self.jobs += 1
        return answer.cooperative

    async def _answer(self, seconds: float) -> wire.Answer | None:
        """The next answer, None when the process is gone. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            return await self._answers.get()

    # Its beginning and its end

    def _spawn(self, path: list[str]) -> socket.socket:
        path += [folder or os.getcwd() for folder in sys.path]
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
            try:
                connection, other = socket.socketpair()
                undo.callback(connection.close)
                theirs.callback(other.close)
                self._where, where = os.pipe()
                undo.callback(os.close, self._where)
                theirs.callback(os.close, where)
                os.set_blocking(self._where, False)
                handed = (other.fileno(), where)
                self._process = process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _BOOT, *map(str, handed), str(os.getpid()), *path],
                    stdin=subprocess.DEVNULL,
                    pass_fds=handed,
                    start_new_session=True,
                )
                undo.callback(process.wait)
                undo.callback(process.kill)
                self._pidfd = os.pidfd_open(self.pid)
            except OSError as error:
                raise NotStarted(f"a process can't be started: {error}") from None
            undo.pop_all()
            return connection

    def _exited(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.kill()  # of its group; while it isn't reaped, nobody else has its id
        self._process.wait()
        self._where_text = _where(self._where)
        os.close(self._where)
        if self._lost:
            self._conclude()
        else:  # what it sent last hasn't been read yet; and something that it forked may hold its end of the connection
            loop.call_later(REST_SECONDS, self._conclude)

    def _conclude(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
            self._answers.put_nowait(None)
            if self._transport is None:
                self._socket.close()
            else:
                self._transport.abort()

    def _kill_later(self) -> None:
        timer = asyncio.get_running_loop().call_later(EXIT_SECONDS, self.kill)
        self.ended.add_done_callback(lambda _: timer.cancel())

    async def _end(self) -> str:
        """How it ended, in words. Ends it if it hasn't."""
        self.kill()
        await asyncio.wait([self.ended], timeout=EXIT_SECONDS)
        if not self.ended.done():
            self._log.error("process %d doesn't end though it was killed, and is left behind", self.pid)
        return self.how_it_ended()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _where(pipe: int) -> str:
    """What faulthandler has written, as a traceback down to the job's code; or nothing."""
    try:
        text = os.read(pipe, _WHERE_BYTES_MAX).decode(errors="replace")
    except BlockingIOError:
        return ""
    frames: list[traceback.FrameSummary] = []
    for line in text.splitlines():
        found = _FRAME.fullmatch(line)
        if found is None and not frames:
            continue
        if found is None or found[1].startswith(_EDGEQ_JOBS):
            break
        frames.append(traceback.FrameSummary(found[1], int(found[2]), found[3]))
    if frames and frames[0].filename.endswith("selectors.py"):
        return ""  # the event loop waits: the code is in none of its lines
    return "\n\n" + "".join(traceback.format_list(frames[::-1])).rstrip() if frames else ""
