"""The life of one claim: find the class, decode, handle, and commit how it ended.

How it ended and what the handler recorded are committed as one, and only while the claim is still the current one.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..clock import Clock
from ..errors import EdgeqError, StoreUnavailable, contained
from ..events import to_json
from ..failpoints import failpoint
from ..store import claims
from ..store.claims import Claim
from ..store.decisions import Decisions, count, record
from ..store.jobs import StoredJob, source
from ..store.store import Store, Tx, storable
from ..telemetry.metrics import Metrics
from ..units import Duration
from .context import JobContext
from .job import Job, Registry
from .outcome import Completed, Failed, Outcome

RESULT_BYTES_MAX = 256 * 1024
ERROR_CHARACTERS_MAX = 8000

Returned = asyncio.Future[tuple[Any, BaseException | None]]


class LeaseLost(EdgeqError):
    """The claim isn't the current one any more: nothing of this unit may stay."""


class Attempt:
    """One attempt at a job.

    `handling` says whether the author's code has the word, rather than the store; `abandoned` that the worker has given
    the attempt up. `threads` are those in which synchronous code was started, each done when its code has returned.
    """

    def __init__(
        self, job: StoredJob, registry: Registry, store: Store, metrics: Metrics, clock: Clock, log: logging.Logger
    ) -> None:
        self.job = job
        self.claim = Claim(job.id, job.lease_token or 0)
        self.handling = True
        self.abandoned = False
        self.threads: list[Returned] = []
        self._definition = registry.get(job.kind)
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._log = log

    async def run(self) -> str:
        """All of it; how it ended, in a word: `completed`, `retried`, `dead` or `lease_lost`.

        Raises StoreUnavailable when the store was closed first, and CancelledError when it is cancelled: then the claim
        stands until somebody ends it or its lease does.
        """
        try:
            outcome = await self._handled()
            failpoint("job.handled")
            if isinstance(outcome, Completed):
                refused = await self._complete(outcome)
                if refused is None:
                    return "completed"
                outcome = refused
            if outcome.final or self.job.attempt >= self.job.max_attempts:
                return await self._bury(outcome)
            return await self._retry(outcome)
        except LeaseLost:
            return "lease_lost"

    # The author's code

    async def _handled(self) -> Outcome:
        if self._definition is None:
            error = EdgeqError(f"no module of app.modules has a job class {self.job.kind}")
            return Failed("unknown_job", error, final=True)
        try:
            job = self._definition.decode(self.job.args)
        except ValueError as error:
            return Failed("undecodable", error, final=True)
        ctx = JobContext(self._clock, self.job)
        value, failure = await self._try(job.handle, ctx)
        if failure is not None:
            return Failed("timeout" if isinstance(failure, TimedOut) else "failed", failure, job)
        try:
            result = to_json(value)
        except ValueError as error:
            text = f"what handle() returned can't be written as JSON: {error}"
            return Failed("bad_result", EdgeqError(text), job, final=True)
        if len(result.encode()) > RESULT_BYTES_MAX:
            text = f"what handle() returned takes more than {RESULT_BYTES_MAX // 1024} KiB of JSON"
            return Failed("bad_result", EdgeqError(text), job, final=True)
        return Completed(result, ctx.decisions)

    async def _last_words(self, outcome: Failed) -> Decisions:
        """What the job's `failed` recorded. An exception in it is logged and the job dies all the same."""
        if outcome.job is None or type(outcome.job).failed is Job.failed:
            return Decisions()
        ctx = JobContext(self._clock, self.job)
        _, failure = await self._try(outcome.job.failed, ctx, outcome.error)
        if failure is not None:
            self._log.error("job %d (%s): failed() failed too", self.job.id, self.job.kind, exc_info=failure)
            return Decisions()
        return ctx.decisions

    async def _try(self, function: Callable[..., Any], *args: Any) -> tuple[Any, Exception | None]:
        """What `function` returned, or what it raised, be it sys.exit() or a cancellation of its own making."""
        try:
            with contained("the job"):
                return await self._call(function, *args), None
        except Exception as error:  # noqa: BLE001 - G5: nothing that a handler raises ends a worker
            return None, error

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        assert self._definition is not None
        limit = self._definition.settings.timeout_seconds
        try:
            async with asyncio.timeout(limit) as scope:
                if inspect.iscoroutinefunction(function):
                    return await function(*args)
                thread = in_thread(f"edgeq-job-{self.job.id}", function, *args)
                self.threads.append(thread)
                value, error = await asyncio.shield(thread)
                if error is not None:
                    raise error
                return await value if inspect.isawaitable(value) else value
        except Exception as error:
            if scope.expired():
                raise TimedOut(f"took longer than {Duration(limit)}", error) from None
            raise

    # How it ended

    async def _complete(self, outcome: Completed) -> Failed | None:
        """Commit the result; a failure when what the handler recorded can't be stored."""
        try:
            await self._commit(
                lambda tx: claims.complete(tx, self.claim, result=outcome.result, now=self._clock.now()),
                outcome.decisions,
            )
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - texts and numbers that no database takes, and what else there may be
            return Failed("failed", error)
        return None

    async def _retry(self, outcome: Failed) -> str:
        assert self._definition is not None
        delay = self._definition.settings.backoff.delay(self.job.attempt)
        text = describe(outcome.error)
        await self._commit(
            lambda tx: claims.retry(tx, self.claim, run_at=self._clock.now() + round(delay * 1e6), error=text),
            Decisions(),
        )
        self._log.warning(
            "job %d (%s) failed in attempt %d of %d, next in %.1fs: %s",
            self.job.id, self.job.kind, self.job.attempt, self.job.max_attempts, delay, text.partition("\n")[0],
        )  # fmt: skip
        return "retried"

    async def _bury(self, outcome: Failed) -> str:
        text = describe(outcome.error)

        def end(tx: Tx) -> bool:
            return claims.bury(tx, self.claim, reason=outcome.reason, error=text, now=self._clock.now())

        try:
            await self._commit(end, await self._last_words(outcome))
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception:  # noqa: BLE001 - as in _complete
            self._log.exception("job %d (%s): what failed() recorded can't be stored", self.job.id, self.job.kind)
            await self._commit(end, Decisions())
        self._metrics.dead_letters.add(1, source(self.job.queue))
        self._log.error(
            "job %d (%s) is dead after attempt %d of %d (%s): %s",
            self.job.id, self.job.kind, self.job.attempt, self.job.max_attempts, outcome.reason,
            text.partition("\n")[0],
        )  # fmt: skip
        return "dead"

    async def _commit(self, end: Callable[[Tx], bool], decisions: Decisions) -> None:
        def unit(tx: Tx) -> int:
            if not end(tx):
                raise LeaseLost(f"job {self.job.id} was taken over by another worker, or cancelled")
            return record(tx, decisions)

        self.handling = False
        try:
            duplicates = await self._store.write(unit)
        finally:
            self.handling = True
        count(self._metrics, decisions, duplicates)


class TimedOut(TimeoutError):
    """A handler took longer than its class allows. `cancelled` knows where it was then."""

    def __init__(self, message: str, ended_by: BaseException) -> None:
        super().__init__(message)
        self.cancelled = ended_by.__cause__ or ended_by


def in_thread(name: str, function: Callable[..., Any], *args: Any) -> Returned:
    """Run `function` in a thread of its own: a future of what it returned and what it raised.

    The thread is a daemon: one that hangs doesn't keep the program from ending.
    """
    loop = asyncio.get_running_loop()
    returned: Returned = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        value, failure = None, None
        try:
            value = context.run(function, *args)
        except BaseException as error:  # noqa: BLE001 - handed on to who waits for it
            failure = error
        try:
            loop.call_soon_threadsafe(returned.set_result, (value, failure))
        except RuntimeError:
            logging.getLogger("edgeq.jobs").debug("the event loop ended before %s", name)

    threading.Thread(target=work, name=name, daemon=True).start()
    return returned


def describe(error: BaseException) -> str:
    """What happened, in a first line, and below it where, in the author's code. Fit to be stored."""
    if isinstance(error, EdgeqError):
        return storable(str(error))
    if isinstance(error, TimedOut):
        where = "".join(traceback.format_tb(_author_frames(error.cancelled)))
        return storable(f"{error}\n\n{where[-ERROR_CHARACTERS_MAX:]}".rstrip())
    summary = "".join(traceback.format_exception_only(error)).strip()
    if len(summary) > ERROR_CHARACTERS_MAX:
        summary = summary[:ERROR_CHARACTERS_MAX] + "…"
    frames = _author_frames(error)
    trace = "".join(traceback.format_exception(type(error), error, frames)) if frames else ""
    return storable(f"{summary}\n\n{trace[-ERROR_CHARACTERS_MAX:]}".rstrip())


def _author_frames(error: BaseException) -> TracebackType | None:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("edgeq.jobs."):
        frames = frames.tb_next
    return frames
