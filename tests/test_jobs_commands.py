"""`edgeq jobs` and `edgeq queues`: what they find, change and refuse, and what they say of it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Edgeq, commands, remove_store, store
from support.stores import Database

from edgeq.clock import Clock
from edgeq.store import claims, jobs
from edgeq.store.claims import BreakerSettings
from edgeq.store.ends import Buried, Completed
from edgeq.store.jobs import Limit, NewJob
from edgeq.store.store import Tx

CONFIGURATION = """\
gateway: g
store: {url: edgeq.db}
app: {path: ., modules: [commanded]}
jobs: {queues: {garden: {concurrency: 3}}}
"""

APP = """\
from datetime import datetime
from typing import Any

from edgeq import Job, job

class Water(Job):
    queue = "garden"
    bed: str
    litres: float = 1.0
    until: datetime | None = None
    note: str | None = None
    more: Any = None

    def handle(self, ctx): ...

@job
def greet(name: str) -> str:
    return "hello " + name
"""

HOUR = 3_600_000_000


@pytest.fixture
def edgeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Database
) -> Iterator[Edgeq]:
    """Calls commands in a folder with an app and an empty database."""
    (tmp_path / "commanded.py").write_text(APP)
    for call in commands(CONFIGURATION, tmp_path, monkeypatch, capsys, database):
        store()
        yield call


def new(kind: str = "a:B", **given: Any) -> NewJob:
    """A job to store; ready since a second unless told otherwise."""
    then = Clock().now() - 1_000_000
    return NewJob(**{"queue": "default", "kind": kind, "args": "{}", "run_at": then, "created_at": then} | given)


def claim(tx: Tx, queue: str = "default", limit: int = 100, **given: Any) -> list[Any]:
    """Claim jobs as a worker does."""
    now = Clock().now()
    return claims.claim(tx, queue=queue, owner="w", lease_seconds=60, limit=limit, now=now, **given)


def die(tx: Tx, *new_jobs: NewJob, reason: str = "failed", error: str = "ValueError: no") -> None:
    """Add jobs, one after the other, and have them die."""
    for each in new_jobs:
        jobs.add(tx, [each])
        claims.end(tx, [Buried(job, reason, error) for job in claim(tx, each.queue)], now=Clock().now())


def found(edgeq: Edgeq, *words: str) -> list[dict[str, Any]]:
    """The jobs that a listing gives, newest first."""
    return [json.loads(line) for line in edgeq("jobs", "list", "--json", *words).out.splitlines()]


def states(edgeq: Edgeq) -> dict[int, str]:
    """The state of every job."""
    return {job["id"]: job["state"] for job in found(edgeq)}


# Dispatching


def test_a_job_is_dispatched_with_its_arguments(edgeq: Edgeq) -> None:
    done = edgeq(
        "jobs", "dispatch", "commanded:Water", "bed=7", "litres=2.5", "until=2026-01-31T12:00:00Z", "note=null"
    )
    assert (done.status, done.out) == (0, "added commanded:Water to queue garden as job 1\n")
    (job,) = found(edgeq)
    assert job["args"] == {"bed": "7", "litres": 2.5, "until": "2026-01-31T12:00:00Z", "note": None, "more": None}
    assert (job["queue"], job["state"], job["kind"]) == ("garden", "available", "commanded:Water")
    assert edgeq("jobs", "dispatch", "commanded:greet", "name=Ann").status == 0, "a function, too"
    edgeq("jobs", "dispatch", "commanded:Water", "--args", '{"bed": "a", "more": [1, {"b": null}]}')
    assert found(edgeq)[0]["args"]["more"] == [1, {"b": None}]
    edgeq("jobs", "dispatch", "commanded:Water", "bed=x", "note=5", 'more={"a": 1}')
    assert (found(edgeq)[0]["args"]["note"], found(edgeq)[0]["args"]["more"]) == ("5", {"a": 1})


def test_how_it_is_run_can_be_said(edgeq: Edgeq) -> None:
    before = Clock().now()
    done = edgeq(
        "jobs", "dispatch", "commanded:Water", "bed=1", "--delay", "10m", "--priority", "-5", "--queue", "other",
        "--max-attempts", "2", "--expires", "1h", "--unique-key", "k", "--json",
    )  # fmt: skip
    assert json.loads(done.out) == {"id": 1, "existed": False}
    assert done.err == "edgeq: warning: no queue is called 'other': only `edgeq work other` would run the job\n"
    (job,) = found(edgeq)
    assert job["state"] == "scheduled"
    assert 0 <= job["run_at"] - before - 600_000_000 < 60_000_000
    assert (job["priority"], job["queue"], job["max_attempts"]) == (-5, "other", 2)
    assert job["expires_at"] == job["run_at"] + HOUR
    again = edgeq("jobs", "dispatch", "commanded:Water", "bed=1", "--unique-key", "k", "--json")
    assert json.loads(again.out) == {"id": 1, "existed": True}
    assert edgeq("jobs", "dispatch", "commanded:Water", "bed=1", "--unique-key", "k").out == (
        "not added: job 1 with this unique key is there\n"
    )
    edgeq("jobs", "dispatch", "commanded:Water", "bed=1", "--run-at", "2099-01-01T00:00:00Z", "--priority", "high")
    assert (found(edgeq)[0]["run_at"], found(edgeq)[0]["priority"]) == (4_070_908_800_000_000, 10)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["commanded:Wter"], 1, "(did you mean 'commanded:Water'?)"),
        (["os:system", "command=true"], 1, "there is no job os:system"),
        (["commanded:Water"], 2, "missing required field `bed`"),
        (["commanded:Water", "bed=1", "litres=many"], 2, "Expected `float`, got `str`"),
        (["commanded:Water", "bed=1", "liters=1"], 2, "no argument 'liters' (did you mean 'litres'?)"),
        (["commanded:Water", "bed"], 2, "'bed' must be written KEY=VALUE"),
        (["commanded:Water", "bed=1", "bed=2"], 2, "bed is given twice"),
        (["commanded:Water", "bed=1", "--args", "{}"], 2, "--args and KEY=VALUE don't go together"),
        (["commanded:Water", "--args", "[1]"], 2, "--args must be a JSON object"),
        (["commanded:Water", "--args", "{"], 2, "--args is not JSON"),
        (["commanded:Water", "bed=1", "--delay", "-5s"], 2, "'-5s' is not a duration"),
        (["commanded:Water", "bed=1", "--delay", "5s", "--run-at", "2099-01-01"], 2, "don't go together"),
        (["commanded:Water", "bed=1", "--run-at", "tomorrow"], 2, "'tomorrow' is no time"),
        (["commanded:Water", "bed=1", "--priority", "urgent"], 2, "priority = 'urgent': must be 'high'"),
        (["commanded:Water", "bed=1", "--priority", "5000"], 2, "priority = 5000"),
        (["commanded:Water", "bed=1", "--queue", "no such"], 2, "queue = 'no such'"),
        (["commanded:Water", "bed=1", "--max-attempts", "0"], 2, "max_attempts = 0"),
        (["commanded:Water", "bed=1", "--unique-key", "k" * 2000], 2, "unique_key"),
        (["commanded:Water", f"bed={'x' * 300_000}"], 2, "take more than 256 KiB of JSON"),
    ],
)
def test_what_can_not_be_dispatched_is_refused(edgeq: Edgeq, words: list[str], status: int, told: str) -> None:
    done = edgeq("jobs", "dispatch", *words)
    assert (done.status, done.out) == (status, "")
    assert told in done.err
    assert found(edgeq) == []


def test_the_first_job_makes_the_database(edgeq: Edgeq) -> None:
    remove_store()
    assert edgeq("jobs", "list").status == 1
    assert edgeq("jobs", "dispatch", "commanded:greet", "name=Ann").out.endswith("as job 1\n")
    assert states(edgeq) == {1: "available"}


def test_a_job_that_no_worker_would_know_is_not_dispatched(edgeq: Edgeq, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("from edgeq import Job\nclass X(Job):\n    def handle(self, ctx): ...\n")
    done = edgeq("jobs", "dispatch", "elsewhere:X")
    assert done.status == 1
    assert "there is no job elsewhere:X" in done.err


def test_a_mistake_in_a_job_class_is_told_with_its_line(edgeq: Edgeq, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("from edgeq import Job\n\nclass X(Job):\n    qeue = 'garden'\n")
    (tmp_path / "edgeq.yaml").write_text("app: {path: ., modules: [wrong]}\n")
    done = edgeq("check")
    assert done.status == 78
    assert f"importing wrong failed at {tmp_path}/wrong.py:3: TypeError: job X: there is no setting 'qeue'" in done.err


# Looking


def test_a_listing_says_how_far_jobs_are_and_what_they_wait_for(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        jobs.add(tx, [new(limit=Limit("door", concurrency=1)) for _ in range(2)])
        (running,) = claim(tx, limit=1)
        claims.progress(tx, running, '{"fraction":0.4,"text":"washing"}')

    store(unit)
    first, second = (next(line for line in edgeq("jobs", "list").out.splitlines() if line[0] == each) for each in "12")
    assert "executing" in first
    assert "40% washing" in first
    assert "available (limit)" in second
    assert [job["blocked_by"] for job in found(edgeq)] == ["limit", None]
    assert found(edgeq)[1]["progress"] == {"fraction": 0.4, "text": "washing"}


def test_a_job_is_shown_whole(edgeq: Edgeq) -> None:
    callback = NewJob(queue="default", kind="a:Report", args='{"x":1}')
    trace = 'ValueError: no\n\nTraceback (most recent call last):\n  File "app.py", line 5, in handle'

    def unit(tx: Tx) -> None:
        die(tx, new(on_failure=callback, on_success=callback, needs="crm"), reason="timeout", error=trace)
        claims.end(tx, [Completed(claim(tx)[0], '{"sum":3}')], now=Clock().now())

    store(unit)
    shown = edgeq("jobs", "show", "1").out
    assert "state             dead\n" in shown
    assert "needs             crm\n" in shown
    assert "reason            timeout\n" in shown
    assert " timeout  " in (listed := edgeq("dead-letters", "list").out)
    assert listed.endswith("ValueError: no\n"), "not the last line of the trace"
    assert '"kind":"a:Report"' in shown
    lines = shown.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("error"))
    assert [line[18:] for line in lines[at:]] == trace.splitlines()
    shown = edgeq("jobs", "show", "2").out
    assert 'result            {"sum":3}\n' in shown
    assert '"error":"ValueError: no' in next(line for line in shown.splitlines() if line.startswith("parent"))
    assert json.loads(edgeq("jobs", "show", "2", "--json").out)["options"]["parent"]["id"] == 1


# Retrying


def test_dead_jobs_run_again_by_id_by_filter_and_all(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        die(tx, new("a:One"), new("a:Two"), new("a:One", queue="garden"))
        die(tx, new("a:One"), reason="timeout")

    def dead() -> list[int]:
        return [job["id"] for job in found(edgeq, "--state", "dead")]

    store(unit)
    assert edgeq("jobs", "retry", "1", "77").out == "1 to run again; 1 are not there, or not dead\n"
    assert dead() == [4, 3, 2]
    assert found(edgeq)[3]["attempt"] == 0
    assert edgeq("jobs", "retry", "--reason", "timeout").out == "1 to run again\n"
    assert edgeq("jobs", "retry", "--queue", "garden", "--kind", "a:Two").status == 1
    assert edgeq("jobs", "retry", "--queue", "garden").out == "1 to run again\n"
    assert dead() == [2]
    assert edgeq("jobs", "retry", "--all").out == "1 to run again\n"
    done = edgeq("jobs", "retry", "--all")
    assert (done.status, done.err) == (1, "edgeq: no dead job fits\n")


def test_many_dead_jobs_run_again_in_pages(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        jobs.add(tx, [new() for _ in range(2500)])
        claims.end(tx, [Buried(job, "failed", "no") for job in claim(tx, limit=2500)], now=Clock().now())

    store(unit)
    assert edgeq("jobs", "retry", "--all").out == "2500 to run again\n"
    assert found(edgeq, "--state", "dead") == []


# Cancelling


def test_jobs_are_cancelled_but_not_those_that_ended(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        jobs.add(tx, [new()])
        claims.end(tx, [Completed(claim(tx)[0], "null")], now=Clock().now())
        jobs.add(tx, [new()])
        claim(tx)
        jobs.add(tx, [new(), new(run_at=Clock().now() + HOUR)])

    store(unit)
    done = edgeq("jobs", "cancel", "1", "2", "3", "9")
    assert (done.status, done.out) == (0, "2 cancelled\n")
    assert done.err == "edgeq: job 1 is completed already\nedgeq: there is no job 9\n"
    assert states(edgeq) == {1: "completed", 2: "cancelled", 3: "cancelled", 4: "scheduled"}
    done = edgeq("jobs", "cancel", "1")
    assert (done.status, done.err) == (1, "edgeq: job 1 is completed already\nedgeq: nothing was cancelled\n")


# Purging


def finished(tx: Tx) -> None:
    """Two completed jobs, one of long ago; a dead one, one that runs, and one that is ready."""
    for ago in (2 * HOUR, 0):
        jobs.add(tx, [new()])
        claims.end(tx, [Completed(claim(tx)[0], "null")], now=Clock().now() - ago)
    die(tx, new(queue="garden"))
    jobs.add(tx, [new()])
    claim(tx)
    jobs.add(tx, [new()])


def test_jobs_are_purged_by_state_age_and_queue(edgeq: Edgeq) -> None:
    store(finished)
    assert edgeq("jobs", "purge", "--state", "completed", "--older-than", "1h", "--yes").out == "1 deleted\n"
    assert states(edgeq) == {2: "completed", 3: "dead", 4: "executing", 5: "available"}
    assert edgeq("jobs", "purge", "--state", "dead", "--queue", "default").err == "edgeq: no job fits\n"
    assert edgeq("jobs", "purge", "--state", "dead", "--state", "available", "--kind", "a:B").out == "2 deleted\n"
    assert states(edgeq) == {2: "completed", 4: "executing"}


def test_jobs_that_have_ended_are_purged_by_id(edgeq: Edgeq) -> None:
    store(finished)
    done = edgeq("jobs", "purge", "3", "4", "1", "9", "1")
    assert (done.status, done.out) == (0, "2 deleted\n")
    assert done.err == "edgeq: job 4 is executing: cancel it first\nedgeq: there is no job 9\n"
    assert states(edgeq) == {2: "completed", 4: "executing", 5: "available"}
    done = edgeq("jobs", "purge", "5")
    assert (done.status, done.err) == (1, "edgeq: job 5 is available: cancel it first\nedgeq: nothing was deleted\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("purge", "say which: by id, or --state"),
        ("purge 1 --state dead", "ids don't go together with --state, --queue, --kind or --older-than"),
        ("purge --state executing", "'executing' is not one of"),
        ("purge --state available --older-than 1h", "--older-than is for jobs that ended: completed"),
        ("purge --state dead --older-than soon", "'--older-than': 'soon' is not a duration"),
        ("retry", "say which: by id, --queue, --kind, --reason, or --all"),
        ("retry 1 --all", "ids don't go together with"),
        ("cancel", "Missing argument 'ID...'"),
        ("dispatch", "Missing argument 'MODULE:NAME'"),
    ],
)
def test_wrong_usage_changes_nothing(edgeq: Edgeq, words: str, told: str) -> None:
    store(finished)
    before = found(edgeq)
    done = edgeq("jobs", *words.split(" "))
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert found(edgeq) == before


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", {"dead", "completed"}), (b"y\n", {"completed"})])
def test_on_a_terminal_purging_asks_first(edgeq: Edgeq, tmp_path: Path, answer: bytes, left: set[str]) -> None:
    store(finished)
    ours, its = pty.openpty()
    words = [sys.executable, "-m", "edgeq.cli.main", "jobs", "purge", "--state", "dead"]
    child = subprocess.Popen(words, cwd=tmp_path, stdin=its, stdout=its, stderr=its)
    os.close(its)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(ours, 1000)
    assert b"Delete all dead jobs in every queue for good?" in shown
    os.write(ours, answer)
    child.wait(60)
    os.close(ours)
    assert {job["state"] for job in found(edgeq)} == left | {"executing", "available"}


# Queues


def queues(edgeq: Edgeq) -> dict[str, dict[str, Any]]:
    """What is said of each queue."""
    return {each["queue"]: each for each in map(json.loads, edgeq("queues", "--json").out.splitlines())}


def test_queues_are_counted(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        finished(tx)
        jobs.add(tx, [new(queue="new", run_at=Clock().now() + HOUR), new(queue="new", limit=Limit("k", concurrency=1))])
        jobs.add(tx, [new(queue="new", limit=Limit("k", concurrency=1))])

    store(unit)
    default, garden, other = (queues(edgeq)[name] for name in ("default", "garden", "new"))
    assert (default["ready"], default["executing"], default["completed"], default["dead"]) == (1, 1, 2, 0)
    assert (default["size"], default["concurrency"]) == (2, 2)
    assert 1 <= default["oldest_ready_seconds"] < 600
    assert (garden["dead"], garden["size"], garden["concurrency"]) == (1, 0, 3)
    assert (other["ready"], other["delayed"], other["blocked"], other["size"]) == (1, 1, 1, 3)
    assert other["concurrency"] is None
    listed = edgeq("queues", "list").out.splitlines()
    assert listed[0].split()[:4] == ["queue", "size", "ready", "delayed"]
    assert [line.split()[0] for line in listed[1:]] == ["default", "garden", "new"]
    assert "not configured" in listed[3]
    assert ageless(edgeq("queues").out) == ageless(edgeq("queues", "list").out)


def ageless(table: str) -> list[str]:
    """The words of a table, without how long something waits: that grows while it is looked at."""
    return [word for word in table.split() if not re.fullmatch(r"\d+[smh]", word)]


def test_a_queue_is_paused_and_resumed(edgeq: Edgeq) -> None:
    store(lambda tx: jobs.add(tx, [new()]))
    assert edgeq("queues", "pause", "default").out == "default is paused\n"
    assert edgeq("queues", "pause", "default").status == 0
    assert queues(edgeq)["default"]["paused"] is True
    assert store(claim) == []
    assert "paused" in edgeq("queues").out
    assert edgeq("queues", "resume", "default").out == "default goes on\n"
    assert queues(edgeq)["default"]["paused"] is False
    assert len(store(claim)) == 1
    done = edgeq("queues", "pause", "gardn")
    assert (done.status, done.err) == (1, "edgeq: there is no queue 'gardn' (did you mean 'garden'?)\n")


def test_dependencies_that_do_not_work_are_listed(edgeq: Edgeq) -> None:
    assert edgeq("queues", "breakers").out == "no dependency has failed yet\n"

    def unit(tx: Tx) -> None:
        settings = {"crm": BreakerSettings(1, 60_000_000, HOUR)}
        jobs.add(tx, [new(needs="crm")])
        for job in claim(tx, breakers=settings):
            end = claims.Retried(job, Clock().now() + HOUR, "ConnectionError: nobody there")
            claims.end(tx, [end], now=Clock().now(), breakers=settings)

    store(unit)
    (breaker,) = map(json.loads, edgeq("queues", "breakers", "--json").out.splitlines())
    assert (breaker["name"], breaker["state"], breaker["failures"]) == ("crm", "open", 1)
    assert "ConnectionError: nobody there" in edgeq("queues", "breakers").out
    assert "dependency    crm: open after 1 failures, its jobs wait" in edgeq("status").out
