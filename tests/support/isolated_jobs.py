"""Jobs that behave badly, for processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from edgeq import Dead, Job, JobContext, RetryAfter

log = logging.getLogger("app.isolated")
LEAK: list[bytes] = []


class Pid(Job):
    """Says which process it ran in."""

    def handle(self, ctx: JobContext) -> int:
        return os.getpid()


class Alone(Pid):
    """In a process of its own wherever its queue has its jobs run."""

    isolation = "process"


class Add(Job):
    """Async work."""

    a: int
    b: int

    async def handle(self, ctx: JobContext) -> int:
        await asyncio.sleep(0)
        return self.a + self.b


class Everything(Job):
    """Uses all of ctx."""

    again: bool = False

    def handle(self, ctx: JobContext) -> dict[str, Any]:
        ctx.progress(0.25, "a quarter")
        ctx.emit("thing.done", subject="s", data={"of": [1, None]}, tags=["t"], idempotency_key="k")
        ctx.notify("Look", "at this", severity="warning", tags=["t"], channels=["phone"])
        ctx.dispatch(Add(a=1, b=2), delay="10s", priority="high", unique_key="u", on_success=Pid())
        ctx.progress(0.75)
        if self.again:
            ctx.snooze("5m")
        return {"id": ctx.job.id, "attempt": ctx.job.attempt, "parent": ctx.parent and ctx.parent.result}


class Say(Job):
    """Raises or returns one of the outcomes."""

    what: str

    def handle(self, ctx: JobContext) -> Any:
        if self.what == "retry":
            return RetryAfter("30s", "the service asks for patience")
        if self.what == "dead":
            raise Dead("no such device")
        if self.what == "raise":
            raise KeyError("no such thing")
        if self.what == "object":
            return object()
        if self.what == "exit":
            sys.exit(3)
        if self.what == "none":
            return None
        raise AssertionError(self.what)


class Hang(Job):
    """Doesn't come back."""

    how: str
    file: str = ""

    def handle(self, ctx: JobContext) -> None:
        if self.file:
            Path(self.file).write_text(str(os.getpid()))
        if self.how == "regex":
            re.match(r"(a+)+$", "a" * 60 + "b")
        elif self.how == "loop":
            while True:
                pass
        elif self.how == "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(3600)
        else:
            ctypes.CDLL(None).sleep(3600)


class Cleanup(Job):
    """Hangs politely, or impolitely."""

    file: str
    heeds: bool = True
    complains: bool = False

    async def handle(self, ctx: JobContext) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                Path(self.file).write_text("cleaned up")  # noqa: ASYNC240 - nothing else runs
                if self.complains:
                    raise RetryAfter("7s", "disturbed") from None
                if self.heeds:
                    raise


class Crash(Job):
    """Takes its process with it."""

    backoff = "1ms"
    how: str

    def handle(self, ctx: JobContext) -> None:
        if self.how == "null":
            ctypes.string_at(0)
        elif self.how == "exit":
            os._exit(7)
        elif self.how == "abort":
            os.abort()
        elif self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "garbage":
            for fd in range(3, 64):
                try:
                    os.write(fd, b"\xff" * 100)
                except OSError:
                    continue
            time.sleep(3600)


class CancelItself(Job):
    """Cancels the task that it finds itself in."""

    async def handle(self, ctx: JobContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(3600)


class Hog(Job):
    """Asks for memory, at once or down to the last small piece."""

    small: bool = False

    def handle(self, ctx: JobContext) -> int:
        if not self.small:
            return len(bytearray(1 << 30))
        for size in (1_000_000, 1000, 100):
            with contextlib.suppress(MemoryError):
                while True:
                    LEAK.append(bytes(size))
        while True:
            LEAK.append(bytes(10))


class Talk(Job):
    """Prints, logs, also from a thread."""

    def handle(self, ctx: JobContext) -> None:
        print("printed by the job", flush=False)
        log.debug("too detailed")
        log.warning("two\nlines of %s", "text")
        thread = threading.Thread(target=log.info, args=("from a thread",))
        thread.start()
        thread.join()
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("it failed")


class Flood(Job):
    """Logs and reports more than fits into the connection at once: in the main thread, in a signal handler that
    interrupts it there, and in another thread."""

    count: int

    def handle(self, ctx: JobContext) -> None:
        def say(what: str, size: int) -> None:
            for number in range(self.count):
                log.info("%s %d %s", what, number, "x" * size)
                ctx.progress(number / self.count, "y" * 100)

        ticks = itertools.count()

        def tick(*_: object) -> None:
            log.info("tick %d %s", next(ticks), "x" * 3000)
            signal.setitimer(signal.ITIMER_REAL, 0.001)

        signal.signal(signal.SIGALRM, tick)
        tick()
        thread = threading.Thread(target=say, args=("thread", 3000))
        thread.start()
        say("main", 3000)
        thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        log.info("%d ticks", next(ticks))


class Record(Job):
    """Records or returns so many bytes."""

    events: int = 0
    result: int = 0
    surrogate: bool = False

    def handle(self, ctx: JobContext) -> str:
        for _ in range(self.events):
            ctx.emit("big", data="x" * 100_000)
        if self.surrogate:
            ctx.decisions.events[:] = [type(ctx.decisions.events[0])("\ud800", 0, 0)]
        return "x" * self.result


class Starts(Job):
    """Starts a program and then waits, or doesn't."""

    file: str
    wait: bool = True

    def handle(self, ctx: JobContext) -> None:
        program = subprocess.Popen(["sleep", "3600"])
        Path(self.file).write_text(f"{program.pid} {os.getpid()}")
        if self.wait:
            program.wait()


class OwnLoop(Job):
    """A plain function that runs an event loop of its own, and is in the main thread."""

    async def answer(self) -> int:
        await asyncio.sleep(0)
        return 42

    def handle(self, ctx: JobContext) -> int:
        assert threading.current_thread() is threading.main_thread()
        return asyncio.run(self.answer())


class Signals(Job):
    """What a program that the job starts, and a fork of it, make of SIGTERM."""

    def handle(self, ctx: JobContext) -> list[int]:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        program = subprocess.Popen(["sleep", "3600"])
        program.terminate()
        fork = os.fork()
        if fork == 0:
            signal.pause()
        os.kill(fork, signal.SIGTERM)
        _, status = os.waitpid(fork, 0)
        return [program.wait(), os.waitstatus_to_exitcode(status)]


class LastWords(Job):
    """Says what it was told."""

    asynchronous: bool = False

    def handle(self, ctx: JobContext) -> None:
        raise AssertionError

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave.up", data=str(error))


class UseContext(Job):
    """Uses what the context function made, on its loop."""

    async def handle(self, ctx: JobContext) -> list[Any]:
        return [ctx.context["made_by"], ctx.context["loop"] is asyncio.get_running_loop(), ctx.context["calls"]]


class Environment(Job):
    """What the process was given."""

    def handle(self, ctx: JobContext) -> dict[str, Any]:
        return {
            "session": os.getsid(0) == os.getpid(),
            "variable": os.environ.get("EDGEQ_TEST_VARIABLE"),
            "stdin": os.readlink("/proc/self/fd/0"),
            "path": sys.path,
            "threads": threading.active_count(),
            "first to go": int(Path("/proc/self/oom_score_adj").read_text()) == 500,
        }


_remembered: ContextVar[str] = ContextVar("remembered", default="nothing")


class Remember(Job):
    """Says what the job before it has left in a context variable."""

    async def handle(self, ctx: JobContext) -> str:
        found = _remembered.get()
        _remembered.set("something")
        return found


_calls = 0


def make_context() -> dict[str, Any]:
    """Made without a loop."""
    global _calls
    _calls += 1
    return {"made_by": os.getpid(), "loop": None, "calls": _calls}


async def make_async_context() -> dict[str, Any]:
    """Made on the loop of the jobs."""
    return {**make_context(), "loop": asyncio.get_running_loop()}


def broken_context() -> None:
    """Fails until the file is there that EDGEQ_TEST_CONTEXT names."""
    with Path(os.environ["EDGEQ_TEST_CONTEXT"]).with_suffix(".tries").open("a") as tries:
        tries.write("x")
    if not Path(os.environ["EDGEQ_TEST_CONTEXT"]).exists():
        raise ConnectionError("no route to the database")


def hanging_context() -> None:
    """Never returns."""
    time.sleep(3600)


def leaving_context() -> None:
    """Ends the process."""
    os._exit(5)
