"""A process that runs jobs for a worker, one at a time: the other end of `isolation`.

It has one event loop for all its life, on which `context` is made and every `async def handle` runs; so what a context
holds (a pool of connections, a session) works in the jobs. A `def handle` runs in the main thread, where it may use
signals and event loops of its own. It ignores SIGINT and SIGTERM, which are for the worker to heed, and ends when the
worker closes its socket or dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import inspect
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

from ...clock import Clock
from ...errors import EdgeqError, contained
from ...imports import load_module, load_name
from ...store.decisions import Decisions
from ...store.store import storable
from ...units import Duration, Size
from .. import handling
from ..context import JobContext
from ..handling import TimedOut, describe
from ..job import Definition, registry
from ..outcome import Completed, Failed, Outcome, Snoozed
from . import wire
from .channel import Channel, Forwarded

_SPARE_BYTES = 16 * 2**20  # beyond memory_max, for saying that it was reached
_ROOM_BYTES = 2 * 2**20  # below it, for the first job to begin at all
_USED_UP = "memory_max is used up before the first job begins"
_FIRST_TO_GO = 500  # of -1000 to 1000
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class Child:
    """One process's part of the conversation."""

    def __init__(self, channel: Channel, log: Forwarded) -> None:
        self._channel = channel
        self._log = log
        self._context: Any = None
        self._clock = Clock()
        self._orders: asyncio.Queue[wire.Run | None] = asyncio.Queue()
        self._running = False

    async def serve(self, context: str | None) -> None:
        """Make the context, then run what is ordered, until the worker closes the connection."""
        try:
            if context is not None:
                with contained("the function"):
                    self._context = await self._made(context)
            bytearray(_ROOM_BYTES)
        except MemoryError:
            _grant_the_spare()
            self._channel.send(wire.Unable(_USED_UP))
            return
        except Exception as error:  # noqa: BLE001 - the author's code
            self._channel.send(wire.Unable(f"its context {context} failed: {describe(error)}"))
            return
        self._channel.send(wire.Ready())
        self._channel.listen(self._take)
        while (order := await self._orders.get()) is not None:
            self._running = True
            self._log.job_id = order.job.id
            try:
                # In a task of its own: a job that cancels "its" task must not end us.
                self._answer(await self._contained(self._run(order)))
            finally:
                self._log.job_id = None
                self._running = False

    def _take(self, order: wire.Order | None) -> None:
        if order is None and self._running:
            os.killpg(0, signal.SIGKILL)  # nobody is left who would want the answer
        assert not isinstance(order, wire.Setup)
        self._orders.put_nowait(order)

    async def _made(self, reference: str) -> Any:
        made = await directly(load_name(reference))
        return await made if inspect.isawaitable(made) else made

    async def _run(self, order: wire.Run) -> Outcome:
        job = order.job
        definition = registry.get(job.kind)
        cooperative = definition is not None and _is_async(definition, order.failed is not None)
        self._channel.send(wire.Begun(cooperative))
        if definition is None:
            try:
                definition = _imported(job.kind)
            except ValueError as unknown:
                return Failed("unknown_job", EdgeqError(str(unknown)))
        ctx = JobContext(self._clock, job, context=self._context, report=self._report)
        late = f"took longer than {Duration(order.timeout_seconds)}"
        try:
            async with asyncio.timeout(order.timeout_seconds if cooperative else None) as limit:
                if order.failed is None:
                    outcome: Outcome = await handling.handle(definition, job, ctx, directly)
                else:
                    error = EdgeqError(order.failed)
                    outcome = await handling.last_words(definition, job, ctx, directly, error=error)
        except TimeoutError as ended:
            return Failed("timeout", TimedOut(late, ended.__cause__ or ended))
        if limit.expired() and isinstance(outcome, Failed) and outcome.reason == "failed":
            return Failed("timeout", TimedOut(late, outcome.error), retry_after=outcome.retry_after)
        return outcome

    async def _contained(self, run: Coroutine[Any, Any, Outcome]) -> Outcome:
        try:
            return await asyncio.create_task(run)
        except MemoryError as error:
            return Failed("memory", error)
        except asyncio.CancelledError:
            return Failed("failed", EdgeqError("the job cancelled the task it runs in"))

    def _report(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(wire.Progress(text))

    def _answer(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failed) and isinstance(outcome.error, MemoryError):
            _grant_the_spare()
        try:
            self._channel.send(_record(outcome))
        except wire.TooLarge as error:
            text = f"the job {error}: its result, and the events and jobs that it recorded"
            self._channel.send(wire.Broken("bad_result", text, final=True))
        except MemoryError:
            _grant_the_spare()
            self._channel.send(wire.Broken("memory", "MemoryError: too little was left for saying how it ended"))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self._channel.send(wire.Broken("failed", describe(error)))


async def directly(function: Callable[..., Any], /, *args: Any) -> Any:
    """Call `function` here and now, as if no event loop were running: it may well run one of its own."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        return function(*args)
    finally:
        asyncio._set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)


def _imported(kind: str) -> Definition:
    """Of a kind that isn't registered here. The worker has it registered, or it would not have sent the job: so its
    module may be imported. Raises ValueError when it isn't to be found, which another attempt may find otherwise."""
    module = kind.partition(":")[0]
    if module == "__main__":
        raise ValueError(f"{kind} can't be run in a process of its own: move it from the main program into a module")
    load_module(module)
    if kind not in registry:
        raise ValueError(f"{module} as it is on disk has no job class {kind}, and has had one when edgeq started")
    return registry[kind]


def _is_async(definition: Definition, last_words: bool) -> bool:
    job_class = definition.job_class
    return inspect.iscoroutinefunction(job_class.failed if last_words else job_class.handle)


def _record(outcome: Outcome) -> wire.Ended:
    match outcome:
        case Completed(result, decisions):
            _check(decisions)
            return wire.Done(result, tuple(decisions.events), tuple(decisions.jobs))
        case Snoozed(seconds, decisions):
            _check(decisions)
            return wire.PutOff(seconds, tuple(decisions.events), tuple(decisions.jobs))
        case Failed(reason, error, _, final, retry_after):
            if isinstance(error, MemoryError):
                reason = "memory"
            return wire.Broken(reason, describe(error), final, retry_after)


def _check(decisions: Decisions) -> None:
    if decisions.dead_letters or decisions.also or decisions.lazily or decisions.tallies:
        raise ValueError("only events and jobs can leave the process of a job")


def main(connection: int, where: int, worker: int) -> None:
    """Be the process of jobs of the worker with process id `worker`, over the socket `connection`. Where the code is
    when it ends by a signal is written to the pipe `where`."""
    _end_with(worker)
    _go_first()
    faulthandler.enable(where, all_threads=False)
    faulthandler.register(wire.WHERE_SIGNAL, where, all_threads=False, chain=True)
    channel = Channel(socket.socket(fileno=connection))
    os.set_inheritable(connection, False)
    os.set_inheritable(where, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)  # not SIG_IGN, which programs that a job starts would inherit
    setup = channel.receive()
    assert isinstance(setup, wire.Setup)
    log = Forwarded(channel)
    logging.getLogger().handlers[:] = [log]
    logging.getLogger().setLevel(setup.log_level)
    logging.getLogger("edgeq").setLevel(setup.edgeq_log_level)
    _prepare_for_forks(channel)
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        for module in setup.modules:
            load_module(module)
        if setup.memory_max is not None:
            _limit_memory(setup.memory_max)
    except ValueError as error:
        channel.send(wire.Unable(storable(str(error))))
        return
    asyncio.run(Child(channel, log).serve(setup.context))


def _end_with(worker: int) -> None:
    """Have the kernel kill this process when the worker dies, also while the job hangs."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel does not tie this process to the worker's life")
    if os.getppid() != worker:
        os._exit(1)


def _go_first() -> None:
    """When the machine is out of memory, let it be this process rather than the worker's."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        if int(score.read_text()) < _FIRST_TO_GO:
            score.write_text(str(_FIRST_TO_GO))


def _limit_memory(most: int) -> None:
    """After the imports: Python's parser takes a lack of memory for a mistake in the source."""
    import resource

    if _asked_for() + _ROOM_BYTES > most:
        raise ValueError(_USED_UP)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most + _SPARE_BYTES))
    except (OSError, ValueError) as error:
        raise ValueError(f"memory_max can't be set to {Size(most)}: {error}") from None


def _asked_for() -> int:
    """How many bytes count towards the limit now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


def _grant_the_spare() -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _ignore(number: int, frame: FrameType | None) -> None:
    """SIGINT and SIGTERM are for the worker, which waits for its jobs."""


def _prepare_for_forks(channel: Channel) -> None:
    """What a job forks can be ended by a signal, from its first moment on, and has no part in the conversation."""
    ours = {signal.SIGINT, signal.SIGTERM}
    before: list[set[signal.Signals | int]] = []

    def fork_begins() -> None:
        before.append(signal.pthread_sigmask(signal.SIG_BLOCK, ours))

    def fork_ends() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.pop())

    def be_nobody() -> None:
        for number in ours:
            if signal.getsignal(number) is _ignore:
                signal.signal(number, signal.SIG_DFL)
        channel.close()
        logging.getLogger().handlers[:] = [logging.StreamHandler()]
        fork_ends()

    os.register_at_fork(before=fork_begins, after_in_parent=fork_ends, after_in_child=be_nobody)
