"""`deadline`: after one event another must follow in time. "The door is closed within five minutes of being opened."

`after` opens a deadline unless one is open already; `expect` in time closes it without a word. Without, the contract
is violated at the deadline and resolved by a late `expect`, which says how late it came. `where` is about the `after`
event: any `expect` event of the instance will do. Exactly at the deadline is in time.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ..events import Event
from ..patterns import pattern
from .contract import Contract
from .instance import Instance, Skipped, Step, resolved, violated
from .keys import EventType, Keys, Period


class DeadlineKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: deadline`."""

    after: EventType
    expect: EventType
    within: Period


class Deadline(Contract):
    """See the module's text."""

    kind = "deadline"
    keys_type = DeadlineKeys
    keys: DeadlineKeys

    def __init__(self, keys: DeadlineKeys) -> None:
        super().__init__(keys)
        self._is_after = pattern(keys.after)
        self._is_expected = pattern(keys.expect)

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return self.keys.after, self.keys.expect

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return self.keys.within.microseconds

    def wants(self, event: Event) -> bool:
        """See Contract."""
        return self._is_expected(event.type) or self._opens(event)

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        memory = replace(instance.memory, newest=at, event_id=event.id)
        step = Step(replace(instance, memory=memory))
        if self._is_expected(event.type):
            if instance.state == "violated":
                late = max(0, at - instance.since) / 1e6
                step = resolved(instance, at, replace(memory, observed=event.type), late_by_seconds=late)
            elif instance.state != "ok":
                step = Step(replace(step.instance, state="ok", since=at, deadline_at=None))
        if self._opens(event) and step.instance.state in ("ok", "unknown"):
            memory = replace(memory, cause_id=event.id, observed=None)
            deadline_at = at + self.patience_microseconds
            opened = replace(step.instance, state="pending", since=at, deadline_at=deadline_at, memory=memory)
            step = step._replace(instance=opened)
        return step

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        assert instance.deadline_at is not None
        return violated(instance, instance.deadline_at, instance.memory)

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        return f"no {self.keys.expect} within {self.keys.within} of {self.keys.after}"

    def promise(self) -> str:
        """See Contract."""
        return f"after {self.keys.after}, {self.keys.expect} comes within {self.keys.within}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        return f"{self.keys.expect}{self.whose(instance)}"

    def _opens(self, event: Event) -> bool:
        return self._is_after(event.type) and self.fits_where(event)
