"""The Sentinel: judges contracts over the events, and tells of its verdicts by events.

What can be relied on, and why:

- **No verdict is lost or told twice.** States and verdicts are decided in one batch with the move of the cursor, and
  are committed with it or not at all. The states of a batch without verdicts may wait for the next commit, but then
  the cursor waits with them: after a crash the same events are read again, with the states as they were before them,
  and lead to the same verdicts. Should a state be newer than the cursor all the same (somebody has moved the cursor
  back), its instance knows the last event that it has judged, and passes over those up to it. And a verdict's event
  has a key by which the store keeps it once.
- **Memory is never ahead of what was handed over.** A batch is judged in a turn, which counts only if all of it went
  well (see `contracts.judge`). When a commit is refused, `opened` loads the states anew; it only reads. What it finds
  to be done is decided with the first batch, or the first look at the clock, so that it moves with the cursor like
  everything else: a sentinel that has lost its cursor to another one writes nothing.
- **A restart changes nothing.** Deadlines stand in the store, and a backlog of events is judged in its own time, by
  when the events were recorded; only then does the clock count (`on_time`).
- **Silence is held against a sensor only while it could be heard.** Without a settled link (see `contracts.link`) no
  deadline passes, neither by the clock nor by events that were let in meanwhile. `SETTLE_SECONDS` after it has
  settled, all those that are over pass. What was recorded before the link settled, such as by an earlier run, doesn't
  prove anybody's silence either: of two events that edgeq recorded itself, the time between may have been spent at the
  broker.
- **A step of the clock is no time that passed.** What was left of each deadline is left after it, and events that were
  recorded before it, and wait, move with it. Deadlines of an earlier run that are further away than they can be,
  because the clock is behind after a boot, are given their full length. What another run recorded by a clock that was
  ahead of what it is now, or before the machine had a clock, is taken as it comes, and proves no silence.
- **A contract that cares about the link is told that there is none** (`suppressed_by: link`) once there was none for
  `LINK_SECONDS`, and that there is one when silence counts again.
- **Contracts that are gone leave nothing behind.** When they are loaded, what is violated is resolved with the reason
  `removed`, and their states go. A contract that was changed keeps its states if they mean what they meant
  (`Contract.meaning`), each with its deadline where it belongs now; otherwise, or when a subject no longer belongs to
  it, they are closed with the reason `changed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..clock import MICROSECONDS, Clock
from ..contracts.contract import Contract
from ..contracts.instance import Instance
from ..contracts.judge import Judge
from ..contracts.link import Link
from ..contracts.records import closing_event, from_row, to_row
from ..contracts.reporting import CLOCKLESS_BEFORE
from ..contracts.turn import IN_FLIGHT_SECONDS, Turn
from ..contracts.verdict_event import verdict_event
from ..events import Event, NewEvent
from ..store import contract_states
from ..store.contract_states import ContractState, LatestStates
from ..store.decisions import count, record
from ..store.store import Store, Tx
from ..telemetry.metrics import Metrics
from .processor import ProcessorContext, QueueProcessor

SETTLE_SECONDS = 5.0
LINK_SECONDS = 30.0
CLOCK_STEP_SECONDS = 1.0

_SETTLE = round(SETTLE_SECONDS * MICROSECONDS)
_STEP = round(CLOCK_STEP_SECONDS * MICROSECONDS)
_AFTER_DEADLINE = round(IN_FLIGHT_SECONDS * MICROSECONDS) + 1


class _Opening(NamedTuple):
    """What is to be decided first: rows of contracts that are gone, the events that say so, instances to begin."""

    gone: list[tuple[str, str]]
    closings: list[NewEvent]
    new: list[tuple[Contract, Instance]]


class _Set(NamedTuple):
    """The clock was set by `step` microseconds when it showed `until`, and events from before may still wait."""

    until: int
    step: int


class Sentinel(QueueProcessor):
    """Judges `contracts`. `link` None: the sensors can always be heard.

    `skipped` counts, by contract and reason, the events that could not be judged, or not by the time they claim.
    """

    def __init__(self, contracts: Sequence[Contract], metrics: Metrics, clock: Clock, link: Link | None = None) -> None:
        self.skipped: dict[tuple[str, str], int] = {}
        self._judge = Judge(contracts)
        self._metrics = metrics
        self._clock = clock
        self._link = link
        self._cares_about_link = any(contract.suppressed_by_link for contract in contracts)
        self._lost_at: float | None = None  # by the clock that isn't stepped
        # The link's time was told by the clock of then; steps since are added.
        self._settled_at: int | None = None
        self._stepped = 0
        self._offset = self._clock.offset()
        self._set: _Set | None = None
        self._opening: _Opening | None = None

    def filter_item(self, event: Event) -> bool:
        """Only what a contract wants to see."""
        return self._judge.index.cares(event.type)

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """Load all states; find those of contracts that are gone, and what is to be watched from now on."""
        now = self._clock.now()
        instances: list[tuple[str, Instance]] = []
        opening = _Opening([], [], [])
        for row in await contract_states.every(store):
            contract = self._judge.contracts.get(row.contract)
            instance = from_row(contract, row) if contract else None
            if instance is not None:
                instances.append((row.contract, instance))
                continue
            opening.gone.append((row.contract, row.subject))
            closing = closing_event(row, "changed" if contract else "removed", now)
            opening.closings.extend([closing] if closing else [])
        self._judge.load(instances, now)
        for contract in self._judge.contracts.values():
            for instance in contract.initial(now):
                if (contract.name, instance.subject) not in self._judge.instances:
                    opening.new.append((contract, instance))
        self._opening = opening

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        await self.process_batch([event], ctx)

    async def process_batch(self, events: Sequence[Event], ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        self._turn(ctx, events)

    def due_at(self) -> int | None:
        """See QueueProcessor."""
        now = self._clock.now()
        if self._opening is not None or abs(self._step()) >= _STEP:
            return now
        ready_at = self._ready_at()
        link_at = self._link_due_at(now, ready_at)
        earliest = self._judge.earliest()
        if earliest is None:
            return link_at
        due = now + _SETTLE if ready_at is None else max(earliest + _AFTER_DEADLINE, ready_at)
        return due if link_at is None else min(due, link_at)

    async def on_time(self, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        self._turn(ctx, None)

    def _turn(self, ctx: ProcessorContext, events: Sequence[Event] | None) -> None:
        """Judge what has happened, or, if that is None, what the clock says."""
        opening, step, now = self._opening, self._step(), self._clock.now()
        stepped = abs(step) >= _STEP
        before = self._offset, self._stepped, self._set
        try:
            with self._judge.turn() as turn:
                if opening is not None:
                    for contract, instance in opening.new:
                        turn.begin(contract, instance, instance.since)
                    turn.settle(now)
                if stepped:
                    turn.set_clock(now, step)
                    self._offset, self._stepped = self._offset + step, self._stepped + step
                    earlier = self._set or _Set(now - step, 0)
                    self._set = _Set(earlier.until, earlier.step + step)
                ready_at = self._ready_at()
                self._follow_link(turn, now, ready_at)
                for event in events or ():
                    moved, sure = self._moved(event, now)
                    trusted = sure and ready_at is not None and event.recorded_at + moved >= ready_at
                    turn.observe(event, trusted=trusted, moved=moved)
                if events is None and ready_at is not None and now >= ready_at:
                    turn.elapse(now)
                self._decide(turn, ctx, opening)
        except BaseException:
            self._offset, self._stepped, self._set = before
            raise
        self._opening = None
        if events is None:
            self._set = None  # all that was recorded before is judged

    def _decide(self, turn: Turn, ctx: ProcessorContext, opening: _Opening | None) -> None:
        """Hand the outcome of a turn over."""
        decisions = ctx.decisions
        if opening is not None and (opening.gone or turn.changed):
            gone = opening.gone
            decisions.lazily.append(lambda tx: contract_states.delete(tx, gone))
            decisions.also.append(_at_once)
            decisions.events += opening.closings
        if turn.changed:
            decisions.lazily.append(LatestStates(turn.changed, self._row))
        for contract, instance, verdict in turn.verdicts:
            decisions.events.append(verdict_event(contract, instance, verdict, ctx.now))
        if skipped := turn.skipped:
            decisions.tallies.append(lambda: self._tally(skipped))

    def _row(self, contract: str, instance: Instance) -> ContractState:
        return to_row(self._judge.contracts[contract], instance)

    def _tally(self, skipped: Sequence[tuple[Contract, str]]) -> None:
        for contract, reason in skipped:
            self._metrics.skipped.add(1, reason)
            key = (contract.name, reason)
            self.skipped[key] = self.skipped.get(key, 0) + 1

    # The link, and the clock

    def _ready_at(self) -> int | None:
        """From when on silence counts, in microseconds since 1970 UTC; None while it doesn't."""
        if self._link is None:
            return 0
        settled_at = self._link.settled_at()
        if settled_at != self._settled_at:
            self._settled_at = settled_at
            self._stepped = 0
        if settled_at is not None:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = self._clock.monotonic()
        return None if settled_at is None else settled_at + self._stepped + _SETTLE

    def _link_due_at(self, now: int, ready_at: int | None) -> int | None:
        """When those are to be told of the link that care about it."""
        if not self._cares_about_link:
            return None
        if self._judge.unheard_since is not None:
            return ready_at
        if ready_at is not None or self._lost_at is None:
            return None
        rest_seconds = self._lost_at + LINK_SECONDS - self._clock.monotonic()
        return now + max(0, round(rest_seconds * MICROSECONDS))

    def _follow_link(self, turn: Turn, now: int, ready_at: int | None) -> None:
        due_at = self._link_due_at(now, ready_at)
        if due_at is None or due_at > now:
            return
        if self._judge.unheard_since is None:
            turn.lose_link(now)
        else:
            turn.regain_link(now)

    def _moved(self, event: Event, now: int) -> tuple[int, bool]:
        """By how much the clock was set since `event` was recorded, and whether that is known."""
        recorded_at, moved = event.recorded_at, 0
        if self._set is not None and (recorded_at <= self._set.until if self._set.step > 0 else recorded_at > now):
            moved = self._set.step
        shown = recorded_at + moved
        if shown > now + _STEP or shown < CLOCKLESS_BEFORE <= now:
            return now - recorded_at, False
        return moved, True

    def _step(self) -> int:
        """By how many microseconds the clock was set since the last turn."""
        return self._clock.offset() - self._offset


async def close_all(store: Store, metrics: Metrics, clock: Clock) -> None:
    """Close what contracts have left open, now that there are none."""
    sentinel = Sentinel((), metrics, clock)
    ctx = ProcessorContext(clock, cause_id=None, idempotency_key="", attempt=1)
    await sentinel.opened(store, 0)
    await sentinel.on_time(ctx)
    if ctx.decisions:
        count(metrics, ctx.decisions, await store.write(lambda tx: record(tx, ctx.decisions)))


def _at_once(tx: Tx) -> None:
    """Nothing more: what begins or ends with a configuration doesn't wait."""
