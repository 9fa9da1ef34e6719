"""`rate`: not more, or not fewer, than so many events within a time. "The door isn't opened 20 times an hour."

What counts at a moment t are the events of (t - `within`, t]: one that is exactly `within` old doesn't count any more.
An event counts from when it happened. Late ones are put where they belong.

`more_than: N` is violated at the event that is one too many, and resolved at the moment at which enough others have
become too old, whether or not an event comes then. That moment is exact, and so is the resolution's time. It is told
when it has come; of a violation that was over before it was heard of (a device that sends what it had stored up) after
another `lateness`, if no event has ended it before, so that what is still to come of the same belongs to it. A late
event that shows that there were too many tells so late; of what was told, as violated or as resolved, nothing is taken
back.

`fewer_than: N` is violated at the moment at which there are too few, and resolved by the event that makes them enough
again, unless so many are too old already by then. It is judged from one full window after the first event was heard of,
or, for subjects in `known`, after the contract was first loaded; until then, or until there are enough, it is
`unknown`.

N is at most 10,000. An instance remembers the time of that many events and, for `more_than`, while it isn't violated,
of those of another `lateness`, at most 10,000 more: for N = 5 some 50 bytes, for N = 10,000 up to 70 KB, or twice that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from msgspec.structs import replace

from ..clock import rfc3339
from ..config import checks
from ..events import Event
from .contract import Contract, say
from .instance import Instance, Memory, Skipped, Step, resolved, violated
from .keys import EventType, Period
from .known import KnownKeys, is_watched
from .moments import Moments

EVENTS_MAX = 10_000


class RateKeys(KnownKeys, frozen=True, kw_only=True):
    """The keys of `kind: rate`."""

    of: EventType
    more_than: Annotated[int, checks.between(0, EVENTS_MAX)] | None = None
    fewer_than: Annotated[int, checks.between(1, EVENTS_MAX)] | None = None
    within: Period

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """One limit, not two and not none."""
        if ("more_than" in given) == ("fewer_than" in given):
            yield "more_than" if "more_than" in given else "", "needs either more_than or fewer_than"

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        if self.known and self.more_than is not None:
            yield "known", "is for fewer_than: of what was never seen there can't be too many"


class RateMemory(Memory, frozen=True, kw_only=True, omit_defaults=True):
    """`window`: when the events that count happened; `past`: those before, as far as late ones may matter. `over_at` is
    when too many cease to be, `told_until` the end of what was told of too many, `start` since when fewer are watched
    for."""

    window: Moments = Moments()
    past: Moments = Moments()
    over_at: int = 0
    told_until: int = 0
    start: int | None = None


class Rate(Contract):
    """See the module's text."""

    kind = "rate"
    keys_type = RateKeys
    memory_type = RateMemory
    takes_late = True
    keys: RateKeys

    def __init__(self, keys: RateKeys) -> None:
        super().__init__(keys)
        self._within = keys.within.microseconds
        self._most = keys.more_than
        self._least = keys.fewer_than or 0

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return (self.keys.of,)

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return max(self._within, self.lateness_microseconds)

    @property
    def meaning(self) -> tuple[object, ...]:
        """See Contract. With another `fewer_than`, nobody who was silent may be forgotten."""
        limits = None if self._most is None else (self._most, self._within)
        return (*super().meaning, limits)

    def initial(self, now: int) -> Iterable[Instance]:
        """See Contract."""
        for subject in self.keys.known:
            yield self.resume(Instance(subject=subject, state="unknown", since=now), now)

    def keeps(self, instance: Instance) -> bool:
        """See Contract."""
        memory = _memory(instance)
        is_sound = memory.window.is_sound and memory.past.is_sound
        return super().keeps(instance) and is_watched(instance, self.keys) and is_sound

    def adapted(self, instance: Instance) -> Instance:
        """See Contract. Where fewer events are remembered than there must be now, there is a full window for them."""
        memory = _memory(instance)
        if self._most is not None or instance.state == "violated" or instance.deadline_at is None:
            return instance
        if memory.window.count < self._least:
            memory = replace(memory, start=max(memory.start or 0, memory.window.last))
        return replace(instance, memory=memory, deadline_at=self._falls_at(memory))

    def resume(self, instance: Instance, at: int) -> Instance:
        """See Contract."""
        resumed = super().resume(instance, at)
        if self._most is not None:
            return resumed
        return replace(resumed, deadline_at=at + self._within, memory=replace(resumed.memory, start=at))

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """See Contract."""
        if self._most is not None or instance.state == "violated":
            return instance
        return replace(instance, deadline_at=at + self._within, memory=replace(instance.memory, start=at))

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """See Contract. All that is remembered is moved as far as the clock, but not into the future."""
        memory = _memory(instance)
        step = min(step_microseconds, now - max(memory.window.last, memory.told_until, memory.start or 0))
        instance = super().stepped(instance, now, step)
        if not step:
            return instance
        moved = replace(
            _memory(instance),
            window=memory.window.shifted(step),
            past=memory.past.shifted(step),
            over_at=memory.over_at and memory.over_at + step,
            told_until=memory.told_until and memory.told_until + step,
            start=None if memory.start is None else memory.start + step,
        )
        return replace(instance, memory=moved)

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        memory = replace(_memory(instance), newest=max(instance.memory.newest, at), event_id=event.id)
        if self._most is None:
            return self._among_few(instance, replace(memory, cause_id=event.id), at, watermark)
        return self._among_many(instance, memory, at, watermark, self._most)

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        assert instance.deadline_at is not None
        memory, at = _memory(instance), instance.deadline_at
        if self._most is None:
            return violated(instance, at, replace(memory, observed=self._count(memory.window, at)))
        times = [*memory.past, *memory.window]
        return _no_longer_many(instance, memory, self._count(times, memory.over_at))

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        keys = self.keys
        limit = f"more than {keys.more_than}" if self._most is not None else f"fewer than {keys.fewer_than}"
        return f"{say(observed)} {keys.of} within {keys.within}, {limit}"

    def promise(self) -> str:
        """See Contract."""
        limit = f"more than {self._most}" if self._most is not None else f"fewer than {self._least}"
        return f"there are never {limit} {self.keys.of} within {self.keys.within}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        limit = f"no more than {self._most}" if self._most is not None else f"at least {self._least}"
        return f"{limit} {self.keys.of}{self.whose(instance)} within {self.keys.within}"

    def recalls(self, instance: Instance) -> str:
        """See Contract."""
        window = _memory(instance).window
        return (
            f"{window.count} that count, from {rfc3339(window.first)} to {rfc3339(window.last)}" if window.count else ""
        )

    def _count(self, times: Iterable[int], at: int) -> int:
        return sum(at - self._within < each <= at for each in times)

    # fewer_than

    def _among_few(self, instance: Instance, memory: RateMemory, at: int, watermark: int) -> Step:
        start = max(at, watermark) if memory.start is None else memory.start
        window = memory.window.added(at).newest(self._least)
        memory = replace(memory, window=window, start=start)
        deadline_at = self._falls_at(memory)
        is_enough = window.count == self._least and window.last - window.first < self._within
        if instance.state != "violated":
            if instance.state == "unknown" and is_enough:
                instance = replace(instance, state="ok", since=at)
            return Step(replace(instance, deadline_at=deadline_at, memory=memory))
        if not is_enough or deadline_at < watermark:
            return Step(replace(instance, memory=memory))
        step = resolved(instance, window.last, replace(memory, observed=window.count))
        return step._replace(instance=replace(step.instance, deadline_at=deadline_at))

    def _falls_at(self, memory: RateMemory) -> int:
        """When there will be too few, or it begins to be judged whether there are."""
        window = memory.window.newest(self._least)
        begins_at = (memory.start or 0) + self._within
        return max(window.first + self._within, begins_at) if window.count == self._least else begins_at

    # more_than

    def _among_many(self, instance: Instance, before: RateMemory, at: int, watermark: int, most: int) -> Step:
        is_late = at < max(before.window.last, before.told_until)
        memory, begins = self._with_late(before, at, most) if is_late else self._with_next(before, at, most)
        if instance.state == "violated":
            if memory.over_at < memory.window.last:
                times = [*before.past, *before.window, at]
                return _no_longer_many(instance, memory, self._count(times, memory.over_at))
            step = Step(replace(instance, memory=memory))
        elif begins is None:
            since = at if instance.state == "unknown" else instance.since
            return Step(replace(instance, state="ok", since=since, memory=memory))
        else:
            times = [*before.past, *before.window, at]
            cause = replace(memory, cause_id=memory.event_id, observed=self._count(times, begins))
            step = violated(instance, begins, cause)
        deadline_at = memory.over_at if memory.over_at >= watermark else watermark + self.lateness_microseconds
        return step._replace(instance=replace(step.instance, deadline_at=deadline_at))

    def _with_next(self, memory: RateMemory, at: int, most: int) -> tuple[RateMemory, int | None]:
        """The memory with the newest event, and when there have come to be too many with it."""
        expired, window = memory.window.added(at).split(at - self._within)
        past = memory.past.extended(expired).split(at - self._within - self.lateness_microseconds)[1]
        memory = replace(memory, window=window, past=past.newest(EVENTS_MAX))
        return self._trimmed(memory, most), at if window.count > most else None

    def _with_late(self, memory: RateMemory, at: int, most: int) -> tuple[RateMemory, int | None]:
        """The memory with a late event, and when there came to be too many with it."""
        times = [*memory.past, *memory.window]
        place = bisect_right(times, at)
        times.insert(place, at)
        begins, over_at = None, memory.over_at
        for first in range(max(0, place - most), min(place, len(times) - most - 1) + 1):
            since, until = times[first + most], times[first] + self._within
            if since < until and until > memory.told_until:
                begins = max(since, memory.told_until) if begins is None else begins
                over_at = max(over_at, until)
        cut = times[-1] - self._within
        expired, window = Moments().extended(times).split(cut)
        past = Moments().extended(expired).split(cut - self.lateness_microseconds)[1].newest(EVENTS_MAX)
        return self._trimmed(replace(memory, window=window, past=past, over_at=over_at), most), begins

    def _trimmed(self, memory: RateMemory, most: int) -> RateMemory:
        """While there are too many, only the newest can say when they cease to be."""
        if memory.window.count <= most:
            return memory
        window = memory.window.newest(most + 1)
        return replace(memory, window=window, past=Moments(), over_at=window.first + self._within)


def _memory(instance: Instance) -> RateMemory:
    memory = instance.memory
    if isinstance(memory, RateMemory):
        return memory
    return RateMemory(newest=memory.newest, event_id=memory.event_id)


def _no_longer_many(instance: Instance, memory: RateMemory, count: int) -> Step:
    over_at = memory.over_at
    return resolved(instance, over_at, replace(memory, over_at=0, told_until=over_at, observed=count))
