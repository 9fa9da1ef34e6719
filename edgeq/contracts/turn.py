"""One turn of the judge: events happen, time goes on, and what follows from it.

Time goes on with the events, so that a backlog is judged in its own time. An event recorded at R proves that it was R,
to all instances: deadlines that lie `IN_FLIGHT_SECONDS` before R have passed, which leaves others recorded about then
the time to be committed. To its own instance it proves that nothing came between the newest event and when it
happened, so a deadline in between has passed, by whatever little. Neither holds for events that are not `trusted`:
they waited at the broker, nobody knows for how long, and the silence before them proves nothing. Only when they say
themselves that they happened earlier than they were recorded, their instance takes their word.

The time of an event is its `occurred_at`, but never after its `recorded_at` (a device's clock may be ahead) and not
before the year 2000 (a device may have no clock). Of an event that was recorded before the machine's clock was set
(`moved`), it is the time at which it would have been recorded by the clock as it is now.

Contracts that look at others come after those: of an event, of a deadline, and of what follows from either, they see
the states that result, and none in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..clock import CLOCKLESS_BEFORE
from ..events import DataError, Event
from .contract import Contract
from .draft import Draft
from .instance import Change, Instance, Skipped, Step, Verdict
from .looks import LAST_RANK
from .relations import Key, looked_at
from .reporting import Reporter
from .telling import begun_before, due_at
from .timers import Timers

if TYPE_CHECKING:
    from .judge import Judge

IN_FLIGHT_SECONDS = 0.3
INSTANCES_MAX = 100_000

_IN_FLIGHT = round(IN_FLIGHT_SECONDS * 1_000_000)
_NEVER = -(2**63)
_SAME_CLOCK = 60_000_000  # what happened about when it was recorded was told by a clock as wrong as the machine's
_WHOLE = Instance(subject="", state="unknown", since=0)  # stands for all of a contract's instances


class Skip(NamedTuple):
    """A contract couldn't judge an event, or not by the time that it claims. `reason` is one short word from a fixed
    set, `event_id` and `subject` those of the event."""

    contract: Contract
    reason: str
    event_id: int
    subject: str


class Turn:
    """What happened in a turn: the instances that `changed`, the `verdicts` in their order, each with its instance
    as it became, and what was `skipped`."""

    def __init__(self, judge: Judge, timers: Timers) -> None:
        self.skipped: list[Skip] = []
        self._judge = judge
        self._timers = timers
        self._draft = Draft(judge, timers)
        self._looks = self._draft.looks
        self._related = judge.relations.names
        self._count = len(judge.instances)
        self.changed, self.verdicts = self._draft.changed, self._draft.verdicts

    # What may happen

    def observe(self, event: Event, *, trusted: bool, moved: int = 0) -> None:
        """Let an event happen. `moved`: by how many microseconds the clock was set after the event was recorded."""
        recorded_at = event.recorded_at + moved
        watermark = recorded_at - _IN_FLIGHT if trusted else _NEVER
        self._elapse_before(watermark)
        at, flag = _event_time(event, recorded_at)
        proof = max(watermark, at if trusted or at < recorded_at else _NEVER)
        for rank, _, contract, reporter, where, wants in self._judge.index.entries(event):
            try:
                if (where is not None and not where(event.data)) or (wants is not None and not wants(event)):
                    continue
                if self._looks.waiting:
                    self._look(rank, release=False)
                skipped = self._observe(contract, reporter, event, at, watermark, proof)
            except DataError:  # others may do without
                skipped = "failed"
            if flag or skipped:
                reasons = filter(None, (flag, skipped))
                self.skipped.extend(Skip(contract, reason, event.id, event.subject) for reason in reasons)
        if self._looks.waiting:
            self._look()

    def elapse(self, now: int) -> None:
        """Let time go on to `now`."""
        self._elapse_before(now - _IN_FLIGHT)

    def set_clock(self, now: int, step_microseconds: int) -> None:
        """The machine's clock was set to `now`, by that much: what was left of each deadline is left still, and nothing
        lies in the future that can't. Calendars go by the new time."""
        if self._judge.unheard_since is not None:
            self._judge.unheard_since = begun_before(self._judge.unheard_since, now, step_microseconds)
        for key, instance in list(self._judge.instances.items()):
            reporter = self._judge.reporters[key[0]]
            moved = reporter.set_clock(self._draft.get(key) or instance, now, step_microseconds)
            self._draft.take(key, reporter.reconsider(moved, now), now)
        self._look()

    def settle(self, now: int) -> None:
        """See to what may have changed since the instances were stored: contracts, their keys, the time zone. No time
        passes: there may be events that happened before `now` and are yet to come."""
        judge = self._judge
        for key, instance in list(judge.instances.items()):
            reporter = judge.reporters[key[0]]
            if instance.report is not None or not reporter.plain:
                self._draft.take(key, reporter.reconsider(instance, now), now)
                if not judge.contracts[key[0]].suppressed_by:
                    self._suppress(key, False, now)
        looking = [contract for contract in judge.contracts.values() if looked_at(contract)]
        for contract in sorted(looking, key=lambda each: judge.rank[each.name]):
            seen = {name: judge.relations.subjects(name) for name in contract.of_contracts}
            for key in [key for key in judge.instances if key[0] == contract.name]:
                self._suppress(key, self._looks.is_suppressed(contract, key[1]), now)
                for name in seen:
                    self._observe_state(contract, key, self._looks.standing(contract, name, key[1], now), settle=True)
            for name, subjects in seen.items():
                for change in [self._looks.standing(contract, name, subject, now) for subject in subjects]:
                    new = contract.subject_of_state(change)
                    if new is not None and self._draft.get((contract.name, new)) is None:
                        self._observe_state(contract, (contract.name, new), change, settle=True)
        self._look()

    def begin(self, contract: Contract, instance: Instance, at: int) -> None:
        """Begin to watch an instance that isn't there yet, however many there are."""
        key = (contract.name, instance.subject)
        self._count += 1
        self._draft.take(key, self._draft.begun(contract, instance, at), at)
        self._look()

    def lose_link(self, now: int) -> None:
        """Nothing can be heard any more. Told once for each contract that cares."""
        self._judge.unheard_since = now
        self._follow_link(now, None)

    def regain_link(self, now: int) -> None:
        """Everything can be heard again from `now` on."""
        since, self._judge.unheard_since = self._judge.unheard_since, None
        self._follow_link(now, now if since is None else since)

    # What follows

    def _observe(
        self, contract: Contract, reporter: Reporter, event: Event, at: int, watermark: int, proof: int
    ) -> str | None:
        """The reason if the event was skipped."""
        subject = event.subject if contract.by_subject else contract.subject_of(event)
        if subject is None:
            return "missing_field"
        key = (contract.name, subject)
        instance = self.changed.get(key) or self._judge.instances.get(key)
        new = instance is None
        if instance is None:
            if self._count >= INSTANCES_MAX:
                return "too_many_subjects"
            instance = self._draft.begun(contract, Instance(subject=subject, state="unknown", since=at), at).instance
        else:
            memory = instance.memory
            if event.id <= memory.event_id:
                return None
            age = memory.newest - at
            if age > 0:
                if age > contract.lateness_microseconds:
                    return "too_late"
                if not contract.takes_late:
                    return "late"
            if instance.report is not None or (instance.deadline_at is not None and instance.deadline_at < proof):
                instance = self._draft.elapse_own(key, instance, at, proof)
        if instance.report is not None and not reporter.takes(instance, at):
            return None
        step = contract.observe(instance, event, at, watermark)
        if isinstance(step, Skipped):
            return step.reason
        if new:
            self._count += 1
        became, verdict = step
        if contract.quotes and became.memory.cause_id == event.id:
            became = replace(became, quotes=contract.quote(event))
        if verdict is not None or became.report is not None or key[0] in self._related:
            self._draft.step(key, reporter, instance, Step(became, verdict), at)
            return None
        self.changed[key] = became  # most events change nothing that anybody else sees
        due, was_due = became.deadline_at, instance.deadline_at
        if due is not None and (was_due is None or due < was_due):
            self._timers.arm(key, due)
        return None

    def _elapse_before(self, watermark: int) -> None:
        last = (_NEVER, 0)
        while True:
            due = self._timers.pop_due(watermark)
            if due is None:
                if not self._looks.waiting:
                    return
                self._look()
                continue
            at, key = due
            rank = self._judge.rank[key[0]]
            if self._looks.waiting and (at, rank) != last:  # what follows from the last moment comes before this one
                self._timers.arm(key, at)
                self._look(rank if at == last[0] else LAST_RANK, release=at != last[0])
            else:
                instance = self._draft.get(key)
                assert instance is not None
                self._draft.elapse(key, instance, watermark)
                self._timers.arm(key, due_at(self.changed[key]))
            last = (at, rank)

    # Contracts that look at others

    def _look(self, rank: int = LAST_RANK, *, release: bool = True) -> None:
        """Have those look that are to, of contracts up to that rank; what follows may make others look.

        Without `release`, those that are no longer suppressed wait: they may have to be judged first.
        """
        waiting = []
        while found := self._looks.pop(rank):
            look, change = found
            _, key, name = look
            contract = self._judge.contracts[key[0]]
            if name in contract.suppressed_by:
                suppressed = self._looks.is_suppressed(contract, key[1])
                if not suppressed and not release:
                    waiting.append(found)
                    continue
                self._suppress(key, suppressed, change.at)
            if name in contract.of_contracts:
                self._observe_state(contract, key, change)
        for look, change in waiting:
            self._looks.put_back(look, change)

    def _suppress(self, key: Key, suppressed: bool, at: int) -> None:
        instance = self._draft.get(key)
        if instance is not None:
            self._draft.take(key, self._judge.reporters[key[0]].suppress(instance, suppressed, at), at)

    def _observe_state(self, contract: Contract, key: Key, change: Change, *, settle: bool = False) -> None:
        reporter = self._judge.reporters[key[0]]
        instance = self._draft.get(key)
        new = instance is None
        if instance is None:
            if self._count >= INSTANCES_MAX:
                self.skipped.append(Skip(contract, "too_many_subjects", change.cause_id, key[1]))
                return
            first = Instance(subject=key[1], state="unknown", since=change.at)
            instance = self._draft.begun(contract, first, change.at).instance
        at = max(change.at, instance.memory.newest)
        if not settle:
            instance = self._draft.elapse_own(key, instance, at, at)
        if not reporter.takes(instance, at):
            if new:  # it looks when it comes into force
                self._count += 1
                self._draft.put(key, instance, at)
            return
        step = contract.observe_state(instance, change._replace(at=at), self._looks.states(contract, key[1]))
        if new or step.verdict is not None or step.instance.state != instance.state:
            self._count += new
            self._draft.step(key, reporter, instance, step, at)

    def _follow_link(self, at: int, since: int | None) -> None:
        """Tell those that care that nothing can be heard, or, with `since`, that everything can again."""
        contracts = [contract for contract in self._judge.contracts.values() if contract.suppressed_by_link]
        for contract in contracts:
            keys = [key for key in self._judge.instances if key[0] == contract.name]
            if not keys:
                continue
            self.verdicts.append((contract, _WHOLE, Verdict(
                what="unknown" if since is None else "resolved", at=at, since=at if since is None else since,
                reason="link",
            )))  # fmt: skip
            reporter = self._judge.reporters[contract.name]
            for key in keys:
                instance = self._draft.get(key)
                assert instance is not None
                outcome = reporter.unhear(instance, at) if since is None else reporter.hear(instance, at)
                self._draft.take(key, outcome, at)
        self._look()


def _event_time(event: Event, recorded_at: int) -> tuple[int, str | None]:
    """When an event happened, and why that isn't what it says itself, if it isn't."""
    at = event.occurred_at
    if recorded_at != event.recorded_at and abs(at - event.recorded_at) < _SAME_CLOCK:
        at += recorded_at - event.recorded_at
    if at > recorded_at:
        return recorded_at, "future_timestamp"
    if at < CLOCKLESS_BEFORE <= recorded_at:
        return recorded_at, "no_clock"
    return at, None
