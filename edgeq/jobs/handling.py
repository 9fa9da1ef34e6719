"""The author's code and nothing else: decode the arguments, call `handle` or `failed`, say as a value what came of it.

The worker and the child process of `isolation: process` share it. It neither knows of claims nor limits the time: who
calls it cancels it. Whatever the author's code raises is an outcome; only a cancellation from outside passes.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol

from ..errors import EdgeqError, contained
from ..events import to_json_whole
from ..imports import load_name
from ..store.jobs import StoredJob
from ..store.store import storable
from .context import JobContext
from .job import Definition, Job
from .outcome import Completed, Dead, Failed, RetryAfter, Snoozed

RESULT_BYTES_MAX = 256 * 1024
ERROR_CHARACTERS_MAX = 8000


class Call(Protocol):
    """How a plain function is called: in a thread of the worker's, or directly."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """What `function` returns or raises."""


class TimedOut(TimeoutError):
    """The author's code took longer than its class allows. `cancelled` knows where it was then, if it is known."""

    def __init__(self, message: str, cancelled: BaseException | None = None) -> None:
        super().__init__(message)
        self.cancelled = cancelled


async def handle(
    definition: Definition | None, job: StoredJob, ctx: JobContext, call: Call
) -> Completed | Failed | Snoozed:
    """One attempt: decode `job.args` and run `handle(ctx)`."""
    if definition is None:
        return Failed("unknown_job", EdgeqError(f"no module of app.modules has a job class {job.kind}"), final=True)
    try:
        made = definition.decode(job.args)
    except ValueError as error:
        return Failed("undecodable", error, final=True)
    try:
        with contained("the job"):
            value = await _run(made.handle, call, ctx)
        if isinstance(value, RetryAfter | Dead):
            raise value
    except RetryAfter as later:
        return Failed("failed", later, made, retry_after=later.seconds)
    except Dead as dead:
        return Failed("dead", dead, made, final=True)
    except Exception as error:  # noqa: BLE001 - G5: nothing that a handler raises ends a worker
        return Failed("failed", error, made)
    if ctx.snoozed is not None:
        return Snoozed(ctx.snoozed.seconds, ctx.decisions)
    try:
        result = to_json_whole(value)
    except (ValueError, RecursionError) as error:
        text = f"what handle() returned can't be written as JSON: {error}"
        return Failed("bad_result", EdgeqError(text), made, final=True)
    if len(result.encode()) > RESULT_BYTES_MAX:
        text = f"what handle() returned takes more than {RESULT_BYTES_MAX // 1024} KiB of JSON"
        return Failed("bad_result", EdgeqError(text), made, final=True)
    return Completed(result, ctx.decisions)


def has_last_words(definition: Definition | None) -> bool:
    """Whether the class has a `failed` of its own."""
    return definition is not None and definition.job_class.failed is not Job.failed


async def last_words(
    definition: Definition,
    job: StoredJob,
    ctx: JobContext,
    call: Call,
    *,
    error: BaseException,
    made: Job | None = None,
) -> Completed | Failed:
    """Run `failed(ctx, error)`: of `made`, the job whose handler failed, or of one decoded anew."""
    try:
        made = made or definition.decode(job.args)
        with contained("failed()"):
            await _run(made.failed, call, ctx, error)
    except Exception as again:  # noqa: BLE001 - the job dies all the same
        return Failed("failed", again)
    return Completed("null", ctx.decisions)


async def make_context(reference: str, call: Call) -> Any:
    """What a queue's `context` makes: a function, plain or async, named as `package.module:name`.

    Raises ValueError when there is no such name, and what the function raises, always an Exception.
    """
    with contained("the context"):
        made = await call(load_name(reference))
        return await made if inspect.isawaitable(made) else made


async def _run(function: Callable[..., Any], call: Call, *args: Any) -> Any:
    if _is_async(getattr(function, "__func__", function)):
        return await function(*args)
    value = await call(function, *args)
    return await value if inspect.isawaitable(value) else value


_is_async = functools.lru_cache(maxsize=512)(inspect.iscoroutinefunction)


def describe(error: BaseException) -> str:
    """What happened, in a first line, and below it where, in the author's code. Fit to be stored. Never raises."""
    try:
        return _description(error)
    except Exception as again:  # noqa: BLE001 - an exception class of the author's may do anything when it is printed
        return f"{type(error).__name__}, which can't be printed ({type(again).__name__})"


def _description(error: BaseException) -> str:
    if isinstance(error, EdgeqError):  # from a job's process, it has both parts in it
        return storable(_shortened(str(error), 2 * ERROR_CHARACTERS_MAX))
    if isinstance(error, TimedOut):
        where = "" if error.cancelled is None else "".join(traceback.format_tb(_author_frames(error.cancelled)))
        return storable(f"{error}\n\n{where[-ERROR_CHARACTERS_MAX:]}".rstrip())
    summary = _shortened("".join(traceback.format_exception_only(error)).strip(), ERROR_CHARACTERS_MAX)
    frames = _author_frames(error)
    trace = "".join(traceback.format_exception(type(error), error, frames)) if frames else ""
    return storable(f"{summary}\n\n{trace[-ERROR_CHARACTERS_MAX:]}".rstrip())


def _shortened(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else text[:characters_max] + "…"


def _author_frames(error: BaseException) -> TracebackType | None:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("edgeq."):
        frames = frames.tb_next
    return frames
