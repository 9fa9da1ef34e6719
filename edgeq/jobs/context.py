"""`ctx` of a job."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from ..clock import Clock
from ..context import Context, delay_seconds
from ..events import from_json, to_json
from ..store.jobs import Options, StoredJob
from ..store.store import storable
from .outcome import Snoozed

PROGRESS_CHARACTERS_MAX = 200


class JobInfo(msgspec.Struct, frozen=True):
    """The job that is being run. `attempt` counts from 1; `id` stays the same at every attempt, so it makes a good
    idempotency key for what a handler does outside."""

    id: int
    queue: str
    kind: str
    attempt: int
    max_attempts: int


class ParentInfo(msgspec.Struct, frozen=True):
    """The job that ended and whose callback is being run: its arguments, and its `result`, as JSON says them, or
    `error`, a text whose first line sums it up."""

    id: int
    kind: str
    args: dict[str, Any]
    result: Any = None
    error: str | None = None


class JobContext(Context):
    """What a handler is given. What it records is committed together with the job's completion (or its snooze); when
    the attempt fails, none of it is.

    `context` is what the queue's `context` function made, once per worker or child process; None without one.
    `snoozed` is what the last `snooze` said, if the handler called it. `report` takes each progress as JSON text; it
    may be called in any thread.
    """

    def __init__(
        self,
        clock: Clock,
        job: StoredJob,
        *,
        context: Any = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(clock, cause_id=job.cause_id)
        self.job = JobInfo(job.id, job.queue, job.kind, job.attempt, job.max_attempts)
        self.context = context
        self.snoozed: Snoozed | None = None
        self._report = report
        self._options = job.options

    @property
    def now(self) -> int:
        """Wall time, in microseconds since 1970 UTC: a job may run for long, and a delay counts from the call."""
        return self.clock.now()

    @cached_property
    def parent(self) -> ParentInfo | None:
        """The job whose end this job was given for, as `on_success` or `on_failure`; None for any other."""
        parent = msgspec.json.decode(self._options, type=Options).parent if self._options else None
        if parent is None:
            return None
        result = None if parent.result is None else from_json(parent.result)
        return ParentInfo(parent.id, parent.kind, from_json(parent.args), result, parent.error)

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far the job is: `fraction` from 0 to 1, and in a few words (PROGRESS_CHARACTERS_MAX at most, the rest
        is cut) what it is doing. May be called in any thread, and as often as one likes; it is stored now and then.
        Without effect once the attempt has ended. Raises ValueError for any other fraction.
        """
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise ValueError(f"progress must be a number from 0 to 1, not {fraction!r:.80}")
        if not isinstance(text, str):
            raise ValueError(f"the text of a progress must be a text, not {text!r:.80}")
        if self._report is not None:
            words = storable(text[:PROGRESS_CHARACTERS_MAX])[:PROGRESS_CHARACTERS_MAX]
            self._report(to_json({"fraction": float(fraction), "text": words}))

    def snooze(self, delay: str | float) -> Snoozed:
        """Put the job off by `delay` (`"5m"`, or seconds) once the handler returns, whatever it returns; the attempt
        doesn't count. Of several calls the last one counts. Raises ValueError for a negative or unreadable delay.

        `return ctx.snooze("5m")` reads well, but the call alone is enough. What the handler has recorded is committed.
        """
        self.snoozed = Snoozed(delay_seconds(delay), self.decisions)
        return self.snoozed
