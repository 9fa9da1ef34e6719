"""What is known of the time between two runs, and what becomes of an instance that was stored by the first. Pure.

With the states stands by which clock they were stored (`Reading`).

- In one boot a clock runs on that isn't stepped. So it is known by how much the wall clock was set between two runs of
  one boot, as it is within a run.
- Over a boot only wall time says how much time has passed, and counts if it was right at both ends. If not, nobody
  knows how long it was, and what waits gets its full time once more: all of it if the clock was wrong only before; if
  it may be wrong now, what is over by it, or lies further away than it can. (What lies ahead by a clock that isn't
  ahead comes too late at most; and a machine that is never synchronised and often booted must come to an end.)
- What was stored before the year 2000 was stored without a clock, and never happened then.

What ends with a period of the calendar waits for nothing, and is over when that is.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..clock import MICROSECONDS, Clock
from .contract import Contract
from .instance import Instance
from .reporting import CLOCKLESS_BEFORE

CLOCK_STEP_SECONDS = 1.0

STEP = round(CLOCK_STEP_SECONDS * MICROSECONDS)


class Reading(msgspec.Struct, frozen=True):
    """A clock by which times are told: the `boot` (empty: not known), how far wall time was from the time since that in
    microseconds, and whether it was `synchronised`."""

    boot: str
    offset: int
    synchronised: bool


class Between(NamedTuple):
    """The time between two runs: by how many microseconds the clock was set, and whether it was right before and is
    right now, as far as anybody knows."""

    step: int = 0
    was_right: bool = True
    is_right: bool = True

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
    """The clock as it is now. One that doesn't show the year 2000 yet isn't synchronised. Otherwise it is if the system
    says so, or doesn't know: then it is taken for right, as nothing better is known."""
    now = clock.now()
    synchronised = now >= CLOCKLESS_BEFORE and clock.synchronised() is not False
    return Reading(clock.boot(), now - round(clock.since_boot() * MICROSECONDS), synchronised)


def between(before: Reading | None, now: Reading) -> Between:
    """What lies between two runs, the first of which has stored `before` (None: by a version that stored nothing)."""
    if before is None:
        return NO_GAP
    step = now.offset - before.offset
    if abs(step) < STEP:
        step = 0
    if (before.boot == now.boot) if before.boot and now.boot else not step:
        return Between(step)
    return Between(0, before.synchronised, now.synchronised)


def followed(before: Reading | None, now: Reading, gap: Between) -> Reading:
    """The clock as it is `now`, for states of the run `before` that were carried over: steps too small to be applied
    add up, and once it was synchronised it stays so until it is set."""
    if before is None or before.boot != now.boot:
        return now
    right = before.synchronised and not gap.step
    return Reading(now.boot, before.offset + gap.step, now.synchronised or right)


def missed(contract: Contract, instance: Instance, now: int, gap: Between) -> int:
    """By how many microseconds an instance is to be moved, as by a step of the clock, so that what nobody knows to have
    passed hasn't: to what waits its full time is left then."""
    if gap.step or contract.by_calendar:
        return gap.step
    last = max(instance.memory.newest, instance.since)
    clockless = last < CLOCKLESS_BEFORE <= now
    full_at, due_at = now + contract.patience_microseconds, instance.deadline_at
    if due_at is None:
        return now - last if clockless else 0
    over = not now <= due_at <= full_at
    if clockless or (not gap.was_right and gap.is_right) or (not gap.is_right and over):
        return full_at - due_at
    return 0
