"""Which events of the chosen types were sent before their turn.

While a forwarder is behind, events of the types in `newest_first` are sent first, the newest before the older; all
others, and what of them is left, in the order of their ids after its cursor. Of the chosen ones, all up to `seen` are
sent but those in `owed`, ranges of ids `(low, high]`, of which the last is sent next, from its end on. It is stored in
one commit with the cursor, and `position` is where that stood then.
"""

from __future__ import annotations

import msgspec

RANGES_MAX = 16


class Window(msgspec.Struct, frozen=True):
    """Pure: each change gives another one. Ids up to the cursor are no matter of it."""

    position: int
    seen: int = 0
    owed: tuple[tuple[int, int], ...] = ()

    @classmethod
    def stored(cls, text: str | None, position: int, choice: str) -> Window:
        """The window of a cursor at `position`. One that was stored for another `choice` of types, or for a cursor that
        somebody has moved back, counts for nothing: what it had sent is sent again."""
        if text:
            found, chosen = msgspec.json.decode(text, type=tuple[Window, str])
            if chosen == choice and found.position <= position < found.seen:
                return found.moved(position)
        return cls(position)

    def text(self, choice: str) -> str:
        """What `stored` reads; empty when there is nothing to remember."""
        return msgspec.json.encode((self, choice)).decode() if self.seen > self.position else ""

    def covers(self, event_id: int) -> bool:
        """Whether that event, if it is of a chosen type, was sent already."""
        return event_id <= self.seen and not any(low < event_id <= high for low, high in self.owed)

    def looked(self, head: int) -> Window:
        """Events up to `head` are there now: those that are new are owed before all others. When there are too many
        ranges already, they aren't, and have their turn in the order of ids."""
        seen = max(self.seen, self.position)
        if head <= seen:
            return self
        *older, last = self.owed or ((seen, seen),)
        if last[1] == seen:  # nothing of it is sent yet
            return self._with(head, (*older, (last[0], head)))
        if len(self.owed) >= RANGES_MAX:
            return self
        return self._with(head, (*self.owed, (seen, head)))

    def sent_down_to(self, event_id: int) -> Window:
        """All of the last range that is above `event_id` is sent."""
        *older, (low, high) = self.owed
        left = ((low, min(high, event_id)),) if low < event_id else ()
        return self._with(self.seen, (*older, *left))

    def moved(self, position: int) -> Window:
        """The cursor is at `position` now."""
        owed = ((max(low, position), high) for low, high in self.owed if high > position)
        return Window(position, self.seen, tuple(owed))

    def _with(self, seen: int, owed: tuple[tuple[int, int], ...]) -> Window:
        return Window(self.position, seen, owed)
