"""Runs contracts over events and over time. Pure: no store, no clock, nothing but what it is told.

Work is done in turns. What a turn changes is seen by the rest of it, and by the judge only when the turn ends well:
after an exception nothing has happened, and the same events can be tried again.

Time goes on with the events, so that a backlog is judged in its own time. An event recorded at R proves that it was R,
to all instances: deadlines that lie `IN_FLIGHT_SECONDS` before R have passed, which leaves others recorded about then
the time to be committed. To its own instance it proves that nothing came between the newest event and when it
happened, so a deadline in between has passed, by whatever little. Neither holds for events that are not `trusted`:
they waited at the broker, nobody knows for how long, and the silence before them proves nothing. Only when they say
themselves that they happened earlier than they were recorded, their instance takes their word.

The time of an event is its `occurred_at`, but never after its `recorded_at` (a device's clock may be ahead) and not
before the year 2000 (a device may have no clock).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..events import Event
from ..patterns import pattern
from .contract import Contract
from .instance import Instance, Skipped, Step, Verdict
from .timers import Key, Timers

IN_FLIGHT_SECONDS = 0.3
INSTANCES_MAX = 100_000

_IN_FLIGHT = round(IN_FLIGHT_SECONDS * 1_000_000)
_CLOCKLESS_BEFORE = 946_684_800_000_000  # 2000-01-01
_NEVER = -(2**63)
_TYPES_REMEMBERED_MAX = 1000


class Judge:
    """Holds the instances of `contracts` and judges events and time in turns."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self.contracts = {contract.name: contract for contract in contracts}
        self.instances: dict[Key, Instance] = {}
        self._wanting: dict[str, tuple[Contract, ...]] = {}
        self._patterns = [
            (pattern(wanted), contract) for contract in contracts for wanted in dict.fromkeys(contract.types)
        ]
        self._turn: Turn | None = None
        self._rank = dict.fromkeys(self.contracts, 0)
        self._timers = Timers(self._deadline_of, self._rank)

    def load(self, instances: Iterable[tuple[str, Instance]], now: int) -> None:
        """Forget all instances and take these, each with its contract's name. `now`: see Turn.set_clock."""
        keyed = {(name, instance.subject): instance for name, instance in instances}
        self.instances = {key: self._within_reach(key, instance, now, 0) for key, instance in keyed.items()}
        self._arm_all()

    def wanting(self, event_type: str) -> tuple[Contract, ...]:
        """The contracts that want to see events of that type, in their order. None wants events of contracts."""
        found = self._wanting.get(event_type)
        if found is None:
            own = event_type.startswith("contract.")
            fitting = [contract for fits, contract in self._patterns if not own and fits(event_type)]
            found = tuple(dict.fromkeys(fitting))
            if len(self._wanting) >= _TYPES_REMEMBERED_MAX:
                self._wanting.clear()
            self._wanting[event_type] = found
        return found

    def earliest(self) -> int | None:
        """When the next deadline lies, in microseconds since 1970 UTC. It may be elapsed `IN_FLIGHT_SECONDS` later."""
        return self._timers.earliest()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A turn, which counts when the block ends without an exception."""
        turn = self._turn = Turn(self, self._timers)
        try:
            yield turn
        except BaseException:
            self._turn = None
            self._arm_all()
            raise
        self._turn = None
        self.instances.update(turn.changed)

    def _arm_all(self) -> None:
        self._timers = Timers(self._deadline_of, self._rank)
        for key in self.instances:
            self._timers.arm(key)

    def _deadline_of(self, key: Key) -> int | None:
        instance = (self._turn.changed.get(key) if self._turn else None) or self.instances.get(key)
        return instance.deadline_at if instance else None

    def _within_reach(self, key: Key, instance: Instance, now: int, step: int) -> Instance:
        """The instance as it stands after the clock was set from `now - step` to `now`."""
        return self.contracts[key[0]].stepped(instance, now, step)


class Turn:
    """What happened in a turn: the instances that `changed`, the `verdicts` in their order, each with its instance
    as it became, and which contracts `skipped` an event for which reason."""

    def __init__(self, judge: Judge, timers: Timers) -> None:
        self.changed: dict[Key, Instance] = {}
        self.verdicts: list[tuple[Contract, Instance, Verdict]] = []
        self.skipped: list[tuple[Contract, str]] = []
        self._judge = judge
        self._timers = timers

    def observe(self, event: Event, *, trusted: bool) -> None:
        """Let an event happen."""
        recorded_at = event.recorded_at
        watermark = recorded_at - _IN_FLIGHT if trusted else _NEVER
        self._elapse_before(watermark)
        at, flag = _event_time(event)
        proof = max(watermark, at if trusted or at < recorded_at else _NEVER)
        for contract in self._judge.wanting(event.type):
            if contract.fits_subject(event.subject) and contract.wants(event):
                skipped = self._observe(contract, event, at, watermark, proof)
                self.skipped.extend((contract, reason) for reason in (flag, skipped) if reason)

    def elapse(self, now: int) -> None:
        """Let time go on to `now`."""
        self._elapse_before(now - _IN_FLIGHT)

    def set_clock(self, now: int, step_microseconds: int) -> None:
        """The machine's clock was set to `now`, by that much: what was left of each deadline is left still, and nothing
        lies in the future that can't."""
        for key, instance in self._judge.instances.items():
            moved = self._judge._within_reach(key, instance, now, step_microseconds)
            if moved is not instance:
                self._put(key, moved)

    def _observe(self, contract: Contract, event: Event, at: int, watermark: int, proof: int) -> str | None:
        """The reason if the event was skipped."""
        subject = contract.subject_of(event)
        if subject is None:
            return "missing_field"
        key = (contract.name, subject)
        instance = self._get(key)
        if instance is None:
            if len(self._judge.instances) >= INSTANCES_MAX:
                return "too_many_subjects"
            instance = Instance(subject=subject, state="unknown", since=at)
        elif event.id <= instance.memory.event_id:
            return None
        elif (age := instance.memory.newest - at) > 0:
            if age > contract.lateness_microseconds:
                return "too_late"
            if not contract.takes_late:
                return "late"
        while instance.deadline_at is not None and instance.deadline_at < proof:
            instance = self._elapse(contract, key, instance)
        step = contract.observe(instance, event, at, watermark)
        if isinstance(step, Skipped):
            return step.reason
        self._take(contract, key, step)
        return None

    def _elapse_before(self, watermark: int) -> None:
        while due := self._timers.pop_due(watermark):
            _, key = due
            instance = self._get(key)
            assert instance is not None
            self._elapse(self._judge.contracts[key[0]], key, instance)

    def _elapse(self, contract: Contract, key: Key, instance: Instance) -> Instance:
        step = contract.elapse(instance)
        self._take(contract, key, step)
        return step.instance

    def _take(self, contract: Contract, key: Key, step: Step) -> None:
        self._put(key, step.instance)
        if step.verdict is not None:
            self.verdicts.append((contract, step.instance, step.verdict))

    def _put(self, key: Key, instance: Instance) -> None:
        self.changed[key] = instance
        self._timers.arm(key)

    def _get(self, key: Key) -> Instance | None:
        return self.changed.get(key) or self._judge.instances.get(key)


def _event_time(event: Event) -> tuple[int, str | None]:
    """When an event happened, and why that isn't what it says itself, if it isn't."""
    if event.occurred_at > event.recorded_at:
        return event.recorded_at, "future_timestamp"
    if event.occurred_at < _CLOCKLESS_BEFORE < event.recorded_at:
        return event.recorded_at, "no_clock"
    return event.occurred_at, None
