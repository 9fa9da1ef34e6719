"""Deadlines by time: which of many instances is due first.

An instance has at most one live entry in the heap. Moving its deadline on costs nothing: its entry stays, and is put
to the right place when its time has come. So the heap doesn't grow with what was cancelled, and deadlines that move
with every event aren't looked for with every event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from ..clock import LATEST

Key = tuple[str, str]  # contract, subject

_SLACK = 64


class Timers:
    """`deadline_of` says when an instance is really due, in microseconds since 1970 UTC, or None when it isn't. At one
    moment, those of contracts of a lower `rank` come first."""

    def __init__(self, deadline_of: Callable[[Key], int | None], rank: Mapping[str, int]) -> None:
        self._deadline_of = deadline_of
        self._rank = rank
        self._heap: list[tuple[int, int, Key]] = []
        self._queued: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, key: Key, at: int | None) -> None:
        """Take note that the deadline of `key` is `at`. To be called whenever it has changed."""
        queued = self._queued.get(key)
        if at is None or (queued is not None and queued <= at):
            return
        self._queued[key] = at
        heappush(self._heap, (at, self._rank[key[0]], key))
        if len(self._heap) > 2 * len(self._queued) + _SLACK:
            self._heap = [(when, self._rank[each[0]], each) for each, when in self._queued.items()]
            heapify(self._heap)

    def earliest(self, until: int = LATEST) -> int | None:
        """When the first instance is due; if that is after `until` or never, perhaps only a moment in between."""
        while self._heap:
            at, _, key = self._heap[0]
            if at > until:
                return at
            if self._queued.get(key) == at:
                if self._deadline_of(key) == at:
                    return at
                del self._queued[key]
            heappop(self._heap)
            if key not in self._queued:
                self.arm(key, self._deadline_of(key))
        return None

    def pop_due(self, before: int) -> tuple[int, Key] | None:
        """The first instance that is due before `before`, and when; it has to be armed again after. None when there
        is none."""
        at = self.earliest(before - 1)
        if at is None or at >= before:
            return None
        _, _, key = heappop(self._heap)
        del self._queued[key]
        return at, key
