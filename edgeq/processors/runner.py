"""The life of a processor: take the cursor, read, process, commit, wait; and what becomes of events that fail.

1. *taken*: the cursor is taken, which fences off any earlier owner, and the processor `opened`.
2. *read*: events after the position, `batch_size` at most.
3. *processed*: those wanted, in order. One that fails is tried again after `on_error.backoff`, and what is behind it
   waits; the attempts are counted in the store, so they survive a restart (G5).
4. *committed*: what was decided, together with the cursor; see `progress`.
5. When nothing is left to read: `on_time`, if it is due, and then sleep until a commit touches events or cursors, or
   what may change when something is due (threads, silences).

A cursor that somebody else moves is noticed at the commit at the latest: what was decided is dropped, and all begins
again at 1. While there is nothing to do, nothing is written, and the store is read once in `poll_interval` (G9).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from ..clock import Clock
from ..errors import StoreUnavailable
from ..events import Event
from ..service import Service
from ..store import cursors, events
from ..store.cursors import CursorMoved, Failure
from ..store.decisions import Decisions, count, record
from ..store.store import Store, Tx, Unit
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .attempts import Attempts, dead_letter
from .calls import Calls
from .processor import NotYet, QueueProcessor
from .progress import CommitRefused, Progress
from .settings import ProcessorSettings
from .timer import Timer

State = Literal["running", "paused", "retrying", "waiting", "halted", "stopped"]


@dataclass(frozen=True, slots=True)
class _Redrive:
    event: Event
    mark: Unit[object]
    done: asyncio.Future[None]


class ProcessorRunner(Service):
    """Runs `processor` under the cursor `name`, for as long as it is `owned` by this process."""

    def __init__(
        self,
        name: str,
        processor: QueueProcessor,
        settings: ProcessorSettings,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        *,
        owned: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(name, clock)
        self.log = logging.getLogger(f"edgeq.processors.{name}")
        self.processor = processor
        self.settings = settings
        self._store = store
        self._metrics = metrics
        self._owned = owned
        self._calm = Calm(self.log, clock.monotonic)
        self._calls = Calls(name, processor, settings, store, metrics, clock)
        self._progress = Progress(name, store, metrics, clock)
        self._attempts = Attempts(settings.on_error, clock)
        self._timer = Timer(processor, settings.on_error.backoff, clock)
        self._running = False
        self._paused = False
        self._alone_until = 0  # events up to this id are processed and committed one by one
        self.waiting_for = ""
        self._not_before = 0.0
        self._cursors_seen = self._events_seen = -1
        self._redrives: deque[_Redrive] = deque()
        self._wake = asyncio.Event()

    @property
    def position(self) -> int:
        """The id of the last event that is done; the cursor in the store follows within seconds."""
        return self._progress.position

    @property
    def reached(self) -> int:
        """`position` while it runs here, else 0."""
        return self.position if self._running else 0

    @property
    def settled(self) -> bool:
        """Whether all that it decided up to its position is on disk."""
        return self._progress.settled

    @property
    def processed(self) -> int:
        """How many events are done since the start, not counting those that were filtered out. Like the counters, it
        follows the commit."""
        return self._calls.processed

    @property
    def busy_with(self) -> tuple[int, int] | None:
        """The id of the event that its code has in hand, and since when (microseconds since 1970 UTC)."""
        return self._calls.busy_with

    @property
    def state(self) -> State:
        """What it is doing. `halted`: an event failed for good, and it waits for somebody to resume it; `waiting`: what
        it needs is away, `waiting_for` says why."""
        if not self._running:
            return "stopped" if self.stopping.is_set() or self.last_error is None else "retrying"
        if self._paused:
            return "halted" if self._attempts.halted else "paused"
        if self.waiting_for:
            return "waiting"
        return "running" if self._attempts.failure is None else "retrying"

    def says(self) -> Mapping[str, str | int]:
        """See QueueProcessor.says."""
        return self._calls.says()

    def idle(self, head: int, soon_seconds: float) -> bool:
        """Whether it has nothing to do now, when `head` is the id of the last event, nor by the clock within
        `soon_seconds`; or can't, until somebody resumes it or its time to try again has come."""
        if not self._running:
            return False
        if self._paused or self._attempts.rest_seconds() > 0 or self.waiting_for:
            return True
        if self.position < head or not self.settled or self._redrives:
            return False
        return self._timer.rest_seconds(inf) > soon_seconds

    async def run(self) -> None:
        """Works until it is stopped."""
        with self._store.signal.watch(self._wake, "events", "cursors", "threads", "silences"):
            try:
                self._not_before, self.waiting_for = 0.0, ""  # another process may have owned it meanwhile
                await self._take()
                self._running = True
                while not self.stopping.is_set():
                    self._wake.clear()
                    await self._sleep(await self._step())
            finally:
                self._running = False
                self._progress.leave()
                await self._calls.close()

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Finish the event in hand, commit, and end. See Service.stop."""
        self.stopping.set()
        self._wake.set()
        await super().stop(grace_seconds)
        while self._redrives:
            _fail(self._redrives.popleft().done, StoreUnavailable(f"processor {self.name} was stopped"))

    async def redrive(self, event: Event, mark: Unit[object]) -> None:
        """Process `event` once more, out of order and without moving the cursor, and commit what it leads to with
        `mark`; or nothing, if `mark` returns False. A paused processor does it too.

        Raises what processing raises, and StoreUnavailable when the processor is stopped.
        """
        if self.stopping.is_set():
            raise StoreUnavailable(f"processor {self.name} was stopped")
        request = _Redrive(event, mark, asyncio.get_running_loop().create_future())
        self._redrives.append(request)
        self._wake.set()
        await request.done

    async def _step(self) -> float:
        """Do what there is to do; for how many seconds to sleep after it, unless something happens."""
        try:
            return await self._turn()
        except CursorMoved:
            self.log.info("the cursor was moved from outside: going on from where it is now")
            self._alone_until = 0
        except CommitRefused as error:
            if self.position <= self._alone_until:
                raise
            self._calm.warning("refused", "%s; trying the events one by one", error)
            self._alone_until = self.position
        await self._take()
        return 0.0

    async def _turn(self) -> float:
        await self._look_at_cursor()
        while self._redrives:
            await self._process_again(self._redrives[0])
        if self._paused:
            return self.settings.poll_interval
        if (rest := self._attempts.rest_seconds()) > 0:
            return rest
        if (rest := self._not_before - self.clock.monotonic()) > 0:
            return rest
        await self._calls.refresh(self.position)
        version = self._store.signal.version("events")
        batch = await events.after(self._store, self.position, self.settings.batch_size)
        if not batch and version != self._events_seen and await events.head(self._store) < self.position:
            await self._take()  # events came, and none after the position: the store may have been put back
        self._events_seen = version
        if self._paused:
            return 0.0
        if not batch:
            await self._on_time()
        elif not await self._process(batch) or len(batch) == self.settings.batch_size:
            return 0.0
        return self._timer.rest_seconds(self.settings.poll_interval)

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            if seconds >= self.settings.poll_interval:
                self._cursors_seen = -1  # the net under the signal

    # The cursor

    async def _take(self) -> None:
        if not self._owned():  # another process may have it, and is not to lose it to us
            await self.stopping.wait()
            return
        self._cursors_seen = self._store.signal.version("cursors")
        cursor = await self._progress.take(self.settings.start)
        self._calls.fresh = False
        self._paused = cursor.paused
        self._stuck_at(cursor.failure)
        if cursor.ahead:
            self.last_error = cursor.error
            self.log.error("halted: %s", cursor.error)

    async def _look_at_cursor(self) -> None:
        """See whether somebody else moved the cursor, paused or resumed, if there is a sign that they may have."""
        version = self._store.signal.version("cursors")
        if version == self._cursors_seen:
            return
        self._cursors_seen = version
        cursor = await cursors.one(self._store, self.name)
        if cursor is None or cursor.generation != self._progress.cursor.generation:
            raise CursorMoved(f"the cursor of {self.name} was moved by somebody else")
        if cursor.paused != self._paused:
            self._paused = cursor.paused
            self._stuck_at(cursor.failure)
            self.log.info("paused" if cursor.paused else "resumed")
            if cursor.ahead and not cursor.paused:
                await self._take()

    def _stuck_at(self, failure: Failure | None) -> None:
        self._attempts.stuck_at(failure)
        if failure is not None:
            self._alone_until = max(self._alone_until, failure.event_id)

    def _called_away(self) -> bool:
        """Whether something must be seen to before the next event."""
        return (
            self.stopping.is_set()
            or bool(self._redrives)
            or self._cursors_seen != self._store.signal.version("cursors")
        )

    # Events

    async def _process(self, batch: Sequence[Event]) -> bool:
        """Whether all of the batch is done."""
        if self._calls.together and batch[0].id > self._alone_until:
            done = await self._process_together(batch)
        else:
            done = True
            for event in batch:
                if self._called_away() or not await self._process_alone(event):
                    done = False
                    break
        await self._progress.commit_decided()
        return done

    async def _process_alone(self, event: Event) -> bool:
        decisions: Decisions | None = None
        try:
            if self._calls.wants(event):
                decisions = await self._calls.handle([event], self._attempts.number(event))
                self._go_on()
        except NotYet as pause:
            self._hold(pause)
            return False
        except Exception as error:  # noqa: BLE001 - G5: the user's code may raise anything
            await self._failed(event, error)
            return False
        self._progress.add(event.id, decisions)
        if decisions is not None and event.id <= self._alone_until:
            try:
                await self._progress.commit()
            except CommitRefused as error:
                await self._take()
                await self._failed(event, error.__cause__ or error)
                return False
        if self._attempts.failure is not None and event.id >= self._attempts.failure.event_id:
            self._stuck_at(None)
            self.last_error = None
        return True

    async def _process_together(self, batch: Sequence[Event]) -> bool:
        wanted: Sequence[Event] = batch
        decisions: Decisions | None = None
        try:
            wanted = [event for event in batch if self._calls.wants(event)]
            if wanted:
                decisions = await self._calls.handle(wanted, 1)
                self._go_on()
        except NotYet as pause:
            self._hold(pause)
            return False
        except Exception as error:  # noqa: BLE001 - G5
            if len(wanted) == 1:
                await self._failed(wanted[0], error)
                return False
            self._calm.warning("together", "a batch failed: %s; trying its events one by one", _sentence(error))
            await self._progress.commit()
            self._calls.fresh = False
            self._alone_until = batch[-1].id
            return False
        self._progress.add(batch[-1].id, decisions)
        return True

    def _hold(self, pause: NotYet) -> None:
        """Keep what was done and decided, and leave the rest for as long as was asked."""
        done_to = self.position if pause.done_to is None else pause.done_to
        decisions = pause.decisions
        kept = decisions is not None and bool(decisions or decisions.lazily or decisions.tallies)
        if kept or pause.done_to is not None:
            self._progress.add(done_to, decisions)
        self._not_before = self.clock.monotonic() + pause.after_seconds
        if pause.done_to is not None:
            self._go_on()
        if pause.reason and not self.waiting_for:
            self.log.warning("waits: %s", pause.reason)
        self.waiting_for = pause.reason or self.waiting_for

    def _go_on(self) -> None:
        if self.waiting_for:
            self.log.info("goes on")
            self.waiting_for = ""

    async def _process_again(self, request: _Redrive) -> None:
        await self._progress.commit()
        await self._calls.refresh(self.position)
        try:
            decisions = await self._calls.handle([request.event], 1)
            duplicates = await self._store.write(lambda tx: self._redriven(tx, request, decisions))
        except CursorMoved:
            raise
        except Exception as error:  # noqa: BLE001 - G5
            self._calls.fresh = False
            _fail(request.done, error)
        else:
            if duplicates is not None:
                count(self._metrics, decisions, duplicates)
            if not request.done.done():
                request.done.set_result(None)
        self._redrives.remove(request)

    def _redriven(self, tx: Tx, request: _Redrive, decisions: Decisions) -> int | None:
        cursors.check(tx, self._progress.cursor)
        return None if request.mark(tx) is False else record(tx, decisions)

    async def _failed(self, event: Event, error: BaseException) -> None:
        """Commit what was before `event`, and see to what becomes of it."""
        self._calls.fresh = False
        self._metrics.failures.add(1, self.name)
        policy = self.settings.on_error
        text = self.last_error = _sentence(error)
        attempt = f"attempt {self._attempts.number(event)} of {policy.attempts}"
        failure = self._attempts.failed(event, text)
        if failure is None:
            letters = [dead_letter(self.name, event, error, self.clock.now())] if policy.then == "dead_letter" else []
            self._progress.add(event.id, Decisions(dead_letters=letters))
        await self._progress.commit(failure)
        self._stuck_at(failure)
        if failure is not None and failure.halts:
            self._paused = True
            self.log.error("event %d failed, %s: %s. Halted until somebody resumes it.", event.id, attempt, text)
            return
        end = "trying it again" if failure is not None else policy.then.replace("_", " ")
        if failure is None and policy.then == "skip":
            self._metrics.skipped.add(1, "failed")
        self._calm.warning(end, "event %d (%s) failed, %s: %s; %s", event.id, event.type, attempt, text, end)

    async def _on_time(self) -> None:
        due = self._timer.due()
        if due is None:
            return
        try:
            decisions = await self._calls.on_time(due, self._timer.attempt)
        except Exception as error:  # noqa: BLE001 - G5
            self._metrics.failures.add(1, self.name)
            self.last_error = _sentence(error)
            delay = self._timer.failed()
            self._calm.warning("timer", "what was due failed: %s; again in %.1fs", self.last_error, delay)
            await self._progress.commit()
            self._calls.fresh = False
            return
        self._timer.done(due)
        if decisions or decisions.lazily:
            self._progress.add(self.position, decisions)
            await self._progress.commit_decided()


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
