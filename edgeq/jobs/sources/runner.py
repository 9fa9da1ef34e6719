"""Asks a source for jobs when its queue runs low, and stores what it finds.

What can be relied on: an item that was not stored isn't taken for one that was; an exception, an endless wait or a
wrong item of the author's generator ends nothing but that one ask; while the queue has enough, and after an ask in
vain, nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container, Iterable, Sequence
from math import inf
from typing import Any

from ...clock import Clock
from ...context import Context, new_job
from ...errors import StoreUnavailable, contained
from ...service import Service
from ...store import jobs, sources
from ...store.decisions import Decisions, count, record
from ...store.jobs import NewJob
from ...store.store import Store, Tx
from ...telemetry.metrics import Metrics
from .source import AT_MOST_MAX, Source

NET_SECONDS = 5.0
REST_SECONDS = 0.02
_CANCEL_SECONDS = 5.0


class SourceRunner(Service):
    """Asks `source` whenever its queue has room, and stores what it yields. See `source` for when that is."""

    def __init__(self, source: Source, store: Store, clock: Clock, metrics: Metrics) -> None:
        super().__init__(f"source.{source.name}", clock)
        self.source = source
        self._store = store
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._arrived = asyncio.Event()
        self._answered = asyncio.Event()
        self._room = self._unanswered = 0  # how many more are wanted; how many of those found aren't stored yet
        self._asking: asyncio.Task[None] | None = None
        self._waiting = -1
        self._in_vain = 0
        self._failures = 0
        self._asked_at = self._not_before = -inf
        self._refused = self._called = False

    async def run(self) -> None:
        """See Service."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self.wake)

        ignore = self.source.heed(wake)
        try:
            with self._store.signal.watch(self._woken, "jobs", "claimed"):
                while not self.stopping.is_set():
                    self._woken.clear()
                    seconds = await self.look()
                    await self.pause(REST_SECONDS)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), seconds)
        finally:
            ignore()

    def wake(self) -> None:
        """Ask again now, if the queue is low; while it is being asked, as soon as that has ended."""
        self._called = True
        self._not_before = -inf
        self._woken.set()

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """See Service. What was found is stored, an ask that is under way is ended."""
        self.stopping.set()
        self._woken.set()
        self._arrived.set()
        await super().stop(grace_seconds)

    async def look(self) -> float:
        """Ask, if it is time for that; for how many seconds there is nothing to do unless the queue moves."""
        if self._asking is not None and not self._asking.done():
            return NET_SECONDS  # it was cancelled and goes on all the same
        waiting = await sources.waiting(self._store, self.source.queue, self.source.at_most)
        moved, self._waiting = waiting != self._waiting, waiting
        if waiting >= self.source.low:
            return NET_SECONDS
        if moved and not self._failures:
            self._in_vain = 0
            self._not_before = min(self._not_before, self._asked_at + self.source.backoff.first)
        rest = self._not_before - self.clock.monotonic()
        if rest > 0:
            return rest
        queued, failure = await self._ask(self.source.at_most - waiting)
        return self._rest(queued, failure)

    def _rest(self, queued: int, failure: BaseException | None) -> float:
        """How long to wait after an ask."""
        self._asked_at = self.clock.monotonic()
        self._failures = self._failures + 1 if failure is not None and not queued else 0
        self._in_vain = 0 if queued or failure is not None else self._in_vain + 1
        tried = self._failures or self._in_vain
        rest = self.source.backoff.delay(tried) if tried and not self._called else 0.0
        self._not_before = self._asked_at + rest
        if failure is not None:
            self._metrics.source_items.add(1, "failed")
            trace = None if isinstance(failure, _TookTooLong) else failure
            self.log.error("failed, and is asked again in %.1fs: %s", rest, failure, exc_info=trace)
        return rest

    async def _ask(self, wanted: int) -> tuple[int, BaseException | None]:
        """How many jobs were queued, and what went wrong, if something did."""
        ctx, found = Context(self.clock), list[Any]()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.source.timeout
        queued, self._refused, self._called = 0, False, False
        self._room, self._unanswered = wanted, 0
        failure: BaseException | None = None
        self._asking = asking = asyncio.create_task(self._pull(wanted, ctx, found), name=self.name)
        asking.add_done_callback(self._pulled)
        try:
            while found or not asking.done():
                queued += await self._take(found, ctx)
                if self.stopping.is_set():
                    break
                if loop.time() >= deadline:
                    failure = _TookTooLong(f"took longer than {self.source.timeout}")
                    break
                if not found and not asking.done():
                    self._arrived.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._arrived.wait(), deadline - loop.time())
        finally:
            await self._end(asking)
        queued += await self._take(found, ctx)
        if asking.done() and not asking.cancelled() and failure is None:
            failure = asking.exception()
        return queued, failure

    async def _pull(self, wanted: int, ctx: Context, found: list[Any]) -> None:
        """Take items until there are as many new ones as wanted: one that is known already leaves room for another."""
        left = AT_MOST_MAX
        with contained(f"source {self.source.name}"):
            async with contextlib.aclosing(self.source.find(wanted, ctx)) as items:
                async for item in items:
                    found.append(item)
                    self._room -= 1
                    self._unanswered += 1
                    left -= 1
                    self._arrived.set()
                    while self._room <= 0 and self._unanswered:
                        self._answered.clear()
                        await self._answered.wait()
                    if self._room <= 0 or left <= 0:
                        break

    def _pulled(self, asking: asyncio.Task[None]) -> None:
        if not asking.cancelled():
            asking.exception()  # it is told of by who asked, or nobody waits for it any more
        self._arrived.set()

    async def _end(self, asking: asyncio.Task[None]) -> None:
        if asking.done():
            return
        asking.cancel()
        await asyncio.wait([asking], timeout=_CANCEL_SECONDS)
        if not asking.done():
            self.log.error("goes on though it was cancelled; it is not asked again before it has ended")

    # What it found

    async def _take(self, found: list[Any], ctx: Context) -> int:
        """Store what was found, and what `ctx` has recorded, in one commit; how many jobs are new."""
        items, decisions = found.copy(), ctx.take()
        found.clear()
        rows, now = [], self.clock.now()
        for item in items:
            try:
                rows.append(self._row(item, now))
            except Exception as error:  # noqa: BLE001 - a job class of somebody's own may raise anything
                self._refuse(error)
        new = await self._store_all(rows, decisions) if rows or decisions else 0
        self._room += len(items) - new
        self._unanswered -= len(items)
        self._answered.set()
        return new

    def _row(self, item: Any, now: int) -> NewJob:
        row = new_job(item, now=now, queue=self.source.queue)
        return row if row.unique_key is not None else new_job(item, now=now, queue=self.source.queue, unique=True)

    async def _store_all(self, rows: Sequence[NewJob], decisions: Decisions) -> int:
        window_us = self.source.window.microseconds

        def unit(tx: Tx) -> tuple[int, int]:
            fresh = sources.fresh(tx, rows, self.clock.now(), window_us)
            new = sum(not answer.existed for answer in jobs.add(tx, fresh))
            return new, record(tx, decisions)

        try:
            new, duplicates = await self._store.write(unit)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - texts and numbers that no database takes, and what else there may be
            if len(rows) + bool(decisions) == 1:
                self._refuse(error)
                return 0
            alone = [await self._store_all([row], Decisions()) for row in rows]
            return sum(alone) + (await self._store_all([], decisions) if decisions else 0)
        for result, number in (("queued", new), ("known", len(rows) - new)):
            if number:
                self._metrics.source_items.add(number, result)
        count(self._metrics, decisions, duplicates)
        return new

    def _refuse(self, error: Exception) -> None:
        self._metrics.source_items.add(1, "invalid")
        if not self._refused:  # once for each ask
            self.log.error("yielded what can't be queued: %s", error)
        self._refused = True


class _TookTooLong(TimeoutError):
    """The source had not ended when its time was over."""


def make_source_runners(
    sources: Iterable[Source], queues: Container[str], store: Store, clock: Clock, metrics: Metrics
) -> list[SourceRunner]:
    """One for each source whose queue is among `queues`."""
    return [SourceRunner(source, store, clock, metrics) for source in sources if source.queue in queues]
