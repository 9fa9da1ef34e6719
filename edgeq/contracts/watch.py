"""A judge with a clock and a link: what time it is to contracts, and whether silence counts. It knows no store.

- A backlog of events is judged in its own time, by when the events were recorded; only then does the clock count.
- **Silence is held against a sensor only while it could be heard.** Without a settled link (see `contracts.link`) no
  deadline passes, neither by the clock nor by events that were let in meanwhile. `SETTLE_SECONDS` after it has
  settled, all those that are over pass. What was recorded before the link settled, such as by an earlier run, doesn't
  prove anybody's silence either: of two events that edgeq recorded itself, the time between may have been spent at the
  broker.
- **A step of the clock is no time that passed.** What was left of each deadline is left after it, what stands has stood
  as long as before, and events that were recorded before it, and wait, move with it; also if it was between two runs
  in one boot. What counts over a boot is said in `boots`. What another run recorded by a clock that was ahead of what
  it is now, or wasn't right, or before the machine had a clock, is taken as it comes, and proves no silence.
- **A contract that cares about the link is told that there is none** (`suppressed_by: link`) once there was none for
  `LINK_SECONDS`, and that there is one when silence counts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from msgspec.structs import replace

from ..clock import CLOCKLESS_BEFORE, MICROSECONDS, Clock
from ..events import Event
from .boots import NO_GAP, Reading, between, followed, is_synchronised, read
from .boots import STEP as _STEP
from .contract import Contract
from .instance import Instance
from .judge import Judge
from .link import Link
from .relations import Key
from .turn import IN_FLIGHT_SECONDS, Turn

SETTLE_SECONDS = 5.0
LINK_SECONDS = 30.0

_SETTLE = round(SETTLE_SECONDS * MICROSECONDS)
_AHEAD = 5_000_000  # deadlines that are further away, and may have moved on, are looked at when they are near
_AFTER_DEADLINE = round(IN_FLIGHT_SECONDS * MICROSECONDS) + 1


class _Set(NamedTuple):
    """The clock was set by `step` microseconds when it showed `until`, and events from before may still wait."""

    until: int
    step: int


class Watch:
    """Judges `contracts`. `link` None: the sensors can always be heard.

    `reading` is the clock by which all times of the instances are told; to be stored with them. `gap` is what lay
    between the run that stored them and this one.
    """

    def __init__(self, contracts: Sequence[Contract], clock: Clock, link: Link | None = None) -> None:
        self.judge = Judge(contracts)
        self._clock = clock
        self._link = link
        self._cares_about_link = any(contract.suppressed_by_link for contract in contracts)
        self._lost_at: float | None = None  # by the clock that isn't stepped
        # The link's time was told by the clock of then; steps since are added.
        self._settled_at: int | None = None
        self._stepped = 0
        self._offset = self._clock.offset()
        self._set: _Set | None = None
        self._wrong_before: int | None = None  # what was recorded before was recorded by a clock that wasn't right
        self.reading = read(clock)
        self.gap = NO_GAP
        self._new: list[tuple[Contract, Instance]] | None = None

    def open(
        self, instances: Iterable[tuple[str, Instance]], stored: Reading | None = None, *, one_machine: bool = True
    ) -> list[Key]:
        """Forget all instances and take these, each with its contract's name; `stored` is what was stored with them as
        `reading`, perhaps on another machine, unless there is but `one_machine`. Those that the time between has
        changed are returned. What follows, and what is to be watched from now on, comes with the next turn."""
        now, reading = self._clock.now(), read(self._clock)
        gap = self.gap = between(stored, reading, one_machine=one_machine)
        self.reading = followed(stored, reading, gap)
        if stored is not None:  # which knows of all steps so far
            step = self._step()
            self._offset, self._stepped = self._offset + step, self._stepped + step
        if gap.step:
            self._set = _Set(now - gap.step, gap.step)
        if not gap.was_right:
            self._wrong_before = now if gap.booted_at is None else gap.booted_at
        changed = self.judge.load(instances, now, gap)
        self._new = [
            (contract, instance)
            for contract in self.judge.contracts.values()
            for instance in contract.initial(now)
            if (contract.name, instance.subject) not in self.judge.instances
        ]
        return changed

    def due_at(self) -> int | None:
        """When a turn without events is due, in microseconds since 1970 UTC; None while nothing is."""
        now = self._clock.now()
        if self._new is not None or abs(self._step()) >= _STEP or self._has_synchronised():
            return now
        ready_at = self._ready_at()
        link_at = self._link_due_at(now, ready_at)
        earliest = self.judge.earliest(now + _AHEAD)
        if earliest is None:
            return link_at
        due = now + _SETTLE if ready_at is None else max(earliest + _AFTER_DEADLINE, ready_at)
        return due if link_at is None else min(due, link_at)

    @contextmanager
    def turn(self, events: Sequence[Event] | None) -> Iterator[Turn]:
        """Judge what has happened, or, if that is None, what the clock says, once all that was stored so far has been
        judged. It counts when the block ends without an exception; otherwise nothing has happened."""
        new, step, now = self._new, self._step(), self._clock.now()
        stepped = abs(step) >= _STEP
        before = self._offset, self._stepped, self._set, self._wrong_before, self.reading
        try:
            with self.judge.turn() as turn:
                if new is not None:
                    for contract, instance in new:
                        turn.begin(contract, instance, instance.since)
                    turn.settle(now)
                if stepped:
                    turn.set_clock(now, step)
                    self._offset, self._stepped = self._offset + step, self._stepped + step
                    earlier = self._set or _Set(now - step, 0)
                    self._set = _Set(earlier.until, earlier.step + step)
                    if self._wrong_before is not None:
                        self._wrong_before += step
                    self.reading = replace(read(self._clock), offset=self.reading.offset + step)
                elif self._has_synchronised():
                    self.reading = replace(self.reading, synchronised=True)
                ready_at = self._ready_at()
                self._follow_link(turn, now, ready_at)
                for event in events or ():
                    moved, sure = self._moved(event, now)
                    trusted = sure and ready_at is not None and event.recorded_at + moved >= ready_at
                    turn.observe(event, trusted=trusted, moved=moved)
                if events is None and ready_at is not None and now >= ready_at:
                    turn.elapse(now)
                yield turn
        except BaseException:
            self._offset, self._stepped, self._set, self._wrong_before, self.reading = before
            raise
        self._new = None
        if events is None:
            self._set = self._wrong_before = None  # all that was recorded before is judged

    def _ready_at(self) -> int | None:
        """From when on silence counts, in microseconds since 1970 UTC; None while it doesn't."""
        if self._link is None:
            return 0
        settled_at = self._link.settled_at()
        if settled_at != self._settled_at:
            self._settled_at = settled_at
            self._stepped = 0
        if settled_at is not None:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = self._clock.monotonic()
        return None if settled_at is None else settled_at + self._stepped + _SETTLE

    def _link_due_at(self, now: int, ready_at: int | None) -> int | None:
        """When those are to be told of the link that care about it."""
        if not self._cares_about_link:
            return None
        if self.judge.unheard_since is not None:
            return ready_at
        if ready_at is not None or self._lost_at is None:
            return None
        rest_seconds = self._lost_at + LINK_SECONDS - self._clock.monotonic()
        return now + max(0, round(rest_seconds * MICROSECONDS))

    def _follow_link(self, turn: Turn, now: int, ready_at: int | None) -> None:
        due_at = self._link_due_at(now, ready_at)
        if due_at is None or due_at > now:
            return
        if self.judge.unheard_since is None:
            turn.lose_link(now)
        else:
            turn.regain_link(now)

    def _moved(self, event: Event, now: int) -> tuple[int, bool]:
        """By how much the clock was set since `event` was recorded, and whether that is known."""
        recorded_at, moved = event.recorded_at, 0
        if self._set is not None and (recorded_at <= self._set.until if self._set.step > 0 else recorded_at > now):
            moved = self._set.step
        shown = recorded_at + moved
        if self._wrong_before is not None and shown < self._wrong_before:
            return now - recorded_at, False
        if shown > now + _STEP or shown < CLOCKLESS_BEFORE <= now:
            return now - recorded_at, False
        return moved, True

    def _has_synchronised(self) -> bool:
        return not self.reading.synchronised and is_synchronised(self._clock)

    def _step(self) -> int:
        """By how many microseconds the clock was set since the last turn."""
        return self._clock.offset() - self._offset
