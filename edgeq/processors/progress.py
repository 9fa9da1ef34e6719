"""How far a processor has come, and what it has decided since its last commit (G4).

Decisions are gathered and committed many at a time, each commit together with the move of the cursor over the events
that led to it. What is decided waits `DECIDED_SECONDS` at most while a later event takes its time. Events that led to
nothing, and decisions that may wait (`Decisions.lazily`), cause no commit of their own for `LAZY_SECONDS`.

Commits take effect in the order in which they were handed over, or not at all: one that is refused takes all later
ones with it, so the cursor never passes an event whose decisions are not in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

from ..clock import Clock
from ..errors import EdgeqError, StoreUnavailable
from ..failpoints import failpoint
from ..store import cursors
from ..store.cursors import Cursor, CursorMoved, Failure
from ..store.decisions import Decisions, count, record
from ..store.store import Store, Tx, Unit
from ..telemetry.metrics import Metrics

DECIDED_SECONDS = 0.5
LAZY_SECONDS = 2.0
_LAZY_UNITS_MAX = 500


class CommitRefused(EdgeqError):
    """The store refused a commit because of what is in it; nothing of it, nor of any commit after it, was kept."""


class Progress:
    """The place of processor `name`. Lives on the event loop's thread; `take` comes first, and after every error.

    `position` is the id of the last event that is done; in the store the cursor follows it.
    """

    def __init__(self, name: str, store: Store, metrics: Metrics, clock: Clock) -> None:
        self.position = 0
        self._name = name
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._log = logging.getLogger(f"edgeq.processors.{name}")
        self._cursor: Cursor | None = None
        self._gathered = Decisions()
        self._moved = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_is_for_decided = False
        self._sent: deque[tuple[int, asyncio.Future[int]]] = deque()
        # Units are numbered. `_applied` is written by the writer's thread; the units there run one after the other.
        self._numbered = 0
        self._applied = 0
        self._durable = 0

    @property
    def cursor(self) -> Cursor:
        """The cursor as it was taken."""
        if self._cursor is None:
            raise EdgeqError(f"processor {self._name} has not taken its cursor yet")
        return self._cursor

    @property
    def settled(self) -> bool:
        """Whether all that was decided up to `position` is on disk, and nothing is on its way there."""
        return not self._gathered and not self._in_flight()

    async def take(self, start: str | int) -> Cursor:
        """Take the cursor (see `cursors.take`) and go on from where it stands, forgetting all that was gathered."""
        self._forget()
        # Whatever was handed over before is settled once this is committed: units keep their order.
        self._cursor = await self._store.write(lambda tx: cursors.take(tx, self._name, start, self._clock.now()))
        self._numbered = self._applied = self._durable = 0
        self.position = self._cursor.last_consumed_id
        return self._cursor

    def add(self, position: int, decisions: Decisions | None = None) -> None:
        """Everything up to event id `position` is done, and led to `decisions`."""
        self.position = position
        self._moved = True
        if decisions is not None:
            self._gathered.extend(decisions)
        decided = bool(self._gathered)
        if self._timer is None or (decided and not self._timer_is_for_decided):
            self._arm(decided)

    async def commit_decided(self) -> None:
        """Commit if something was decided that must not wait, or very much that may. Raises like `commit`."""
        if self._gathered or len(self._gathered.lazily) >= _LAZY_UNITS_MAX:
            self._hand_over()
        await self._settle()

    async def commit(self, failure: Failure | None = None) -> None:
        """Commit everything up to here, with `failure` as the state of the next event; return when it is on disk.

        Raises CursorMoved, CommitRefused or StoreUnavailable. Then nothing of it is left, here or in the store.
        """
        if failure is not None or self._moved or self._durable < self._numbered:
            self._hand_over(failure)
        await self._settle()

    def leave(self) -> None:
        """Hand over what is gathered without waiting for it: the processor stops here."""
        with contextlib.suppress(StoreUnavailable):
            if self._gathered or (self._moved and self._in_flight()):
                self._hand_over()
            elif self._moved:
                self._hand_over_lazily()
        self._forget()

    def _forget(self) -> None:
        self._disarm()
        self._gathered = Decisions()
        self._moved = False
        self._sent.clear()

    def _arm(self, decided: bool) -> None:
        self._disarm()
        seconds = DECIDED_SECONDS if decided else LAZY_SECONDS / 2
        self._timer = asyncio.get_running_loop().call_later(seconds, self._flush)
        self._timer_is_for_decided = decided

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self._disarm()
        with contextlib.suppress(StoreUnavailable):
            if self._gathered:
                self._hand_over()
            elif self._in_flight():
                # A lazy unit may overtake one that still waits for the writer.
                self._arm(decided=False)
            else:
                self._hand_over_lazily()

    def _in_flight(self) -> bool:
        return any(not future.done() for _, future in self._sent)

    def _hand_over(self, failure: Failure | None = None) -> None:
        decisions = self._gathered
        future = self._store.submit(self._unit(failure))
        future.add_done_callback(lambda done: self._count(done, decisions))
        self._sent.append((self._numbered, future))

    def _hand_over_lazily(self) -> None:
        decisions = self._gathered
        unit = self._unit(None)

        def lazy(tx: Tx) -> None:
            try:
                unit(tx)
            except (CursorMoved, CommitRefused) as error:
                self._log.debug("a lazy move is void: %s", error)

        self._store.submit_lazily(lazy, LAZY_SECONDS / 2)
        count(self._metrics, decisions, 0)

    def _count(self, done: asyncio.Future[int], decisions: Decisions) -> None:
        """Before anybody who waits for `done` goes on; those who hand over and leave don't wait."""
        if not done.cancelled() and done.exception() is None:
            count(self._metrics, decisions, done.result())

    def _unit(self, failure: Failure | None) -> Unit[int]:
        """What is gathered as a unit, which returns the number of duplicate events; begins to gather anew."""
        self._disarm()
        self._numbered += 1
        number, cursor, position, decisions = self._numbered, self.cursor, self.position, self._gathered
        self._gathered = Decisions()
        self._moved = False

        def unit(tx: Tx) -> int:
            if self._applied < number - 1:
                raise CommitRefused(f"an earlier commit of processor {self._name} was refused")
            self._applied = number - 1
            cursors.move(tx, cursor, position, self._clock.now())
            if failure is not None:
                cursors.fail(tx, cursor, failure)
            duplicates = record(tx, decisions)
            self._applied = number
            return duplicates

        return unit

    async def _settle(self) -> None:
        """Wait for what was handed over; or raise the first error."""
        while self._sent:
            number, future = self._sent[0]
            await asyncio.wait([future])
            error = future.exception()
            if error is not None:
                self._forget()
                if isinstance(error, CursorMoved | StoreUnavailable):
                    raise error
                raise CommitRefused(f"the store refused a commit: {type(error).__name__}: {error}") from error
            self._sent.popleft()
            self._durable = number
            failpoint("processor.committed")
