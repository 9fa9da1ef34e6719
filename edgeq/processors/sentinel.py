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
- **Silence and time are what `contracts.watch` says**: a sensor that couldn't be heard isn't silent, and a step of the
  clock is no time that passed.
- **Times are stored with the clock by which they were told**, once in a boot and whenever the clock was set: so it is
  known at the next start which of them still mean something.
- **Contracts that are gone leave nothing behind.** When they are loaded, what is violated is resolved with the reason
  `removed`, and their states go. A contract that was changed keeps its states if they mean what they meant
  (`Contract.meaning`), each with its deadline where it belongs now; otherwise, or when a subject no longer belongs to
  it, they are closed with the reason `changed`. So are those of a contract that judges others when none of these has
  the subject any more. The log says so of each such contract, once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..clock import Clock
from ..contracts import boots
from ..contracts.boots import Reading
from ..contracts.contract import Contract
from ..contracts.instance import Instance
from ..contracts.link import Link
from ..contracts.records import closing_event, from_row, is_adapted, to_row
from ..contracts.relations import Key, left_over
from ..contracts.turn import Skip, Turn
from ..contracts.verdict_event import verdict_event
from ..contracts.watch import Watch
from ..events import Event, NewEvent
from ..store import contract_states, meta
from ..store.contract_states import ContractState, LatestStates
from ..store.decisions import count, record
from ..store.store import Store, Tx
from ..telemetry.metrics import Metrics
from .processor import ProcessorContext, QueueProcessor

CLOCK_KEY = "sentinel_clock"

log = logging.getLogger("edgeq.sentinel")


class _Opening(NamedTuple):
    """What is to be decided first: rows of contracts that are gone, the events that say so, and what is stored anew
    because the contract, or the clock, was changed. `fates` counts by contract, what became of it, and what becomes of
    its states, `moved` what became otherwise by the clock."""

    gone: list[Key]
    closings: list[NewEvent]
    adapted: list[Key]
    fates: Counter[tuple[str, str, str]]
    moved: list[Key]

    def close(self, row: ContractState, reason: str, now: int) -> None:
        """Its row goes, and what is violated ends."""
        self.gone.append((row.contract, row.subject))
        self.fates[row.contract, reason, "closed"] += 1
        closing = closing_event(row, reason, now)
        self.closings.extend([closing] if closing else [])


class Sentinel(QueueProcessor):
    """Judges `contracts`. `link` None: the sensors can always be heard.

    `skipped` counts, by contract and reason, the events that could not be judged, or not by the time they claim, since
    the start; `last_skipped` holds the last one of each contract. `listener`, if there is one, is given the events by
    which verdicts are told, once they are committed; `told` counts how often there were some.
    """

    def __init__(self, contracts: Sequence[Contract], metrics: Metrics, clock: Clock, link: Link | None = None) -> None:
        self.skipped: dict[str, dict[str, int]] = {}
        self.last_skipped: dict[str, Skip] = {}
        self.listener: Callable[[Sequence[NewEvent]], None] | None = None
        self.told = 0
        self._watch = Watch(contracts, clock, link)
        self._judge = self._watch.judge
        self._metrics = metrics
        self._clock = clock
        self._opening: _Opening | None = None
        self._stored_reading: Reading | None = None

    def filter_item(self, event: Event) -> bool:
        """Only what a contract wants to see."""
        return self._judge.index.cares(event.type)

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """Load all states; find those of contracts that are gone, and what is to be watched from now on."""
        now = self._clock.now()
        contracts = self._judge.contracts
        instances: dict[Key, Instance] = {}
        looking: dict[Key, ContractState] = {}
        opening = _Opening([], [], [], Counter(), [])
        for row in await contract_states.every(store):
            key = row.contract, row.subject
            contract = contracts.get(row.contract)
            instance = from_row(contract, row) if contract else None
            if contract is None or instance is None:
                opening.close(row, "changed" if contract else "removed", now)
                continue
            instances[key] = instance
            if contract.of_contracts:
                looking[key] = row
            if is_adapted(contract, row):
                opening.adapted.append(key)
        for key in left_over(list(contracts.values()), instances, now):
            del instances[key]
            opening.close(looking[key], "changed", now)
        opening.adapted[:] = [key for key in opening.adapted if key in instances]
        opening.fates.update((name, "changed", "kept") for name, _ in opening.adapted)
        self._stored_reading = boots.from_text(await meta.get(store, CLOCK_KEY))
        stored = ((name, instance) for (name, _), instance in instances.items())
        one_machine = not store.ownership.shared
        opening.moved.extend(self._watch.open(stored, self._stored_reading, one_machine=one_machine))
        self._opening = opening

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        await self.process_batch([event], ctx)

    async def process_batch(self, events: Sequence[Event], ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        self._turn(ctx, events)

    def due_at(self) -> int | None:
        """See QueueProcessor."""
        return self._watch.due_at()

    async def on_time(self, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        self._turn(ctx, None)

    def _turn(self, ctx: ProcessorContext, events: Sequence[Event] | None) -> None:
        with self._watch.turn(events) as turn:
            self._decide(turn, ctx, self._opening)
        self._opening = None

    def _decide(self, turn: Turn, ctx: ProcessorContext, opening: _Opening | None) -> None:
        """Hand the outcome of a turn over."""
        decisions, changed = ctx.decisions, turn.changed
        told: list[NewEvent] = []
        if opening is not None and (opening.fates or opening.moved or changed):
            gone, fates, moved, gap = opening.gone, opening.fates, opening.moved, self._watch.gap
            decisions.lazily.append(lambda tx: contract_states.delete(tx, gone))
            changed = {key: self._judge.instances[key] for key in (*opening.adapted, *moved)} | changed
            decisions.also.append(_at_once)
            told += opening.closings
            decisions.tallies.append(lambda: _tell_fates(fates))
            if moved:
                decisions.tallies.append(lambda: log.info("%s", gap.words(len(moved))))
        if changed:
            decisions.lazily.append(LatestStates(changed, self._row))
        reading = self._watch.reading
        if reading != self._stored_reading and (changed or self._judge.instances):
            decisions.lazily.append(lambda tx: meta.put(tx, CLOCK_KEY, boots.to_text(reading)))
            self._stored_reading = reading
        told += [verdict_event(contract, instance, verdict, ctx.now) for contract, instance, verdict in turn.verdicts]
        if told:
            decisions.events += told
            decisions.tallies.append(lambda: self._tell(told))
        if skipped := turn.skipped:
            decisions.tallies.append(lambda: self._tally(skipped))

    def _tell(self, told: Sequence[NewEvent]) -> None:
        self.told += 1
        if self.listener is not None:
            self.listener(told)

    def _row(self, contract: str, instance: Instance) -> ContractState:
        return to_row(self._judge.contracts[contract], instance)

    def _tally(self, skipped: Sequence[Skip]) -> None:
        for skip in skipped:
            name, reason = skip.contract.name, skip.reason
            self._metrics.skipped.add(1, reason)
            self._metrics.contract_skipped.add(1, name)
            reasons = self.skipped.setdefault(name, {})
            if reason == "too_many_subjects" and reason not in reasons:
                self._tell_full(name)
            reasons[reason] = reasons.get(reason, 0) + 1
            self.last_skipped[name] = skip

    def _tell_full(self, name: str) -> None:
        own = sum(contract == name for contract, _ in self._judge.instances)
        log.warning(
            "contract %s takes no new subjects, and skips their events: all contracts together have %d, which is the "
            "most, and %d of them are its own (subject:, where: or another by: in the contracts keeps them fewer)",
            name, len(self._judge.instances), own,
        )  # fmt: skip


async def close_all(store: Store, metrics: Metrics, clock: Clock) -> None:
    """Close what contracts have left open, now that there are none."""
    sentinel = Sentinel((), metrics, clock)
    ctx = ProcessorContext(clock, cause_id=None, idempotency_key="", attempt=1)
    await sentinel.opened(store, 0)
    await sentinel.on_time(ctx)
    if ctx.decisions:
        count(metrics, ctx.decisions, await store.write(lambda tx: record(tx, ctx.decisions)))


def _tell_fates(fates: Mapping[tuple[str, str, str], int]) -> None:
    for (contract, reason, fate), states in sorted(fates.items()):
        which = "one of its states is" if states == 1 else f"{states} of its states are"
        log.info("contract %s was %s: %s %s", contract, reason, which, fate)


def _at_once(tx: Tx) -> None:
    """Nothing more: what begins or ends with a configuration doesn't wait."""
