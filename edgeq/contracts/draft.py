"""What becomes of instances in a turn, one step after the other: those of their kinds, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contract import Contract
from .instance import Instance, Step, Verdict
from .looks import Looks
from .relations import Key
from .reporting import Outcome, Reporter
from .telling import due_at, shown
from .timers import Timers

if TYPE_CHECKING:
    from .judge import Judge


class Draft:
    """The instances that `changed`, as they are now, and the `verdicts` in their order, each with its instance as it
    became. `looks` knows who is to look at what has changed; whoever takes steps lets them look."""

    def __init__(self, judge: Judge, timers: Timers) -> None:
        self.changed: dict[Key, Instance] = {}
        self.verdicts: list[tuple[Contract, Instance, Verdict]] = []
        self.looks = Looks(judge.relations, judge.rank, self.changed, judge.instances)
        self._judge = judge
        self._timers = timers
        self._related = judge.relations.names

    def get(self, key: Key) -> Instance | None:
        """The instance as it is now."""
        return self.changed.get(key) or self._judge.instances.get(key)

    def put(self, key: Key, instance: Instance, at: int) -> None:
        """It is so from `at` on."""
        if key[0] in self._related:
            before = self.get(key)
            self.changed[key] = instance
            if before is None or shown(before) != shown(instance):
                self.looks.note(key[0], instance, at)
        else:
            self.changed[key] = instance
        if instance.deadline_at is not None or instance.report is not None:
            self._timers.arm(key, due_at(instance))

    def take(self, key: Key, outcome: Outcome, at: int) -> None:
        """It is so from `at` on, and this is told of it."""
        instance, verdicts = outcome
        before, contract = self.get(key), self._judge.contracts[key[0]]
        if instance is not before:
            self.put(key, instance, at)
        self.verdicts += [(contract, instance, verdict) for verdict in verdicts]
        if contract.of_contracts and before is not None and self._comes_into_force(contract, before, instance, at):
            self.looks.add(key, self.looks.standing(contract, contract.of_contracts[0], key[1], at))

    def step(self, key: Key, reporter: Reporter, before: Instance, step: Step, at: int) -> None:
        """Take a step of the kind."""
        instance = step.instance
        if step.verdict is None and (instance.report is None or instance.state == before.state):
            self.put(key, instance, at)
        else:
            self.take(key, reporter.after(before, step, at), at)

    def begun(self, contract: Contract, instance: Instance, at: int) -> Outcome:
        """A new instance as it is at `at`, not taken yet."""
        suppressed = self.looks.is_suppressed(contract, instance.subject)
        unheard = self._judge.unheard_since if contract.suppressed_by_link else None
        return self._judge.reporters[contract.name].begin(instance, at, suppressed=suppressed, unheard=unheard)

    def elapse(self, key: Key, instance: Instance, until: int) -> None:
        """Let what is due first of an instance, before `until`, pass."""
        contract, reporter = self._judge.contracts[key[0]], self._judge.reporters[key[0]]
        at = due_at(instance)
        assert at is not None
        outcome = reporter.elapse(instance, until)
        if outcome is None:
            self.step(key, reporter, instance, contract.elapse(instance), at)
            return
        self.take(key, outcome, at)

    def elapse_own(self, key: Key, instance: Instance, at: int, proof: int) -> Instance:
        """Let an instance's time go on to when an event of it happened, `at`: what was due before `proof` passes. It,
        as it is then."""
        while (due := due_at(instance)) is not None:
            if due >= proof:
                report = instance.report
                calendar_at = None if report is None else report.calendar_at
                if report is None or calendar_at is None or calendar_at > at:
                    break
                if proof < at and not report.inactive:
                    break  # it may have come before the end, and have waited
            self.elapse(key, instance, max(proof, due + 1))
            instance = self.changed[key]
        return instance

    def _comes_into_force(self, contract: Contract, before: Instance, instance: Instance, at: int) -> bool:
        reporter = self._judge.reporters[contract.name]
        return not reporter.takes(before, at) and reporter.takes(instance, at)
