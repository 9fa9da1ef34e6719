"""How a claim ends: what an outcome means for the job, and what is said of it once that is on disk.

Nothing is counted or logged before: what the store refuses has not happened.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import EdgeqError
from ..store import claims
from ..store.decisions import Decisions, count
from ..store.jobs import StoredJob, source
from ..telemetry.metrics import Metrics
from .handling import describe
from .job import Definition
from .outcome import Completed, Failed, Outcome, Snoozed

if TYPE_CHECKING:
    from .attempt import Attempt

_WORDS: dict[type[claims.End], str] = {
    claims.Completed: "completed",
    claims.Retried: "retried",
    claims.Snoozed: "snoozed",
    claims.Buried: "dead",
    claims.Released: "released",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """An end that is to be committed with `decisions`, what the job recorded. `progress` is the last that it reported,
    if that isn't stored yet. `attempt` is whose end it is."""

    attempt: Attempt
    end: claims.End
    decisions: Decisions
    progress: str | None = None

    def without_decisions(self) -> Ending:
        """The same end of a job that recorded nothing."""
        return replace(self, decisions=Decisions())


def end_of(
    job: StoredJob, definition: Definition | None, outcome: Outcome, now: int, *, counts: bool = False
) -> claims.End:
    """What `outcome` means for `job`. `now` in microseconds since 1970 UTC.

    Whether an attempt counts although what the job needs may be broken is for the store to say (claims.Retried.last);
    `counts`: it has.
    """
    if isinstance(outcome, Completed):
        return claims.Completed(job, outcome.result)
    if isinstance(outcome, Snoozed):
        return claims.Snoozed(job, now + round(outcome.seconds * 1e6))
    text = describe(outcome.error)
    last = job.attempt >= job.max_attempts
    if outcome.final or definition is None or (last and (counts or job.needs is None)):
        return claims.Buried(job, outcome.reason, text)
    seconds = outcome.retry_after
    if seconds is None:
        seconds = definition.settings.backoff.delay(job.attempt)
    run_at = now + round(seconds * 1e6)
    if job.expires_at is not None and run_at > job.expires_at:
        return claims.Buried(
            job, "expired", f"its time will be over before the next attempt, in {seconds:.1f}s: {text}"
        )
    return claims.Retried(job, run_at, text, last=last)


def has_expired(job: StoredJob, now: int) -> Failed | None:
    """The outcome of an attempt that must not begin because the job's time is over; None if it may."""
    if job.expires_at is None or now <= job.expires_at:
        return None
    late = (now - job.expires_at) / 1e6
    return Failed("expired", EdgeqError(f"its time was over {late:.1f}s before attempt {job.attempt}"), final=True)


def tell(ending: Ending, duplicates: int, now: int, metrics: Metrics, log: logging.Logger) -> None:
    """Count an end that was committed, and log what an operator wants to know. `now` in microseconds since 1970 UTC."""
    end, job = ending.end, ending.end.job
    if ending.decisions:
        count(metrics, ending.decisions, duplicates)
    metrics.jobs.add(1, "expired" if isinstance(end, claims.Buried) and end.reason == "expired" else _WORDS[type(end)])
    if isinstance(end, claims.Retried):
        log.warning(
            "job %d (%s) failed in attempt %d of %d, next in %.1fs: %s",
            job.id, job.kind, job.attempt, job.max_attempts, max(0.0, (end.run_at - now) / 1e6), _first_line(end.error),
        )  # fmt: skip
    elif isinstance(end, claims.Buried):
        metrics.dead_letters.add(1, source(job.queue))
        log.error(
            "job %d (%s) is dead after attempt %d of %d (%s): %s",
            job.id, job.kind, job.attempt, job.max_attempts, end.reason, _first_line(end.error),
        )  # fmt: skip


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
