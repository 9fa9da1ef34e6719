"""The tables of docs/coming-from.md, tried as a user of each of these systems would: every row by a check of its own.

A check is given what stands in backticks on the right side of its row, and runs that.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.coming_from import SHOP, Place
from support.readme import PAGES, code, followed, section, table

from edgeq.config import schema
from edgeq.jobs.job import definition
from edgeq.testing import Jobs, run_job

COMING = followed(PAGES["docs/coming-from.md"])
HEADINGS = re.findall(r"^## (.*)$", COMING, re.MULTILINE)
ROWS = [(heading, left, right) for heading in HEADINGS for left, right in table(section(f"## {heading}", COMING))]

Check = Callable[..., None]
CHECKS: dict[tuple[str, str], Check] = {}


def row(heading: str, left: str) -> Callable[[Check], Check]:
    """The check of the row under `heading` whose left side begins so."""

    def put(check: Check) -> Check:
        CHECKS[heading, left] = check
        return check

    return put


def check_of(heading: str, left: str) -> Check | None:
    found = [check for (under, begins), check in CHECKS.items() if under == heading and left.startswith(begins)]
    return found[0] if len(found) == 1 else None


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The app's module, as a program imports it."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "shop.py").write_text(SHOP)
    sys.path.insert(0, str(folder))
    try:
        yield __import__("shop")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["shop"]


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest, shop: ModuleType) -> Iterator[Place]:
    made = Place(tmp_path, request, shop)
    yield made
    made.close()


@pytest.mark.parametrize(("heading", "left", "right"), ROWS, ids=[f"{heading}: {left}" for heading, left, _ in ROWS])
def test_the_row_is_true(place: Place, heading: str, left: str, right: str) -> None:
    check = check_of(heading, left)
    assert check is not None, "there is no check for this row, or more than one"
    check(place, *code(right))


def test_no_check_is_without_a_row() -> None:
    assert len(CHECKS) == len(ROWS)


# What several rows need


def waits(made: Any, attempts: int) -> list[float]:
    """How many seconds pass after each of so many failed attempts."""

    async def main() -> list[float]:
        found = []
        async with Jobs() as jobs:
            stored = await jobs.dispatch(made())
            for _ in range(attempts):
                await jobs.drain()
                stored = await jobs.job(stored.id)
                assert stored.state == "retryable", stored
                found.append((stored.run_at - jobs.clock.now()) / 1e6)
                jobs.clock.advance(found[-1])
        return found

    return asyncio.run(main())


def about(*seconds: float) -> Any:
    """These, give or take the jitter."""
    return pytest.approx(list(seconds), rel=0.11)


def executing(place: Place, count: int) -> None:
    """So many jobs run at once, and no more although there are some."""
    place.eventually(lambda: place.begun() >= count, f"{count} jobs to begin")
    assert len(place.jobs("executing")) == count
    assert place.jobs("available")
    place.go()
    place.eventually(lambda: {job.state for job in place.jobs()} == {"completed"}, "the jobs to end")
    place.terminals.stop()


def has_so_long(place: Place, command: str) -> None:
    """A job that runs when `command` is asked to stop is let end."""
    place.queue.dispatch(place.shop.wait(1))
    place.work(command)
    place.eventually(place.begun, "the job to begin")
    place.ask_to_stop()
    place.terminals.wait_for("1 jobs that run have up to " + {"5m": "300s", "30s": "30s"}[command.split()[-1]])
    place.go()
    assert place.ended() == 0
    assert [job.state for job in place.jobs()] == ["completed"]


# RouteMQ


@row("RouteMQ", "`class Report(Job)`")
def _(place: Place, *settings: str) -> None:
    body = "".join(f"    {line}\n" for line in settings)
    made = place.made(f"class work(Job):\n{body}    def handle(self, ctx): raise ValueError('no')")
    assert waits(made, 2) == about(10, 10)
    told = definition(made).settings
    assert (told.max_attempts, told.timeout_seconds, told.queue) == (3, 60.0, "default")


@row("RouteMQ", "`async handle()`")
def _(place: Place, handle: str, failed: str, plain: str) -> None:
    assert plain == "def"
    for heads in ((handle, failed), (handle.removeprefix("async "), failed.removeprefix("async "))):
        made = place.made(
            "told = []\n"
            "class work(Job):\n"
            "    max_attempts = 1\n"
            f"    {heads[0]}: raise ValueError('no')\n"
            f"    {heads[1]}: told.append(str(error))\n"
        )

        async def main(made: Any = made) -> None:
            async with Jobs() as jobs:
                await jobs.dispatch(made())
                await jobs.drain()
                assert [job.state for job in await jobs.jobs()] == ["dead"]

        asyncio.run(main())
        assert made.failed.__globals__["told"] == ["no"]


@row("RouteMQ", "`job_id`")
def _(place: Place, *expressions: str) -> None:
    made = place.made(f"@job\ndef work(ctx): return [{', '.join(expressions)}]")
    assert asyncio.run(run_job(made(), attempt=2)).result == [1, 2]


@row("RouteMQ", "public attributes")
def _(place: Place, field: str) -> None:
    made = place.made(f"class work(Job):\n    {field}\n    def handle(self, ctx): return self.day")
    assert asyncio.run(run_job(made(day="mon"))).result == "mon"
    with pytest.raises(ValueError, match="day: Expected `str`, got `int`"):
        made(day=1)


@row("RouteMQ", "`retry_backoff_enabled`")
def _(place: Place, doubling: str, with_jitter: str) -> None:
    made = place.made(f"class work(Job):\n    max_attempts = 9\n    {doubling}\n    def handle(self, ctx): 1 / 0")
    assert waits(made, 8) == about(1, 2, 4, 8, 16, 32, 60, 60)
    backoff = definition(
        place.made(f"class work(Job):\n    {with_jitter}\n    def handle(self, ctx): 1 / 0")
    ).settings.backoff
    found = [backoff.delay(1) for _ in range(200)]
    assert 0.5 <= min(found) < 0.8
    assert 1.2 < max(found) <= 1.5


@row("RouteMQ", "`dispatch(job)`")
def _(place: Place, inside: str, outside: str) -> None:
    made = place.made(f"@job\ndef work(ctx): {inside}")
    assert asyncio.run(run_job(made())).dispatched(place.shop.Report, day="mon")
    place.python(outside)
    assert [(job.kind, job.queue) for job in place.jobs()] == [("shop:Report", "video")]
    place.drain()
    assert place.reports() == ["mon"]


@row("RouteMQ", "`queue.later(60, job)`")
def _(place: Place, later: str) -> None:
    place.python(later)
    (job,) = place.jobs("scheduled")
    assert job.run_at - job.created_at == 60_000_000


@row("RouteMQ", "`queue.bulk(jobs)`")
def _(place: Place, bulk: str) -> None:
    assert [each.id for each in place.python(bulk)] == [1, 2]
    with pytest.raises(ValueError, match="can't be written as JSON"):
        place.queue.dispatch_many([place.shop.Report(day="wed"), place.shop.process({"id": float("nan")})])
    place.drain()
    assert sorted(place.reports()) == ["mon", "tue"]


@row("RouteMQ", "`queue.size(name)`")
def _(place: Place, stats: str, listed: str) -> None:
    place.queue.dispatch(place.shop.Report(day="mon"))
    place.queue.dispatch(place.shop.Report(day="tue"), delay="1h")
    counts = place.python(stats)
    assert [counts[name] for name in ("ready", "executing", "delayed", "dead")] == [1, 0, 1, 0]
    assert counts["oldest_ready_seconds"] > 0
    assert re.search(r"default +2 +1 +1", place.type(listed))


@row("RouteMQ", "`queue-work --queue video")
def _(place: Place, command: str) -> None:
    place.queue.dispatch(place.shop.breaks_often(), queue="video", priority="high")
    place.queue.dispatch_many([place.shop.Report(day="mon")] * 98, queue="video")
    place.queue.dispatch(place.shop.Report(day="tue"))
    place.type(command)
    assert [(job.state, job.attempt) for job in place.jobs(kind="shop:breaks_often")] == [("dead", 3)]
    assert len(place.reports()) == 97, "with three attempts at the other: a hundred"
    place.queue.dispatch(place.shop.wait(1), queue="video", priority="high")
    for _ in range(9):  # where the start takes its time, two seconds may be over before anything was claimed
        place.type(command.replace("60s", "200ms").replace("1h", "2s"))
        if error := place.jobs(kind="shop:wait")[0].error:
            break
    assert (error or "").startswith("took longer than 200ms")
    assert place.jobs("available", queue="default"), "another queue"


@row("RouteMQ", "a worker and a queue for each priority")
def _(place: Place, urgent: str) -> None:
    place.queue.dispatch_many([place.shop.Report(day="tue"), place.shop.Report(day="wed")])
    place.python(urgent)
    place.drain("--concurrency 1")
    assert place.reports() == ["mon", "tue", "wed"]


@row("RouteMQ", "a worker's `pause`")
def _(place: Place, pause: str, resume: str) -> None:
    place.work("edgeq work")
    place.type(pause)
    place.queue.dispatch(place.shop.Report(day="mon"), queue="video")
    place.queue.wait(place.queue.dispatch(place.shop.Report(day="tue")).id, 30)
    assert place.reports() == ["tue"]
    place.type(resume)
    place.eventually(lambda: place.reports() == ["tue", "mon"], "the other")


@row("RouteMQ", "`queue-failed`")
def _(place: Place, listed: str, shown: str) -> None:
    place.seven(place.shop.broken())
    assert place.type(listed).count("ValueError: broken") == 7
    assert re.search(r"^reason +failed$", text := place.type(shown), re.MULTILINE)
    assert "Traceback (most recent call last)" in text


@row("RouteMQ", "`queue-retry 7`")
def _(place: Place, one: str, every: str) -> None:
    place.seven(place.shop.broken())
    assert place.type(one) == "1 to run again\n"
    assert [job.id for job in place.jobs("available")] == [7]
    assert place.type(every) == "6 to run again\n"
    assert len(place.jobs("available")) == 7


@row("RouteMQ", "`queue-forget 7`")
def _(place: Place, one: str, every: str) -> None:
    place.seven(place.shop.broken())
    assert place.type(one) == "1 deleted\n"
    assert place.queue.get(7) is None
    assert place.type(every) == "6 deleted\n"
    assert not place.jobs()


@row("RouteMQ", "`QUEUE_VISIBILITY_TIMEOUT=300`")
def _(place: Place, yaml: str) -> None:
    place.configure(yaml)
    place.queue.dispatch(place.shop.wait(1))
    place.work("edgeq work")
    place.eventually(place.begun, "the job to begin")
    (job,) = place.jobs("executing")
    assert job.lease_expires_at is not None
    assert 299 <= (job.lease_expires_at - job.created_at) / 1e6 <= 330


@row("RouteMQ", "`QUEUE_SHUTDOWN_GRACE=300`")
def _(place: Place, command: str) -> None:
    has_so_long(place, command)


@row("RouteMQ", "`QUEUE_CONNECTION`")
def _(place: Place, yaml: str) -> None:
    place.configure(yaml)
    assert f"{place.folder}/edgeq.db" in place.type("edgeq check")
    place.queue.dispatch(place.shop.Report(day="mon"))
    place.drain()
    assert place.reports() == ["mon"]


@row("RouteMQ", "modules found in")
def _(place: Place, yaml: str) -> None:
    place.write("edgeq.yaml", yaml)
    place.type("edgeq jobs dispatch shop:Report day=mon")
    place.write("app/shop.py", "import nothing_of_this_name")
    place.type("edgeq check", status=78)


HARNESS = """\
import asyncio
from edgeq.testing import Harness

async def main():
    async with Harness("edgeq.yaml") as edgeq:
        for topic in {topics!r}:
            await edgeq.publish(topic, {{}})
        await edgeq.settle()
        for event in await edgeq.events():
            print("event", event.type, event.subject)
        for job in await edgeq.jobs():
            print("job", job.kind, job.args)
        for letter in await edgeq.dead_letters():
            print("letter", letter.source, letter.reason)

asyncio.run(main())
"""


def harness(place: Place, *topics: str) -> list[str]:
    """What comes of messages with these topics, in the app as it is configured."""
    place.write("try.py", HARNESS.format(topics=topics))
    return place.type("python try.py").splitlines()


@row("RouteMQ", "`router.on(")
def _(place: Place, decorator: str) -> None:
    place.write(
        "app/devices.py",
        "from edgeq import Router\nfrom shop import Report\nrouter = Router()\n"
        f"{decorator}\ndef status(ctx, id):\n    ctx.dispatch(Report(day=id))\n",
    )
    place.configure("app: {modules: [devices]}")
    assert harness(place, "devices/d7/status") == ['job shop:Report {"day":"d7"}']


# A Redis "Queue System"

REDIS = 'A Redis "Queue System"'


@row(REDIS, "`enqueue(entity, process, priority=")
def _(place: Place, dispatch: str) -> None:
    place.queue.dispatch(place.shop.process({"id": 8}))
    place.python(dispatch)
    place.drain("--max-jobs 1 --concurrency 1")
    assert [job.result for job in place.jobs("completed")] == ['{"id":7}']


@row(REDIS, "`enqueue_batch(")
def _(place: Place, dispatch: str) -> None:
    place.python(dispatch)
    place.drain()
    assert [job.result for job in place.jobs("completed")] == ['{"id":7}', '{"id":8}']


@row(REDIS, "`queue_name=")
def _(place: Place, dispatch: str) -> None:
    place.python(dispatch)
    place.drain("orders")
    assert [(job.queue, job.state) for job in place.jobs()] == [("orders", "completed")]


@row(REDIS, "the processor as a text")
def _(place: Place, command: str) -> None:
    place.type(command)
    place.drain()
    assert [job.result for job in place.jobs("completed")] == ['{"id":7}']


@row(REDIS, "`operation_id`")
def _(place: Place, dispatch: str) -> None:
    assert place.python(dispatch) == place.jobs()[0].id


@row(REDIS, "dates that become texts")
def _(place: Place, parameter: str) -> None:
    made = place.made(f"from datetime import datetime\n@job\ndef work({parameter}): return [str(type(at)), at.year]")
    assert asyncio.run(run_job(made(datetime(2026, 1, 2, tzinfo=UTC)))).result == ["<class 'datetime.datetime'>", 2026]
    with pytest.raises(ValueError, match="Invalid RFC3339"):
        made("tomorrow")


@row(REDIS, "`high`, `normal`, `low`")
def _(place: Place, decorator: str) -> None:
    low = place.made(
        f"order = []\n{decorator}\ndef low(): order.append('low')\n"
        "@job(priority='high')\ndef high(seconds: int): order.append(seconds)\n",
        "low",
    )
    module = low.function.__globals__

    async def main() -> None:
        async with Jobs() as jobs:
            await jobs.dispatch(low())
            for seconds, later in ((119, 119), (121, 2)):
                jobs.clock.advance(later)
                await jobs.dispatch(module["high"](seconds))
            await jobs.drain(settings=schema.Queue(concurrency=1))

    asyncio.run(main())
    assert module["order"] == [119, "low", 121]


@row(REDIS, "`QueueWorker(max_workers=5")
def _(place: Place, command: str) -> None:
    place.queue.dispatch_many([place.shop.wait(n) for n in range(6)])
    place.work(command)
    executing(place, 5)
    place.write("app/shop.py", SHOP.replace('"go"', '"never"'))
    timed_out = place.queue.dispatch(place.shop.wait(9), max_attempts=1).id
    place.type(command.replace("30s", "200ms") + " --drain")
    assert place.python("queue.get(id)", id=timed_out).error.startswith("took longer than 200ms")


@row(REDIS, "`thread_pool_size=20`")
def _(place: Place, yaml: str) -> None:
    place.configure(yaml)
    place.queue.dispatch_many([place.shop.block(n) for n in range(21)])
    place.work("edgeq work")
    executing(place, 20)


@row(REDIS, "`QueueRetryConfig.fixed(5)`")
def _(place: Place, decorator: str) -> None:
    assert waits(place.made(f"{decorator}\ndef work(): 1 / 0"), 4) == about(5, 5, 5, 5)


@row(REDIS, "`QueueRetryConfig.exponential(")
def _(place: Place, decorator: str) -> None:
    assert waits(place.made(f"{decorator}\ndef work(): 1 / 0"), 4) == about(1, 2, 4, 8)
    assert place.definition(decorator).settings.backoff.delay(50) == pytest.approx(60, rel=0.11)


@row(REDIS, "`QueueRetryConfig.custom(")
def _(place: Place, decorator: str) -> None:
    assert waits(place.made(f"{decorator}\ndef work(): 1 / 0"), 4) == about(1, 5, 30, 30)


@row(REDIS, "`max_attempts=5`")
def _(place: Place, decorator: str) -> None:
    made = place.made(f"from edgeq import RetryAfter\n{decorator}\ndef work(seconds: int): raise RetryAfter(seconds)")

    async def main() -> None:
        async with Jobs() as jobs:
            quick, slow = await jobs.dispatch(made(1)), await jobs.dispatch(made(200))
            for _ in range(4):
                await jobs.drain()
                jobs.clock.advance(1)
            assert (await jobs.job(quick.id)).state == "retryable"
            await jobs.drain()
            assert (await jobs.job(quick.id)).state == "dead"
            jobs.clock.advance(200)
            await jobs.drain()
            found = await jobs.job(slow.id)
            assert (found.state, found.attempt) == ("dead", 2), "it doesn't wait for what would come too late"
            assert (found.error or "").startswith("its time will be over before the next attempt")

    asyncio.run(main())


@row(REDIS, "`deduplication_key=")
def _(place: Place, dispatch: str) -> None:
    first, second = place.python(dispatch), place.python(dispatch)
    assert (first.existed, second.existed, first.id) == (False, True, second.id)
    assert len(place.jobs()) == 1


@row(REDIS, "the hash of the entity")
def _(place: Place, decorator: str) -> None:
    made = place.made(f"{decorator}\ndef work(entity: dict): pass")
    answers = [place.queue.dispatch(made(entity)) for entity in ({"id": 7}, {"id": 7}, {"id": 8})]
    assert [answer.existed for answer in answers] == [False, True, False]


@row(REDIS, "`on_success`")
def _(place: Place, dispatch: str, parent: str) -> None:
    assert f"{parent}.result" in SHOP
    place.python(dispatch)
    place.python(dispatch, process=lambda entity: place.shop.broken())
    place.drain()
    told = [json.loads(job.result or "") for job in place.jobs("completed", kind="shop:tell")]
    assert sorted(told, key=str) == [[{"entity": {"id": 7}}, {"id": 7}, None], [{}, None, "ValueError: broken"]]


@row(REDIS, "circuit breaker")
def _(place: Place, decorator: str, yaml: str) -> None:
    place.write("app/crm.py", f"from edgeq import job\n{decorator}\ndef ask():\n    raise ConnectionError('down')\n")
    place.configure(yaml, "app: {modules: [crm]}")
    for _ in range(7):
        place.type("edgeq jobs dispatch crm:ask")
    place.drain("--concurrency 1")
    (breaker,) = [json.loads(line) for line in place.type("edgeq queues breakers --json").splitlines()]
    assert (breaker["name"], breaker["state"], breaker["failures"]) == ("crm", "open", 5)
    assert breaker["probe_at"] - breaker["opened_at"] == 10_000_000
    assert [job.attempt for job in place.jobs()] == [1, 1, 1, 1, 0, 0, 0], "what opened it doesn't count either"
    assert {job.blocked_by for job in place.jobs("available")} == {"breaker"}


@row(REDIS, "`get_queue_status()`")
def _(place: Place, stats: str, command: str) -> None:
    place.queue.dispatch(place.shop.broken())
    place.drain()
    place.queue.dispatch(place.shop.process({"id": 7}), queue="orders")
    assert {name: (queue["ready"], queue["dead"]) for name, queue in place.python(stats).items()} == {
        "default": (0, 1), "orders": (1, 0),
    }  # fmt: skip
    listed = [json.loads(line) for line in place.type(command).splitlines()]
    assert {each["queue"]: each["size"] for each in listed} == {"default": 0, "mail": 0, "orders": 1, "video": 0}


@row(REDIS, "`purge_queue(")
def _(place: Place, purge: str) -> None:
    place.queue.dispatch(place.shop.process({"fails": True}), queue="orders")
    place.drain()
    place.queue.dispatch(place.shop.process({"id": 7}), queue="orders")
    place.queue.dispatch(place.shop.process({"id": 8}), queue="orders", delay="1h")
    place.queue.dispatch(place.shop.process({"id": 9}))
    assert {job.state for job in place.jobs(queue="orders")} == {"retryable", "available", "scheduled"}
    assert place.python(purge) == 3
    assert [job.queue for job in place.jobs()] == ["default"]


@row(REDIS, "`queue:failures`")
def _(place: Place, listed: str, retry: str) -> None:
    place.seven(place.shop.broken())
    assert place.type(listed).count("ValueError: broken") == 7
    assert place.type(retry) == "7 to run again\n"


@row(REDIS, "`queue:system_errors`")
def _(place: Place, command: str) -> None:
    made = place.made("@job\ndef work(): pass")
    place.queue.dispatch(made())
    place.drain()
    assert "no module of app.modules has a job class row:work" in place.type(command)
    assert [job.state for job in place.jobs()] == ["dead"]


@row(REDIS, "`update_job_progress`")
def _(place: Place, progress: str, command: str) -> None:
    made = place.made(f"@job\ndef work(ctx): {progress}")
    assert asyncio.run(run_job(made())).progress == [(0.4, "step")]
    place.seven(place.shop.steps())
    assert re.search(r"^progress +40% step$", place.type(command), re.MULTILINE)


# dbbasic-queue


@row("dbbasic-queue", "`enqueue(")
def _(place: Place, dispatch: str) -> None:
    assert place.python(dispatch) == 1
    place.drain()
    assert [job.args for job in place.jobs("completed")] == ['{"to":"ops@example.net"}']


@row("dbbasic-queue", "`handlers = ")
def _(place: Place, decorator: str) -> None:
    made = place.made(f"{decorator}\ndef send_email(to: str): return to", "send_email")
    assert asyncio.run(run_job(made(to="ops@example.net"))).result == "ops@example.net"
    assert definition(made).kind == "row:send_email"


@row("dbbasic-queue", "`run_at=time.time() + 3600`")
def _(place: Place, dispatch: str) -> None:
    place.python(dispatch)
    (job,) = place.jobs("scheduled")
    assert job.run_at - job.created_at == 3_600_000_000


@row("dbbasic-queue", "`process_jobs(")
def _(place: Place, command: str) -> None:
    place.queue.dispatch(place.shop.Report(day="mon"))
    place.queue.dispatch(place.shop.breaks_often())
    place.queue.dispatch(place.shop.Report(day="tue"), delay="1h")
    for _ in range(9):  # as cron would, until the attempts are used up
        place.type(command)
        if place.jobs("dead"):
            break
    assert [(job.kind, job.attempt) for job in place.jobs("dead")] == [("shop:breaks_often", 3)]
    assert place.reports() == ["mon"]
    assert len(place.jobs("scheduled")) == 1


@row("dbbasic-queue", "`get_job(id)`")
def _(place: Place, get: str, command: str) -> None:
    place.seven(place.shop.broken())
    job = place.python(get, id=7)
    assert (job.state, job.attempt) == ("dead", 1)
    assert job.error.startswith("ValueError: broken")
    assert re.search(r"^state +dead$", place.type(command), re.MULTILINE)
    assert place.python(get, id=8) is None


@row("dbbasic-queue", "its `result`")
def _(place: Place, result: str) -> None:
    made = place.queue.dispatch(place.shop.send_email("ops@example.net")).id
    assert place.python(result, id=made) is None
    place.drain()
    assert place.python(result, id=made) == "0", "also what is false"


@row("dbbasic-queue", "`cancel_job(id)`")
def _(place: Place, cancel: str) -> None:
    later = place.queue.dispatch(place.shop.Report(day="mon"), delay="1h").id
    runs = place.queue.dispatch(place.shop.wait(1)).id
    place.work("edgeq work")
    place.eventually(place.begun, "the job to begin")
    assert [place.python(cancel, id=each) for each in (later, runs, later)] == [1, 1, 0]
    place.terminals.stop()
    assert [job.state for job in place.jobs()] == ["cancelled", "cancelled"]


@row("dbbasic-queue", "pending")
def _(place: Place, *states: str) -> None:
    place.queue.dispatch(place.shop.process({"fails": True}))
    place.drain()
    place.queue.dispatch(place.shop.Report(day="mon"), delay="1h")
    place.queue.dispatch(place.shop.Report(day="mon"))
    assert sorted(job.state for job in place.jobs()) == sorted(states)


@row("dbbasic-queue", "processing, completed")
def _(place: Place, *states: str) -> None:
    place.queue.dispatch_many([place.shop.broken(), place.shop.send_email("ops@example.net")])
    place.queue.cancel(place.queue.dispatch(place.shop.Report(day="mon")).id)
    place.drain()
    place.queue.dispatch(place.shop.wait(1))
    place.work("edgeq work")
    place.eventually(place.begun, "the job to begin")
    assert sorted(job.state for job in place.jobs()) == sorted(states)


@row("dbbasic-queue", "`60 * 2 ** attempts`")
def _(place: Place, decorator: str) -> None:
    assert waits(place.made(f"{decorator}\ndef work(): 1 / 0"), 4) == about(120, 240, 480, 960)


@row("dbbasic-queue", "`cat data/queue.tsv`")
def _(place: Place, command: str, by_sql: str) -> None:
    place.queue.dispatch(place.shop.Report(day="mon"))
    assert "shop:Report" in place.type(command)
    found = re.fullmatch(r'sqlite3 edgeq.db "(.*)"', by_sql)
    assert found is not None
    assert place.sql(found[1]) == [(1, "shop:Report", "available")]


@row("dbbasic-queue", "counts by status")
def _(place: Place, command: str) -> None:
    place.queue.dispatch_many([place.shop.broken(), place.shop.send_email("ops@example.net")])
    place.drain()
    counts = {each["queue"]: each for each in map(json.loads, place.type(command).splitlines())}
    assert (counts["default"]["completed"], counts["default"]["dead"]) == (1, 1)


@row("dbbasic-queue", "the clean-up script")
def _(place: Place, yaml: str, command: str) -> None:
    def grow_old(job_id: int) -> None:
        place.sql("UPDATE jobs SET finished_at = finished_at - 8 * 86400000000 WHERE id = ?", job_id)

    place.configure(yaml)
    place.seven(place.shop.send_email("ops@example.net"))
    grow_old(3)
    assert place.type(command) == "1 deleted\n"
    grow_old(5)
    place.work("edgeq work")
    place.eventually(lambda: [job.id for job in place.jobs()] == [1, 2, 4, 6, 7], "the old one to go")


# QuasiQueue

WRITER = """\
from edgeq import source
from shop import process

{decorator}
async def writer(wanted):
    with open("asked", "a") as asked:
        asked.write(f"{{wanted}}\\n")
    for number in range({items}):
        yield process({{"id": number}})
"""


def asked(place: Place) -> list[int]:
    """What the source was asked for."""
    file = place.folder / "asked"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@row("QuasiQueue", "the writer")
def _(place: Place, decorator: str) -> None:
    place.write("app/videos.py", WRITER.format(decorator=decorator, items=600))
    place.configure("app: {modules: [videos]}", "jobs: {queues: {video: {}}}")
    place.queue.pause("video")
    place.work("edgeq work video")
    place.eventually(lambda: len(place.jobs("available", queue="video")) == 300, "the queue to be filled")
    assert asked(place) == [300]
    place.queue.resume("video")
    place.eventually(lambda: len(place.jobs("completed")) == 600, "all to be done")
    assert min(asked(place)) > 300 - 90, "asked only when fewer than 90 wait"
    assert len({job.args for job in place.jobs()}) == 600


@row("QuasiQueue", "`prevent_requeuing_time=300`")
def _(place: Place, decorator: str) -> None:
    def grow_old(seconds: int) -> None:
        place.sql("UPDATE jobs SET finished_at = finished_at - ?, created_at = created_at - ?", *[seconds * 10**6] * 2)

    place.write("app/videos.py", WRITER.format(decorator=decorator, items=1))
    place.configure("app: {modules: [videos]}", "jobs: {queues: {video: {}}}")
    place.type("edgeq work video --max-jobs 1")
    grow_old(180)
    before = len(asked(place))
    place.work("edgeq work video")
    place.eventually(lambda: len(asked(place)) >= before + 2, "the source to be asked again")
    place.terminals.stop()
    assert [job.state for job in place.jobs()] == ["completed"]
    grow_old(121)
    place.type("edgeq work video --max-jobs 1")
    assert len(place.jobs()) == 2


@row("QuasiQueue", "the reader")
def _(place: Place, decorator: str) -> None:
    place.write("app/reader.py", f"from edgeq import job\n{decorator}\ndef reader(item: int): return item\n")
    place.configure("app: {modules: [reader]}", "jobs: {queues: {video: {}}}")
    place.type("edgeq jobs dispatch reader:reader item=7")
    place.drain("video")
    assert [(job.queue, job.result) for job in place.jobs("completed")] == [("video", "7")]


@row("QuasiQueue", "`context=`")
def _(place: Place, yaml: str, expression: str) -> None:
    place.write("app/reader.py", f"from edgeq import job\n@job(queue='video')\ndef reader(ctx): return {expression}\n")
    place.configure(yaml, "app: {modules: [reader]}")
    place.type("edgeq jobs dispatch reader:reader")
    place.drain()
    assert [job.result for job in place.jobs("completed")] == ['"connected"']


@row("QuasiQueue", "`num_processes=2`")
def _(place: Place, yaml: str) -> None:
    def pids(settings: str) -> set[str | None]:
        place.configure(settings)
        place.queue.dispatch_many([place.shop.who(n) for n in range(8)], queue="video")
        place.drain("video")
        found = {job.result for job in place.jobs("completed")}
        place.queue.purge()
        return found

    assert 1 <= len(pids(yaml)) <= 2
    assert len(pids(yaml.replace("200", "2"))) >= 4


@row("QuasiQueue", "`concurrent_tasks_per_process=4`")
def _(place: Place, yaml: str) -> None:
    place.configure(yaml)
    place.queue.dispatch_many([place.shop.wait(n) for n in range(5)], queue="video")
    place.work("edgeq work")
    executing(place, 4)


@row("QuasiQueue", "`quasiqueue run")
def _(place: Place, command: str) -> None:
    place.work(command)
    place.queue.wait(place.queue.dispatch(place.shop.Report(day="mon"), queue="video").id, 30)
    assert place.reports() == ["mon"]


@row("QuasiQueue", "`run_queues(video, mail)`")
def _(place: Place, command: str) -> None:
    place.work(command)
    for queue in ("video", "mail"):
        place.queue.wait(place.queue.dispatch(place.shop.Report(day=queue), queue=queue).id, 30)
    place.queue.dispatch(place.shop.Report(day="mon"))
    place.terminals.stop()
    assert place.reports() == ["video", "mail"]


@row("QuasiQueue", "`graceful_shutdown_timeout=30`")
def _(place: Place, command: str) -> None:
    has_so_long(place, command)


@row("QuasiQueue", "`QUASIQUEUE_VIDEO_NUM_PROCESSES=2`")
def _(place: Place, variable: str) -> None:
    place.configure("jobs: {queues: {video: {isolation: process}}}")
    listed = place.type(f"{variable} edgeq queues --json")
    assert {each["queue"]: each["concurrency"] for each in map(json.loads, listed.splitlines())}["video"] == 2


# Alertmanager, mqttwarn, Home Assistant

TELLING = "Alertmanager, mqttwarn, Home Assistant"
FREEZER = "contracts: [{name: freezer-cold, kind: threshold, of: heat, above: -15, severity: critical}]"
PEOPLE = "channels: {phone: {kind: inbox}, mail: {kind: inbox}}"
FROM_THE_BEGINNING = """\
processors:
  sentinel: {kind: sentinel, start: beginning}
  courier: {kind: courier, start: beginning}
"""
MINUTE = 60_000_000


def tells(place: Place, *routes: str) -> None:
    """Go by these routes from now on."""
    place.configure(FREEZER, PEOPLE, FROM_THE_BEGINNING, f"notifications: {{routes: [{', '.join(routes)}]}}")
    place.broker()


def heat(place: Place, *values: int) -> None:
    """A freezer says how warm it is."""
    for value in values:
        place.type(f"edgeq emit heat --subject freezer-1 --data '{{\"value\": {value}}}'")
        place.type("edgeq run --once")


def told(place: Place) -> list[tuple[Any, ...]]:
    """Where, and of what kind, everything is that was to be told, oldest first."""
    return place.sql("SELECT channel, kind FROM notifications ORDER BY id")


@row(TELLING, "Alertmanager: `matchers`")
def _(place: Place, route: str) -> None:
    tells(place, route, "{channels: [phone]}")
    heat(place, -12)
    place.type("edgeq emit bell --tag notification")
    place.type("edgeq run --once")
    assert told(place) == [("mail", "alert"), ("phone", "alert"), ("phone", "alert")]


@row(TELLING, "`group_by`")
def _(place: Place, route: str) -> None:
    tells(place, route)
    place.type("edgeq emit bell --subject gate --tag notification")
    place.type("edgeq emit bell --subject door --tag notification")
    place.type("edgeq emit fire --tag notification")
    place.type("edgeq run --once")
    rows = place.sql("SELECT group_key, next_attempt_at - created_at FROM notifications ORDER BY id")
    assert [key == rows[0][0] for key, _ in rows] == [True, True, False]
    assert rows[0][1] == pytest.approx(MINUTE / 2, abs=MINUTE / 4)


@row(TELLING, "`repeat_interval: 4h`")
def _(place: Place, route: str) -> None:
    tells(place, route)
    heat(place, -12)
    assert place.sql("SELECT (next_at - opened_at + 1000000) / ? FROM threads", 60 * MINUTE) == [(4,)]


@row(TELLING, "`send_resolved: false`")
def _(place: Place, route: str) -> None:
    tells(place, route)
    heat(place, -12, -18)
    assert told(place) == [("phone", "alert")]


@row(TELLING, "`mute_time_intervals`")
def _(place: Place, route: str) -> None:
    now = datetime.now(ZoneInfo("Europe/Berlin"))
    night = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=20):%H:%M}"
    tells(place, route.replace("22:00-06:00", night))
    place.type("edgeq emit bell --tag notification")
    heat(place, -12)
    assert place.sql("SELECT group_key LIKE 'quiet:%' FROM notifications ORDER BY id") == [(1,), (None,)]


@row(TELLING, "`amtool silence add")
def _(place: Place, add: str) -> None:
    tells(place, "{channels: [phone]}")
    assert "silence 1 from" in place.type(add)
    heat(place, -12)
    assert place.sql("SELECT state, error FROM notifications") == [("silenced", "silence 1")]


@row(TELLING, "`amtool silence expire`")
def _(place: Place, expire: str) -> None:
    tells(place, "{channels: [phone]}")
    place.type("edgeq silence add --match contract=freezer-cold --for 2h --comment cleaning")
    heat(place, -12)
    place.type(expire)
    place.type("edgeq run --once")
    assert place.sql("SELECT state FROM notifications ORDER BY id") == [("silenced",), ("sent",)]


@row(TELLING, "mqttwarn: `config:ntfy`")
def _(place: Place, channels: str) -> None:
    place.configure(channels)
    assert "channels    1: phone" in place.type("edgeq check")


@row(TELLING, "`format = {name} is {value}`")
def _(place: Place, route: str) -> None:
    tells(place, route)
    place.type('edgeq emit heat --tag notification --data \'{"name": "Tank", "value": -20}\'')
    place.type("edgeq run --once")
    assert place.sql("SELECT title FROM notifications") == [("Tank is -20",)]


@row(TELLING, "Home Assistant: `repeat: [15, 30, 60]`")
def _(place: Place, route: str) -> None:
    tells(place, route)
    heat(place, -12)
    assert told(place) == [("phone", "alert"), ("mail", "alert")]
    assert place.sql("SELECT (next_at - opened_at + 1000000) / ? FROM threads", MINUTE) == [(15,)]


@row(TELLING, "`can_acknowledge`")
def _(place: Place, ack: str) -> None:
    tells(place, "{repeat: [15m], channels: [phone]}")
    heat(place, -12)
    assert "acknowledged: freezer-1" in place.type(ack)
    heat(place, -18)
    assert told(place) == [("phone", "alert"), ("phone", "resolved")]


# QueueProcessor on a database

RASBHARI = "QueueProcessor on a database (gabru, Rasbhari)"
DOORS = "routes: [{topic: 'doors/{door}', emit: door.opened, subject: '{door}'}]"
WATCH = "processors: {watch: {kind: 'doors:Watch'}}"


def watch(place: Place, body: str, *yaml: str) -> None:
    """An app with a processor of which `body` is the body."""
    text = "".join(f"    {line}\n" for line in body.splitlines())
    place.write(
        "app/doors.py",
        f"from edgeq import QueueProcessor\nfrom shop import Report\nclass Watch(QueueProcessor):\n{text}",
    )
    place.configure("app: {modules: [doors]}", DOORS, *yaml)


def seen(place: Place) -> list[str]:
    """What a processor that notes what it gets has got."""
    file = place.folder / "seen"
    return file.read_text().split() if file.exists() else []


NOTES = """\
types = ["door.opened"]
async def process_item(self, event, ctx):
    with open("seen", "a") as seen:
        seen.write(f"{event.subject}\\n")
"""


def catch_up(place: Place) -> list[str]:
    """Run what is there once; what was seen in this."""
    before = len(seen(place))
    place.type("edgeq run --once")
    return seen(place)[before:]


@row(RASBHARI, "`filter_item(item)`")
def _(place: Place, filter_item: str, process_item: str) -> None:
    body = f"{filter_item}: return event.subject != 'cellar'\n{process_item}: ctx.emit('seen', subject=event.subject)"
    watch(place, f"types = ['door.*']\n{body}", WATCH)
    assert [line for line in harness(place, "doors/cellar", "doors/front") if " seen " in line] == ["event seen front"]


@row(RASBHARI, "`return False`")
def _(place: Place, fail: str, yaml: str) -> None:
    body = NOTES + f"    if event.subject == 'cellar':\n        {fail}\n"
    watch(place, body, yaml.replace("attempts: 5", "attempts: 5, backoff: 100ms"))
    assert harness(place, "doors/cellar", "doors/front")[-1] == "letter processor:watch failed"
    assert seen(place) == ["cellar"] * 5 + ["front"]


@row(RASBHARI, "`sleep_time_sec = 5`")
def _(place: Place, yaml: str) -> None:
    body = (
        "async def process_batch(self, events, ctx):\n    with open('seen', 'a') as seen: seen.write(f'{len(events)} ')"
    )
    watch(place, body, yaml.replace("{kind", "{start: beginning, kind"))
    place.broker()
    place.events(*["front"] * 25)
    assert catch_up(place) == ["10", "10", "5"]


@row(RASBHARI, "a new one begins at 0")
def _(place: Place, yaml: str) -> None:
    watch(place, NOTES, yaml)
    place.broker()
    place.events("front", "cellar")
    assert catch_up(place) == ["front", "cellar"]


@row(RASBHARI, "`queuestats.last_consumed_id`")
def _(place: Place, command: str) -> None:
    watch(place, NOTES, WATCH)
    place.broker()
    catch_up(place)
    place.events("front", "cellar")
    shown = place.type(command).splitlines()
    assert shown[0].split()[:4] == ["processor", "state", "last_consumed_id", "lag"]
    assert re.match(r"watch +\S+ +0 +2 ", shown[1])


@row(RASBHARI, "`/process_progress/watch`")
def _(place: Place, to_start: str, to_latest: str) -> None:
    watch(place, NOTES, WATCH)
    place.broker()
    catch_up(place)
    place.events("front", "cellar")
    assert catch_up(place) == ["front", "cellar"]
    place.type(to_start)
    assert catch_up(place) == ["front", "cellar"]
    place.events("attic")
    place.type(to_latest)
    assert catch_up(place) == []


@row(RASBHARI, "`/stop_process/watch`")
def _(place: Place, pause: str, resume: str) -> None:
    watch(place, NOTES, WATCH)
    place.broker()
    catch_up(place)
    place.type(pause)
    place.events("front")
    assert catch_up(place) == []
    place.type(resume)
    assert catch_up(place) == ["front"]


@row(RASBHARI, "`POST /events/`")
def _(place: Place, command: str) -> None:
    place.type(command)
    listed = place.type("edgeq events list --json")
    assert [(each["type"], each["subject"], each["tags"]) for each in map(json.loads, listed.splitlines())] == [
        ("door.opened", "front", ["door"])
    ]


@row(RASBHARI, "stages")
def _(place: Place, emit: str) -> None:
    watch(place, f"types = ['door.opened']\nasync def process_item(self, event, ctx): {emit}", WATCH)
    place.write(
        "app/counts.py",
        "from edgeq import QueueProcessor\nclass Count(QueueProcessor):\n    types = ['door.counted']\n"
        "    async def process_item(self, event, ctx): ctx.emit('second', subject=event.subject)\n",
    )
    place.write("conf.d/9.yaml", "processors: {count: {kind: 'counts:Count'}}\n")
    assert harness(place, "doors/front")[-1] == "event second front"


@row(RASBHARI, "slow work and retries")
def _(place: Place, dispatch: str) -> None:
    watch(place, f"types = ['door.opened']\nasync def process_item(self, event, ctx): {dispatch}", WATCH)
    assert harness(place, "doors/front")[-1] == 'job shop:Report {"day":"front"}'


@row(RASBHARI, "a `Process` that sleeps")
def _(place: Place, yaml: str) -> None:
    place.configure(yaml)
    place.broker()
    assert "every 15m" in place.type("edgeq schedules")
    place.type("edgeq run --once")
    assert place.reports() == []
    ((begun,),) = place.sql("SELECT next_run_at FROM schedules")
    place.sql("UPDATE schedules SET next_run_at = next_run_at - 900000000")
    place.type("edgeq run --once")
    assert place.reports() == ["mon"]
    assert place.sql("SELECT name FROM schedules WHERE next_run_at >= ?", begun) == [("sweep",)]


def says(place: Place, contract: str, events: list[str], expected: list[str]) -> None:
    """Of these events, each `TIME TYPE`, the contract says that and nothing else, each `TIME VERDICT`. Times count from
    21:00."""
    test = {
        "name": "t",
        "start": "2026-03-02T21:00:00Z",
        "until": "3d",
        "events": [dict(zip(("at", "type"), each.split(), strict=True)) for each in events],
        "expect": [dict(zip(("at", "verdict"), each.split(), strict=True)) for each in expected],
    }
    place.write("t.yaml", f"contracts: [{contract}]\ntests: [{json.dumps(test)}]\n")
    place.type("edgeq contracts test t.yaml")


@row(RASBHARI, "a contract, ")
def _(place: Place, contract: str) -> None:
    says(place, contract, ["0m badge", "10m vault", "11m vault"], ["11m violated"])
    says(place, contract, ["0m alarm", "1m badge", "2m vault"], ["2m violated"])


@row(RASBHARI, "`3x badge WITHIN 24h`")
def _(place: Place, *conditions: str) -> None:
    thrice, since, night = (f"{{name: c, kind: requires, of: vault, if: {each}}}" for each in conditions)
    says(place, thrice, ["0m badge", "1m badge", "2m vault", "3m badge", "24h vault"], ["2m violated", "24h resolved"])
    says(place, since, ["0m badge", "1m vault", "2m alarm", "3m vault"], ["3m violated"])
    says(
        place,
        night,
        ["59m vault", "60m vault", "8h vault", "9h vault"],
        ["59m violated", "60m resolved", "9h violated"],
    )


@row(RASBHARI, "an open contract")
def _(place: Place, contract: str) -> None:
    events = ["4h cleaned", "5h cleaned", "28h cleaned", "29h cleaned", "30h cleaned", "31h cleaned"]
    says(place, contract, ["0m cleaned", *events], ["31h violated", "51h resolved"])


@row(RASBHARI, "`contract:invalidation`")
def _(place: Place, violated: str, resolved: str, tag: str) -> None:
    promise = "contracts: [{name: c, kind: threshold, of: heat, above: 5}]"
    place.configure(promise, "channels: {screen: {kind: log}}")
    place.broker()
    place.type("edgeq run --once")
    for value in (6, 4):
        place.type(f"edgeq emit heat --data '{{\"value\": {value}}}'")
    place.type("edgeq run --once")
    found = [json.loads(line) for line in place.type(f"edgeq events list --tag {tag} --json").splitlines()]
    assert [each["type"] for each in found] == [violated, resolved]
