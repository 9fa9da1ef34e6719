"""What a job is: subclass `Job`, declare its arguments as fields, write `handle`.

    class CloseValve(Job):
        queue = "critical"; max_attempts = 5; timeout = "30s"; backoff = "1s..60s"
        device: str

        async def handle(self, ctx): ...

Making the class checks it and registers it. A job in the store names its class as `module:Name`, and only what is
registered is ever run: nothing is imported because the database says so.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, dataclass_transform

import msgspec

from ..backoff import Backoff
from ..clock import is_time
from ..events import to_json
from ..imports import load_name
from ..store.jobs import NewJob
from . import settings
from .context import JobContext
from .keys import Limit, Unique

ARGS_BYTES_MAX = 256 * 1024


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
class Job:
    """Base of all jobs. Every subclass is a dataclass whose fields are the job's arguments, given by keyword.

    Arguments are checked against their types when the job is made, and again before they are stored as JSON (at most
    ARGS_BYTES_MAX bytes); bytes and times are stored as text. The settings below are written without a type:

    - `queue`: which worker runs it. `priority`: `"high"`, `"normal"`, `"low"` or a number; a greater one runs first.
    - `max_attempts`: how often it is tried. `backoff`: the wait between attempts, `"1s..60s"` (doubling) or `"10s"`.
    - `timeout`: how long one attempt may take. An `async def handle` is cancelled then. A `def handle` runs in a
      thread, which can't be ended from outside: the attempt counts as failed, but the thread goes on, and takes up
      one of the queue's `concurrency` until it returns.
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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check and register the class. Raises TypeError that names it and what is wrong."""
        super().__init_subclass__(**kwargs)
        try:
            cls._definition = _define(cls)
        except ValueError as error:
            raise TypeError(f"job {cls.__qualname__}: {error}") from None

    def __post_init__(self) -> None:
        """Check the arguments. Raises ValueError that names job and argument. It comes before a job's own
        `__post_init__`, whether that calls it or not."""
        for name, wanted in self._definition.arguments.items():
            value = getattr(self, name)
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

    def new_job(self, *, now: int, run_at: int | None = None, cause_id: int | None = None) -> NewJob:
        """The row to store. `now` and `run_at` (default: at once) are microseconds since 1970 UTC.

        Raises ValueError when the arguments can't be stored, or `run_at` isn't a time.
        """
        how = self._definition.settings
        if run_at is not None and not is_time(run_at):
            raise ValueError(f"run_at must be in microseconds since 1970 UTC, not {run_at!r}")
        return NewJob(
            queue=how.queue,
            kind=self._definition.kind,
            args=self._definition.encode(self),
            run_at=now if run_at is None else run_at,
            created_at=now,
            priority=how.priority,
            max_attempts=how.max_attempts,
            cause_id=cause_id,
        )


class Definition:
    """What is known of one job class."""

    def __init__(self, job_class: type[Job], how: settings.Settings) -> None:
        self.job_class = job_class
        self.settings = how
        self.kind = f"{job_class.__module__}:{job_class.__qualname__}"
        self.runnable = job_class.handle is not Job.handle

    @cached_property
    def arguments(self) -> Mapping[str, Any]:
        """The type of each argument. Raises TypeError when one isn't known."""
        try:
            types = typing.get_type_hints(self.job_class, include_extras=True)
        except NameError as error:
            raise TypeError(f"job {self.job_class.__qualname__}: a field's type can't be found: {error}") from None
        return {field.name: types[field.name] for field in _fields(self.job_class)}

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(self.job_class)

    def encode(self, job: Job) -> str:
        """The arguments as JSON text from which `decode` makes them again. Raises ValueError."""
        name = self.job_class.__qualname__
        if not self.runnable:
            raise ValueError(f"job {name} has no handle() to run")
        try:
            text = to_json({argument: getattr(job, argument) for argument in self.arguments})
        except (TypeError, ValueError) as error:
            raise ValueError(f"job {name}: its arguments can't be written as JSON: {error}") from None
        if len(text) > ARGS_BYTES_MAX or len(text.encode()) > ARGS_BYTES_MAX:
            raise ValueError(f"job {name}: its arguments take more than {ARGS_BYTES_MAX // 1024} KiB of JSON")
        self.decode(text)  # not every value comes back: JSON has no NaN
        return text

    def decode(self, args: str) -> Job:
        """The job with the arguments in a JSON text; those that the class no longer has are passed over.

        Raises ValueError.
        """
        try:
            return self._decoder.decode(args)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - a class's own __post_init__ may raise anything
            raise ValueError(f"job {self.job_class.__qualname__}: {error}") from None


Registry = Mapping[str, Definition]
_registered: dict[str, Definition] = {}
registry: Registry = _registered
"""Every job class made so far, by the `kind` that the store knows it by. Of two that share one, the later counts."""


def definition(job: Job | type[Job]) -> Definition:
    """What is known of a job's class."""
    return job._definition


def resolve(reference: str) -> type[Job]:
    """The job class that a configuration names as `package.module:Name`; imports the module.

    Raises ValueError that says what is wrong.
    """
    target = load_name(reference)
    if not isinstance(target, type) or not issubclass(target, Job) or target is Job:
        raise ValueError(f"{reference} isn't a job class")
    if not definition(target).runnable:
        raise ValueError(f"job {target.__qualname__} has no handle() to run")
    return target


def _define(job_class: type[Job]) -> Definition:
    """Make `job_class` a dataclass, check it, register it. Raises ValueError."""
    _check_method(job_class.handle, 2)
    _check_method(job_class.failed, 3)
    _check_before(job_class)
    how = settings.read(job_class)
    if "__init__" in vars(job_class) and "__dataclass_fields__" not in vars(job_class):
        raise ValueError("arguments are fields, so there is no __init__; what must be checked fits in __post_init__")
    try:
        dataclasses.dataclass(kw_only=True)(job_class)
    except TypeError as error:
        raise ValueError(str(error)) from None
    for field in _fields(job_class):
        if field.name.startswith("_") or hasattr(Job, field.name):
            taken = f"write {field.name!r} without a type" if field.name in settings.NAMES else "the name is taken"
            raise ValueError(f"{field.name!r} can't be an argument: {taken}")
    parameters = list(inspect.signature(job_class).parameters)
    if sorted(parameters) != sorted(field.name for field in _fields(job_class)):
        raise ValueError("every field must be an argument, and every argument a field")
    made = Definition(job_class, how)
    _check_types(made)
    if made.runnable:
        _registered[made.kind] = made
    return made


def _check_before(job_class: type[Job]) -> None:
    """Have the arguments checked before the author's `__post_init__`, in the constructor and out of the store."""
    own = job_class.__post_init__
    if own is Job.__post_init__ or getattr(own, "checks_before", False):
        return

    @functools.wraps(own)
    def checked(self: Job) -> None:
        Job.__post_init__(self)
        own(self)

    vars(checked)["checks_before"] = True
    job_class.__post_init__ = checked  # type: ignore[method-assign]


def _check_types(made: Definition) -> None:
    """Refuse fields whose types JSON arguments can't be checked against. A type that isn't defined yet is looked for
    again when the first job is made."""
    try:
        _ = made.arguments, made._decoder
    except NameError:
        return
    except TypeError as error:
        if not isinstance(error.__context__, NameError):
            raise ValueError(str(error)) from None


def _check_method(method: Callable[..., Any], count: int) -> None:
    wanted = "handle(self, ctx)" if count == 2 else "failed(self, ctx, error)"
    if not callable(method) or inspect.isclass(method):
        raise ValueError(f"{wanted} must be a method")
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise ValueError(f"{wanted} must return what it has to say, not yield it")
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError as error:
        raise ValueError(f"{wanted} is how it is called: {error}") from None


def _fields(job_class: type[Job]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(job_class)  # type: ignore[arg-type]
