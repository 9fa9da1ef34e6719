"""Whether messages get on: what the watchdog is fed by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .intake.intake import Intake
from .store.store import Store

_STALLED_LOOKS = 3


class Headway:
    """Looks at all `intakes` there are at the time, again and again."""

    def __init__(self, intakes: Callable[[], Sequence[Intake]], store: Store) -> None:
        self._intakes = intakes
        self._store = store
        self._landed = [0]
        self._stalled = 0

    def look(self) -> bool:
        """Whether messages got on since the last look, or it is known why not.

        A message may wait for the disk, and for a controller of one's own, which has its time limit.
        """
        intakes = self._intakes()
        landed = [intake.landed for intake in intakes]
        moved = landed != self._landed
        self._landed = landed
        waiting = any(intake.in_flight() and not intake.handling for intake in intakes)
        gets_on = moved or not waiting or self._store.busy
        self._stalled = 0 if gets_on else self._stalled + 1
        return gets_on

    def good(self) -> bool:
        """What the last looks came to; a single one may come in a moment of rest."""
        return self._stalled < _STALLED_LOOKS
