"""What a job is: subclass `Job`, declare its arguments as fields, write `handle`.

    class CloseValve(Job):
        queue = "critical"; max_attempts = 5; timeout = "30s"; backoff = "1s..60s"
        device: str

        async def handle(self, ctx): ...

Making the class checks it and registers it. A job in the store names its class as `module:Name`, and only what is
registered is ever run: nothing is imported because the database says so.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, Unpack, dataclass_transform

import msgspec

from ..backoff import Backoff
from ..config.suggest import did_you_mean
from ..context import How
from ..imports import load_name
from ..store.jobs import NewJob
from .context import JobContext
from .definition import ARGS_BYTES_MAX, Definition, Registry, define, registry, required
from .dispatch import row
from .keys import Limit, Unique

__all__ = ["ARGS_BYTES_MAX", "Definition", "Job", "Registry", "definition", "registry", "resolve"]


# Values of these types are never converted. Not to ask is a third of a job's making.
_AS_THEY_ARE = (str, int, float, bool)


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
class Job:
    """Base of all jobs. Every subclass is a dataclass whose fields are the job's arguments, given by keyword.

    Arguments are checked against their types when the job is made, and again before they are stored as JSON (at most
    ARGS_BYTES_MAX bytes); bytes and times are stored as text. The settings below are written without a type:

    - `queue`: which worker runs it. `priority`: `"high"`, `"normal"`, `"low"` or a number; a greater one runs first.
    - `max_attempts`: how often it is tried. `backoff`: the wait between attempts, `"1s..60s"` (doubling), `"10s"`,
      `["1s", "5s", "30s"]` (the last one again and again), or a Backoff(...) for another jitter than ±10 %.
    - `timeout`: how long one attempt may take. An `async def handle` is cancelled then. A `def handle` runs in a
      thread, which can't be ended from outside: the attempt counts as failed, but the thread goes on, and takes up
      one of the queue's `concurrency` until it returns.
    - `isolation`: with `"process"` it runs in a process of its own, which can be ended. Of these a queue has
      `processes`; among other jobs, a job that waits for one takes up one of the queue's `concurrency`.
    - `expires`: no attempt begins later than so long after the time it was to run at first, `"1h"`.
    - `unique`: True, argument names or Unique(...): it isn't added while one with the same arguments is there.
    - `limit`: Limit(...), how many of them may run at once or in a time. `needs`: the name of the dependency without
      which it can't run; when that keeps failing, its jobs wait.
    """

    queue: ClassVar[str] = "default"
    priority: ClassVar[str | int] = "normal"
    max_attempts: ClassVar[int] = 5
    timeout: ClassVar[str] = "60s"
    backoff: ClassVar[str | Sequence[str] | Backoff] = "1s..60s"
    unique: ClassVar[bool | str | Sequence[str] | Unique] = False
    expires: ClassVar[str | None] = None
    isolation: ClassVar[str] = "none"
    limit: ClassVar[Limit | None] = None
    needs: ClassVar[str | None] = None
    _definition: ClassVar[Definition]
    _how: ClassVar[How] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check and register the class. Raises TypeError that names it and what is wrong."""
        super().__init_subclass__(**kwargs)
        try:
            cls._definition = define(cls, Job)
        except ValueError as error:
            raise TypeError(f"job {cls.__qualname__}: {error}") from None

    def __post_init__(self) -> None:
        """Check the arguments. Raises ValueError that names job and argument. It comes before a job's own
        `__post_init__`, whether that calls it or not."""
        for name, wanted in self._definition.arguments.items():
            value = getattr(self, name)
            if type(value) is wanted and wanted in _AS_THEY_ARE:
                continue
            try:
                converted = msgspec.convert(value, wanted)
            except msgspec.ValidationError as error:
                raise ValueError(f"job {type(self).__qualname__}: {name}: {error}") from None
            if converted is not value:
                object.__setattr__(self, name, converted)

    def handle(self, ctx: JobContext) -> Any:
        """Do it. Must be written by each job, `async def` or `def`.

        It is called again after it raised, and may be called again although it returned (the power can fail before that
        is on disk), up to `max_attempts` times. What it returns, anything JSON can say, is stored as the result.
        """
        raise NotImplementedError

    def failed(self, ctx: JobContext, error: BaseException) -> Any:
        """Called after the last attempt failed, `async def` or `def`, under the same timeout; what it records through
        `ctx` is committed with the job's death. Not called when the process died with the last attempt."""

    @classmethod
    def from_args(cls, given: Mapping[str, Any]) -> Self:
        """A job with the arguments in a mapping, as it comes out of YAML, JSON or a message.

        Raises ValueError that names the job and the argument that is unknown, missing or of the wrong type.
        """
        made = cls._definition
        if not isinstance(given, Mapping):
            raise made.error(f"its arguments must be a mapping, not {given!r:.80}")
        for name in given:
            if name not in made.arguments:
                hint = did_you_mean(str(name), made.arguments) or "it has none"
                raise made.error(f"there is no argument {name!r:.80} ({hint})")
        if missing := [name for name in required(cls) if name not in given]:
            raise made.error(f"{', '.join(missing)}: missing")
        try:
            return cls(**given)
        except Exception as error:  # noqa: BLE001 - a class's own __post_init__ may raise anything
            raise made.error(error) from None

    def configure(self, **how: Unpack[How]) -> Self:
        """The same job, to be queued and run in another way than its class says: see How.

        For where no `how` can be given: in a list of jobs, for a callback. What a dispatch itself says counts more.
        """
        configured = copy.copy(self)
        object.__setattr__(configured, "_how", {**self._how, **how})
        return configured

    def new_job(
        self, *, now: int, run_at: int | None = None, cause_id: int | None = None, **how: Unpack[How]
    ) -> NewJob:
        """The row to store. `now` and `run_at` (default: at once) are microseconds since 1970 UTC.

        Raises ValueError when the arguments can't be stored, `run_at` isn't a time, or something in `how` is wrong.
        """
        given: Mapping[str, Any] = how
        if self._how:
            given = {**self._how, **{name: value for name, value in how.items() if value is not None}}
        return row(self, self._definition, now=now, run_at=run_at, cause_id=cause_id, how=given)


# The types of the settings are for type checkers: every job class would evaluate them again, at twice its cost.
Job.__annotations__ = {}


def definition(job: Job | type[Job]) -> Definition:
    """What is known of a job's class."""
    return job._definition


def resolve(reference: str) -> type[Job]:
    """The job class, or what `@job` made of a function, that a configuration names as `package.module:name`; imports
    the module.

    Raises ValueError that says what is wrong.
    """
    target = load_name(reference)
    if not isinstance(target, type) or not issubclass(target, Job) or target is Job:
        hint = "; with @job on it, the function would be one" if inspect.isfunction(target) else ""
        raise ValueError(f"{reference} isn't a job class{hint}")
    if not definition(target).runnable:
        raise ValueError(f"job {target.__qualname__} has no handle() to run")
    return target
