"""The thread that commits: it takes whatever units wait, runs each under a savepoint, and commits them as one.

While one commit syncs, the next batch gathers: group commit without a timer, unless `commit_interval` sets one.
The only place in the program where a transaction is opened, so also the only place that waits out a full disk.

It also notices the commits of other processes. What they write is heard at once (`Engine.ear`), but shows only when
their commit is done: until then, it looks again and again. Our own commits aren't heard; after one, a single look tells
whether somebody else was at it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..backoff import Backoff
from ..clock import Clock
from ..errors import StoreUnavailable
from ..telemetry.metrics import Metrics
from .store import FOREIGN_NET_SECONDS, FOREIGN_POLL_SECONDS, TOPICS, Health, NotAlone, Signal, Topic, Tx, Unit

log = logging.getLogger("edgeq.store")

_UNITS_PER_COMMIT_MAX = 512
_RETRY = Backoff(0.1, 5.0)
_REMIND_SECONDS = 600.0
_CALM_SECONDS = 60.0  # what comes and goes more often than this is said as often
_HANGS_AFTER_SECONDS = 120.0
_LOOK_SECONDS = 0.0005  # after hearing of a commit that can't be seen yet; then a quarter more each time
_REST_SECONDS = 0.02  # between two times of hearing: however many commits others make, we wake for so many only


class Engine(Protocol):
    """What the writer needs of a database. Called in the writer's thread only, all of it."""

    def disconnect(self) -> None:
        """Close the writing connection, if there is one. Never raises."""

    savepoints: bool
    """Whether a mark costs next to nothing. Else one is made only once a unit has failed among others."""

    def begin(self, *, shared: bool = False) -> Tx:
        """Open a transaction that may write, beside other shared ones if it is `shared`; connect first if need be."""

    def commit(self) -> None:
        """Make it durable."""

    def landed(self) -> bool:
        """Whether the last commit, of which it could not be told, is on disk all the same. May raise as `begin`."""

    def rollback(self) -> None:
        """Drop it. Never raises."""

    def savepoint(self) -> None:
        """Mark a place to come back to."""

    def release(self) -> None:
        """Forget the mark. Raises as `check`."""

    def check(self) -> None:
        """Raise if a statement of the unit has failed, though the unit went on, so that nothing of it can be kept."""

    def rollback_to(self) -> None:
        """Go back to the mark and forget it."""

    def unavailable(self, error: Exception) -> str:
        """Why the store can't take commits, if that is what `error` says; else "" (the unit is to blame)."""

    listens: bool
    """Whether it will be heard when another process writes."""

    @property
    def ear(self) -> int | None:
        """A descriptor that becomes readable when another process writes, for the event loop. None: there is none."""

    def listen(self) -> None:
        """Forget what was heard, and hear of what is written from now on, if that is possible."""

    def others_commit(self) -> bool:
        """Whether another process is in the midst of a commit."""

    def foreign_commit(self) -> bool:
        """Whether another process has committed since the last call."""

    def lacks_room(self) -> str:
        """Why nothing may be stored for now but what makes room, though a commit may go through; else ""."""

    def tend(self, *, foreign: bool = False) -> None:
        """Housekeeping after a commit, ours or a foreign one: checkpoints."""


class _NoRoom(Exception):
    """What room there is left is kept for what makes room."""


@dataclass(slots=True)
class _Waiting:
    unit: Unit[Any]
    future: asyncio.Future[Any] | None
    shared: bool = False
    relief: bool = False
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Takes units from the event loop's thread and reports back to it, once for each batch."""

    def __init__(
        self, engine: Engine, signal: Signal, metrics: Metrics, clock: Clock, commit_interval_seconds: float
    ) -> None:
        self.health = Health(ok=True)
        self._engine = engine
        self._signal = signal
        self._metrics = metrics
        self._clock = clock
        self._interval = commit_interval_seconds
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._reliefs: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lazy: list[tuple[Unit[Any], float]] = []
        self._lazy_lock = threading.Lock()
        self._closing = threading.Event()
        self._given_up: StoreUnavailable | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakes_at = 0.0
        self._last_commit = 0.0
        self._said: set[str] = set()  # why it can't, as it was said of this time
        self._said_at = -_CALM_SECONDS
        self._said_end = False
        self._heard = False
        self._busy_since: float | None = None
        self._unsure = False  # whether another process may be in the midst of a commit
        self._looks = 0

    @property
    def busy(self) -> bool:
        """See Store.busy."""
        since = self._busy_since
        if since is None:
            return False
        return not self.health.ok or self._clock.monotonic() - since < _HANGS_AFTER_SECONDS

    def start(self) -> None:
        """Begin. Call it on the event loop to which futures belong."""
        self._loop = asyncio.get_running_loop()
        self._available()
        self._engine.listen()
        self._arm()
        self._thread = threading.Thread(target=self._run, name="edgeq-writer", daemon=True)
        self._thread.start()

    def submit(self, unit: Unit[Any], *, shared: bool = False) -> asyncio.Future[Any]:
        """See Store.submit."""
        future = self._future()
        self._queue.put(_Waiting(unit, future, shared))
        return future

    def relieve(self, unit: Unit[Any]) -> asyncio.Future[Any]:
        """See Store.relieve."""
        future = self._future()
        self._reliefs.put(_Waiting(unit, future, relief=True))
        self._queue.put(None)
        return future

    def submit_lazily(self, unit: Unit[Any], within_seconds: float) -> None:
        """See Store.submit_lazily."""
        due = self._clock.monotonic() + within_seconds
        with self._lazy_lock:
            self._lazy.append((unit, due))
            too_late = self._wakes_at > due
        if too_late:
            self._queue.put(None)

    def unavailable(self, reason: str) -> None:
        """Note, and say once, why no commit can be taken now; another reason is said once, too."""
        now = self._clock.monotonic()
        kind = reason.partition(":")[0]
        if self.health.ok:
            self.health = Health(ok=False, reason=reason, since=self._clock.now())
            if kind in self._said and now - self._said_at < _CALM_SECONDS:
                return
            self._said, self._said_at, self._said_end = {kind}, now, False
            log.error(
                "the store can't take commits: %s. Nothing is acknowledged until it can; nothing is lost.",
                reason,
            )
            return
        self.health = Health(ok=False, reason=reason, since=self.health.since)
        if kind not in self._said or now - self._said_at > _REMIND_SECONDS:
            self._said.add(kind)
            self._said_at = now
            log.error("the store still can't take commits: %s", reason)

    async def close(self) -> None:
        """Commit what waits, unless the store can't take it; then end the thread."""
        if self._thread is None:
            return
        self._closing.set()
        self._disarm()
        self._reliefs.put(None)
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._thread = None

    # The writer's thread

    def _run(self) -> None:
        while True:
            try:
                first = self._queue.get(timeout=self._patience())
            except queue.Empty:
                first = None
            if first is not None:
                self._gather_for_interval()
            batches = [batch for batch in (self._relief(), self._batch(first)) if batch]
            for batch in batches:
                self._busy_since = self._clock.monotonic()
                self._commit(batch)
            self._look_around(committed=bool(batches))
            self._busy_since = None
            if self._closing.is_set() and self._queue.empty() and self._reliefs.empty():
                break
        self._engine.disconnect()

    def _patience(self) -> float:
        """For how many seconds there is nothing to do unless something comes."""
        seconds = FOREIGN_NET_SECONDS if self._engine.listens else FOREIGN_POLL_SECONDS
        if self._looks:
            seconds = min(FOREIGN_POLL_SECONDS, _LOOK_SECONDS * 1.25 ** min(self._looks, 40))
        with self._lazy_lock:
            now = self._clock.monotonic()
            self._wakes_at = min([now + seconds, *(due for _, due in self._lazy)])
            return max(0.0, self._wakes_at - now)

    def _gather_for_interval(self) -> None:
        if self._interval > 0:
            rest = self._last_commit + self._interval - self._clock.monotonic()
            if rest > 0:
                self._closing.wait(rest)

    def _batch(self, first: _Waiting | None) -> list[_Waiting]:
        batch = [first] if first is not None else []
        while batch and len(batch) < _UNITS_PER_COMMIT_MAX:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                batch.append(item)
        with self._lazy_lock:
            now = self._clock.monotonic()
            if self._lazy and (batch or self._closing.is_set() or any(due <= now for _, due in self._lazy)):
                batch = [_Waiting(unit, None) for unit, _ in self._lazy] + batch
                self._lazy = []
        return batch

    def _relief(self) -> list[_Waiting]:
        """What makes room, before all else."""
        batch = []
        while not self._reliefs.empty():
            if (item := self._reliefs.get()) is not None:
                batch.append(item)
        return batch

    def _commit(self, batch: list[_Waiting]) -> None:
        """Commit the batch, waiting as long as the store can't take it; but not for ever once it is to be closed."""
        if self._given_up is not None:
            self._report([], batch, self._given_up)
            return
        attempt = 0 if self.health.ok else 1
        touched: set[Topic] = set()
        tried = False
        while True:
            try:
                if not tried or not self._engine.landed():
                    tried = True
                    self._try(batch, touched)
                break
            except Exception as error:  # noqa: BLE001 - the unit's own errors are already set aside in _try
                self._engine.rollback()
                reason = self._reason(error)
            attempt += 1
            self.unavailable(reason)
            self._engine.disconnect()
            if self._rest_of_commits(_RETRY.delay(attempt)) and attempt > 1:
                self._given_up = StoreUnavailable(reason)
                self._report([], batch, self._given_up)
                return
        self._last_commit = self._clock.monotonic()
        self._available()
        self._report(sorted(touched), batch, None)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, _NoRoom):
            return str(error)
        return self._engine.unavailable(error) or f"{type(error).__name__}: {error}"

    def _rest_of_commits(self, seconds: float) -> bool:
        """Wait, but commit meanwhile what makes room; whether the store is to be closed."""
        try:
            item = self._reliefs.get(timeout=0 if self._closing.is_set() else seconds)
        except queue.Empty:
            return self._closing.is_set()
        if item is None:
            return self._closing.is_set()
        touched: set[Topic] = set()
        try:
            self._try([item], touched)
        except Exception as error:  # noqa: BLE001 - it is tried again
            self._engine.rollback()
            log.debug("no room could be made: %s", self._reason(error))
            self._engine.disconnect()
            self._reliefs.put(item)
            return self._closing.wait(seconds)
        self._report(sorted(touched), [item], None)
        self._look_around(committed=True)
        return self._closing.is_set()

    def _try(self, batch: list[_Waiting], touched: set[Topic]) -> None:
        """Commit the batch, noting what it touched: under savepoints only if that is necessary, and shared only if all
        of it may be."""
        if not all(item.relief for item in batch) and (reason := self._engine.lacks_room()):
            raise _NoRoom(reason)
        shared, marked = all(item.shared for item in batch), self._engine.savepoints
        while True:
            touched.clear()
            try:
                if self._run_units(batch, touched, shared=shared, marked=marked and len(batch) > 1):
                    return
                marked = True
            except NotAlone:
                shared = False
            self._engine.rollback()

    def _run_units(self, batch: list[_Waiting], touched: set[Topic], *, shared: bool, marked: bool) -> bool:
        """False when a unit has failed among others, which must not be lost with it: none of them is committed yet."""
        tx = self._engine.begin(shared=shared)
        for item in batch:
            item.error = None
            tx.touched.clear()
            if marked:
                self._engine.savepoint()
            try:
                item.result = item.unit(tx)
                if marked:
                    self._engine.release()
                else:
                    self._engine.check()
            except NotAlone:
                raise
            except Exception as error:
                if self._engine.unavailable(error):
                    raise
                item.error = error
                if len(batch) == 1:
                    self._engine.rollback()
                    return True
                if not marked:
                    return False
                self._engine.rollback_to()
            else:
                touched |= tx.touched
        tx.touched.clear()  # of what the last unit touched, if it has failed
        tx.touched |= touched
        self._engine.commit()
        self._metrics.commits.add()
        return True

    def _available(self) -> None:
        if not self.health.ok:
            seconds = (self._clock.now() - self.health.since) / 1e6
            self.health = Health(ok=True)
            if not self._said_end:
                self._said_end = True
                log.warning("the store takes commits again, after %.1fs", seconds)

    def _look_around(self, *, committed: bool) -> None:
        """See to the database after a commit, and whether another process has made one."""
        heard = self._heard
        self._unsure = self._unsure or committed or heard
        try:
            if committed:
                self._engine.tend()
            if heard or not self._engine.listens:
                self._engine.listen()
            if self._unsure and self._queue.empty():
                self._unsure = self._engine.others_commit()
                self._looks = self._looks + 1 if self._unsure else 0
            if self._engine.foreign_commit():
                self._call_loop(self._signal.fire, TOPICS)
                self._engine.tend(foreign=True)
        except Exception as error:  # noqa: BLE001 - the next commit will say what is wrong
            self._unsure, self._looks = False, 0
            log.debug("housekeeping failed: %s", error)
        if heard and not self._unsure:
            self._heard = False
            self._call_loop(self._rest)

    def _future(self) -> asyncio.Future[Any]:
        if self._loop is None or self._closing.is_set():
            raise StoreUnavailable("the store is closed")
        return self._loop.create_future()

    def _report(self, touched: list[Topic], batch: list[_Waiting], failure: BaseException | None) -> None:
        for item in batch:
            if item.future is None and item.error is not None:
                log.error("a lazy unit failed: %r", item.error)
        self._call_loop(self._resolve, touched, batch, failure)

    def _resolve(self, touched: list[Topic], batch: list[_Waiting], failure: BaseException | None) -> None:
        for item in batch:
            if item.future is None or item.future.done():
                continue
            error = failure or item.error
            if error is not None:
                item.future.set_exception(error)
            else:
                item.future.set_result(item.result)
        self._signal.fire(touched)

    def _call_loop(self, function: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            log.debug("the event loop ended before the writer")

    # What other processes write, on the event loop

    def _arm(self) -> None:
        if self._loop is not None and self._engine.ear is not None and not self._closing.is_set():
            self._loop.add_reader(self._engine.ear, self._hear)

    def _disarm(self) -> None:
        if self._loop is not None and self._engine.ear is not None:
            self._loop.remove_reader(self._engine.ear)

    def _hear(self) -> None:
        """Have the writer look, and be deaf until it has seen."""
        self._disarm()
        self._heard = True
        self._queue.put(None)

    def _rest(self) -> None:
        assert self._loop is not None
        self._loop.call_later(_REST_SECONDS, self._arm)
