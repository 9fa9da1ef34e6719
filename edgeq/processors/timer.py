"""When a processor's `on_time` is called: once it is due, and never in a hurry."""

from __future__ import annotations

from ..backoff import Backoff
from ..clock import MICROSECONDS, Clock
from .processor import QueueProcessor

GAP_SECONDS = 0.01
UNMOVED_SECONDS = 1.0


class Timer:
    """Asks `processor.due_at()`. A call that failed is made again after `backoff`; one that left `due_at` where it was,
    after `UNMOVED_SECONDS`. `attempt` counts from 1."""

    def __init__(self, processor: QueueProcessor, backoff: Backoff, clock: Clock) -> None:
        self.attempt = 1
        self._processor = processor
        self._backoff = backoff
        self._clock = clock
        self._not_before = 0.0

    def due(self) -> int | None:
        """What is due now, in microseconds since 1970 UTC; None when nothing is."""
        due = self._processor.due_at()
        if due is None or due > self._clock.now() or self._not_before > self._clock.monotonic():
            return None
        return due

    def rest_seconds(self, most: float) -> float:
        """How long to wait for what will be due, `most` at most and `GAP_SECONDS` at least."""
        due = self._processor.due_at()
        if due is None:
            return most
        rest = max((due - self._clock.now()) / MICROSECONDS, self._not_before - self._clock.monotonic())
        return min(max(rest, GAP_SECONDS), most)

    def done(self, due: int) -> None:
        """What was due at `due` is done."""
        self.attempt = 1
        if self._processor.due_at() == due:
            self._not_before = self._clock.monotonic() + UNMOVED_SECONDS

    def failed(self) -> float:
        """It failed; how many seconds it is left alone."""
        delay = max(self._backoff.delay(self.attempt), UNMOVED_SECONDS)
        self.attempt += 1
        self._not_before = self._clock.monotonic() + delay
        return delay
