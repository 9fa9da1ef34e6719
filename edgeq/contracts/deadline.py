"""`deadline`: after one event another must follow in time. "The door is closed within five minutes of being opened."

Each `after` opens a deadline of its own, `within` later; an `expect` closes all that were opened before it, so that a
door that was opened twice is closed once. To have each request answered by its own response, make instances of them:
`by: data.request`. Of one moment, events go by their order; exactly at the deadline is in time. One event may be both:
it closes what is open, and opens a deadline itself. `where` is about the `after` event: any `expect` event of the
instance will do.

Violated at the first deadline that passes. Further ones that pass belong to the same violation. Resolved by the
`expect` after which no deadline is open that has passed, and that says how late it came (`late_by_seconds`, from the
first of those deadlines on).

Late events are put where they belong: an `expect` closes what was opened before its own time, and an `after` opens
nothing when a later `expect` was there already, also if that came too late for it. Of what was told nothing is taken
back. An `after` of which nobody had heard before its deadline passed (from a device that sends what it had stored up)
is judged another `lateness` later, so that its `expect` may follow it; it is judged by the time at which that happened.

An instance remembers of the open deadlines the first, and those that a late `expect` may still leave open: those
opened within `lateness`, at most 1,000. An `after` beyond is skipped (`too_many_open`). Each takes at most 100 bytes in
the store, and 1,200 more for each {data.FIELD} of `message` (200 characters, as JSON writes them), of which there are 8
at most: 100 kB an instance, or 10 MB with the longest quotes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from ..clock import rfc3339
from ..events import Event
from ..patterns import pattern
from .contract import Contract
from .instance import Instance, Memory, Skipped, Step, resolved, violated
from .keys import EventType, Keys, Period

OPEN_MAX = 1000


class DeadlineKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: deadline`."""

    after: EventType
    expect: EventType
    within: Period


class Opened(msgspec.Struct, frozen=True, array_like=True):
    """An `after` event: when it happened, its id, up to when time had passed when it was heard of, if that was after
    its deadline (else 0), and what the message needs of it. Times are microseconds since 1970 UTC."""

    at: int
    event_id: int
    heard_at: int = 0
    quotes: tuple[str, ...] = ()


class DeadlineMemory(Memory, frozen=True, kw_only=True, omit_defaults=True):
    """`open`: what waits for an `expect`, from the oldest on. `answered_at`: when the newest `expect` happened.
    `waits_from`: waiting counts from then on. `ended_at`: when a violation was over of which that is yet to be told.
    Times are microseconds since 1970 UTC; 0 where there is none."""

    open: tuple[Opened, ...] = ()
    answered_at: int = 0
    waits_from: int = 0
    ended_at: int = 0


class Deadline(Contract):
    """See the module's text."""

    kind = "deadline"
    keys_type = DeadlineKeys
    memory_type = DeadlineMemory
    takes_late = True
    keys: DeadlineKeys

    def __init__(self, keys: DeadlineKeys) -> None:
        super().__init__(keys)
        self._is_after = pattern(keys.after)
        self._is_expected = pattern(keys.expect)
        self._within = keys.within.microseconds

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return self.keys.after, self.keys.expect

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return max(self._within, self.lateness_microseconds)

    def wants(self, event: Event) -> bool:
        """See Contract."""
        return self._is_expected(event.type) or self._opens(event)

    def adapted(self, instance: Instance) -> Instance:
        """See Contract. What is violated stays so."""
        return self._waiting(instance)

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract. What waits has its full time from now on."""
        memory = _memory(instance)
        if not memory.open:
            return instance
        return self._waiting(replace(instance, memory=replace(memory, waits_from=at)))

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract."""

        def moved(at: int) -> int:
            return min(at + step_microseconds, now) if at else 0

        before = _memory(instance)
        opened = tuple(replace(each, at=moved(each.at), heard_at=moved(each.heard_at)) for each in before.open)
        instance = super().stepped(instance, now, step_microseconds)
        memory = replace(
            _memory(instance),
            open=opened,
            answered_at=moved(before.answered_at),
            waits_from=moved(before.waits_from),
            ended_at=moved(before.ended_at),
        )
        return instance if memory == instance.memory else self._waiting(replace(instance, memory=memory))

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        before = _memory(instance)
        memory = replace(before, newest=max(before.newest, at), event_id=event.id)
        step = Step(instance)
        if self._is_expected(event.type):
            step = self._answered(instance, memory, event, at, watermark)
            memory = _memory(step.instance)
        if self._opens(event) and at >= memory.answered_at:
            if len(memory.open) >= OPEN_MAX:
                return Skipped("too_many_open")
            opened = Opened(at=at, event_id=event.id, quotes=self.quote(event) if self.quotes else ())
            if self._due_at(opened, memory) < watermark:
                opened = replace(opened, heard_at=watermark)
            is_newest = not memory.open or memory.open[-1].at <= at
            waiting = (*memory.open, opened)
            waiting = waiting if is_newest else tuple(sorted(waiting, key=lambda each: each.at))
            memory = replace(memory, open=waiting)
        return Step(self._standing(step.instance, memory, at), step.verdict)

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        at, memory = instance.deadline_at, _memory(instance)
        assert at is not None
        if instance.state == "violated":
            step = _closed(instance, memory, memory.ended_at, self.keys.expect)
        else:
            stored = Opened(at=at - self._within, event_id=memory.cause_id)  # by a version that remembered no others
            passed = min(memory.open, key=lambda each: self._judged_at(each, memory), default=stored)
            step = self._broken(instance, memory, passed)
        return Step(self._standing(step.instance, _memory(step.instance), at), step.verdict)

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        return f"no {self.keys.expect} within {self.keys.within} of {self.keys.after}"

    def promise(self) -> str:
        """See Contract."""
        return f"after {self.keys.after}, {self.keys.expect} comes within {self.keys.within}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        return f"{self.keys.expect}{self.whose(instance)}"

    def recalls(self, instance: Instance) -> str:
        """See Contract."""
        opened = _memory(instance).open
        return f"{self.keys.after} without an answer since {rfc3339(opened[0].at)}" if opened else ""

    def _opens(self, event: Event) -> bool:
        return self._is_after(event.type) and self.fits_where(event)

    # Steps

    def _answered(self, instance: Instance, memory: DeadlineMemory, event: Event, at: int, watermark: int) -> Step:
        """What an `expect` event makes of an instance."""
        closed = [each for each in memory.open if each.at <= at]
        memory = replace(memory, open=memory.open[len(closed) :], answered_at=max(memory.answered_at, at))
        if instance.state == "violated":
            if any(self._due_at(each, memory) < watermark for each in memory.open):
                return Step(replace(instance, memory=memory))
            return _closed(instance, memory, memory.ended_at or at, event.type)
        if watermark > 0 or at < event.recorded_at:  # otherwise it may have happened before
            for each in closed:
                if each.heard_at and self._due_at(each, memory) < at:
                    return self._broken(instance, replace(memory, ended_at=at), each)
        return Step(replace(instance, memory=memory))

    def _broken(self, instance: Instance, memory: DeadlineMemory, opened: Opened) -> Step:
        """The deadline of what was opened passed without an answer."""
        memory = replace(memory, cause_id=opened.event_id, observed=None)
        quotes = opened.quotes if self.quotes else instance.quotes
        return violated(replace(instance, quotes=quotes), self._due_at(opened, memory), memory)

    def _standing(self, instance: Instance, memory: DeadlineMemory, at: int) -> Instance:
        """The instance as it stands with what is open at `at`."""
        matters = self._that_matter(memory)
        if instance.state != "violated" and matters:
            first = matters[0]
            quotes = first.quotes if self.quotes else instance.quotes
            memory = replace(memory, open=matters, cause_id=first.event_id, observed=None)
            return self._waiting(replace(instance, state="pending", since=first.at, quotes=quotes, memory=memory))
        if instance.state not in ("violated", "ok"):
            instance = replace(instance, state="ok", since=at)
        return self._waiting(replace(instance, memory=replace(memory, open=matters)))

    def _that_matter(self, memory: DeadlineMemory) -> tuple[Opened, ...]:
        """What is open, without what can be closed only together with the oldest, and passes later than that."""
        if len(memory.open) < 2:
            return memory.open
        late_from = memory.newest - self.lateness_microseconds
        early = sum(each.at <= late_from for each in memory.open)
        return memory.open if early < 2 or memory.open[0].heard_at else (memory.open[0], *memory.open[early:])

    # Times

    def _waiting(self, instance: Instance) -> Instance:
        """The instance with when something happens to it without an event."""
        memory, deadline_at = _memory(instance), None
        if instance.state == "pending":
            deadline_at = min((self._judged_at(each, memory) for each in memory.open), default=instance.deadline_at)
        elif instance.state == "violated":
            deadline_at = memory.ended_at or None
        return instance if deadline_at == instance.deadline_at else replace(instance, deadline_at=deadline_at)

    def _due_at(self, opened: Opened, memory: DeadlineMemory) -> int:
        return max(opened.at, memory.waits_from) + self._within

    def _judged_at(self, opened: Opened, memory: DeadlineMemory) -> int:
        """When it counts that there is no answer."""
        if not opened.heard_at:
            return self._due_at(opened, memory)
        return max(opened.heard_at, memory.waits_from) + self.lateness_microseconds


def _memory(instance: Instance) -> DeadlineMemory:
    memory = instance.memory
    if isinstance(memory, DeadlineMemory):
        return memory
    return DeadlineMemory(newest=memory.newest, event_id=memory.event_id)


def _closed(instance: Instance, memory: DeadlineMemory, at: int, observed: str) -> Step:
    """The violation ends at `at`."""
    late_by_seconds = max(0, at - instance.since) / 1e6
    return resolved(instance, at, replace(memory, observed=observed, ended_at=0), late_by_seconds=late_by_seconds)
