"""`sequence`: events in an order. "A delivery is announced, weighed and signed for within an hour." "Nobody opens the
door, switches the alarm off and unlocks the safe within a minute."

`steps` are two to five types of events, each perhaps with a `where` of its own; the contract's `where` is about all of
them. Each event of the first step begins a run of its own, which goes on with the first event of the next step that
comes after it, and so on; other events in between, and further ones of the same step, don't matter. A run has until
`within` after it began, exactly then included. Events of one moment go by their order. One event takes a run on by one
step, and may do so for many runs, and begin one.

- `must: happen` (default): a run that isn't complete in time violates the contract when its time is over. It goes on:
  resolved when all that are late are complete, which says how late the last of them was, counted from the beginning of
  the violation.
- `must: not_happen`: a run that is complete in time violates the contract, at its last event. Resolved when no other
  was complete for as long as `clear_after` (default: `within`); another one until then, exactly then included, belongs
  to the same episode.

Any number of runs may be under way. Of those that wait for the same step only one makes a difference and is remembered:
of what must happen the oldest, of what must not the newest. An event older than the newest one of its instance isn't
judged (`late`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from ..clock import rfc3339
from ..events import Event
from ..units import Duration, spoken
from ..where import where_faults
from .conditions import Which, selects, told
from .contract import Contract
from .instance import Instance, Memory, Skipped, State, Step, resolved, violated
from .keys import EventType, Keys, Period


def _two_to_five(steps: Sized) -> None:
    if not 2 <= len(steps) <= 5:
        raise ValueError("must be two to five steps")


class SequenceKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: sequence`."""

    steps: Annotated[list[Which | EventType], _two_to_five]
    within: Period
    must: Literal["happen", "not_happen"] = "happen"
    clear_after: Period | None = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        for index, step in enumerate(self.steps):
            if isinstance(step, Which):
                yield from where_faults(step.where, f"steps[{index}].where")
        if self.must == "happen" and self.clear_after is not None:
            yield "clear_after", "belongs to must: not_happen; what must happen is resolved when it has happened"


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run: how many steps it has `seen`, when it began (microseconds since 1970 UTC), with which event and what the
    message needs of that, and whether it is too late."""

    seen: int
    began_at: int
    event_id: int
    late: bool = False
    quotes: tuple[str, ...] = ()


class SequenceMemory(Memory, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered beside what every kind does: the runs and, while it is violated by what must not happen, when
    that did last."""

    runs: tuple[Run, ...] = ()
    complete_at: int | None = None


class EventSequence(Contract):
    """See the module's text."""

    kind = "sequence"
    keys_type = SequenceKeys
    memory_type = SequenceMemory
    keys: SequenceKeys

    def __init__(self, keys: SequenceKeys) -> None:
        super().__init__(keys)
        self._steps = [step if isinstance(step, Which) else Which(of=step) for step in keys.steps]
        self._fits = [selects(step.of, step.where) for step in self._steps]
        self._names = [told(step.of, step.where) for step in self._steps]
        self._must_happen = keys.must == "happen"
        self._within = keys.within.microseconds
        self._clear_after = (keys.clear_after or keys.within).microseconds
        self._missing = {_then(self._names[:seen]): _then(self._names[seen:]) for seen in range(1, len(self._names))}

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return tuple(step.of for step in self._steps)

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return self._within if self._must_happen else self._clear_after

    @property
    def meaning(self) -> tuple[object, ...]:
        """See Contract."""
        return (*super().meaning, self.keys.must, [step.where for step in self._steps])

    def wants(self, event: Event) -> bool:
        """See Contract."""
        return self.fits_where(event) and any(fits(event) for fits in self._fits)

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        memory = replace(_memory(instance), newest=at, event_id=event.id)
        runs, complete = self._went_on(memory.runs, event, at)
        memory = replace(memory, runs=runs)
        if complete is None:
            step = Step(replace(instance, memory=memory))
        elif self._must_happen:
            step = self._kept(instance, memory, event, at)
        else:
            step = self._broken(instance, memory, complete, at)
        return self._standing(step, at)

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        at, memory = instance.deadline_at, _memory(instance)
        assert at is not None
        if not self._must_happen:
            return self._standing(resolved(instance, at, replace(memory, observed=None)), at)
        runs = tuple(replace(run, late=run.late or run.began_at + self._within <= at) for run in memory.runs)
        memory = replace(memory, runs=runs)
        late = next((run for run in runs if run.late), None)
        if late is None or instance.state == "violated":
            return self._standing(Step(replace(instance, memory=memory)), at)
        memory = replace(memory, cause_id=late.event_id, observed=_then(self._names[: late.seen]))
        quotes = late.quotes if self.quotes else instance.quotes
        return self._standing(violated(replace(instance, quotes=quotes), at, memory), at)

    def adapted(self, instance: Instance) -> Instance:
        """See Contract."""
        return replace(instance, deadline_at=self._deadline(_memory(instance)))

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract. What must happen has its full time from now on."""
        if not self._must_happen:
            return instance
        memory = _memory(instance)
        runs = (run if run.late else replace(run, began_at=max(run.began_at, at)) for run in memory.runs)
        return self.adapted(replace(instance, memory=replace(memory, runs=tuple(runs))))

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract."""
        instance = super().stepped(instance, now, step_microseconds)
        before = _memory(instance)
        complete_at = before.complete_at
        if complete_at is not None:
            complete_at = min(complete_at + step_microseconds, now)
        runs = tuple(replace(run, began_at=min(run.began_at + step_microseconds, now)) for run in before.runs)
        memory = replace(before, runs=runs, complete_at=complete_at)
        return instance if memory == before else self.adapted(replace(instance, memory=memory))

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        if self._must_happen:
            missing = self._missing.get(observed, self._names[-1])
            return f"{observed}, but no {missing} within {self.keys.within}"
        return f"{observed}, which must not happen within {self.keys.within}"

    def promise(self) -> str:
        """See Contract."""
        return f"{_then(self._names)} {'happen' if self._must_happen else 'never happen'} within {self.keys.within}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        if not self._must_happen:
            return f"{Duration(self._clear_after / 1e6)} without {_then(self._names)}{self.whose(instance)}"
        runs = _memory(instance).runs
        missing = [_then(self._names[run.seen :]) for run in runs if run.late or instance.state != "violated"]
        return f"{' and '.join(missing)}{self.whose(instance)}" if missing else ""

    def recalls(self, instance: Instance) -> str:
        """See Contract."""
        runs = _memory(instance).runs
        return "; ".join(f"{_then(self._names[: run.seen])} since {rfc3339(run.began_at)}" for run in runs)

    def _went_on(self, before: tuple[Run, ...], event: Event, at: int) -> tuple[tuple[Run, ...], Run | None]:
        """The runs after `event`, from the oldest on, and the one that is complete, if one is."""
        runs = {run.seen: run for run in before if self._must_happen or at <= run.began_at + self._within}
        complete = None
        for seen in range(len(self._fits) - 1, 0, -1):
            if seen in runs and self._fits[seen](event):
                run = runs.pop(seen)
                if seen + 1 == len(self._fits):
                    complete = run
                else:
                    self._join(runs, replace(run, seen=seen + 1))
        if self._fits[0](event):
            quotes = self.quote(event) if self.quotes and self._must_happen else ()
            self._join(runs, Run(seen=1, began_at=at, event_id=event.id, quotes=quotes))
        return tuple(runs[seen] for seen in sorted(runs, reverse=True)), complete

    def _join(self, runs: dict[int, Run], run: Run) -> None:
        """Put a run to those that wait for the same step, which are older."""
        if run.seen not in runs or not self._must_happen:
            runs[run.seen] = run

    def _kept(self, instance: Instance, memory: SequenceMemory, event: Event, at: int) -> Step:
        """What must happen has happened."""
        if instance.state != "violated" or any(run.late for run in memory.runs):
            return Step(replace(instance, memory=memory))
        late = max(0, at - instance.since) / 1e6
        return resolved(instance, at, replace(memory, observed=event.type), late_by_seconds=late)

    def _broken(self, instance: Instance, memory: SequenceMemory, run: Run, at: int) -> Step:
        """What must not happen has happened."""
        observed = f"{_then(self._names)} in {spoken((at - run.began_at) / 1e6)}"
        memory = replace(memory, observed=observed, complete_at=at)
        if instance.state == "violated":
            return Step(replace(instance, memory=memory))
        return violated(instance, at, replace(memory, cause_id=memory.event_id))

    def _standing(self, step: Step, at: int) -> Step:
        """The step with what follows for the state, and when it changes by itself."""
        instance, memory = step.instance, _memory(step.instance)
        if instance.state != "violated":
            memory = replace(memory, complete_at=None)
            state: State = "pending" if self._must_happen and memory.runs else "ok"
            since = instance.since if instance.state == state else at
            instance = replace(instance, state=state, since=since, memory=memory)
        return step._replace(instance=replace(instance, deadline_at=self._deadline(memory)))

    def _deadline(self, memory: SequenceMemory) -> int | None:
        if not self._must_happen:
            return None if memory.complete_at is None else memory.complete_at + self._clear_after
        return min((run.began_at + self._within for run in memory.runs if not run.late), default=None)


def _memory(instance: Instance) -> SequenceMemory:
    memory = instance.memory
    if isinstance(memory, SequenceMemory):
        return memory
    return SequenceMemory(newest=memory.newest, event_id=memory.event_id)


def _then(names: list[str]) -> str:
    return ", then ".join(names)
