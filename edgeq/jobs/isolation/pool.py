"""`isolation: process`: jobs in processes of their own, for code that may hang, crash, or eat all memory.

What it gives:

- A job that doesn't end is ended at its timeout, whatever it does: a loop in C, a lock, `while True`. The attempt fails
  with reason `timeout` and the lines where the code was. An `async def handle` is cancelled first and gets
  process.CLEANUP_SECONDS to clean up; a `def handle` is ended at once.
- One that takes its process down (a segmentation fault, `os._exit()`, the kernel's out-of-memory killer) costs its own
  attempt and nothing else: reason `crashed`, with the exit status or signal, and where that can be had, the lines.
- One that asks for more than `memory_max` gets a MemoryError: reason `memory`. The limit (RLIMIT_DATA) is on what a
  process has asked for, used or not, from the making of the context on; it counts the interpreter and what is imported
  (some 18 MiB before the app's modules) and 8 MiB for each thread. Programs that a job starts have the same limit, each
  for itself.
- What leaks goes with the process: after `recycle_after` jobs, between two of them, it ends and another takes over.
- When the machine itself is out of memory, the kernel ends these processes before the worker's.
- Programs that a job has started end with its process, unless they have begun a session of their own.

What it costs: some 30 MiB of memory for each process (17 of which it shares with nobody) and the time to import the app
when one starts, which happens when a job needs it; then well below a millisecond for each job. A process that had
nothing to do for IDLE_SECONDS ends.

What is different for the author: `ctx.context` is made once in each process, by the queue's `context` function. Modules
of the app are imported there again, as they are on disk when the process starts. `failed(ctx, error)` gets the text of
the error, as an EdgeqError. What a job records travels as data, wire.FRAME_BYTES_MAX at most. `print()` goes where the
worker's goes; what is logged comes into the worker's log, with the job's id. A job that is cancelled is killed: its
cleanup code doesn't run.

Processes die with the worker's, also when that is killed. What a job had started then goes on until somebody ends it,
as systemd does with all that a service leaves behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from math import inf

from ...backoff import Backoff
from ...clock import Clock
from ...errors import EdgeqError
from ...store.decisions import Decisions
from ...store.jobs import StoredJob
from ..outcome import Completed, Failed, Outcome, Snoozed
from . import wire
from .process import EXIT_SECONDS, JobProcess, NotBegun, NotStarted

IDLE_SECONDS = 300.0
START_AGAIN = Backoff(1.0, 60.0)


class PoolClosed(EdgeqError):
    """The worker has ended its processes before the job was done: it is to be given back."""


class ProcessPool:
    """Up to `size` processes, each of which runs one job at a time. See the module's text.

    They import `modules`, looked for in `path` and where this process looks, and make `context` (`module:function`,
    sync or async). `recycle_after` is a number of jobs, `memory_max` bytes for each process; None: without limit. While
    processes can't be started (the context fails, a module can't be imported), jobs wait for the next try, after a
    growing delay; `log` says why. Lives on the event loop of one thread; when that thread ends, so do the processes.
    """

    def __init__(
        self,
        size: int,
        *,
        modules: Sequence[str],
        path: str | None,
        context: str | None,
        recycle_after: int | None,
        memory_max: int | None,
        clock: Clock,
        log: logging.Logger,
    ) -> None:
        self._size = size
        self._modules = tuple(modules)
        self._path = path
        self._context = context
        self._recycle_after = recycle_after
        self._memory_max = memory_max
        self._clock = clock
        self._log = log
        self._processes: set[JobProcess] = set()
        self._idle: list[JobProcess] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running = 0
        self._seats = asyncio.Semaphore(size)
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closing = asyncio.Event()
        self._cut_off = False
        self._failed_starts = 0
        self._one_tries = asyncio.Lock()

    @property
    def free(self) -> int:
        """How many more jobs can be run now; more than these wait for one to end."""
        return max(0, self._size - self._running)

    @property
    def stuck(self) -> bool:
        """Whether jobs wait because no process can be started for them, and none is there."""
        return bool(self._failed_starts and not self._processes)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that are there."""
        return [process.pid for process in self._processes]

    async def run(
        self, job: StoredJob, *, report: Callable[[str], None], timeout_seconds: float, failed: str | None = None
    ) -> Outcome:
        """Run one attempt of `job`; or with `failed`, the text of the error of its last one, its `failed()`.

        The time counts from the moment when a process has the job. `report` gets its progress, as JSON text. The error
        of a Failed is a text; its `reason` is one of handling's, or `timeout`, `memory` or `crashed`. When this is
        cancelled, the process is killed. Raises PoolClosed.
        """
        try:
            order = wire.pack(wire.Run(job, timeout_seconds, failed))
        except ValueError as error:
            return Failed("undecodable", EdgeqError(f"the job {error} to a process"), final=True)
        self._running += 1
        self._quiet.clear()
        try:
            async with self._seats:
                return _outcome(await self._ended(job, order, timeout_seconds, report))
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()

    async def close(self, grace_seconds: float = 0.0) -> None:
        """End all processes: idle ones now, those that run a job when it is done, or after `grace_seconds`."""
        self._closing.set()
        if self._timer is not None:
            self._timer.cancel()
        for process in self._idle:
            process.dismiss()
        self._idle.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._quiet.wait()
        self._cut_off = True
        for process in self._processes:
            if process.alive:
                process.kill()
        if self._processes:
            await asyncio.wait([process.ended for process in self._processes], timeout=2 * EXIT_SECONDS)

    # One job

    async def _ended(
        self, job: StoredJob, order: bytes, timeout_seconds: float, report: Callable[[str], None]
    ) -> wire.Ended:
        while True:
            process = await self._taken()
            try:
                answer = await process.run(order, timeout_seconds, report)
            except NotBegun as error:
                if not process.jobs:
                    self._failed_starts += 1
                self._log.warning("job %d (%s) goes to another process: %s", job.id, job.kind, error)
                continue
            if self._cut_off and isinstance(answer, wire.Broken) and answer.reason == "crashed":
                raise PoolClosed("the worker has ended")
            self._failed_starts = 0
            self._release(process, worn=isinstance(answer, wire.Broken) and answer.reason == "memory")
            return answer

    async def _taken(self) -> JobProcess:
        """An idle process, or a new one, after as many tries as that takes."""
        while True:
            if self._closing.is_set():
                raise PoolClosed("the worker has ended")
            if self._idle:
                return self._idle.pop()
            if not self._failed_starts:
                process = await self._started()
            else:
                process = None
                async with self._one_tries:
                    if self._failed_starts and await self._waited(START_AGAIN.delay(self._failed_starts)):
                        process = await self._started()
            if process is not None:
                return process

    async def _started(self) -> JobProcess | None:
        """A new process that is ready for jobs; None, and a word in the log, if it comes to nothing."""
        setup = wire.Setup(
            self._modules,
            self._context,
            self._memory_max,
            logging.getLogger().getEffectiveLevel(),
            logging.getLogger("edgeq").getEffectiveLevel(),
        )
        try:
            process = JobProcess(self._path, self._log)
            self._processes.add(process)
            process.ended.add_done_callback(lambda _: self._gone(process))
            await process.ready(setup)
        except NotStarted as error:
            if not self._closing.is_set():
                self._failed_starts += 1
                self._log.error("jobs wait, because no process can be started for them: %s", error)
            return None
        return process

    async def _waited(self, seconds: float) -> bool:
        """Whether `seconds` have passed, and the pool wasn't closed meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return not self._closing.is_set()

    # Processes that have nothing to do

    def _release(self, process: JobProcess, *, worn: bool) -> None:
        if not process.alive:
            return
        if worn or self._closing.is_set() or process.jobs >= (self._recycle_after or inf):
            process.dismiss()
            return
        process.idle_since = self._clock.monotonic()
        self._idle.append(process)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._thin_out)

    def _thin_out(self) -> None:
        """End those that have been idle for IDLE_SECONDS; look again when the next one will have been."""
        self._timer = None
        now = self._clock.monotonic()
        while self._idle and now - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.pop(0).dismiss()
        if self._idle:
            wait = self._idle[0].idle_since + IDLE_SECONDS - now
            self._timer = asyncio.get_running_loop().call_later(wait, self._thin_out)

    def _gone(self, process: JobProcess) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
            self._log.warning("process %d ended while it had nothing to do: it %s", process.pid, process.how_it_ended())


def _outcome(answer: wire.Ended) -> Outcome:
    match answer:
        case wire.Done(result, events, jobs):
            return Completed(result, Decisions(events=list(events), jobs=list(jobs)))
        case wire.PutOff(seconds, events, jobs):
            return Snoozed(seconds, Decisions(events=list(events), jobs=list(jobs)))
        case wire.Broken(reason, error, final, retry_after):
            return Failed(reason, EdgeqError(error), final=final, retry_after=retry_after)
