"""`count`: at least, or at most, so many events in each hour, day, week or month. "The backup runs three times a week."

An event counts in the period of the calendar in which it happened, in `timezone` (the machine's, unless it is given).
A week begins on Monday; a day on which the clocks change has 23 or 25 hours, and an hour that comes twice is two.

`at_most: N` is violated at the event that is one too many, and resolved when the period ends. A lower one counts for
what was counted already: what is too many then is violated since the last of it. `at_least: N` is judged
when `lateness` has passed since the end of the period, until which late events of it count; a violation is one since
that end. It is resolved at the moment at which a later period has as many, when all before it are judged. However many
periods are missed in a row, also by a gateway that wasn't there, each is counted and the violation is one.

A period that was watched only in part isn't judged for `at_least`: the first one of a subject (from its first event on
or, for what is in `known`, from when the contract was first loaded), one at the beginning of which the contract wasn't
in force, one into which or out of which the clock was set by more than `lateness`, and one in which the machine's time
zone became another one, with what is left then until the next begins. Nor, with `suppressed_by: link`, is one that
ended while nothing could be heard. Where the contract goes out of force with the end of a period, or soon after, that
period is judged right before.

Each judged period was met or missed (by either limit). How many were, how many in a row, and how many at best, is
remembered and part of what was observed. Of a period that is judged nothing counts any more (`too_late`), of a time
before the year 2000 nothing ever (`no_clock`). An instance remembers the periods that aren't judged yet and in which
anything happened, usually one or two; at most 100, what is in others doesn't count (`too_many_periods`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from msgspec.structs import replace

from ..calendar import Unit, ZoneKey, local_zone
from ..clock import CLOCKLESS_BEFORE, MICROSECONDS
from ..config import checks
from ..events import Event
from ..units import Duration
from .contract import Contract, say
from .counted import CountMemory, Limits, memory_of
from .instance import Instance, Skipped, Step, resolved, violated
from .keys import EventType
from .known import KnownKeys, is_watched
from .spans import Periods, Span

COUNT_MAX = 1_000_000_000
SPANS_MAX = 100

_SPANS_TOLD = 3
_LENGTHS: dict[Unit, Duration] = {
    "hour": Duration(3600),
    "day": Duration(86400),
    "week": Duration(7 * 86400),
    "month": Duration(31 * 86400),
}
_HOUR = 3600 * MICROSECONDS  # by which a change of the clocks may make one of them longer


class CountKeys(KnownKeys, frozen=True, kw_only=True):
    """The keys of `kind: count`."""

    of: EventType
    at_least: Annotated[int, checks.between(1, COUNT_MAX)] | None = None
    at_most: Annotated[int, checks.between(0, COUNT_MAX)] | None = None
    per: Unit
    timezone: ZoneKey = ""

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """At least one limit."""
        if "at_least" not in given and "at_most" not in given:
            yield "", "needs at_least or at_most, or both"

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        if self.lateness > _LENGTHS[self.per] / 2:
            yield "lateness", f"must be at most {Duration(_LENGTHS[self.per] / 2)}, which is half of a period"
        if self.at_least is None:
            if self.known:
                yield "known", "is for at_least: of what was never seen there can't be too many"
            return
        if self.at_most is not None and self.at_least > self.at_most:
            yield "at_least", f"must be at most {self.at_most}, which is at_most"
        if self.active is not None:
            if self.active.times and self.per != "hour":
                yield "active.times", f"must not be given: at_least is about whole periods, and no {self.per} would be"
            elif self.active.days and self.per in ("week", "month"):
                yield "active.days", f"must not be given: at_least is about whole periods, and no {self.per} would be"


class Count(Contract):
    """See the module's text."""

    kind = "count"
    keys_type = CountKeys
    memory_type = CountMemory
    takes_late = True
    by_calendar = True
    keys: CountKeys

    def __init__(self, keys: CountKeys) -> None:
        super().__init__(keys)
        self._periods = Periods(keys.per, local_zone(keys.timezone))
        self._limits = Limits(keys.at_least, keys.at_most)

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return (self.keys.of,)

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return _LENGTHS[self.keys.per].microseconds + _HOUR + self.lateness_microseconds

    @property
    def meaning(self) -> tuple[object, ...]:
        """See Contract. With other limits, what was counted is still right."""
        return (*super().meaning, self.keys.per, self.keys.timezone)

    def initial(self, now: int) -> Iterable[Instance]:
        """See Contract."""
        for subject in self.keys.known:
            yield self.resume(Instance(subject=subject, state="unknown", since=now), now)

    def keeps(self, instance: Instance) -> bool:
        """See Contract."""
        return super().keeps(instance) and is_watched(instance, self.keys)

    def adapted(self, instance: Instance) -> Instance:
        """See Contract."""
        memory = memory_of(instance)
        spans = tuple(map(self._limits.adapted, memory.spans))
        over_until = memory.over_until if any(span.over for span in spans) else 0
        broken = [span for span, before in zip(spans, memory.spans, strict=True) if span.over and not before.over]
        if broken:
            over_until = max(over_until, broken[-1].end)
        short = memory.short and self._limits.least is not None
        memory = replace(memory, spans=spans, short=short, over_until=over_until)
        if instance.state == "violated" and not (memory.short or over_until):
            instance = replace(instance, state="ok", since=memory.newest)
        elif instance.state != "violated" and broken:
            return self._broken(instance, broken[-1].newest, memory, broken[-1]).instance
        return self._set_right(instance, memory)

    def resume(self, instance: Instance, at: int) -> Instance:
        """See Contract. Streaks go on."""
        resumed = super().resume(instance, at)
        memory = replace(memory_of(instance), spans=(), judged_from=None, short=False, over_until=0)
        return resumed if at < CLOCKLESS_BEFORE else self._waiting(resumed, self._begun(memory, at))

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract."""
        memory = memory_of(instance)
        if memory.judged_from is None:
            return instance
        judged_from = max(memory.judged_from, self._periods.at(at).start)
        return replace(instance, memory=replace(memory, judged_from=judged_from))

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract. Periods that the clock was set out of, or that now lie ahead, aren't judged any more; one that
        it was set into is watched in part."""
        instance = super().stepped(instance, now, step_microseconds)
        memory = memory_of(instance)
        if now >= CLOCKLESS_BEFORE and self._is_elsewhere(memory, now, step_microseconds):
            memory = self._begun(memory, now)
        return self._set_right(instance, memory)

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        if at < CLOCKLESS_BEFORE:
            return Skipped("no_clock")
        memory = memory_of(instance)
        if not memory.spans:
            memory = replace(self._begun(memory, at), judged_from=max(at, watermark))
        if at < memory.spans[0].start:
            return Skipped("too_late")
        before, span, after = self._periods.locate(memory.spans, at)
        if len(before) + len(after) >= SPANS_MAX:
            return Skipped("too_many_periods")
        was_over, span = span.over, self._limits.counted(span, at)
        is_one_too_many = span.over and not was_over
        memory = replace(
            memory,
            newest=max(memory.newest, at),
            event_id=event.id,
            cause_id=memory.cause_id if instance.state == "violated" else event.id,
            spans=(*before, span, *after),
            over_until=max(memory.over_until, span.end) if is_one_too_many else memory.over_until,
        )
        if instance.state == "violated":
            return self._eased(instance, memory)
        if is_one_too_many:
            return self._broken(instance, span.newest, memory, span)
        if instance.state == "unknown" and (self._limits.least is None or span.met_at):
            instance = replace(instance, state="ok", since=at)
        return Step(self._waiting(instance, memory))

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        memory = memory_of(instance)
        over_until = memory.over_until
        if memory.is_met_again:
            return self._eased(instance, memory)
        if over_until and over_until <= self._judged_at(memory.spans[0].end):
            return self._standing(instance, replace(memory, over_until=0), over_until)
        return self._judged(instance, memory)

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        seen = observed if isinstance(observed, dict) else {}
        count, begin = seen.get("count"), say(seen.get("from")).replace("T", " ")
        least, most = self.keys.at_least, self.keys.at_most
        is_over = most is not None and isinstance(count, int) and count > most
        limit = f"more than {most}" if is_over else f"fewer than {least}"
        return f"{say(count)} {self.keys.of} in the {self.keys.per} from {begin}, {limit}"

    def promise(self) -> str:
        """See Contract."""
        limits = (("at least", self.keys.at_least), ("at most", self.keys.at_most))
        wanted = " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)
        zone = f" in {self.keys.timezone}" if self.keys.timezone else ""
        return f"there are {wanted} {self.keys.of} in each {self.keys.per}{zone}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        memory, least = memory_of(instance), self.keys.at_least
        if memory.over_until and not memory.short:
            return f"the end of the {self.keys.per}"
        limit = f"no more than {self.keys.at_most}" if least is None else f"at least {least}"
        return f"{limit} {self.keys.of}{self.whose(instance)} in a {self.keys.per}"

    def recalls(self, instance: Instance) -> str:
        """See Contract."""
        memory = memory_of(instance)
        spans = memory.spans[-_SPANS_TOLD:]
        counts = [f"{span.count} in the {self.keys.per} from {self._periods.name(span)}" for span in spans]
        judged = f"met {memory.met}, missed {memory.missed}, {memory.streak} met in a row, at best {memory.best}"
        return "; ".join([*counts, judged])

    # Steps

    def _judged(self, instance: Instance, memory: CountMemory) -> Step:
        """The first period is over, and nothing counts in it any more."""
        head = memory.spans[0]
        is_whole = (memory.judged_from is None or head.start >= memory.judged_from) and self._periods.is_whole(head)
        if self.calendar is not None:  # what was violated at the end of that is judged on
            is_whole = is_whole and self.calendar.is_active(head.start) and self.calendar.is_active(head.end - 1)
        is_short = is_whole and self._limits.least is not None and not head.met_at
        if is_whole or head.over:
            memory = memory.tallied(met=not is_short and not head.over)
        spans = tuple(self._periods.without_first(memory.spans))
        memory = replace(memory, spans=spans, short=memory.short or is_short)
        if is_short and instance.state != "violated":
            return self._broken(instance, head.end, memory, head)
        return Step(self._waiting(instance, memory))

    def _broken(self, instance: Instance, at: int, memory: CountMemory, span: Span) -> Step:
        step = violated(instance, at, replace(memory, observed=self._observed(memory, span)))
        return step._replace(instance=self._waiting(step.instance, memory_of(step.instance)))

    def _eased(self, instance: Instance, memory: CountMemory) -> Step:
        """A violated instance, which may be met again."""
        if not memory.is_met_again:
            return Step(self._waiting(instance, memory))
        return self._standing(instance, replace(memory, short=False), memory.spans[0].met_at)

    def _standing(self, instance: Instance, memory: CountMemory, at: int) -> Step:
        """A violated instance after a reason for that was gone at `at`."""
        if memory.short or memory.over_until:
            return Step(self._waiting(instance, memory))
        step = resolved(instance, at, replace(memory, observed=self._observed(memory, memory.spans[0])))
        return step._replace(instance=self._waiting(step.instance, memory_of(step.instance)))

    def _set_right(self, instance: Instance, memory: CountMemory) -> Instance:
        """An instance that nothing happened to. Out of force, it waits for nothing."""
        rests = instance.deadline_at is None and bool(memory_of(instance).spans)
        return replace(instance, memory=memory) if rests else self._waiting(instance, memory)

    def _waiting(self, instance: Instance, memory: CountMemory) -> Instance:
        return replace(instance, memory=memory, deadline_at=self._due_at(memory) if memory.spans else None)

    def _due_at(self, memory: CountMemory) -> int:
        if memory.is_met_again:
            return memory.spans[0].met_at
        due_at = self._judged_at(memory.spans[0].end)
        return min(due_at, memory.over_until) if memory.over_until else due_at

    # Periods

    def _judged_at(self, end: int) -> int:
        """When a period that ends at `end` is judged."""
        judged_at = end + self.lateness_microseconds
        if self.calendar is not None and self.calendar.is_active(end - 1):
            change = self.calendar.next_change(end - 1)
            if change is not None and change <= judged_at:
                return change - 1
        return judged_at

    def _begun(self, memory: CountMemory, at: int) -> CountMemory:
        """The memory when watching begins, or begins anew, at `at`."""
        fresh = self._periods.at(at)
        spans = tuple(span for span in memory.spans if span.start == fresh.start) or (fresh,)
        return replace(memory, spans=spans, judged_from=at, over_until=min(memory.over_until, fresh.end))

    def _is_elsewhere(self, memory: CountMemory, now: int, step_microseconds: int) -> bool:
        """Whether the clock was set to where what is remembered means nothing."""
        if not memory.spans:
            return True
        if not step_microseconds:
            return now + self.lateness_microseconds < memory.spans[0].start
        if abs(step_microseconds) <= self.lateness_microseconds:
            return False
        return self._periods.at(now - step_microseconds) != self._periods.at(now)

    def _observed(self, memory: CountMemory, span: Span) -> dict[str, Any]:
        return {
            "count": span.count,
            "from": self._periods.name(span),
            "met": memory.met,
            "missed": memory.missed,
            "streak": memory.streak,
            "best": memory.best,
        }
