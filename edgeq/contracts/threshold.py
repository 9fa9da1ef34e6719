"""`threshold`: a value must keep to its limits. "The freezer isn't warmer than -15 °C for ten minutes."

The keys say what violates: a number `above` a limit, one `below` a limit (at the limit is neither; both limits together
say that what lies outside violates), one that is `between: [low, high]` (at either is between), or a number, a text,
true or false that the value `equals`. A value of another sort, such as a text where the limit is a number, says
nothing: its event is skipped, and so is one without the field, and a late one.

Violated when that has been so for as long as `for` says, without a break (at once without `for`). Resolved when it is
no longer so or, with limits in `clear`, when the value is beyond those, on the good side, for as long as `clear.for`
says; a value that isn't clear begins `clear.for` anew.

A value holds until the next one comes, so the end of `for` doesn't wait for an event. How long it holds at most may be
said with `gap`, exactly as long included; what becomes then says `on_gap`:

- `hold` (default, without `gap`): it holds on.
- `unknown`: nothing is known, which is told, and is neither a violation nor a recovery. With the next value `for`
  begins anew; a violation that was open goes on with it, or ends if it is clear. A value that is older than that
  already when it comes, because a device had stored it up, changes nothing.
- `reset`: `for` and `clear.for` begin anew with the next value. What is violated remains so.

At one moment the gap comes before the end of `for`: with both of ten minutes, one value alone violates nothing.

With other limits, or another `for`, a state is what the last value makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from ..clock import rfc3339
from ..events import Event
from ..units import Duration
from ..where import field_path, lookup, parse_path
from .contract import Contract, say
from .instance import Instance, Memory, Skipped, Step, resolved, unknown, violated
from .keys import EventType, Period
from .limits import LimitKeys, clearing, compile_beyond, compile_clear, value_fault, violating, words


class ThresholdKeys(LimitKeys, frozen=True, kw_only=True):
    """The keys of `kind: threshold`."""

    of: EventType
    field: Annotated[str, field_path] = "value"
    for_: Duration = msgspec.field(name="for", default=Duration(0))
    gap: Period | None = None
    on_gap: Literal["unknown", "hold", "reset"] = "hold"

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        if self.gap is None and self.on_gap != "hold":
            yield "on_gap", "needs gap: for how long a value holds"
        elif self.gap is not None and self.on_gap == "hold":
            yield "gap", "needs on_gap: unknown or reset; otherwise a value holds until the next one"
        elif self.on_gap == "reset" and not (self.for_ or self.clear.for_):
            yield "on_gap", "needs for or clear.for, which begin anew with reset"


class ThresholdMemory(Memory, frozen=True, kw_only=True, omit_defaults=True):
    """`held_from`: since when it has been as it must be for `for`, or while violated for `clear.for`. `silent_from`:
    since when silence counts, where that isn't the newest event. `interrupted`: it was violated when it became unknown.
    Times are microseconds since 1970 UTC."""

    held_from: int | None = None
    silent_from: int | None = None
    interrupted: bool = False


class Threshold(Contract):
    """See the module's text."""

    kind = "threshold"
    keys_type = ThresholdKeys
    memory_type = ThresholdMemory
    keys: ThresholdKeys

    def __init__(self, keys: ThresholdKeys) -> None:
        super().__init__(keys)
        self._field = parse_path(keys.field)
        self._fault = value_fault(keys.equals)
        self._is_beyond = compile_beyond(keys)
        self._is_clear = compile_clear(keys, self._is_beyond)
        self._for = keys.for_.microseconds
        self._clear_for = keys.clear.for_.microseconds
        self._gap = 0 if keys.gap is None else keys.gap.microseconds
        self._becomes_unknown = keys.on_gap == "unknown"

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return (self.keys.of,)

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return max(self._for, self._clear_for, self._gap)

    @property
    def meaning(self) -> tuple[object, ...]:
        """See Contract."""
        equals = self.keys.equals
        sort = "text" if isinstance(equals, str) else "truth" if isinstance(equals, bool) else "number"
        return (*super().meaning, self.keys.field, sort)

    def adapted(self, instance: Instance) -> Instance:
        """See Contract."""
        memory = _memory(instance)
        value, state, held_from = memory.observed, instance.state, memory.held_from
        if state == "unknown" or self._fault(value) is not None:
            return instance
        if state == "violated":
            lasts = self._is_clear(value)
            state = "ok" if lasts and not self._clear_for else state
        else:
            lasts = self._is_beyond(value)
            state = "pending" if lasts else "ok"
        since = instance.since if state == instance.state else memory.newest
        memory = replace(
            memory,
            held_from=None if not lasts or state == "ok" else memory.newest if held_from is None else held_from,
            cause_id=memory.event_id if (instance.state, state) == ("ok", "pending") else memory.cause_id,
        )
        return self._waiting(replace(instance, state=state, since=since, memory=memory))

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract."""
        if instance.state == "unknown" or not self._gap:
            return instance
        return self._waiting(replace(instance, memory=replace(_memory(instance), silent_from=at)))

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract."""
        before = _memory(instance)
        instance = super().stepped(instance, now, step_microseconds)
        if instance.deadline_at is None:
            return instance

        def moved(at: int) -> int:
            return min(at + step_microseconds, now)

        memory = replace(_memory(instance), held_from=None if before.held_from is None else moved(before.held_from))
        if self._gap and (silent_from := moved(_silent_from(before))) != _silent_from(memory):
            memory = replace(memory, silent_from=silent_from)
        return instance if memory == instance.memory else self._waiting(replace(instance, memory=memory))

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        value = lookup(event.data, self._field)
        fault = self._fault(value)
        if fault is not None:
            return Skipped(fault)
        memory = replace(_memory(instance), newest=at, event_id=event.id, observed=value)
        if self._gap:
            if memory.silent_from is not None and memory.silent_from <= at:
                memory = replace(memory, silent_from=None)
            if self._becomes_unknown and instance.state == "unknown" and at + self._gap < watermark:
                return Step(replace(instance, memory=memory))
        if instance.state == "violated" or memory.interrupted:
            step = self._still_violated(instance, memory, at)
        elif not self._is_beyond(value):
            since = instance.since if instance.state == "ok" else at
            memory = replace(memory, held_from=None)
            step = Step(replace(instance, state="ok", since=since, deadline_at=None, memory=memory))
        elif instance.state == "pending":
            step = Step(replace(instance, memory=memory))
        elif self._for:
            memory = replace(memory, cause_id=event.id, held_from=at)
            step = Step(replace(instance, state="pending", since=at, memory=memory))
        else:
            step = violated(instance, at, replace(memory, cause_id=event.id))
        return step._replace(instance=self._waiting(step.instance)) if self._waits(step.instance) else step

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        at, before = instance.deadline_at, _memory(instance)
        assert at is not None
        memory = replace(before, held_from=None)
        if self._gap and at >= _silent_from(before) + self._gap:
            if self._becomes_unknown:
                return unknown(instance, at, replace(memory, interrupted=instance.state == "violated"))
            if instance.state == "pending":
                instance = replace(instance, state="unknown", since=at)
            return Step(replace(instance, deadline_at=None, memory=memory))
        step = (resolved if instance.state == "violated" else violated)(instance, at, memory)
        return step._replace(instance=self._waiting(step.instance))

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        lasting = f" for {self.keys.for_}" if self.keys.for_ else ""
        return f"{self.keys.field} {words(self.keys, observed)}{lasting} (observed {say(observed)})"

    def promise(self) -> str:
        """See Contract."""
        lasting = f" for {self.keys.for_}" if self.keys.for_ else ""
        return f"{self.keys.field} of {self.keys.of} isn't {violating(self.keys)}{lasting}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        wanted = clearing(self.keys) if instance.state == "violated" else f"that isn't {violating(self.keys)}"
        lasting = f" for {self.keys.clear.for_}" if instance.state == "violated" and self._clear_for else ""
        return f"{self.keys.field} {wanted}{lasting} in {self.keys.of}{self.whose(instance)}"

    def recalls(self, instance: Instance) -> str:
        """See Contract."""
        held_from = _memory(instance).held_from
        if held_from is None:
            return ""
        what = clearing(self.keys) if instance.state == "violated" else violating(self.keys)
        return f"{self.keys.field} {what} since {rfc3339(held_from)}"

    def _still_violated(self, instance: Instance, memory: ThresholdMemory, at: int) -> Step:
        """A violated instance, or one that was when it became unknown, after a value."""
        is_clear = self._is_clear(memory.observed)
        held_from = memory.held_from if memory.held_from is not None else at
        goes_on = replace(memory, held_from=held_from if is_clear else None, interrupted=False)
        if is_clear and not self._clear_for:
            if instance.state == "violated":
                return resolved(instance, at, replace(goes_on, held_from=None))
            return Step(replace(instance, state="ok", since=at, memory=replace(goes_on, held_from=None)))
        if instance.state == "violated":
            return Step(replace(instance, deadline_at=None, memory=goes_on))
        return violated(instance, at, goes_on)

    def _waits(self, instance: Instance) -> bool:
        """Whether something may happen to the instance without an event."""
        return self._gap > 0 or _memory(instance).held_from is not None

    def _waiting(self, instance: Instance) -> Instance:
        """The instance with when something happens to it without an event."""
        memory, ends = _memory(instance), []
        if memory.held_from is not None:
            ends.append(memory.held_from + (self._clear_for if instance.state == "violated" else self._for))
        if self._gap and (ends or (self._becomes_unknown and instance.state != "unknown")):
            ends.append(_silent_from(memory) + self._gap)
        return replace(instance, deadline_at=min(ends, default=None))


def _memory(instance: Instance) -> ThresholdMemory:
    memory = instance.memory
    if isinstance(memory, ThresholdMemory):
        return memory
    return ThresholdMemory(newest=memory.newest, event_id=memory.event_id)


def _silent_from(memory: ThresholdMemory) -> int:
    return memory.newest if memory.silent_from is None else memory.silent_from
