"""Sources: asked when their queue runs low; what they find is queued once, whatever they do."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.stores import Database

from edgeq import Job, Unique
from edgeq.clock import Clock
from edgeq.context import Context
from edgeq.errors import StoreUnavailable
from edgeq.jobs.sources import runner as source_runner
from edgeq.jobs.sources.runner import NET_SECONDS, SourceRunner
from edgeq.jobs.sources.source import Source, load_sources, source
from edgeq.store import claims, events, jobs, sources
from edgeq.store.jobs import NewJob
from edgeq.store.store import Store
from edgeq.store.tables import Jobs
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until

MINUTE = 60.0


class Encode(Job):
    path: str

    def handle(self, ctx: object) -> None: ...


class Convert(Job):
    unique = Unique(by="path")
    path: str
    quality: int = 1

    def handle(self, ctx: object) -> None: ...


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> AsyncIterator[Store]:
    async with database.opened(clock=clock, durability="normal") as store:
        yield store


class Folder:
    """Where a source finds its items: `paths`. It yields them all, as often as it is asked; `asked` is for how many.
    What is found waits until `at_once` are asked."""

    def __init__(
        self, *paths: str, job: Callable[[str], Any] = lambda path: Encode(path=path), at_once: int = 1, **how: Any
    ) -> None:
        self.paths = list(paths)
        self.asked: list[int] = []
        self.closed = 0
        meeting = asyncio.Barrier(at_once)

        async def find(wanted: int) -> AsyncIterator[Any]:
            self.asked.append(wanted)
            try:
                await meeting.wait()
                for path in self.paths:
                    yield job(path)
            finally:
                self.closed += 1

        self.source = source(**{"queue": "video", "at_most": 6, **how})(find)


def runner(store: Store, clock: Clock, made: Source) -> SourceRunner:
    return SourceRunner(made, store, clock, Metrics())


async def queued(store: Store) -> list[str]:
    rows = await store.read(Jobs.select(Jobs.args).order_by(Jobs.id))
    return [args.split('"')[3] for (args,) in rows]


async def work(store: Store, clock: Clock, count: int = 100, *, complete: bool = True) -> None:
    """Claim up to `count` jobs, and complete them."""
    now = clock.now()

    def unit(tx: Any) -> None:
        claimed = claims.claim(tx, queue="video", owner="me", lease_seconds=60, limit=count, now=now)
        if complete:
            claims.end(tx, [claims.Completed(job, "null") for job in claimed], now=now)

    await store.write(unit)


# Made


async def nothing(wanted: int) -> AsyncIterator[Job]:
    return
    yield


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"queue": "a b"}, "must be a name"),
        ({"at_most": 0}, "at_most = 0: must be a whole number from 1 to 10000"),
        ({"at_most": 5, "low": 6}, "low = 6: must be a whole number from 1 to 5"),
        ({"low": True}, "low = True"),
        ({"window": 5}, "window = 5: 5 has no unit"),
        ({"timeout": "0s"}, "timeout = '0s': must be between"),
        ({"window": "400d"}, "window = '400d': must be between 0s and 366d"),
        ({"backoff": "0s"}, "backoff must be more than nothing"),
        ({"backoff": "often"}, "'often'"),
    ],
)
def test_a_mistake_is_named(how: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match="source nothing: ") as raised:
        source(**{"queue": "video", **how})(nothing)
    assert message in str(raised.value)


def test_only_an_async_generator_is_a_source() -> None:
    def plain(wanted: int) -> None: ...

    async def coroutine(wanted: int) -> None: ...

    async def nobody() -> AsyncIterator[Job]:
        yield Encode(path="a")

    async def greedy(wanted: int, more: int) -> AsyncIterator[Job]:
        yield Encode(path="a")

    for function in (plain, coroutine):
        with pytest.raises(TypeError, match="must be an async generator"):
            source(queue="video")(function)  # type: ignore[arg-type]
    for generator in (nobody, greedy):
        with pytest.raises(TypeError, match="is how it is called"):
            source(queue="video")(generator)


async def test_it_can_still_be_called_and_is_found_in_modules() -> None:
    folder = Folder("a", "b")
    assert [job.path async for job in folder.source(5)] == ["a", "b"]
    assert (folder.source.at_most, folder.source.low, folder.source.queue) == (6, 2, "video")
    one, two = types.ModuleType("one"), types.ModuleType("two")
    vars(one).update(a=folder.source, b=3)
    vars(two).update(c=folder.source)
    assert load_sources([one, two]) == [folder.source]


# Asked


async def test_it_is_asked_when_the_queue_is_low_for_what_there_is_room_for(store: Store, clock: FakeClock) -> None:
    folder = Folder(*"abcdefghij", low=4)
    one = runner(store, clock, folder.source)
    assert await one.look() == 0
    assert await queued(store) == list("abcdef")
    assert folder.closed == 1
    assert await one.look() == NET_SECONDS
    await work(store, clock, 2)
    assert await one.look() == NET_SECONDS
    await work(store, clock, 1)
    folder.paths = list("ghij")
    assert await one.look() == 0
    assert folder.asked == [6, 3]
    assert await queued(store) == list("abcdefghi")
    rows = await store.read(Jobs.select(Jobs.queue, Jobs.state).distinct())
    assert {queue for queue, _ in rows} == {"video"}
    assert one._metrics.source_items.values == {"queued": 9}


async def test_jobs_that_are_blocked_wait_too(store: Store, clock: FakeClock) -> None:
    rows = [
        NewJob(queue="video", kind="m:X", args="{}", limit=jobs.Limit("k", concurrency=1)),
        NewJob(queue="video", kind="m:X", args="{}", limit=jobs.Limit("k", concurrency=1)),
        NewJob(queue="video", kind="m:X", args="{}", run_at=clock.now() + 10**6, created_at=clock.now()),
        NewJob(queue="other", kind="m:X", args="{}"),
    ]
    await store.write(lambda tx: jobs.add(tx, rows))
    assert await sources.waiting(store, "video", 5) == 2
    assert await sources.waiting(store, "video", 1) == 1
    folder = Folder("a", low=2)
    assert await runner(store, clock, folder.source).look() == NET_SECONDS
    assert folder.asked == []


async def test_an_item_is_queued_once_until_the_window_after_its_end(store: Store, clock: FakeClock) -> None:
    folder = Folder("a", "b", window="5m", low=6)
    one = runner(store, clock, folder.source)
    assert await one.look() == 0
    for _ in range(3):
        clock.advance(10 * MINUTE)  # it waits for longer than the window
        await runner(store, clock, folder.source).look()
    assert await queued(store) == ["a", "b"]
    await work(store, clock)
    clock.advance(5 * MINUTE - 1)
    again = runner(store, clock, folder.source)  # nor does a restart forget
    await again.look()
    assert await queued(store) == ["a", "b"]
    assert again._metrics.source_items.values == {"known": 2}
    clock.advance(2)
    await again.look()
    assert await queued(store) == ["a", "b", "a", "b"]


async def test_a_clock_that_is_set_back_does_not_keep_items_out(store: Store, clock: FakeClock) -> None:
    folder = Folder("a", window="5m")
    one = runner(store, clock, folder.source)
    await one.look()
    await work(store, clock)
    clock.step(-3600)
    one.wake()
    await one.look()
    assert await queued(store) == ["a", "a"]


@pytest.mark.parametrize("state", ["dead", "cancelled"])
async def test_the_window_holds_for_every_end(store: Store, clock: FakeClock, state: str) -> None:
    folder = Folder("a", window="5m")
    one = runner(store, clock, folder.source)
    await one.look()
    await store.write(lambda tx: tx.run(Jobs.update(state=state, finished_at=clock.now())))
    clock.advance(MINUTE)
    await one.look()
    assert await queued(store) == ["a"]
    clock.advance(5 * MINUTE)
    await one.look()
    assert await queued(store) == ["a", "a"]


async def test_two_processes_queue_an_item_once(store: Store, clock: FakeClock) -> None:
    folder = Folder(*"abcde", at_once=2)
    both = [runner(store, clock, folder.source) for _ in range(2)]
    await asyncio.gather(*(each.look() for each in both))
    assert len(folder.asked) == 2
    assert await queued(store) == list("abcde")


async def test_a_key_of_the_job_class_counts_also_for_what_was_dispatched_otherwise(
    store: Store, clock: FakeClock
) -> None:
    row = Convert(path="a", quality=9).new_job(now=clock.now())
    await store.write(lambda tx: jobs.add(tx, [row]))
    folder = Folder("a", "b", job=lambda path: Convert(path=path), low=3)
    await runner(store, clock, folder.source).look()
    assert await queued(store) == ["a", "b"]


async def test_what_was_not_stored_is_queued_the_next_time(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(unit: Any) -> Any:
        raise StoreUnavailable("away")

    folder = Folder("a")
    one = runner(store, clock, folder.source)
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", away)
        with pytest.raises(StoreUnavailable):
            await one.look()
    assert folder.closed == 1
    await one.look()
    assert await queued(store) == ["a"]


async def test_what_ctx_records_is_stored_with_the_items(store: Store, clock: FakeClock) -> None:
    @source(queue="video")
    async def find(wanted: int, ctx: Context) -> AsyncIterator[Job]:
        yield Encode(path="a")
        ctx.emit("video.found", subject="a")

    await runner(store, clock, find).look()
    assert await queued(store) == ["a"]
    assert [event.type for event in await events.after(store, 0, 10)] == ["video.found"]


async def test_items_are_stored_while_it_still_looks_for_more(store: Store, clock: FakeClock) -> None:
    more = asyncio.Event()

    @source(queue="video")
    async def find(wanted: int) -> AsyncIterator[Job]:
        yield Encode(path="a")
        await more.wait()
        yield Encode(path="b")

    looking = asyncio.create_task(runner(store, clock, find).look())

    async def one_is_there() -> bool:
        return await queued(store) == ["a"]

    await until(one_is_there, "the first item", store=store)
    more.set()
    await looking
    assert await queued(store) == ["a", "b"]


# Trouble


async def test_nothing_new_makes_for_growing_pauses(store: Store, clock: FakeClock) -> None:
    folder = Folder("a", backoff="1s..8s", low=2)
    one = runner(store, clock, folder.source)
    await one.look()
    waits = []
    for _ in range(5):
        wait = await one.look()
        assert await one.look() == pytest.approx(wait)  # it isn't asked meanwhile
        waits.append(wait)
        clock.advance(wait)
    assert len(folder.asked) == 6
    assert all(0.9 * most <= wait <= 1.1 * most for wait, most in zip(waits, [1, 2, 4, 8, 8], strict=True))
    wait = await one.look()
    assert wait > 5
    await work(store, clock)  # the queue moves
    assert await one.look() <= 1.001
    clock.advance(1)
    assert await one.look() < 1.2
    clock.advance(2)
    assert await one.look() > 1.5
    folder.paths = ["a", "b"]
    folder.source.wake()  # in no process that runs
    one.wake()
    assert await one.look() == 0
    assert await queued(store) == ["a", "b"]


async def test_an_exception_is_told_and_followed_by_a_pause(
    store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    paths = ["a"]

    @source(queue="video", backoff="1s..60s")
    async def find(wanted: int) -> AsyncIterator[Job]:
        for path in paths:
            yield Encode(path=path)
        if len(paths) < 2:
            raise OSError("the disk is gone")
        if len(paths) < 3:
            raise SystemExit(1)

    one = runner(store, clock, find)
    assert await one.look() == 0
    assert await queued(store) == ["a"]
    assert "failed, and is asked again in 0.0s: the disk is gone" in caplog.text
    assert "in find" in caplog.text
    first = await one.look()
    assert 0.9 <= first <= 1.1
    clock.advance(first)
    assert 1.8 <= await one.look() <= 2.2
    await work(store, clock)
    assert await one.look() > 1.5  # a queue that moves doesn't repair it
    paths.append("b")
    clock.advance(2.2)
    assert await one.look() == 0
    assert "SystemExit" in caplog.text
    paths.append("c")
    assert await one.look() == 0
    assert await queued(store) == ["a", "b", "c"]
    assert one._metrics.source_items.values == {"queued": 3, "known": 5, "failed": 4}


async def test_what_can_not_be_queued_keeps_nothing_else_out(
    store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Never(Encode):
        def new_job(self, **how: Any) -> NewJob:
            raise RuntimeError("never")

    made: dict[str, Any] = {
        "a": Encode(path="a"), "b": "text", "c": None, "d": Encode, "e": Encode(path="\udcff"), "f": Never(path="f"),
        "g": Encode(path="g"),
    }  # fmt: skip
    folder = Folder(*made, job=made.__getitem__, at_most=20)
    one = runner(store, clock, folder.source)
    assert await one.look() == 0
    assert await queued(store) == ["a", "g"]
    assert one._metrics.source_items.values == {"queued": 2, "invalid": 5}
    assert caplog.text.count("yielded what can't be queued: only a job can be dispatched") == 1


async def test_a_row_that_the_store_refuses_keeps_nothing_else_out(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tx: Any, rows: Any) -> Any:
        if any("bad" in row.args for row in rows):
            raise ValueError("bad")
        return add(tx, rows)

    add = jobs.add
    monkeypatch.setattr(jobs, "add", refuse)
    folder = Folder("a", "bad", "c")
    one = runner(store, clock, folder.source)
    await one.look()
    assert await queued(store) == ["a", "c"]
    assert one._metrics.source_items.values == {"queued": 2, "invalid": 1}


async def test_one_that_hangs_has_its_time(store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    closed = []

    @source(queue="video", timeout="100ms", backoff="3s")
    async def find(wanted: int) -> AsyncIterator[Job]:
        yield Encode(path="a")
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    one = runner(store, clock, find)
    assert await one.look() == 0
    assert await queued(store) == ["a"]
    assert "took longer than 100ms" in caplog.text
    assert closed == [True]
    assert await one.look() > 2


async def test_one_that_will_not_be_ended_is_not_asked_twice(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(source_runner, "_CANCEL_SECONDS", 0.05)
    asked, over = [], asyncio.Event()

    @source(queue="video", timeout="50ms", backoff="1s")
    async def find(wanted: int) -> AsyncIterator[Job]:
        asked.append(wanted)
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()
        yield Encode(path="a")

    one = runner(store, clock, find)
    await one.look()
    assert "goes on though it was cancelled" in caplog.text
    clock.advance(10)
    assert await one.look() == NET_SECONDS
    assert len(asked) == 1
    over.set()
    assert one._asking is not None
    await asyncio.wait([one._asking], timeout=60)
    assert await one.look() == 0
    assert len(asked) == 2
    assert await queued(store) == ["a"]


# As a service


async def test_it_fills_the_queue_again_as_soon_as_it_is_drained(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_runner, "NET_SECONDS", 3600.0)
    clock = Clock()
    numbers = iter(range(1000))

    @source(queue="video", at_most=4, backoff="3600s")
    async def find(wanted: int) -> AsyncIterator[Job]:
        for _ in range(wanted):
            number = next(numbers)
            if number < 40:
                yield Encode(path=f"{number}")

    one = runner(store, clock, find)
    await one.start()
    for round_number in range(1, 10):

        async def enough(count: int = 4 * round_number) -> bool:
            return len(await queued(store)) == count

        await until(enough, f"{4 * round_number} jobs", store=store)
        await until(lambda: one._waiting == 4, "it to see that the queue is full")
        await work(store, clock, complete=False)
    await one.stop(5.0)
    assert one.last_error is None


async def test_wake_and_stop_are_prompt(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(backoff="3600s")
    hangs = asyncio.Event()

    @source(queue="other", timeout="1h")
    async def find(wanted: int) -> AsyncIterator[Job]:
        yield Encode(path="last")
        hangs.set()
        await asyncio.Event().wait()

    one, two = runner(store, Clock(), folder.source), runner(store, Clock(), find)
    await one.start()
    await two.start()
    await until(lambda: folder.closed == 1, "the first time")
    folder.paths.append("a")
    await asyncio.to_thread(folder.source.wake)
    await until(lambda: one._metrics.source_items.values == {"queued": 1}, "the second time")
    await hangs.wait()
    await one.stop(5.0)
    await two.stop(5.0)
    folder.source.wake()
    assert "was cancelled" not in caplog.text
    assert sorted(await queued(store)) == ["a", "last"]
    assert one.last_error is None


async def test_who_is_woken_while_it_is_asked_is_asked_again(store: Store) -> None:
    """What came after it had looked, and before its answer in vain was noted."""
    asked = 0

    @source(queue="other", backoff="3600s")
    async def find(wanted: int) -> AsyncIterator[Job]:
        nonlocal asked
        asked += 1
        if asked == 1:
            find.wake()
            await asyncio.sleep(0)
        else:
            yield Encode(path="late")

    one = runner(store, Clock(), find)
    await one.start()
    await until(lambda: one._metrics.source_items.values == {"queued": 1}, "the second time")
    await one.stop(5.0)
    assert await queued(store) == ["late"]


async def test_a_queue_that_has_enough_costs_no_writes(database: Database, store: Store, clock: FakeClock) -> None:
    folder = Folder(*"abcdef")
    one = runner(store, clock, folder.source)
    await one.look()
    before = database.written()
    for _ in range(10):
        await one.look()
    assert database.written() == before
