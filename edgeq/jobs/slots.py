"""How many jobs the workers of one process may run, together and in all.

Who may claim next, when not all can: the queue of the highest priority that has something to run, and among equals the
one that has been waiting for longest. So a busy queue never keeps an equal one from running, and always one of a lower
priority. What is known of the others may be a commit old; so who claims looks once more, in the claim's transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grant:
    """So many slots for a claim; but no more than `sure` of them if one of the queues `ahead` has something to run."""

    most: int = 0
    sure: int = 0
    ahead: Sequence[str] = ()


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

    def join(self, queue: str, priority: int, wake: Callable[[], None]) -> Seat:
        """A seat for one more queue, the greater `priority` first. `wake` is called when one that waits may go on."""
        seat = Seat(self, queue, priority, wake)
        self._seats.append(seat)
        return seat

    def _grant(self, asking: Seat, wanted: int) -> Grant:
        if self.jobs_max is not None:
            wanted = min(wanted, self.jobs_max - self._claimed)
        if self.total is None:
            return Grant(max(0, wanted), max(0, wanted))
        taken = sum(seat.held + seat.reserved for seat in self._seats)
        promised = sum(seat.waiting for seat in self._seats if seat is not asking and seat.turn < asking.turn)
        left = self.total - taken - promised
        ahead = [seat for seat in self._seats if seat.priority > asking.priority and seat.room > seat.waiting]
        sure = left - sum(seat.room - seat.waiting for seat in ahead)
        return Grant(max(0, min(wanted, left)), max(0, min(wanted, sure)), [seat.queue for seat in ahead])

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
    """One queue's share. `held`: slots in which its jobs run; `reserved`: taken for a claim under way; `room`: how many
    more it could use if there were jobs for them, and `waiting` if it is known that there are."""

    def __init__(self, slots: Slots, queue: str, priority: int, wake: Callable[[], None]) -> None:
        self.queue = queue
        self.priority = priority
        self.wake = wake
        self.held = 0
        self.reserved = 0
        self.room = 0
        self.waiting = 0
        self.unended = 0
        self.turn = (-priority, slots._next_turn())
        self._slots = slots

    def reserve(self, wanted: int) -> Grant:
        """Take up to `wanted` slots for a claim."""
        grant = self._slots._grant(self, wanted)
        self.reserved = grant.most
        self._slots._claimed += grant.most
        return grant

    def settle(self, claimed: int) -> None:
        """The claim is done: so many of the reserved slots are used by it. Who has used some is last in line next time.
        Call `hold` next."""
        unused = self.reserved - claimed
        self.held += claimed
        self.reserved = 0
        self._slots._claimed -= unused
        if claimed:
            self.turn = (-self.priority, self._slots._next_turn())
        if unused:
            self._slots._wake(self)

    def hold(self, held: int, *, room: int, waiting: bool, unended: int) -> None:
        """Say how many slots are in use now, how many more could be, whether there are jobs for them, and how many jobs
        haven't ended."""
        wants = room if waiting else 0
        less = held < self.held or room < self.room or wants < self.waiting
        self.held, self.room, self.waiting, self.unended = held, room, wants, unended
        if less:
            self._slots._wake(self)
        self._slots._spend()
