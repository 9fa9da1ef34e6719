"""How many jobs the workers of one process may run, together and in all.

Who may claim next, when not all can: the queue of the highest priority that has something to run, and among equals the
one that has been waiting for longest. So a busy queue never keeps an equal one from running, and always one of a lower
priority.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Slots:
    """At most `total` jobs run at once and `jobs_max` are run in all; None is without that limit.

    `spent` is set once `jobs_max` jobs were run and their ends are on disk: nothing more will be claimed.
    """

    def __init__(self, total: int | None = None, jobs_max: int | None = None) -> None:
        self.total = total
        self.jobs_max = jobs_max
        self.spent = asyncio.Event()
        self._seats: list[Seat] = []
        self._claimed = 0
        self._asked = 0

    def join(self, priority: int, wake: Callable[[], None]) -> Seat:
        """A seat for one more queue, the greater `priority` first. `wake` is called when one that waits may go on."""
        seat = Seat(self, priority, wake)
        self._seats.append(seat)
        return seat

    def _room(self, asking: Seat, wanted: int) -> int:
        if self.jobs_max is not None:
            wanted = min(wanted, self.jobs_max - self._claimed)
        if self.total is not None:
            taken = sum(seat.held + seat.reserved for seat in self._seats)
            promised = sum(seat.waiting for seat in self._seats if seat is not asking and seat.turn < asking.turn)
            wanted = min(wanted, self.total - taken - promised)
        return max(0, wanted)

    def _spend(self) -> None:
        if self._claimed == self.jobs_max and not any(seat.reserved or seat.unended for seat in self._seats):
            self.spent.set()

    def _next_turn(self) -> int:
        self._asked += 1
        return self._asked

    def _wake(self, besides: Seat) -> None:
        for seat in self._seats:
            if seat.waiting and seat is not besides:
                seat.wake()


class Seat:
    """One queue's share. `held`: slots in which its jobs run; `reserved`: taken for a claim under way; `waiting`: how
    many more it could use now."""

    def __init__(self, slots: Slots, priority: int, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.held = 0
        self.reserved = 0
        self.waiting = 0
        self.unended = 0
        self.turn = (-priority, slots._next_turn())
        self._slots = slots

    def reserve(self, wanted: int) -> int:
        """Take up to `wanted` slots for a claim; how many."""
        granted = self._slots._room(self, wanted)
        self.reserved = granted
        self._slots._claimed += granted
        return granted

    def settle(self, claimed: int) -> None:
        """The claim is done: so many of the reserved slots are used by it. Who has used some is last in line next time.
        Call `hold` next."""
        unused = self.reserved - claimed
        self.held += claimed
        self.reserved = 0
        self._slots._claimed -= unused
        if claimed:
            self.turn = (self.turn[0], self._slots._next_turn())
        if unused:
            self._slots._wake(self)

    def hold(self, held: int, waiting: int, *, unended: int) -> None:
        """Say how many slots are in use now, how many more could be, and how many jobs haven't ended."""
        fewer = held < self.held or waiting < self.waiting
        self.held, self.waiting, self.unended = held, waiting, unended
        if fewer:
            self._slots._wake(self)
        self._slots._spend()
