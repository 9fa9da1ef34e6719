"""`threshold`: a number must stay within a limit. "The freezer isn't warmer than -15 °C for ten minutes."

Violated when the value has been beyond the limit for as long as `for` says (at once without); at the limit is not
beyond it. A value holds until the next one comes, so the end of `for` doesn't wait for an event. Resolved when the
value is no longer beyond the limit, or with `clear`, when it has been beyond that other limit, on the good side, for
as long as `clear.for` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from ..config.schema import Record
from ..events import Event
from ..units import Duration
from .contract import Contract, say
from .instance import Instance, Skipped, Step, resolved, violated
from .keys import EventType, Keys
from .where import MISSING, field_path, is_number, lookup, parse_path


class Clear(Record, frozen=True, kw_only=True):
    """`clear`: the limit on the good side, and for how long the value must be beyond it."""

    above: float | None = None
    below: float | None = None
    for_: Duration = msgspec.field(name="for", default=Duration(0))


class ThresholdKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: threshold`."""

    of: EventType
    field: Annotated[str, field_path] = "value"
    above: float | None = None
    below: float | None = None
    for_: Duration = msgspec.field(name="for", default=Duration(0))
    clear: Clear = Clear()

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """One limit, not two and not none."""
        if ("above" in given) == ("below" in given):
            yield "above" if "above" in given else "", "needs either above or below"

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        if self.above is not None:
            if self.clear.above is not None:
                yield "clear.above", "must be clear.below: the contract is violated above its limit"
            if self.clear.below is not None and self.clear.below > self.above:
                yield "clear.below", f"must be at most {say(self.above)}, where the contract isn't violated"
        if self.below is not None:
            if self.clear.below is not None:
                yield "clear.below", "must be clear.above: the contract is violated below its limit"
            if self.clear.above is not None and self.clear.above < self.below:
                yield "clear.above", f"must be at least {say(self.below)}, where the contract isn't violated"


class Threshold(Contract):
    """See the module's text."""

    kind = "threshold"
    keys_type = ThresholdKeys
    keys: ThresholdKeys

    def __init__(self, keys: ThresholdKeys) -> None:
        super().__init__(keys)
        self._field = parse_path(keys.field)
        self._is_beyond = _beyond(keys.above, keys.below)
        self._is_clear = _clear(keys)

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return (self.keys.of,)

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return max(self.keys.for_, self.keys.clear.for_).microseconds

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        value = lookup(event.data, self._field)
        if value is MISSING:
            return Skipped("missing_field")
        if not is_number(value):
            return Skipped("not_a_number")
        memory = replace(instance.memory, newest=at, event_id=event.id, observed=value)
        if instance.state == "violated":
            if not self._is_clear(value):
                return Step(replace(instance, deadline_at=None, memory=memory))
            if not self.keys.clear.for_:
                return resolved(instance, at, memory)
            clear_at = instance.deadline_at or at + self.keys.clear.for_.microseconds
            return Step(replace(instance, deadline_at=clear_at, memory=memory))
        if not self._is_beyond(value):
            since = instance.since if instance.state == "ok" else at
            return Step(replace(instance, state="ok", since=since, deadline_at=None, memory=memory))
        if instance.state == "pending":
            return Step(replace(instance, memory=memory))
        memory = replace(memory, cause_id=event.id)
        if not self.keys.for_:
            return violated(instance, at, memory)
        deadline_at = at + self.keys.for_.microseconds
        return Step(replace(instance, state="pending", since=at, deadline_at=deadline_at, memory=memory))

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        assert instance.deadline_at is not None
        if instance.state == "violated":
            return resolved(instance, instance.deadline_at, instance.memory)
        return violated(instance, instance.deadline_at, instance.memory)

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        keys = self.keys
        limit = f"above {say(keys.above)}" if keys.above is not None else f"below {say(keys.below)}"
        lasting = f" for {keys.for_}" if keys.for_ else ""
        return f"{keys.field} {limit}{lasting} (observed {say(observed)})"


def _clear(keys: ThresholdKeys) -> Callable[[float], bool]:
    """Whether a value ends a violation."""
    if keys.clear.above is not None or keys.clear.below is not None:
        return _beyond(keys.clear.above, keys.clear.below)
    is_beyond = _beyond(keys.above, keys.below)
    return lambda value: not is_beyond(value)


def _beyond(above: float | None, below: float | None) -> Callable[[float], bool]:
    """Whether a value is above the one limit or below the other, of which one is given."""
    if above is not None:
        return lambda value: value > above
    assert below is not None
    return lambda value: value < below
