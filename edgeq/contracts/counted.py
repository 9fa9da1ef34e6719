"""What a contract of kind `count` remembers: what was counted in which periods, and how those fared that are judged."""

from __future__ import annotations

from msgspec.structs import replace

from .instance import Instance, Memory
from .spans import Span


class CountMemory(Memory, frozen=True, kw_only=True, omit_defaults=True):
    """`spans`: the first period that isn't judged yet, and those after it in which anything happened. Only periods that
    begin at `judged_from` or later are judged for too few. `short`: a period was missed, and none after it has had
    enough; `over_until`: the end of the one that has too many (0: none has). The rest counts judged periods."""

    spans: tuple[Span, ...] = ()
    judged_from: int | None = None
    short: bool = False
    over_until: int = 0
    met: int = 0
    missed: int = 0
    streak: int = 0
    best: int = 0

    @property
    def is_met_again(self) -> bool:
        """Whether the first period that isn't judged ends it that one was missed."""
        return self.short and self.spans[0].met_at > 0

    def tallied(self, *, met: bool) -> CountMemory:
        """With one more period judged."""
        if not met:
            return replace(self, missed=self.missed + 1, streak=0)
        streak = self.streak + 1
        return replace(self, met=self.met + 1, streak=streak, best=max(self.best, streak))


class Limits:
    """At `least`, and at `most`, so many in a period; None: there is no such limit."""

    def __init__(self, least: int | None, most: int | None) -> None:
        self.least = least
        self.most = most

    def counted(self, span: Span, at: int) -> Span:
        """The period with one more, at `at`."""
        span = replace(span, count=span.count + 1, newest=max(span.newest, at))
        met_at = span.met_at or (span.newest if self._is_enough(span) else 0)
        return replace(span, met_at=met_at, over=span.over or self._is_too_many(span))

    def adapted(self, span: Span) -> Span:
        """A period in which was counted under other limits."""
        met_at = (span.met_at or span.newest) if self._is_enough(span) else 0
        return replace(span, met_at=met_at, over=self._is_too_many(span))

    def _is_enough(self, span: Span) -> bool:
        return self.least is not None and span.count >= self.least

    def _is_too_many(self, span: Span) -> bool:
        return self.most is not None and span.count > self.most


def memory_of(instance: Instance) -> CountMemory:
    """What is remembered of an instance, perhaps nothing yet."""
    memory = instance.memory
    if isinstance(memory, CountMemory):
        return memory
    return CountMemory(newest=memory.newest, event_id=memory.event_id)
