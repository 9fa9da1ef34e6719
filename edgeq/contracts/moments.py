"""Many moments in a small place, for kinds that must remember when each of up to thousands of events happened."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace


class Moments(msgspec.Struct, frozen=True, array_like=True):
    """Moments in order, in microseconds since 1970 UTC; the same one may be there several times.

    Of all but the first, only the distance from the one before is kept, seven bits a byte: two bytes below 16 ms, three
    below 2 s, four below 4 minutes, five below 9 hours. In JSON that is a third more. To add a moment behind the last,
    or to drop the first ones, costs no look at those in between; to put one in its place between others does.
    """

    count: int = 0
    first: int = 0
    last: int = 0
    distances: bytes = b""

    def __iter__(self) -> Iterator[int]:
        if not self.count:
            return
        moment, distance, shift = self.first, 0, 0
        yield moment
        for byte in self.distances:
            distance |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                moment += distance
                distance = shift = 0
                yield moment

    @property
    def is_sound(self) -> bool:
        """Whether all that it says of itself agrees: what was read from a store may say anything."""
        moments = list(self)
        whole = self.distances[-1:] < b"\x80" and len(moments) == self.count
        return whole and (moments[-1] == self.last if moments else not self.distances)

    def added(self, moment: int) -> Moments:
        """With `moment` in its place."""
        if not self.count:
            return Moments(1, moment, moment)
        if moment >= self.last:
            distances = bytearray(self.distances)
            _append(distances, moment - self.last)
            return Moments(self.count + 1, self.first, moment, bytes(distances))
        ordered = list(self)
        insort(ordered, moment)
        return Moments().extended(ordered)

    def extended(self, moments: Sequence[int]) -> Moments:
        """With `moments`, which must be in order and not before the last."""
        if not moments:
            return self
        first = self.first if self.count else moments[0]
        last = self.last if self.count else first
        distances = bytearray(self.distances)
        for moment in moments if self.count else moments[1:]:
            _append(distances, moment - last)
            last = moment
        return Moments(self.count + len(moments), first, last, bytes(distances))

    def newest(self, count: int) -> Moments:
        """Only the last ones, at most `count`."""
        return self._without(self.count - count)

    def split(self, moment: int) -> tuple[list[int], Moments]:
        """Those up to `moment`, and those after it."""
        if not self.count or self.first > moment:
            return [], self
        if self.last <= moment:
            return list(self), Moments()
        early, first, position = [], self.first, 0
        while first <= moment:
            early.append(first)
            distance, position = _next(self.distances, position)
            first += distance
        return early, Moments(self.count - len(early), first, self.last, self.distances[position:])

    def shifted(self, microseconds: int) -> Moments:
        """All moved by as much."""
        if not self.count:
            return self
        return replace(self, first=self.first + microseconds, last=self.last + microseconds)

    def _without(self, dropped: int) -> Moments:
        """Without the first ones."""
        if dropped <= 0:
            return self
        if dropped >= self.count:
            return Moments()
        first, position = self.first, 0
        for _ in range(dropped):
            distance, position = _next(self.distances, position)
            first += distance
        return Moments(self.count - dropped, first, self.last, self.distances[position:])


def _append(distances: bytearray, distance: int) -> None:
    while distance > 127:
        distances.append(distance & 127 | 128)
        distance >>= 7
    distances.append(distance)


def _next(distances: bytes, position: int) -> tuple[int, int]:
    """The distance at `position`, and where the next one begins."""
    distance = shift = 0
    while (byte := distances[position]) > 127:
        distance |= (byte & 127) << shift
        shift += 7
        position += 1
    return distance | byte << shift, position + 1
