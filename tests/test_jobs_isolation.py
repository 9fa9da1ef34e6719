"""Jobs in processes of their own: what hangs, crashes, or eats all memory costs its own attempt and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support import isolated_jobs as sample
from support.processes import gone, there, written

from edgeq import Job
from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.jobs import handling
from edgeq.jobs.context import JobContext
from edgeq.jobs.isolation import pool as pool_module
from edgeq.jobs.isolation import process
from edgeq.jobs.isolation.child import directly
from edgeq.jobs.isolation.pool import PoolClosed, ProcessPool
from edgeq.jobs.job import definition
from edgeq.jobs.outcome import Completed, Failed, Outcome, Snoozed
from edgeq.store.jobs import StoredJob
from edgeq.testing import FakeClock, Notified
from edgeq.testing.notified import notified
from edgeq.testing.waiting import until

MODULE = sample.__name__
HERE = Path(__file__).parent
NEVER = Backoff(3600, 3600)


def stored(job: Job, job_id: int = 1, **columns: Any) -> StoredJob:
    """The job as a worker has claimed it."""
    fields: dict[str, Any] = dict.fromkeys(StoredJob.__struct_fields__)
    known = definition(job)
    fields |= {
        "id": job_id, "queue": "q", "kind": known.kind, "args": known.encode(job), "priority": 0, "state": "executing",
        "attempt": 1, "max_attempts": 5, "run_at": 0, "created_at": 0,
    }  # fmt: skip
    return StoredJob(**fields | columns)


class Pool(ProcessPool):
    """With defaults, and a short way to run a job."""

    def __init__(self, size: int = 1, **settings: Any) -> None:
        how: dict[str, Any] = {
            "modules": [MODULE], "path": None, "context": None, "recycle_after": None, "memory_max": None,
            "clock": Clock(), "log": logging.getLogger("edgeq.worker.q"),
        }  # fmt: skip
        super().__init__(size, **how | settings)
        self.progress: list[str] = []

    async def go(self, job: Job, seconds: float = 30.0, **columns: Any) -> Outcome:
        return await self.run(stored(job, **columns), report=self.progress.append, timeout_seconds=seconds)

    async def result(self, job: Job) -> Any:
        outcome = await self.go(job)
        assert isinstance(outcome, Completed), outcome
        return json.loads(outcome.result)

    async def failure(self, job: Job, seconds: float = 30.0, **columns: Any) -> tuple[str, str]:
        """Reason and text."""
        outcome = await self.go(job, seconds, **columns)
        assert isinstance(outcome, Failed), outcome
        return outcome.reason, str(outcome.error)


@pytest.fixture
async def pool() -> AsyncIterator[Callable[..., Pool]]:
    """Makes pools; in the end none of their processes is left."""
    made: list[Pool] = []

    def make(*args: Any, **settings: Any) -> Pool:
        made.append(Pool(*args, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.close()
        assert one.pids == []


@pytest.fixture
def from_when(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Has the short times of processes count from when a file was written: a busy machine may take long for that."""
    answer = process.JobProcess._answer

    def count(file: Path) -> None:
        async def patient(self: process.JobProcess, seconds: float) -> Any:
            if seconds < process.BEGIN_SECONDS:
                await written(file)
            return await answer(self, seconds)

        monkeypatch.setattr(process.JobProcess, "_answer", patient)

    return count


# What a job does is done as in the worker


async def test_a_process_is_started_when_needed_and_kept(pool: Callable[..., Pool]) -> None:
    one = pool(2)
    threads = threading.active_count()
    assert (one.pids, one.free) == ([], 2)
    first = await one.result(sample.Pid())
    assert await one.result(sample.Pid()) == first
    assert await one.result(sample.Add(a=20, b=22)) == 42
    assert (one.pids, one.free) == ([first], 2)
    assert first != os.getpid()
    assert threading.active_count() == threads


async def test_what_a_job_says_arrives_as_if_it_ran_here(pool: Callable[..., Pool]) -> None:
    one = pool()
    options = '{"parent":{"id":3,"kind":"m:K","args":"{}","result":"[4]"}}'
    for job in (
        sample.Everything(), sample.Everything(again=True),
        *(sample.Say(what=what) for what in ("retry", "dead", "raise", "object", "none")),
    ):  # fmt: skip
        claimed = stored(job, job_id=9, attempt=2, cause_id=77, options=options)
        progress: list[str] = []
        ctx = JobContext(Clock(), claimed, report=progress.append)
        here = await handling.handle(definition(job), claimed, ctx, directly)
        one.progress.clear()
        away = await one.run(claimed, report=one.progress.append, timeout_seconds=30)
        assert type(away) is type(here)
        assert one.progress == progress
        if isinstance(here, Failed):
            assert isinstance(away, Failed)
            assert (away.reason, away.final, away.retry_after) == (here.reason, here.final, here.retry_after)
            assert str(away.error) == handling.describe(here.error)
        else:
            assert isinstance(away, Completed | Snoozed)
            assert _timeless(away) == _timeless(here)
            if isinstance(job, sample.Everything):
                assert [each.type for each in away.decisions.events] == ["thing.done", "notification"]
                told = Notified("Look", "at this", "warning", tags=("t",), channels=("phone",))
                assert notified(away.decisions.events) == [told]
                assert away.decisions.jobs[0].on_success is not None


def _timeless(outcome: Outcome) -> str:
    """With each moment as tenths of a minute since the first."""
    first = min((int(moment) for moment in re.findall(r"_at=(\d+)", repr(outcome))), default=0)
    return re.sub(r"_at=(\d+)", lambda found: f"_at={(int(found[1]) - first) // 6_000_000}", repr(outcome))


async def test_a_traceback_shows_the_code_of_the_author_alone(pool: Callable[..., Pool]) -> None:
    _, error = await pool().failure(sample.Say(what="raise"))
    summary, _, trace = error.partition("\n\n")
    assert summary == "KeyError: 'no such thing'"
    assert trace.count("File ") == 1
    assert 'raise KeyError("no such thing")' in trace


async def test_sys_exit_fails_the_attempt_and_the_process_goes_on(pool: Callable[..., Pool]) -> None:
    one = pool()
    before = await one.result(sample.Pid())
    reason, error = await one.failure(sample.Say(what="exit"))
    assert reason == "failed"
    assert "SystemExit: 3" in error
    reason, error = await one.failure(sample.CancelItself())
    assert (reason, error) == ("failed", "the job cancelled the task it runs in")
    assert await one.result(sample.Pid()) == before


async def test_a_job_finds_nothing_of_the_one_before(pool: Callable[..., Pool]) -> None:
    one = pool()
    assert [await one.result(sample.Remember()) for _ in range(2)] == ["nothing", "nothing"]


async def test_failed_is_told_the_error_as_text(pool: Callable[..., Pool]) -> None:
    outcome = await pool().run(
        stored(sample.LastWords()), report=print, timeout_seconds=30, failed="no route\n\nTraceback"
    )
    assert isinstance(outcome, Completed)
    assert [each.data_json for each in outcome.decisions.events] == ['"no route\\n\\nTraceback"']


async def test_a_plain_function_runs_in_the_main_thread_and_may_run_a_loop(pool: Callable[..., Pool]) -> None:
    one = pool()
    assert await one.result(sample.OwnLoop()) == 42
    assert await one.result(sample.Add(a=1, b=1)) == 2


async def test_the_process_is_given_the_surroundings_of_the_worker(
    pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEQ_TEST_VARIABLE", "kept")
    found = await pool(path=str(tmp_path)).result(sample.Environment())
    assert found == {
        "session": True, "variable": "kept", "stdin": "/dev/null", "path": [str(tmp_path), *sys.path], "threads": 1,
        "first to go": True,
    }  # fmt: skip


async def test_signals_reach_what_a_job_starts_and_not_the_job(pool: Callable[..., Pool]) -> None:
    assert await pool().result(sample.Signals()) == [-signal.SIGTERM, -signal.SIGTERM]


async def test_a_module_that_the_worker_knows_is_imported_for_its_job(pool: Callable[..., Pool]) -> None:
    one = pool(modules=[])
    assert await one.result(sample.Add(a=1, b=2)) == 3
    reason, error = await one.failure(sample.Add(a=1, b=2), kind="__main__:Add")
    assert reason == "unknown_job"
    assert "move it from the main program into a module" in error
    outcome = await one.go(sample.Add(a=1, b=2), kind=f"{MODULE}:Gone")
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.final) == ("unknown_job", False)
    assert f"has no job class {MODULE}:Gone" in str(outcome.error)
    reason, error = await one.failure(sample.Add(a=1, b=2), kind="no_such_module:Add")
    assert (reason, error.partition("(")[0]) == ("unknown_job", "there is no module 'no_such_module' ")


# What hangs


@pytest.mark.parametrize("how", ["regex", "loop", "sleep"])
async def test_a_job_that_hangs_is_ended_at_its_timeout_and_says_where_it_was(
    pool: Callable[..., Pool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    from_when: Callable[[Path], None],
    how: str,
) -> None:
    monkeypatch.setattr(process, "WHERE_SECONDS", 20.0)
    one = pool()
    file = tmp_path / "pid"
    from_when(file)
    reason, error = await one.failure(sample.Hang(how=how, file=str(file)), 0.3)
    line = {"regex": "re.match(", "loop": "", "sleep": "ctypes.CDLL(None).sleep(3600)"}[how]
    assert reason == "timeout"
    assert error.startswith("took longer than 300ms, and its process was ended\n\n  File ")
    assert 'isolated_jobs.py", line ' in error
    assert line in error
    assert "edgeq/jobs" not in error
    await gone(int(file.read_text()))
    assert await one.result(sample.Add(a=1, b=2)) == 3


async def test_a_job_that_is_deaf_to_signals_is_ended_all_the_same(
    pool: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_when: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(process, "WHERE_SECONDS", 0.1)
    file = tmp_path / "pid"
    from_when(file)
    reason, error = await pool().failure(sample.Hang(how="deaf", file=str(file)), 0.2)
    assert (reason, error) == ("timeout", "took longer than 200ms, and its process was ended")
    await gone(int(file.read_text()))


async def test_an_async_job_is_cancelled_at_its_timeout_and_the_process_goes_on(
    pool: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CLEANUP_SECONDS", 60.0)
    one = pool()
    before = await one.result(sample.Pid())
    reason, error = await one.failure(sample.Cleanup(file=str(tmp_path / "file")), 0.1)
    assert (reason, error.partition("\n")[0]) == ("timeout", "took longer than 100ms")
    assert "await asyncio.sleep(3600)" in error
    assert (tmp_path / "file").read_text() == "cleaned up"
    complaint = await one.go(sample.Cleanup(file=str(tmp_path / "file"), complains=True), 0.1)
    assert isinstance(complaint, Failed)
    assert (complaint.reason, complaint.retry_after) == ("timeout", 7.0)
    assert await one.result(sample.Pid()) == before


async def test_an_async_job_that_does_not_heed_its_cancellation_is_ended(
    pool: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_when: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(process, "CLEANUP_SECONDS", 1.0)
    from_when(tmp_path / "file")
    one = pool()
    before = await one.result(sample.Pid())
    reason, error = await one.failure(sample.Cleanup(file=str(tmp_path / "file"), heeds=False), 0.1)
    assert reason == "timeout"
    assert error == "took longer than 100ms, did not end within 1s of its cancellation, and its process was ended"
    assert (tmp_path / "file").read_text() == "cleaned up"
    assert await one.result(sample.Pid()) != before


async def test_a_job_that_is_cancelled_is_killed_with_all_it_has_started(
    pool: Callable[..., Pool], tmp_path: Path
) -> None:
    one = pool()
    file = tmp_path / "pids"
    task = asyncio.create_task(one.go(sample.Starts(file=str(file))))
    pids = [int(pid) for pid in (await written(file)).split()]
    assert all(there(pid) for pid in pids)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.free == 1
    for pid in pids:
        await gone(pid)
    assert await one.result(sample.Add(a=1, b=2)) == 3


async def test_what_a_job_has_started_ends_with_its_process(
    pool: Callable[..., Pool], tmp_path: Path, from_when: Callable[[Path], None]
) -> None:
    one = pool(recycle_after=1)
    from_when(tmp_path / "hung")
    reason, _ = await one.failure(sample.Starts(file=str(tmp_path / "hung")), 0.3)
    assert reason == "timeout"
    await one.go(sample.Starts(file=str(tmp_path / "left"), wait=False))
    for file in ("hung", "left"):
        for pid in (tmp_path / file).read_text().split():
            await gone(int(pid))


# What crashes


@pytest.mark.parametrize(
    ("how", "summary", "line"),
    [
        ("null", "its process was ended by SIGSEGV", "ctypes.string_at(0)"),
        ("abort", "its process was ended by SIGABRT", "os.abort()"),
        ("exit", "its process ended with exit status 7", ""),
        ("kill", "its process was ended by SIGKILL (out of memory?)", ""),
        ("garbage", "its process was ended by SIGKILL after it had written into edgeq's connection", ""),
    ],
)
async def test_a_job_that_crashes_says_how_and_the_next_one_runs(
    pool: Callable[..., Pool], how: str, summary: str, line: str
) -> None:
    one = pool()
    outcome = await one.go(sample.Crash(how=how))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.final) == ("crashed", False)
    assert str(outcome.error).partition("\n")[0].partition(" (what")[0] == summary
    assert line in str(outcome.error)
    assert await one.result(sample.Add(a=1, b=2)) == 3


async def test_a_crash_leaves_other_jobs_alone(
    pool: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CLEANUP_SECONDS", 60.0)
    one = pool(2)
    file = tmp_path / "pid"
    long = asyncio.create_task(one.go(sample.Cleanup(file=str(file)), 2.0))
    await until(lambda: len(one.pids) == 1 and one.free == 1, "the long job to begin")
    for how in ("null", "exit"):
        assert (await one.failure(sample.Crash(how=how)))[0] == "crashed"
    outcome = await long
    assert isinstance(outcome, Failed)
    assert outcome.reason == "timeout"
    assert file.read_text() == "cleaned up"


async def test_a_process_that_dies_before_it_takes_the_job_costs_no_attempt(
    pool: Callable[..., Pool], caplog: pytest.LogCaptureFixture
) -> None:
    one = pool()
    before = await one.result(sample.Pid())
    os.kill(before, signal.SIGKILL)
    assert await one.result(sample.Pid()) != before  # the pool hasn't heard of the end yet
    assert f"goes to another process: process {before} was ended by SIGKILL" in caplog.text

    caplog.clear()
    [idle] = one.pids
    os.kill(idle, signal.SIGKILL)
    await until(lambda: one.pids == [], "the pool to hear of the end")
    assert f"process {idle} ended while it had nothing to do: it was ended by SIGKILL" in caplog.text
    assert await one.result(sample.Add(a=1, b=2)) == 3


# Memory


@pytest.mark.parametrize("small", [False, True])
async def test_a_job_that_eats_memory_ends_at_memory_max(pool: Callable[..., Pool], small: bool) -> None:
    one = pool(memory_max=64 * 2**20)
    before = await one.result(sample.Pid())
    outcome = await one.go(sample.Hog(small=small))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.final) == ("memory", False)
    assert str(outcome.error).startswith("MemoryError\n\nTraceback")
    assert ("LEAK.append" if small else "len(bytearray") in str(outcome.error)
    assert await one.result(sample.Pid()) != before  # with what it had leaked


async def test_a_memory_max_that_the_app_alone_uses_up_is_said_so(
    pool: Callable[..., Pool], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "START_AGAIN", NEVER)
    for megabytes in (8, 18):
        caplog.clear()
        waiting = asyncio.create_task(pool(memory_max=megabytes * 2**20).go(sample.Pid()))
        said = str(await until(lambda: caplog.text, "the error"))
        assert "memory_max is used up before the first job" in said
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


# Recycling, idleness


async def test_processes_are_recycled_between_jobs_and_drop_nothing(pool: Callable[..., Pool]) -> None:
    files = len(os.listdir("/proc/self/fd"))
    one = pool(2, recycle_after=3)
    outcomes = [await asyncio.gather(one.result(sample.Pid()), one.result(sample.Pid())) for _ in range(6)]
    pids = [pid for pair in outcomes for pid in pair]
    assert len(pids) == 12
    assert {pids.count(pid) for pid in pids} == {3}
    await until(lambda: not one.pids, "those that are spent to end")
    assert len(os.listdir("/proc/self/fd")) <= files


async def test_there_are_never_more_processes_than_asked_for(pool: Callable[..., Pool]) -> None:
    one = pool(2)
    pids = await asyncio.gather(*(one.result(sample.Pid()) for _ in range(8)))
    assert sorted(set(pids)) == sorted(one.pids)
    assert len(one.pids) == 2


async def test_a_process_that_is_idle_for_long_ends(pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.05)
    clock = FakeClock()
    one = pool(2, clock=clock)
    pids = set(await asyncio.gather(one.result(sample.Pid()), one.result(sample.Pid())))
    assert len(pids) == 2
    clock.advance(0.04)
    used = await one.result(sample.Pid())
    clock.advance(0.02)
    await until(lambda: one.pids == [used], "the longer idle of the two to end")
    clock.advance(0.05)
    await until(lambda: one.pids == [], "the other one to end")
    assert await one.result(sample.Add(a=1, b=2)) == 3


# The context


@pytest.mark.parametrize(("function", "on_the_loop"), [("make_context", False), ("make_async_context", True)])
async def test_the_context_is_made_once_in_each_process(
    pool: Callable[..., Pool], function: str, on_the_loop: bool
) -> None:
    one = pool(context=f"{MODULE}:{function}", recycle_after=2)
    answers = [await one.result(sample.UseContext()) for _ in range(4)]
    pids = [made_by for made_by, _, _ in answers]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert [answer[1:] for answer in answers] == [[on_the_loop, 1]] * 4


async def test_while_the_context_fails_jobs_wait_and_processes_are_not_started_again_and_again(
    pool: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "reachable"
    monkeypatch.setenv("EDGEQ_TEST_CONTEXT", str(file))
    monkeypatch.setattr(pool_module, "START_AGAIN", Backoff(0.05, 0.2))
    waits: list[int] = []
    delay = Backoff.delay
    monkeypatch.setattr(Backoff, "delay", lambda self, attempt: (waits.append(attempt), delay(self, attempt))[1])
    one = pool(2, context=f"{MODULE}:broken_context")
    jobs = [asyncio.create_task(one.go(sample.Add(a=1, b=2))) for _ in range(2)]
    tries = file.with_suffix(".tries")
    await until(lambda: tries.exists() and len(tries.read_text()) >= 4, "some tries")
    assert one.free == 0
    assert not any(job.done() for job in jobs)
    file.touch()
    for job in jobs:
        assert isinstance(await job, Completed)
    assert len(tries.read_text()) <= len(waits) + 3  # two at first, and the second process in the end
    assert waits == sorted(waits)
    assert waits[-1] > 2
    assert "no process can be started for them: its context" in caplog.text
    assert "ConnectionError: no route to the database" in caplog.text
    assert 'raise ConnectionError("no route to the database")' in caplog.text


async def test_of_all_jobs_that_wait_for_a_process_only_one_tries(
    pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Backoff, "delay", lambda self, attempt: (waits.append(attempt), 3600.0)[1])
    one = pool(4, context=f"{MODULE}:leaving_context")
    jobs = [asyncio.create_task(one.go(sample.Pid())) for _ in range(4)]
    await until(lambda: caplog.text.count("it ended with exit status 5") == 4 and not one.pids, "each to have tried")
    assert len(waits) == 1
    await one.close()
    assert [type(ended) for ended in await asyncio.gather(*jobs, return_exceptions=True)] == [PoolClosed] * 4


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"context": f"{MODULE}:leaving_context"}, "it ended with exit status 5"),
        ({"context": "hanging:context"}, "it was not ready within 1s\n\n  File .*time.sleep(3600)"),
        ({"context": f"{MODULE}:no_context"}, f"{MODULE} has no 'no_context'"),
        ({"modules": ["no_such_module"]}, "there is no module 'no_such_module'"),
        ({"modules": ["breaks"]}, "importing breaks failed at .*breaks.py:1: ZeroDivisionError"),
        ({"modules": ["leaves"]}, "it ended with exit status 6"),
        ({"modules": ["lingers"]}, "importing lingers failed at .*lingers.py:3: ZeroDivisionError"),
    ],
)
async def test_a_process_that_can_not_start_says_why(
    pool: Callable[..., Pool],
    settings: Mapping[str, Any],
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    from_when: Callable[[Path], None],
) -> None:
    (tmp_path / "hanging.py").write_text(
        "import pathlib, time\n"
        f"def context():\n    pathlib.Path({str(tmp_path / 'there')!r}).write_text('yes')\n    time.sleep(3600)\n"
    )
    (tmp_path / "breaks.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("import os; os._exit(6)")
    (tmp_path / "lingers.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n1 / 0"
    )
    monkeypatch.setattr(pool_module, "START_AGAIN", NEVER)
    monkeypatch.setattr(process, "EXIT_SECONDS", 0.5)
    if "hanging" in str(settings):
        from_when(tmp_path / "there")
        monkeypatch.setattr(process, "WHERE_SECONDS", 20.0)
        monkeypatch.setattr(process, "START_SECONDS", 1.0)
        monkeypatch.setattr(process, "SLOW_SECONDS", 0.1)
    one = pool(path=str(tmp_path), **settings)
    waiting = asyncio.create_task(one.go(sample.Pid()))
    await until(lambda: "no process" in caplog.text, "the error")
    assert ("has not been ready for jobs for 100ms; it is waited for" in caplog.text) == ("hanging" in str(settings))
    pattern = re.escape(error).replace(r"\.\*", ".*")
    assert re.search(f"no process can be started for them: .*{pattern}", caplog.text, re.DOTALL)
    await until(lambda: one.pids == [], "the process to end")
    assert not waiting.done()
    await one.close()
    with pytest.raises(PoolClosed):
        await waiting


async def test_processes_that_start_but_take_no_job_are_not_started_again_and_again(
    pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(Backoff, "delay", lambda self, attempt: (waits.append(attempt), 0.01)[1])

    async def refuse(self: process.JobProcess, *args: object) -> None:
        self.kill()
        raise process.NotBegun("as one does whose code on disk has changed")

    with monkeypatch.context() as patched:
        patched.setattr(process.JobProcess, "run", refuse)
        one = pool()
        waiting = asyncio.create_task(one.go(sample.Add(a=1, b=2)))
        await until(lambda: len(waits) >= 3, "some tries")
    assert isinstance(await waiting, Completed)
    assert waits[:3] == [1, 2, 3]


async def test_no_more_processes_can_be_started_by_the_machine(
    pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_module, "START_AGAIN", Backoff(0.01, 0.01))
    files = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/no/such/python")
        one = pool()
        waiting = asyncio.create_task(one.go(sample.Add(a=1, b=2)))
        await until(lambda: caplog.text.count("a process can't be started") >= 3, "the error")
        assert len(os.listdir("/proc/self/fd")) <= files + 1
    assert isinstance(await waiting, Completed)


# The end


async def test_close_ends_idle_processes_at_once_and_gives_the_others_their_grace(
    pool: Callable[..., Pool], tmp_path: Path
) -> None:
    one = pool(3)
    files = [tmp_path / "short", tmp_path / "long"]
    short = asyncio.create_task(one.go(sample.Cleanup(file=str(files[0])), 0.5))
    long = asyncio.create_task(one.go(sample.Starts(file=str(files[1]))))
    idle = await one.result(sample.Pid())
    pids = [int(pid) for pid in (await written(files[1])).split()]
    closing = asyncio.create_task(one.close(3600.0))
    await gone(idle)
    assert not closing.done()
    assert isinstance(await short, Failed)
    assert not long.done()
    closing.cancel()
    await one.close(0.5)
    with pytest.raises(PoolClosed):
        await long
    for pid in pids:
        await gone(pid)
    with pytest.raises(PoolClosed):
        await one.go(sample.Pid())


PARENT = """
import asyncio, os, sys
sys.path.insert(0, {here!r})
from test_jobs_isolation import Pool, sample
async def main():
    pool = Pool(2)
    hang = asyncio.create_task(pool.go(sample.Hang(how="regex", file={busy!r})))
    open({idle!r}, "w").write(str(await pool.result(sample.Pid())))
    await hang
asyncio.run(main())
"""


async def test_processes_die_with_the_worker_also_when_it_is_killed(tmp_path: Path) -> None:
    busy, idle = tmp_path / "busy", tmp_path / "idle"
    program = PARENT.format(here=str(HERE), busy=str(busy), idle=str(idle))
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)  # noqa: ASYNC220 - briefly
    try:
        pids = [int(await written(busy)), int(await written(idle))]
        assert all(there(pid) for pid in pids)
    finally:
        parent.kill()
        _, errors = parent.communicate()
    assert errors == b""
    try:
        for pid in pids:
            await gone(pid)
    finally:
        for pid in filter(there, pids):
            os.kill(pid, signal.SIGKILL)


# What is said


async def test_what_a_job_prints_and_logs_comes_out_at_the_worker(
    pool: Callable[..., Pool],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with caplog.at_level(logging.INFO):
        await pool().go(sample.Talk(), job_id=12)
    said = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert said[:2] == [
        ("app.isolated", "WARNING", "job 12: two\nlines of text"),
        ("app.isolated", "INFO", "job 12: from a thread"),
    ]
    assert said[2][2].startswith("job 12: it failed\nTraceback (most recent call last):\n")
    assert said[2][2].endswith("ValueError: broken")
    assert len(said) == 3
    assert capfd.readouterr().out == "printed by the job\n"


async def test_a_flood_of_words_neither_blocks_nor_gets_lost(
    pool: Callable[..., Pool], caplog: pytest.LogCaptureFixture
) -> None:
    one = pool()
    with caplog.at_level(logging.INFO):
        assert isinstance(await one.go(sample.Flood(count=500)), Completed)
    *said, last = [record.getMessage().removeprefix("job 1: ").split()[:2] for record in caplog.records]
    ticks = int(last[0])
    assert ticks > 10
    for who, count in (("main", 500), ("thread", 500), ("tick", ticks)):
        assert [number for name, number in said if name == who] == [str(number) for number in range(count)]
    assert len(one.progress) == 1000


@pytest.mark.parametrize(
    ("job", "reason", "error"),
    [
        (sample.Record(events=90), "bad_result", "the job takes 8.6 MiB; at most 8 MiB can be sent"),
        (sample.Record(result=300_000), "bad_result", "what handle() returned takes more than 256 KiB of JSON"),
        (sample.Record(events=1, surrogate=True), "failed", "UnicodeEncodeError"),
    ],
)
async def test_what_can_not_be_sent_is_an_error(pool: Callable[..., Pool], job: Job, reason: str, error: str) -> None:
    one = pool()
    outcome = await one.go(job)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.final) == (reason, reason == "bad_result")
    assert str(outcome.error).startswith(error)
    big = await one.go(sample.Record(events=80, result=200_000))
    assert isinstance(big, Completed)
    assert (len(big.decisions.events), len(big.result)) == (80, 200_002)


async def test_a_job_that_can_not_be_handed_over_is_an_error(pool: Callable[..., Pool]) -> None:
    reason, error = await pool().failure(sample.Pid(), options=" " * (9 * 2**20))
    assert (reason, error) == ("undecodable", "the job takes 9.0 MiB; at most 8 MiB can be sent to a process")
