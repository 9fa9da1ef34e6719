"""What is known of the time between two runs, and what becomes of an instance that was stored by the first. Pure.

With the states stands by which clock they were stored (`Reading`).

- In one boot a clock runs on that isn't stepped. So it is known by how much the wall clock was set between two runs of
  one boot, as it is within a run.
- Over a boot only wall time says how much time has passed, and counts if it was right at both ends. If not, nobody
  knows how long it was, and what waits gets its full time once more: all of it if the clock was wrong only before; if
  it may be wrong now, what is over by it, or lies further away than it can. (What lies ahead by a clock that isn't
  ahead comes too late at most; and a machine that is never synchronised and often booted must come to an end.)
- What was stored before the year 2000 was stored without a clock, and never happened then.
- Of what was stored by a clock that is known to have been wrong, no more time has passed than since the boot.

What ends with a period of the calendar waits for nothing, and is over when that is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from ..clock import CLOCKLESS_BEFORE, MICROSECONDS, Clock
from .contract import Contract
from .instance import Instance
from .reporting import Reporter

CLOCK_STEP_SECONDS = 1.0

STEP = round(CLOCK_STEP_SECONDS * MICROSECONDS)


class Reading(msgspec.Struct, frozen=True):
    """A clock by which times are told: the `boot` (empty: not known), how far wall time was from the time since that in
    microseconds, and whether it was `synchronised`."""

    boot: str
    offset: int
    synchronised: bool


class Between(NamedTuple):
    """The time between two runs: by how many microseconds the clock was set, whether it was right before and is right
    now, as far as anybody knows, and when the machine was booted by the clock as it is now (None: not known)."""

    step: int = 0
    was_right: bool = True
    is_right: bool = True
    booted_at: int | None = None

    def words(self, states: int) -> str:
        """What is to be said of so many states that it has changed."""
        which = "one state" if states == 1 else f"{states} states"
        if self.step:
            return f"the clock was set by {self.step / MICROSECONDS:+.1f}s since the last run: {which} moved with it"
        if self.was_right and self.is_right:
            return f"the clock isn't the one of the last run: {which} moved with it"
        when = "is not right yet" if self.was_right else "was not right in the last run"
        return f"the clock {when}, and nobody knows how long ago that was: {which} given the full time once more"


NO_GAP = Between()

_decoder = msgspec.json.Decoder(Reading)


def to_text(reading: Reading) -> str:
    """What is stored of it: JSON."""
    return msgspec.json.encode(reading).decode()


def from_text(text: str | None) -> Reading | None:
    """What was stored, or None if that is nothing, or nothing of use."""
    try:
        return None if text is None else _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def read(clock: Clock) -> Reading:
    """The clock as it is now."""
    offset = clock.now() - round(clock.since_boot() * MICROSECONDS)
    return Reading(clock.boot(), offset, is_synchronised(clock))


def is_synchronised(clock: Clock) -> bool:
    """One that doesn't show the year 2000 yet isn't. Otherwise it is if the system says so, or doesn't know: then it is
    taken for right, as nothing better is known."""
    return clock.now() >= CLOCKLESS_BEFORE and clock.synchronised() is not False


def between(before: Reading | None, now: Reading, *, one_machine: bool = True) -> Between:
    """What lies between two runs, the first of which has stored `before` (None: by a version that stored nothing).
    Unless it is `one_machine`, another one may have run while this one was booted: that proves nothing then."""
    booted_at = now.offset if one_machine else None
    if before is None:
        return Between(booted_at=booted_at)
    step = now.offset - before.offset
    if abs(step) < STEP:
        step = 0
    if (before.boot == now.boot) if before.boot and now.boot else not step:
        return Between(step)
    return Between(0, before.synchronised, now.synchronised, booted_at)


def followed(before: Reading | None, now: Reading, gap: Between) -> Reading:
    """The clock as it is `now`, for states of the run `before` that were carried over: steps too small to be applied
    add up, and once it was synchronised it stays so until it is set."""
    if before is None or before.boot != now.boot:
        return now
    right = before.synchronised and not gap.step
    return Reading(now.boot, before.offset + gap.step, now.synchronised or right)


def last_known(instances: Iterable[Instance], now: int, gap: Between) -> int | None:
    """The last that is known to have happened by a clock that was wrong, by that clock; None when it was right."""
    times = [_newest(each) for each in instances]
    clockless = [at for at in times if at < CLOCKLESS_BEFORE <= now]
    if clockless:
        return max(clockless)
    return max(times, default=None) if gap.is_right and not gap.was_right else None


def carried_over(
    contract: Contract, reporter: Reporter, instance: Instance, now: int, gap: Between, last: int | None
) -> Instance:
    """The instance as it stands after such a gap; `last` is what `last_known` says of all."""
    if gap.step or contract.by_calendar:
        return reporter.set_clock(instance, now, gap.step)
    is_wrong = last is not None and _newest(instance) <= last
    step = 0
    if is_wrong and last is not None:
        step = (now if gap.booted_at is None else gap.booted_at) - last - 1  # all of it lies before now
    is_over = instance.deadline_at is not None and instance.deadline_at < now and not gap.is_right
    instance = reporter.set_clock(instance, now, step)  # what lies further away than it can has its full time by that
    if instance.deadline_at is None or not (is_wrong or is_over):
        return instance
    return reporter.set_clock(instance, now, now + contract.patience_microseconds - instance.deadline_at)


def _newest(instance: Instance) -> int:
    return max(instance.memory.newest, instance.since)
