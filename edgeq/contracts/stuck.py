"""`stuck`: a value must change. "A sensor that says 21.5 °C for two hours is broken."

Violated at an event whose value is the same as at an event `for` or longer before, and was the same at all between;
resolved by the event that says another one. With `change: X` the values are numbers, and one that is less than X away
from the first of them is the same: it is measured against that one and not against the last, so that a value that
creeps has changed when it is X away. Numbers are taken as they are written: from 0.2 to 0.3 is a change of 0.1.

Silence says nothing about a value: nothing happens without an event, and how long silence may last is for `absence` to
say. What was the same before and after it counts as the same, and its time counts, unless it lasted longer than `for`:
then `for` begins anew with the event after it.

A value is a text of at most 1000 characters, a number, true, false or null (1 and 1.0 are the same, 1 and true are
not); events without the field, with something else in it, with a longer text, or, with `change`, without a number are
skipped, and so are late ones.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from ..clock import rfc3339
from ..config import checks
from ..events import Event
from ..where import MISSING, field_path, is_number, lookup, parse_path
from .contract import Contract, say
from .instance import Instance, Memory, Skipped, Step, resolved, violated
from .keys import EventType, Keys, Period

TEXT_CHARS_MAX = 1000


class StuckKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: stuck`."""

    of: EventType
    field: Annotated[str, field_path] = "value"
    for_: Period = msgspec.field(name="for")
    change: Annotated[float, checks.positive] | None = None


class StuckMemory(Memory, frozen=True, kw_only=True):
    """`value` has been there since `held_from` (0: there was none yet)."""

    value: Any = None
    held_from: int = 0


class Stuck(Contract):
    """See the module's text."""

    kind = "stuck"
    keys_type = StuckKeys
    memory_type = StuckMemory
    keys: StuckKeys

    def __init__(self, keys: StuckKeys) -> None:
        super().__init__(keys)
        self._field = parse_path(keys.field)
        self._for = keys.for_.microseconds
        self._change = None if keys.change is None else _as_written(keys.change)

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return (self.keys.of,)

    @property
    def patience_microseconds(self) -> int:
        """See Contract. It waits for events alone."""
        return 0

    @property
    def meaning(self) -> tuple[object, ...]:
        """See Contract."""
        return (*super().meaning, self.keys.field, self._for, self.keys.change)

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract. How long the value has been there, and how long ago its last event was, stay what they are."""
        memory = _memory(instance)
        step = min(step_microseconds, now - memory.newest)
        if not memory.held_from or not step:
            return super().stepped(instance, now, step_microseconds)
        memory = replace(memory, newest=memory.newest + step, held_from=memory.held_from + step)
        return replace(instance, memory=memory)

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        value = lookup(event.data, self._field)
        reason = self._fault(value)
        if reason is not None:
            return Skipped(reason)
        before = _memory(instance)
        memory = replace(before, newest=at, event_id=event.id, observed=value)
        is_same = before.held_from > 0 and self._is_same(value, before.value)
        if instance.state == "violated":
            if is_same:
                return Step(replace(instance, memory=memory))
            return resolved(instance, at, replace(memory, value=value, held_from=at))
        if not is_same or at - before.newest > self._for:
            since = instance.since if instance.state == "ok" else at
            memory = replace(memory, value=value, held_from=at)
            return Step(replace(instance, state="ok", since=since, memory=memory))
        if at - before.held_from < self._for:
            return Step(replace(instance, memory=memory))
        return violated(instance, at, replace(memory, cause_id=event.id))

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        return Step(replace(instance, deadline_at=None))

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        keys = self.keys
        if keys.change is None:
            return f"{keys.field} unchanged for {keys.for_} (observed {say(observed)})"
        return f"{keys.field} changed by less than {say(keys.change)} for {keys.for_} (observed {say(observed)})"

    def promise(self) -> str:
        """See Contract."""
        by = "" if self.keys.change is None else f" by at least {say(self.keys.change)}"
        return f"{self.keys.field} of {self.keys.of} changes{by} within {self.keys.for_}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        first = _memory(instance).value
        other = f"other than {say(first)}"
        if self.keys.change is not None:
            other = f"at least {say(self.keys.change)} away from {say(first)}"
        return f"{self.keys.field} {other} in {self.keys.of}{self.whose(instance)}"

    def recalls(self, instance: Instance) -> str:
        """See Contract."""
        memory = _memory(instance)
        return f"{self.keys.field} {say(memory.value)} since {rfc3339(memory.held_from)}" if memory.held_from else ""

    def _fault(self, value: Any) -> str | None:
        """Why a value can't be judged, if it can't."""
        if value is MISSING:
            return "missing_field"
        if is_number(value):
            return None
        if self._change is not None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return "not_a_number"
        if isinstance(value, dict | list):
            return "not_a_scalar"
        return "too_long" if isinstance(value, str) and len(value) > TEXT_CHARS_MAX else None

    def _is_same(self, value: Any, first: Any) -> bool:
        if self._change is not None:
            return abs(_as_written(value) - _as_written(first)) < self._change
        return bool(value == first) and isinstance(value, bool) == isinstance(first, bool)


def _memory(instance: Instance) -> StuckMemory:
    memory = instance.memory
    if isinstance(memory, StuckMemory):
        return memory
    return StuckMemory(newest=memory.newest, event_id=memory.event_id)


def _as_written(number: float) -> Decimal:
    return Decimal(repr(number))
