"""The Sentinel: judges contracts over the events, and tells of its verdicts by events.

What can be relied on, and why:

- **No verdict is lost or told twice.** States and verdicts are decided in one batch with the move of the cursor, and
  are committed with it or not at all. The states of a batch without verdicts may wait for the next commit, but then
  the cursor waits with them: after a crash the same events are read again, with the states as they were before them,
  and lead to the same verdicts. Should a state be newer than the cursor all the same (somebody has moved the cursor
  back), its instance knows the last event that it has judged, and passes over those up to it. And a verdict's event
  has a key by which the store keeps it once.
- **Memory is never ahead of what was handed over.** A batch is judged in a turn, which counts only if all of it went
  well (see `contracts.judge`). When a commit is refused, `opened` loads the states anew.
- **A restart changes nothing.** Deadlines stand in the store, and a backlog of events is judged in its own time, by
  when the events were recorded; only then does the clock count (`on_time`).
- **Silence is held against a sensor only while it could be heard.** Without a settled link (see `contracts.link`) no
  deadline passes, neither by the clock nor by events that were let in meanwhile. `SETTLE_SECONDS` after it has
  settled, all those that are over pass. What was recorded before the link settled, such as by an earlier run, doesn't
  prove anybody's silence either: of two events that edgeq recorded itself, the time between may have been spent at the
  broker.
- **A step of the clock is no time that passed.** What was left of each deadline is left after it. Deadlines of an
  earlier run that are further away than they can be, because the clock is behind after a boot, are given their full
  length.
- **Contracts that are gone leave nothing behind.** When they are loaded, what is violated is resolved with the reason
  `removed` (or `changed`, when another kind has the name, or the subject no longer belongs to it), and their states go.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..clock import MICROSECONDS, Clock
from ..contracts.contract import Contract
from ..contracts.instance import Instance
from ..contracts.judge import IN_FLIGHT_SECONDS, Judge, Turn
from ..contracts.link import Link
from ..contracts.records import closing_event, from_row, to_row
from ..contracts.verdict_event import verdict_event
from ..events import Event
from ..store import contract_states
from ..store.contract_states import ContractState
from ..store.decisions import Decisions, count, record
from ..store.store import Store, Tx
from ..telemetry.metrics import Metrics
from .processor import ProcessorContext, QueueProcessor

SETTLE_SECONDS = 5.0
CLOCK_STEP_SECONDS = 1.0

_SETTLE = round(SETTLE_SECONDS * MICROSECONDS)
_AFTER_DEADLINE = round(IN_FLIGHT_SECONDS * MICROSECONDS) + 1


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
        # The link's time was told by the clock of then; steps since are added.
        self._settled_at: int | None = None
        self._stepped = 0
        self._offset = self._clock_offset()

    def filter_item(self, event: Event) -> bool:
        """Only what a contract wants to see."""
        return bool(self._judge.wanting(event.type))

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """Load all states; close those of contracts that are gone, begin to watch what is known beforehand."""
        now = self._clock.now()
        instances: list[tuple[str, Instance]] = []
        gone: list[ContractState] = []
        decided = Decisions()
        for row in await contract_states.every(store):
            contract = self._judge.contracts.get(row.contract)
            instance = from_row(contract, row) if contract else None
            if instance is not None:
                instances.append((row.contract, instance))
                continue
            gone.append(row)
            closing = closing_event(row, "changed" if contract else "removed", now)
            decided.events += [closing] if closing else []
        there = {(name, instance.subject) for name, instance in instances}
        new = [
            (contract, instance)
            for contract in self._judge.contracts.values()
            for instance in contract.initial(now)
            if (contract.name, instance.subject) not in there
        ]
        if gone or new:
            rows = [to_row(contract, instance) for contract, instance in new]

            def unit(tx: Tx) -> int:
                contract_states.delete(tx, [(row.contract, row.subject) for row in gone])
                contract_states.put(tx, rows)
                return record(tx, decided)

            count(self._metrics, decided, await store.write(unit))
        instances += [(contract.name, instance) for contract, instance in new]
        self._judge.load(instances, now)

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        await self.process_batch([event], ctx)

    async def process_batch(self, events: Sequence[Event], ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        self._follow_clock(ctx)
        ready_at = self._ready_at()
        with self._judge.turn() as turn:
            for event in events:
                turn.observe(event, trusted=ready_at is not None and event.recorded_at >= ready_at)
            self._decide(turn, ctx)

    def due_at(self) -> int | None:
        """See QueueProcessor."""
        if abs(self._clock_offset() - self._offset) >= CLOCK_STEP_SECONDS * MICROSECONDS:
            return self._clock.now()
        earliest = self._judge.earliest()
        if earliest is None:
            return None
        ready_at = self._ready_at()
        if ready_at is None:
            return self._clock.now() + _SETTLE
        return max(earliest + _AFTER_DEADLINE, ready_at)

    async def on_time(self, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        self._follow_clock(ctx)
        ready_at = self._ready_at()
        now = self._clock.now()
        if ready_at is None or now < ready_at:
            return
        with self._judge.turn() as turn:
            turn.elapse(now)
            self._decide(turn, ctx)

    def _decide(self, turn: Turn, ctx: ProcessorContext) -> None:
        """Hand the outcome of a turn over."""
        contracts = self._judge.contracts
        rows = [to_row(contracts[name], instance) for (name, _), instance in turn.changed.items()]
        if rows:
            ctx.decisions.lazily.append(lambda tx: contract_states.put(tx, rows))
        for contract, instance, verdict in turn.verdicts:
            ctx.decisions.events.append(verdict_event(contract, instance, verdict, ctx.now))
        if skipped := turn.skipped:
            ctx.decisions.tallies.append(lambda: self._tally(skipped))

    def _tally(self, skipped: Sequence[tuple[Contract, str]]) -> None:
        for contract, reason in skipped:
            self._metrics.skipped.add(1, reason)
            key = (contract.name, reason)
            self.skipped[key] = self.skipped.get(key, 0) + 1

    def _ready_at(self) -> int | None:
        """From when on silence counts, in microseconds since 1970 UTC; None while it doesn't."""
        if self._link is None:
            return 0
        settled_at = self._link.settled_at()
        if settled_at != self._settled_at:
            self._settled_at = settled_at
            self._stepped = 0
        return None if settled_at is None else settled_at + self._stepped + _SETTLE

    def _follow_clock(self, ctx: ProcessorContext) -> None:
        """See whether the clock was stepped, and move what hangs on it along."""
        step = self._clock_offset() - self._offset
        if abs(step) >= CLOCK_STEP_SECONDS * MICROSECONDS:
            with self._judge.turn() as turn:
                turn.set_clock(self._clock.now(), step)
                self._decide(turn, ctx)
            self._offset += step
            self._stepped += step

    def _clock_offset(self) -> int:
        """How far the wall clock is from the one that isn't stepped, in microseconds."""
        return self._clock.now() - round(self._clock.monotonic() * MICROSECONDS)
