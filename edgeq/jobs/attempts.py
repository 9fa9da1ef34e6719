"""The attempts that run in this process: begun, kept within their time, cancelled, given up.

Each ends with an Ending, which is handed to the worker to be committed; or without one, when the claim is no longer
ours. Code that won't end when it is cancelled isn't waited for longer than CANCEL_SECONDS: the attempt is over then and
what comes of it is void, but the code goes on, is `overdue`, and takes up room until it has really returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from ..clock import Clock
from ..failpoints import failpoint
from ..store import claims
from ..store.decisions import Decisions
from ..store.jobs import StoredJob
from ..units import Duration
from . import ends
from .attempt import Attempt
from .context import JobContext
from .ends import Ending
from .handling import TimedOut, handle, has_last_words, last_words
from .job import Definition, Registry
from .outcome import Completed, Failed, Outcome
from .threads import Call, Threads

if TYPE_CHECKING:
    from .isolation.pool import ProcessPool  # who isolates nothing doesn't pay for it

CANCEL_SECONDS = 1.0


class Attempts:
    """All attempts of one worker. `ended` gets each Ending, `changed` is called when one is over without."""

    def __init__(
        self,
        threads: Threads,
        registry: Registry,
        clock: Clock,
        log: logging.Logger,
        *,
        isolated: bool,
        processes: Callable[[], ProcessPool] | None,
        timeout_seconds: float | None,
        ended: Callable[[Ending], None],
        changed: Callable[[], None],
    ) -> None:
        self.context: Any = None
        self.running: dict[Attempt, None] = {}
        self.overdue: set[asyncio.Task[None] | Call] = set()
        self.reporting: set[Attempt] = set()
        self.next_deadline = inf
        self._threads = threads
        self._registry = registry
        self._clock = clock
        self._log = log
        self._isolated = isolated
        self._processes = processes
        self._pool: ProcessPool | None = None
        self._timeout_seconds = timeout_seconds
        self._ended = ended
        self._changed = changed
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def stuck(self) -> bool:
        """See ProcessPool."""
        return self._pool is not None and self._pool.stuck

    def begin(self, job: StoredJob, *, given_back: bool = False) -> None:
        """Run a job that was claimed; or give it back, untouched."""
        attempt = Attempt(job, self._registry.get(job.kind), self._threads, self._note)
        self.running[attempt] = None
        late = ends.has_expired(job, self._clock.now())
        if given_back:
            self._end(attempt, claims.Released(job), Decisions())
        elif late is not None:
            self._conclude(attempt, late)
        else:
            self._start(attempt)

    def enforce(self, now: float) -> None:
        """Cancel those whose time is over, and give up those that were cancelled and go on. `now` is monotonic."""
        if now < self.next_deadline:
            return
        for attempt in [attempt for attempt in self.running if attempt.deadline <= now]:
            if attempt.cancelled:
                self._give_up(attempt)
            else:
                self._cancel(attempt)
        self.next_deadline = min((attempt.deadline for attempt in self.running), default=inf)

    def abandon(self, attempts: Iterable[Attempt], fate: Literal["lost", "released"]) -> None:
        """End them now, whatever they were at: nothing that they have decided counts."""
        for attempt in attempts:
            if fate == "lost" or not attempt.fate:
                attempt.fate = fate
            if not attempt.cancelled and attempt in self.running:
                self._cancel(attempt)

    def refused(self, ending: Ending, error: Exception) -> None:
        """What a job recorded can't be stored: that is a failure of its attempt. The claim is still ours."""
        attempt = ending.attempt
        if isinstance(ending.end, claims.Completed | claims.Snoozed):
            self.running[attempt] = None
            self._conclude(attempt, Failed("failed", error))
        elif ending.decisions:
            self._log.error(
                "job %d (%s): what failed() recorded can't be stored",
                attempt.job.id, attempt.job.kind, exc_info=error,
            )  # fmt: skip
            self._ended(ending.without_decisions())
        else:
            self._log.error("job %d: its end can't be stored", attempt.job.id, exc_info=error)

    def counts(self, ending: Ending) -> None:
        """The last attempt has failed, and nothing speaks for another one: the job is to be buried after all."""
        attempt = ending.attempt
        self.running[attempt] = None
        assert attempt.failure is not None
        self._conclude(attempt, attempt.failure, counts=True)

    async def over(self, seconds: float) -> None:
        """Return when none runs any more, or after `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (tasks := [each.task for each in self.running if each.task]) and (left := end - loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, grace_seconds: float) -> None:
        """End the threads and processes. What is left in them is left behind."""
        for attempt in self.running:
            if attempt.task is not None:
                attempt.task.cancel()
        self._threads.close()
        if self._pool is not None:
            await self._pool.close(grace_seconds)

    # The author's code

    def _start(self, attempt: Attempt) -> None:
        attempt.begun = attempt.cancelled = False
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        attempt.task = self._loop.create_task(self._attend(attempt), name=f"job-{attempt.job.id}")
        definition = attempt.definition
        if definition is None or self._runs_in_process(definition):
            return
        seconds = self._timeout_seconds or definition.settings.timeout_seconds
        attempt.deadline = self._clock.monotonic() + seconds
        if attempt.deadline < self.next_deadline:
            self.next_deadline = attempt.deadline
            self._changed()

    async def _attend(self, attempt: Attempt) -> None:
        """What the task of an attempt does. Never raises."""
        attempt.begun = True
        task = attempt.task
        outcome: Outcome | None = None
        stopped: BaseException | None = None
        try:
            outcome = await self._code(attempt)
        except asyncio.CancelledError as error:
            stopped = error
        except Exception as error:  # noqa: BLE001 - a pool that can't run the job
            outcome = Failed("failed", error)
        failpoint("job.handled")
        if attempt.task is task:
            self._handled(attempt, outcome, stopped)
        elif task is not None:  # given up meanwhile
            self._returned(task)

    def _code(self, attempt: Attempt) -> Coroutine[Any, Any, Outcome]:
        job, definition, failure = attempt.job, attempt.definition, attempt.failure
        if definition is not None and self._runs_in_process(definition):
            return self._in_process(attempt, definition)
        ctx = JobContext(self._clock, job, context=self.context, report=attempt.report)
        if attempt.buried is None or failure is None or definition is None:
            return handle(definition, job, ctx, attempt.call)
        return last_words(definition, job, ctx, attempt.call, error=failure.error, made=failure.job)

    def _runs_in_process(self, definition: Definition) -> bool:
        return self._processes is not None and (self._isolated or definition.settings.isolation == "process")

    async def _in_process(self, attempt: Attempt, definition: Definition) -> Outcome:
        if self._pool is None:
            assert self._processes is not None
            self._pool = self._processes()
        return await self._pool.run(
            attempt.job,
            report=attempt.report,
            timeout_seconds=self._timeout_seconds or definition.settings.timeout_seconds,
            failed=None if attempt.buried is None else attempt.buried.error,
        )

    # How it ends

    def _cancel(self, attempt: Attempt) -> None:
        attempt.cancelled = True
        assert attempt.task is not None
        attempt.task.cancel()
        if not attempt.begun:  # then the task ends without a word
            self._handled(attempt, None, None)
            return
        attempt.deadline = self._clock.monotonic() + CANCEL_SECONDS
        if attempt.deadline < self.next_deadline:
            self.next_deadline = attempt.deadline
            self._changed()

    def _give_up(self, attempt: Attempt) -> None:
        assert attempt.task is not None
        self._leave_behind(attempt, attempt.task)
        self._handled(attempt, None, None)

    def _leave_behind(self, attempt: Attempt, code: asyncio.Task[None] | Call) -> None:
        self.overdue.add(code)
        self._log.warning(
            "attempt %d of job %d (%s) is over, but its code goes on, and takes up a slot until it returns",
            attempt.job.attempt, attempt.job.id, attempt.job.kind,
        )  # fmt: skip

    def _handled(self, attempt: Attempt, outcome: Outcome | None, stopped: BaseException | None) -> None:
        """The author's code has come to an end, or isn't waited for any longer."""
        attempt.task = None
        attempt.deadline = inf
        for call in attempt.unreturned():
            self._leave_behind(attempt, call)
            call.on_return = self._returned
        if attempt.fate == "lost":
            self._leave(attempt)
            self._changed()
        elif attempt.fate == "released":
            self._end(attempt, claims.Released(attempt.job), Decisions())
        elif attempt.cancelled:
            self._conclude(attempt, self._timed_out(attempt, outcome, stopped))
        elif outcome is None:
            self._conclude(attempt, Failed("failed", RuntimeError("the job cancelled itself")))
        else:
            self._conclude(attempt, outcome)

    def _timed_out(self, attempt: Attempt, outcome: Outcome | None, stopped: BaseException | None) -> Outcome:
        """What a job that was cancelled at its time limit made of it; if only a failure, then it is that."""
        if outcome is not None and not (isinstance(outcome, Failed) and outcome.reason == "failed"):
            return outcome
        assert attempt.definition is not None
        seconds = self._timeout_seconds or attempt.definition.settings.timeout_seconds
        text = f"took longer than {Duration(seconds)}"
        if outcome is not None:
            return Failed("timeout", TimedOut(text, outcome.error), outcome.job, retry_after=outcome.retry_after)
        return Failed("timeout", TimedOut(text, stopped))

    def _conclude(self, attempt: Attempt, outcome: Outcome, *, counts: bool = False) -> None:
        """Say how the claim ends; but first let a job that is to be buried have its last words."""
        if attempt.buried is not None:
            decisions = Decisions()
            if isinstance(outcome, Completed):
                decisions = outcome.decisions
            elif isinstance(outcome, Failed):
                self._log.error(
                    "job %d (%s): failed() failed too", attempt.job.id, attempt.job.kind, exc_info=outcome.error
                )
            self._end(attempt, attempt.buried, decisions)
            return
        end = ends.end_of(attempt.job, attempt.definition, outcome, self._clock.now(), counts=counts)
        if not isinstance(outcome, Failed):
            self._end(attempt, end, outcome.decisions)
            return
        attempt.failure = outcome
        if isinstance(end, claims.Buried) and outcome.reason != "undecodable" and has_last_words(attempt.definition):
            attempt.buried = end
            self._start(attempt)
        else:
            self._end(attempt, end, Decisions())

    def _end(self, attempt: Attempt, end: claims.End, decisions: Decisions) -> None:
        self._leave(attempt)
        self._ended(Ending(attempt, end, decisions, attempt.progress()))

    def _leave(self, attempt: Attempt) -> None:
        self.running.pop(attempt, None)
        self.reporting.discard(attempt)

    def _returned(self, code: asyncio.Task[None] | Call) -> None:
        self.overdue.discard(code)
        self._changed()

    # Progress

    def _note(self, attempt: Attempt) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop may have ended by now
            self._loop.call_soon_threadsafe(self._noted, attempt)

    def _noted(self, attempt: Attempt) -> None:
        if attempt in self.running:
            self.reporting.add(attempt)
            self._changed()
