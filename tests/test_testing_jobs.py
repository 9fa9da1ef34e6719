"""What `edgeq.testing` gives to those who test jobs of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeq import Dead, Job, JobContext, RetryAfter, job
from edgeq.config.schema import Queue
from edgeq.jobs.context import ParentInfo
from edgeq.testing import FakeClock, Harness, Jobs, Notified, run_job


@job(max_attempts=2, backoff="10s")
def mail(to: str, ctx: JobContext) -> int:
    if to == "nobody":
        raise ConnectionError("nobody is there")
    return 0


class Report(Job):
    queue = "reports"
    day: str

    async def handle(self, ctx: JobContext) -> dict[str, Any]:
        ctx.progress(0.5, "counting")
        ctx.emit("report.made", subject=self.day)
        ctx.dispatch(mail(to="ops"), delay="1m")
        ctx.notify("The report is there", subject=self.day, channels=["mail"])
        return {"pages": 3, "context": ctx.context, "attempt": ctx.job.attempt}


@job
def answers(with_: str, ctx: JobContext) -> Any:
    match with_:
        case "snooze":
            return ctx.snooze("5m")
        case "later":
            raise RetryAfter("30s", "busy")
        case "never":
            return Dead("no such customer")
        case "parent":
            assert ctx.parent is not None
            return [ctx.parent.kind, ctx.parent.args, ctx.parent.result, ctx.parent.error]
        case _:
            return object()


async def test_one_run_tells_everything_that_the_handler_did() -> None:
    done = await run_job(Report(day="mon"), attempt=3, context="made once")
    assert (done.outcome, done.error) == ("completed", None)
    assert done.result == {"pages": 3, "context": "made once", "attempt": 3}
    assert [(event.type, event.subject) for event in done.events] == [("report.made", "mon"), ("notification", "mon")]
    assert done.notified() == [Notified("The report is there", subject="mon", channels=("mail",))]
    assert done.progress == [(0.5, "counting")]
    (mailed,) = done.dispatched(mail, to="ops")
    assert mailed.run_at == FakeClock().now() + 60_000_000
    assert not done.dispatched(mail, to="somebody else")
    assert not done.dispatched(Report)


@pytest.mark.parametrize(
    ("with_", "outcome", "reason", "delay_seconds", "error"),
    [
        ("snooze", "snoozed", None, 300.0, None),
        ("later", "failed", "failed", 30.0, "busy"),
        ("never", "failed", "dead", None, "no such customer"),
        ("an object", "failed", "bad_result", None, "what handle() returned can't be written as JSON"),
    ],
)
async def test_how_else_a_run_may_end(
    with_: str, outcome: str, reason: str | None, delay_seconds: float | None, error: str | None
) -> None:
    run = await run_job(answers(with_=with_))
    assert (run.outcome, run.reason, run.delay_seconds) == (outcome, reason, delay_seconds)
    assert error is None or str(run.error).startswith(error)


async def test_an_error_is_told_as_it_would_be_stored() -> None:
    run = await run_job(mail(to="nobody"))
    assert run.error is not None
    assert run.error.splitlines()[0] == "ConnectionError: nobody is there"
    assert "edgeq/testing" not in run.error, "only the author's own lines"


async def test_a_callback_can_be_told_of_its_parent() -> None:
    of = ParentInfo(7, "app:Report", {"day": "mon"}, result={"pages": 3})
    assert (await run_job(answers(with_="parent"), parent=of)).result == [of.kind, of.args, of.result, None]
    of = ParentInfo(7, "app:Report", {"day": "mon"}, error="ValueError: no")
    assert (await run_job(answers(with_="parent"), parent=of)).result == [of.kind, of.args, None, "ValueError: no"]


async def test_nothing_runs_until_it_is_told_and_the_clock_says_so() -> None:
    async with Jobs() as jobs:
        report = await jobs.dispatch(Report(day="mon"), delay="1h")
        assert report.state == "scheduled"
        assert await jobs.drain() == 0
        jobs.clock.advance(3600)
        assert await jobs.drain() == 1
        assert (await jobs.job(report.id)).state == "completed"
        assert await jobs.notified() == [Notified("The report is there", subject="mon", channels=("mail",))]
        (mailed,) = await jobs.dispatched(mail, to="ops")
        assert mailed.state == "scheduled", "its minute isn't over"
        jobs.clock.advance(60)
        assert await jobs.drain() == 1
        assert (await jobs.job(mailed.id)).result == "0"


async def test_retries_come_with_the_clock() -> None:
    async with Jobs() as jobs:
        await jobs.dispatch(mail(to="nobody"))
        assert await jobs.drain() == 1
        assert [job.state for job in await jobs.jobs()] == ["retryable"]
        jobs.clock.advance(12)
        assert await jobs.drain() == 1
        assert [job.state for job in await jobs.jobs()] == ["dead"]


async def test_only_the_queues_named_are_drained() -> None:
    async with Jobs() as jobs:
        await jobs.dispatch(Report(day="mon"))
        await jobs.dispatch(mail(to="ops"))
        assert await jobs.drain(["default"], settings=Queue(concurrency=1)) == 1
        assert [job.kind.rpartition(":")[2] for job in await jobs.jobs("available")] == ["Report"]


async def test_the_harness_runs_jobs_and_tells_of_them(tmp_path: Path) -> None:
    config = tmp_path / "edgeq.yaml"
    config.write_text("jobs: {queues: {default: {}, reports: {}}}\n")
    async with Harness(config) as edgeq:
        await edgeq.dispatch(Report(day="tue"))
        await edgeq.settle()
        assert [job.state for job in await edgeq.dispatched(Report, day="tue")] == ["completed"]
        assert len(await edgeq.events("report.made")) == 1


def test_it_can_be_used_without_pytest() -> None:
    assert asyncio.run(run_job(Report(day="mon"))).outcome == "completed"
