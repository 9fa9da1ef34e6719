"""`requires`: an event is allowed only if something holds at that moment. "The vault is opened only within ten minutes
of a badge, and not at night."

`of` (with `where`) is the event that is judged; `if` is the condition, which may be nested. It counts events of the
same subject (of the same instance, with `by`). With `same: any` it counts those of any subject; `subject` is then about
`of` alone, and all subjects are one instance, without a name.

| to say                               | `if`                                                          |
|--------------------------------------|---------------------------------------------------------------|
| X happened before                    | `{of: X}`                                                     |
| X happened N times before            | `{of: X, count: N}`                                           |
| X happened within T                  | `{of: X, within: 10m}`                                        |
| X happened N times within T          | `{of: X, count: 3, within: 24h}`                              |
| X happened at most N times within T  | `{not: {of: X, count: N + 1, within: 24h}}`                   |
| X happened since Y                   | `{of: X, since: Y}`                                           |
| it is 07:00 or later                 | `{between: "07:00-24:00"}`                                    |
| it is before 22:00                   | `{between: "00:00-22:00"}`                                    |
| it is night                          | `{between: "22:00-06:00"}`                                    |
| not A                                | `{not: A}`                                                    |
| A and B, A or B                      | `{all_of: [A, B]}`, `{any_of: [A, B]}`                        |
| (A or B) and not C                   | `{all_of: [{any_of: [A, B]}, {not: C}]}`                      |
| X within T before or T2 after        | `{of: X, within: 10m, after: 5s}`                             |

(What was to be judged by the calendar, and not at an event, is a contract of the kind `count`.) See `conditions`.

An event that isn't allowed violates the contract, from when that is certain: at once, or with `after`, when nothing
that may still follow makes a difference (exactly at the end of `after` is in time). The contract is resolved by the
next event that is allowed, or, with `clear_after`, that long after the last one that wasn't. Another that isn't
allowed belongs to the same episode. Events are in the order of their times: what an earlier one was found to be, after
a later one, changes nothing for that; it is told, and resolved at once if the later one was allowed. Of several that
are decided at one moment the last that isn't allowed counts.

The event itself is none of those that are counted before it, but is one for those that follow, allowed or not. What
happened before the contract was there isn't known, and counts as if it hadn't happened; so does what happens while it
isn't in force (`active`).

An event that is late by up to `lateness` counts as of its own time, for what isn't decided yet. A late event to be
judged is judged by what had happened by its time, as of then if nothing can follow any more; it is skipped as `late` if
too much came after it to tell. At most `WAITING_MAX` events wait for what may follow; another is skipped as
`too_many_waiting`. What is skipped isn't counted either.

A contract has at most `LEAVES_MAX` conditions that count to `COUNT_MAX` together. An instance remembers some 20 bytes
for each event that they count, 30 KB at most, and some 100 for each that waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from ..events import Event
from ..patterns import pattern
from .conditions import COUNT_MAX, Condition, described, selects
from .contract import Contract
from .instance import Instance, Memory, Skipped, State, Step, resolved, violated
from .keys import EventType, Keys, Period
from .leaves import Marks
from .rule import Case, Place, Rule

LEAVES_MAX = 50
WAITING_MAX = 100


class RequiresKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: requires`."""

    of: EventType
    if_: Condition = msgspec.field(name="if")
    same: Literal["subject", "any"] = "subject"
    clear_after: Period | None = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        yield from self.if_.mistakes("if")
        leaves = list(_leaves(self.if_))
        if len(leaves) > LEAVES_MAX:
            yield "if", f"must hold at most {LEAVES_MAX} conditions, not {len(leaves)}"
        if sum(leaf.count for leaf in leaves) > COUNT_MAX:
            yield "if", f"must count to at most {COUNT_MAX}, all conditions together"
        if self.same == "any" and self.by != "subject":
            yield "by", "can't stand beside same: any, which makes one instance of all events"


class RequiresMemory(Memory, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered beside what every kind does: the marks of each condition, the events that wait, the newest one
    that was allowed, the newest one that wasn't, and when a violation ends by itself."""

    marks: tuple[Marks, ...] = ()
    waiting: tuple[Case, ...] = ()
    allowed: Place | None = None
    denied: Place | None = None
    clear_at: int | None = None


class Requires(Contract):
    """See the module's text."""

    kind = "requires"
    keys_type = RequiresKeys
    memory_type = RequiresMemory
    takes_late = True
    keys: RequiresKeys

    def __init__(self, keys: RequiresKeys) -> None:
        self.for_all = keys.same == "any"
        self._is_of = selects(keys.of, keys.where)
        self._is_judged = pattern(keys.subject)
        super().__init__(keys)
        self._rule = Rule(keys.if_)

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return (self.keys.of, *self._rule.types)

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        clear_after = self.keys.clear_after
        return max(self._rule.after_microseconds, 0 if clear_after is None else clear_after.microseconds)

    @property
    def meaning(self) -> tuple[object, ...]:
        """See Contract."""
        return (*super().meaning, self.keys.same, *self._rule.meaning)

    def wants(self, event: Event) -> bool:
        """See Contract."""
        return self._judges(event) or self._rule.counts(event)

    def keeps(self, instance: Instance) -> bool:
        """See Contract."""
        memory, length = _memory(instance), len(self._rule.leaves)
        right = all(len(case.found) == length for case in memory.waiting) and len(memory.marks) in (0, length)
        return super().keeps(instance) and right

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        memory, rule = _memory(instance), self._rule
        cases = [rule.counted(case, event, at) for case in memory.waiting]
        if self._judges(event):
            quotes = self.quote(event) if self.quotes else ()
            new = rule.begun(memory.marks, event, at, watermark)
            new = replace(new, subject=event.subject if self.for_all else "", quotes=quotes)
            if rule.value(new) is None:
                if -1 in new.found:
                    return Skipped("late")
                if len(cases) >= WAITING_MAX:
                    return Skipped("too_many_waiting")
            cases.append(new)
        marks = rule.marked(memory.marks, event, at)
        memory = replace(memory, newest=max(memory.newest, at), event_id=event.id, marks=marks)
        return self._decided(instance, memory, cases, at)

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        at, memory = instance.deadline_at, _memory(instance)
        assert at is not None
        cases = [replace(case, passed=max(case.passed, at)) for case in memory.waiting]
        step = self._decided(instance, memory, cases, at)
        memory = _memory(step.instance)
        if memory.clear_at is not None and memory.clear_at <= at:
            observed = self.keys.of if _is_over(memory) else None
            step = self._standing(resolved(step.instance, at, replace(memory, observed=observed)), at)
        return step

    def adapted(self, instance: Instance) -> Instance:
        """See Contract."""
        memory = _memory(instance)
        if instance.state == "violated" and memory.denied is not None and not _is_over(memory):
            memory = replace(memory, clear_at=self._clear_at(max(instance.since, memory.denied[0])))
        return replace(instance, deadline_at=self._deadline(memory), memory=memory)

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract. What might have followed may follow still."""
        memory = _memory(instance)
        if not memory.waiting:
            return instance
        memory = replace(memory, waiting=tuple(replace(case, since=max(case.since, at)) for case in memory.waiting))
        return replace(instance, deadline_at=self._deadline(memory), memory=memory)

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract."""

        def move(at: int) -> int:
            return min(at + step_microseconds, now)

        def moved(place: Place | None) -> Place | None:
            return None if place is None else (move(place[0]), place[1])

        instance = super().stepped(instance, now, step_microseconds)
        before = _memory(instance)
        clear_at = before.clear_at
        if clear_at is not None:
            clear_at = min(clear_at + step_microseconds, now + self.patience_microseconds)
        memory = replace(
            before,
            marks=self._rule.moved(before.marks, move),
            waiting=tuple(
                replace(case, at=move(case.at), since=move(case.since), passed=move(case.passed))
                for case in before.waiting
            ),
            allowed=moved(before.allowed),
            denied=moved(before.denied),
            clear_at=clear_at,
        )
        if memory == before:
            return instance
        return replace(instance, deadline_at=self._deadline(memory), memory=memory)

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        return f"{self.keys.of} is not allowed: {observed}"

    def promise(self) -> str:
        """See Contract."""
        return f"{self.keys.of} happens only if {described(self.keys.if_)}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        clear_after = self.keys.clear_after
        alone = f", or {clear_after} after the last one that wasn't" if clear_after is not None else ""
        return f"the next {self.keys.of}{self.whose(instance)} that is allowed{alone}"

    def recalls(self, instance: Instance) -> str:
        """See Contract."""
        waiting = _memory(instance).waiting
        return f"{len(waiting)} {self.keys.of} of which it isn't certain yet" if waiting else ""

    def _judges(self, event: Event) -> bool:
        return self._is_of(event) and self._is_judged(event.subject)

    def _decided(self, instance: Instance, memory: RequiresMemory, cases: Sequence[Case], at: int) -> Step:
        """What becomes of the instance by the cases that are certain at `at`; the others wait."""
        values = [(self._rule.value(case), case) for case in cases]
        allowed = max((case.place for value, case in values if value), default=None)
        denied = max((case for value, case in values if value is False), default=None, key=_place)
        memory = replace(
            memory,
            waiting=tuple(case for value, case in values if value is None),
            allowed=_later(memory.allowed, allowed),
            denied=_later(memory.denied, None if denied is None else denied.place),
        )
        if instance.state == "violated":
            if denied is not None and denied.place == memory.denied:
                memory = replace(memory, observed=self._why(denied), clear_at=self._clear_at(at))
            if allowed is None or not _is_over(memory):
                return self._standing(Step(replace(instance, memory=memory)), at)
            at = max(at, allowed[0])
            return self._standing(resolved(instance, at, replace(memory, observed=self.keys.of)), at)
        if denied is None:
            return self._standing(Step(replace(instance, memory=memory)), at)
        at = max(at, denied.at)
        clear_at = self._clear_at(at)
        if memory.allowed is not None and _is_over(memory):
            clear_at = max(memory.allowed[0], at + 1)
        memory = replace(memory, observed=self._why(denied), cause_id=denied.id, clear_at=clear_at)
        if self.quotes:
            instance = replace(instance, quotes=denied.quotes)
        return self._standing(violated(instance, at, memory), at)

    def _why(self, case: Case) -> str:
        why = self._rule.why(case)
        return f"{case.subject}: {why}" if case.subject else why

    def _clear_at(self, denied_at: int) -> int | None:
        clear_after = self.keys.clear_after
        return None if clear_after is None else denied_at + clear_after.microseconds

    def _standing(self, step: Step, at: int) -> Step:
        """The step with what follows for the state, and when it changes by itself."""
        instance = step.instance
        memory = _memory(instance)
        if instance.state != "violated":
            memory = replace(memory, clear_at=None)
            state: State = "pending" if memory.waiting else "ok"
            since = instance.since if instance.state == state else at
            instance = replace(instance, state=state, since=since, memory=memory)
        return step._replace(instance=replace(instance, deadline_at=self._deadline(memory)))

    def _deadline(self, memory: RequiresMemory) -> int | None:
        ends = [*map(self._rule.ends_at, memory.waiting), memory.clear_at]
        return min((end for end in ends if end is not None), default=None)


def _memory(instance: Instance) -> RequiresMemory:
    memory = instance.memory
    if isinstance(memory, RequiresMemory):
        return memory
    return RequiresMemory(newest=memory.newest, event_id=memory.event_id)


def _is_over(memory: RequiresMemory) -> bool:
    """Whether the newest event that was decided on was allowed."""
    return memory.denied != _later(memory.denied, memory.allowed)


def _place(case: Case) -> Place:
    return case.place


def _later(one: Place | None, other: Place | None) -> Place | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _leaves(keys: Condition) -> Iterator[Condition]:
    parts = [part for _, part in keys.parts()]
    if not parts:
        yield keys
    for part in parts:
        yield from _leaves(part)
