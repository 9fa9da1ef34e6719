"""Runs contracts over events and over time. Pure: no store, no clock, nothing but what it is told.

Work is done in turns (see `turn`). What a turn changes is seen by the rest of it, and by the judge only when the turn
ends well: after an exception nothing has happened, and the same events can be tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..clock import LATEST
from .boots import NO_GAP, Between, carried_over, last_known
from .contract import Contract
from .index import Index
from .instance import Instance
from .relations import Key, Relations, ranks
from .reporting import Reporter
from .telling import due_at
from .timers import Timers
from .turn import Turn


class Judge:
    """Holds the instances of `contracts` and judges events and time in turns.

    `unheard_since` is when it began that nothing can be heard (None: it can), for contracts that care.
    """

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self.contracts = {contract.name: contract for contract in contracts}
        self.instances: dict[Key, Instance] = {}
        self.rank = ranks(contracts)
        self.reporters = {contract.name: Reporter(contract) for contract in contracts}
        self.relations = Relations(contracts)
        self.index = Index(contracts, self.reporters, self.rank)
        self.unheard_since: int | None = None
        self._turn: Turn | None = None
        self._timers = Timers(self._due_at, self.rank)

    def load(self, instances: Iterable[tuple[str, Instance]], now: int, gap: Between = NO_GAP) -> list[Key]:
        """Forget all instances and take these, each with its contract's name. They become what they are by the clock
        `now`, after such a `gap`: see Contract.stepped and `boots`. Those that aren't what they were are returned.
        `Turn.settle` sees to what else may have changed since they were stored."""
        self.instances, changed = {}, []
        stored = list(instances)
        last = last_known((instance for _, instance in stored), now, gap)
        for name, instance in stored:
            became = carried_over(self.contracts[name], self.reporters[name], instance, now, gap, last)
            self.instances[name, instance.subject] = became
            if became is not instance:
                changed.append((name, instance.subject))
        reports = [instance.report for instance in self.instances.values() if instance.report is not None]
        unheard = [report.unheard for report in reports if report.unheard is not None]
        self.unheard_since = min(unheard, default=None)
        self.relations.load(self.instances)
        self._arm_all()
        return changed

    def earliest(self, until: int = LATEST) -> int | None:
        """When the next deadline lies, in microseconds since 1970 UTC; if that is after `until` or never, perhaps only
        a moment in between. It may be elapsed `IN_FLIGHT_SECONDS` later."""
        return self._timers.earliest(until)

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A turn, which counts when the block ends without an exception."""
        turn = self._turn = Turn(self, self._timers)
        unheard_since = self.unheard_since
        try:
            yield turn
        except BaseException:
            self._turn = None
            self.unheard_since = unheard_since
            self.relations.load(self.instances)
            self._arm_all()
            raise
        self._turn = None
        self.instances.update(turn.changed)

    def _arm_all(self) -> None:
        self._timers = Timers(self._due_at, self.rank)
        for key, instance in self.instances.items():
            self._timers.arm(key, due_at(instance))

    def _due_at(self, key: Key) -> int | None:
        instance = (self._turn.changed.get(key) if self._turn else None) or self.instances.get(key)
        return due_at(instance) if instance else None
