"""`absence`: events of a type must keep coming. "The freezer reports every ten minutes."

Violated when the newest event is more than `every` + `grace` old, resolved by the next event that isn't that old
itself: a device that sends what it had stored up is heard, but not up to date before its newest reading. A subject is
watched from its first event on; one named in `known` from when the contract was first loaded, and so it is violated one
period later if nothing was ever heard of it. An event older than the newest one of its instance says nothing (`late`),
and one older than when the watching began doesn't shorten the first period.

With another `every` or `grace`, what isn't violated has its deadline where it belongs now; a violation stands until the
next event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from ..clock import rfc3339
from ..events import Event
from ..units import Duration
from .contract import Contract
from .instance import Instance, Memory, Skipped, Step, resolved, violated
from .keys import EventType, Period
from .known import KnownKeys, is_watched


class AbsenceKeys(KnownKeys, frozen=True, kw_only=True):
    """The keys of `kind: absence`."""

    of: EventType
    every: Period
    grace: Duration = Duration(0)


class AbsenceMemory(Memory, frozen=True, kw_only=True, omit_defaults=True):
    """`silent_from`: since when silence counts, where that isn't the newest event (microseconds since 1970 UTC)."""

    silent_from: int | None = None


class Absence(Contract):
    """See the module's text."""

    kind = "absence"
    keys_type = AbsenceKeys
    memory_type = AbsenceMemory
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
        for subject in self.keys.known:
            yield self._silent(Instance(subject=subject, state="unknown", since=now), now)

    def keeps(self, instance: Instance) -> bool:
        """See Contract."""
        return super().keeps(instance) and is_watched(instance, self.keys)

    def adapted(self, instance: Instance) -> Instance:
        """See Contract."""
        if instance.deadline_at is None:
            return instance
        return replace(instance, deadline_at=_silent_from(instance) + self.patience_microseconds)

    def resume(self, instance: Instance, at: int) -> Instance:
        """See Contract. It has one period from then on."""
        return self._silent(super().resume(instance, at), at)

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract. It has one period from then on."""
        return instance if instance.state == "violated" else self._silent(instance, at)

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract."""
        if instance.deadline_at is None:
            return super().stepped(instance, now, step_microseconds)
        silent_from = min(_silent_from(instance) + step_microseconds, now)
        moved = super().stepped(instance, now, step_microseconds)
        return moved if silent_from == _silent_from(instance) else self._silent(moved, silent_from)

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        silent_from = _silent_from(instance)
        kept = silent_from if silent_from > at else None
        memory = AbsenceMemory(newest=at, event_id=event.id, cause_id=event.id, silent_from=kept)
        deadline_at = max(at, silent_from) + self.patience_microseconds
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

    def promise(self) -> str:
        """See Contract."""
        grace = f", with {self.keys.grace} of grace" if self.keys.grace else ""
        return f"{self.keys.of} comes at least every {self.keys.every}{grace}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        period = Duration(self.keys.every + self.keys.grace)
        return f"{self.keys.of}{self.whose(instance)} that isn't older than {period}"

    def _silent(self, instance: Instance, since: int) -> Instance:
        """An instance whose silence counts since then."""
        before = instance.memory
        memory = AbsenceMemory(
            newest=before.newest, event_id=before.event_id, cause_id=before.cause_id, observed=before.observed,
            silent_from=since,
        )  # fmt: skip
        return replace(instance, deadline_at=since + self.patience_microseconds, memory=memory)


def _silent_from(instance: Instance) -> int:
    memory = instance.memory
    silent_from = memory.silent_from if isinstance(memory, AbsenceMemory) else None
    return (memory.newest or instance.since) if silent_from is None else silent_from
