"""How an attempt ended, as values: what authors say, and what the worker makes of it.

A handler completes its job by returning. It may also return or raise `RetryAfter` (try again, but not before) or `Dead`
(never again), and put the job off by `return ctx.snooze("5m")`. Any other exception is a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..context import delay_seconds
from ..errors import EdgeqError
from ..store.decisions import Decisions
from ..units import Duration

if TYPE_CHECKING:
    from .job import Job


class RetryAfter(EdgeqError):
    """For handlers to return or raise: the attempt failed, and the next one is to begin `delay` from now (`"30s"`, or
    seconds) instead of after the job's backoff. It counts as an attempt; after the last one the job is dead.

    Raises ValueError for a negative or unreadable delay.
    """

    def __init__(self, delay: str | float, reason: str = "") -> None:
        self.seconds = delay_seconds(delay)
        super().__init__(str(reason) or f"asked to be tried again after {Duration(self.seconds)}")


class Dead(EdgeqError):
    """For handlers to return or raise: trying again won't help. The job is dead, and `failed` is called."""

    def __init__(self, reason: str) -> None:
        super().__init__(str(reason) or "gave up without a reason")


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned. `result` is JSON text, `decisions` what it recorded."""

    result: str
    decisions: Decisions


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt didn't succeed. `reason`, one short word, is the dead letter's, should it come to that.

    `final`: trying again won't help. `job` is None when it could not even be made. `retry_after`: seconds to wait
    before the next attempt, instead of the job's backoff.
    """

    reason: str
    error: BaseException
    job: Job | None = None
    final: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler put the job off by `seconds`: what it recorded is committed, and the attempt doesn't count."""

    seconds: float
    decisions: Decisions


Outcome = Completed | Failed | Snoozed
