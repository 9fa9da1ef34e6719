"""What becomes of an event that fails (`on_error`): tried again after a while, and then dead letter, skip, or halt."""

from __future__ import annotations

import traceback

from ..clock import MICROSECONDS, Clock
from ..config.schema import OnError
from ..events import Event
from ..store.cursors import Failure
from ..store.dead_letters import NewDeadLetter

_TRACEBACK_CHARACTERS_MAX = 8000


class Attempts:
    """At which event a processor is stuck, if it is, and when that is tried next.

    It stands in the store too, and survives a restart; but the time runs on the monotonic clock, as the wall clock may
    be stepped.
    """

    def __init__(self, policy: OnError, clock: Clock) -> None:
        self.failure: Failure | None = None
        self._policy = policy
        self._clock = clock
        self._retry_at = 0.0

    def stuck_at(self, failure: Failure | None) -> None:
        """Go by a failure as it stands in the store; None: not stuck."""
        self.failure = failure
        if failure is not None:
            rest = (failure.retry_at - self._clock.now()) / MICROSECONDS
            self._retry_at = self._clock.monotonic() + min(rest, self._policy.backoff.most)

    @property
    def halted(self) -> bool:
        """Whether somebody must resume it before that event is tried again."""
        return self.failure is not None and self.failure.halts

    def rest_seconds(self) -> float:
        """How long to wait for the next attempt; 0 or less: not at all."""
        return 0.0 if self.failure is None else self._retry_at - self._clock.monotonic()

    def number(self, event: Event) -> int:
        """The number of the attempt that `event` is at, counted from 1."""
        failure = self.failure
        return failure.attempt + 1 if failure is not None and failure.event_id == event.id else 1

    def failed(self, event: Event, text: str) -> Failure | None:
        """What to write down when `event` has failed once more: None if it has had its attempts and is passed."""
        attempt = self.number(event)
        exhausted = attempt >= self._policy.attempts
        if exhausted and self._policy.then != "halt":
            return None
        retry_at = self._clock.now() + round(self._policy.backoff.delay(attempt) * MICROSECONDS)
        return Failure(event.id, attempt, retry_at, text, halts=exhausted)


def dead_letter(name: str, event: Event, error: BaseException, now: int) -> NewDeadLetter:
    """The dead letter of processor `name` for an event that it could not handle."""
    return NewDeadLetter(
        source=f"processor:{name}",
        reason="failed",
        error="".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS_MAX:],
        topic=event.topic,
        event_id=event.id,
        created_at=now,
    )
