"""`absence`: events of a type must keep coming. "The freezer reports every ten minutes."

Violated when the newest event is more than `every` + `grace` old, resolved by the next event that isn't that old
itself: a device that sends what it had stored up is heard, but not up to date before its newest reading. A subject is
watched from its first event on; one named in `known` from when the contract was first loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from ..clock import rfc3339
from ..events import Event
from ..patterns import pattern
from ..units import Duration
from .contract import Contract
from .instance import Instance, Memory, Skipped, Step, resolved, violated
from .keys import EventType, Keys, Period


class AbsenceKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: absence`."""

    of: EventType
    every: Period
    grace: Duration = Duration(0)
    known: list[str] = msgspec.field(default_factory=list)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        fits = pattern(self.subject)
        for index, subject in enumerate(self.known):
            if self.by == "subject" and not fits(subject):
                yield f"known[{index}]", f"{subject!r} doesn't fit subject: {self.subject}"


class Absence(Contract):
    """See the module's text."""

    kind = "absence"
    keys_type = AbsenceKeys
    keys: AbsenceKeys

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return (self.keys.of,)

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return self.keys.every.microseconds + self.keys.grace.microseconds

    def initial(self, now: int) -> Iterable[Instance]:
        """See Contract."""
        deadline_at = now + self.patience_microseconds
        for subject in self.keys.known:
            yield Instance(subject=subject, state="unknown", since=now, deadline_at=deadline_at)

    def keeps(self, instance: Instance) -> bool:
        """See Contract."""
        seen = instance.memory.event_id > 0
        return super().keeps(instance) and (seen or instance.subject in self.keys.known)

    def resume(self, instance: Instance, at: int) -> Instance:
        """See Contract. It has one period from then on."""
        return replace(super().resume(instance, at), deadline_at=at + self.patience_microseconds)

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract. It has one period from then on."""
        return (
            instance if instance.state == "violated" else replace(instance, deadline_at=at + self.patience_microseconds)
        )

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        memory = Memory(newest=at, event_id=event.id, cause_id=event.id)
        deadline_at = at + self.patience_microseconds
        if instance.state != "violated":
            since = instance.since if instance.state == "ok" else at
            return Step(replace(instance, state="ok", since=since, deadline_at=deadline_at, memory=memory))
        if deadline_at < watermark:
            return Step(replace(instance, memory=memory))
        step = resolved(instance, at, replace(memory, observed=rfc3339(at)))
        return step._replace(instance=replace(step.instance, deadline_at=deadline_at))

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        assert instance.deadline_at is not None
        newest = instance.memory.newest
        memory = replace(instance.memory, observed=rfc3339(newest) if newest else None)
        return violated(instance, instance.deadline_at, memory)

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        period = Duration(self.keys.every + self.keys.grace)
        return f"no {self.keys.of} for {period} ({'never seen' if observed is None else f'last {observed}'})"
