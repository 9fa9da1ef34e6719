"""`@job`: a plain function as a job.

    @job(queue="mail", max_attempts=3)
    def send_mail(to: str, subject: str = "", *, ctx: JobContext) -> None: ...

    ctx.dispatch(send_mail("ops@example.net", subject="hot"))

What stands where the function stood is a job class whose arguments are the function's parameters: calling it runs
nothing, but makes a job to dispatch. The function itself is `send_mail.function`, for tests and for calling it here.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack, overload

from ..backoff import Backoff
from ..config.suggest import did_you_mean
from . import settings
from .context import JobContext
from .job import Job
from .keys import Limit, Unique

CTX = "ctx"


class FunctionJob(Job):
    """Base of the job classes that `@job` makes. `function` is the function as it was written."""

    function: ClassVar[Callable[..., Any]]

    if TYPE_CHECKING:

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class SettingsOfJob(TypedDict, total=False):
    """What a job class says of itself, as keywords of `@job`: see Job."""

    queue: str
    priority: str | int
    max_attempts: int
    timeout: str
    backoff: str | Sequence[str] | Backoff
    unique: bool | str | Sequence[str] | Unique
    expires: str | None
    isolation: str
    limit: Limit | None
    needs: str | None


@overload
def job(function: Callable[..., Any], /) -> type[FunctionJob]: ...
@overload
def job(**how: Unpack[SettingsOfJob]) -> Callable[[Callable[..., Any]], type[FunctionJob]]: ...
def job(
    function: Callable[..., Any] | None = None, /, **how: Unpack[SettingsOfJob]
) -> type[FunctionJob] | Callable[[Callable[..., Any]], type[FunctionJob]]:
    """Make a job of a function at the top level of a module, `async def` or `def`: `@job` or `@job(queue=…, …)`.

    Its parameters are the job's arguments: checked against their annotations as the fields of a job class are, and
    given by position or by name. One called `ctx` is handed the JobContext instead. What it returns is the job's
    result. Raises TypeError that names the function and says why it can't be a job.
    """
    if function is None:
        return functools.partial(_made, how=how)
    return _made(function, how={})


def _made(function: Callable[..., Any], how: SettingsOfJob) -> type[FunctionJob]:
    name = getattr(function, "__qualname__", None) or repr(function)
    try:
        _check(function)
        for setting in how:
            if setting not in settings.NAMES:
                raise ValueError(f"there is no setting {setting!r} ({did_you_mean(setting, settings.NAMES)})")
        arguments = _fields(function)
    except ValueError as error:
        raise TypeError(f"job {name}: {error}") from None
    body: dict[str, Any] = {
        **how,
        **{argument: field for argument, _, field in arguments},
        "__annotations__": {argument: hint for argument, hint, _ in arguments},
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "function": staticmethod(function),
        "handle": _handle(function, [argument for argument, _, _ in arguments]),
    }
    return type(function.__name__, (FunctionJob,), body)


def _check(function: Callable[..., Any]) -> None:
    """Raise ValueError unless the function can be found again by its module and name, and returns what it has."""
    if isinstance(function, type):
        raise ValueError("it is a class; a class becomes a job by being a subclass of Job")
    if isinstance(function, staticmethod | classmethod | property):
        raise ValueError("methods can't be jobs: write a function outside of the class, or a subclass of Job")
    if not isinstance(function, types.FunctionType):
        raise ValueError("only a function written with def can be a job")
    if function.__name__ == "<lambda>":
        raise ValueError("a lambda has no name by which a worker could find it: write it with def")
    if "<locals>" in function.__qualname__:
        raise ValueError(
            "it stands inside of another function, where no worker can find it: write it at the top of its module"
        )
    if "." in function.__qualname__:
        raise ValueError("methods can't be jobs: write a function outside of the class, or a subclass of Job")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError("it must return what it has to say, not yield it")


def _fields(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Name, type and field of each argument, in the order in which they may be given. Raises ValueError."""
    arguments = []
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"{parameter} can't be stored: give each argument a name of its own, or take one list")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ValueError(f"{name!r} must be a parameter that can be given by name, so there is no '/' behind it")
        if name == CTX:
            continue
        if name.startswith("_") or hasattr(FunctionJob, name):
            raise ValueError(f"{name!r} can't be the name of a parameter, it means something else on a job")
        by_name_only = parameter.kind is parameter.KEYWORD_ONLY
        arguments.append((name, function.__annotations__.get(name, Any), _field(parameter.default, by_name_only)))
    return arguments


def _field(default: Any, by_name_only: bool) -> Any:
    if default is inspect.Parameter.empty:
        return dataclasses.field(kw_only=by_name_only)
    if type(default).__hash__ is None:  # a list, a dict: each job has one of its own
        return dataclasses.field(default_factory=functools.partial(copy.deepcopy, default), kw_only=by_name_only)
    return dataclasses.field(default=default, kw_only=by_name_only)


def _handle(function: Callable[..., Any], names: list[str]) -> Callable[[Any, JobContext], Any]:
    takes_ctx = CTX in inspect.signature(function).parameters

    def arguments(made: FunctionJob, ctx: JobContext) -> dict[str, Any]:
        given = {name: getattr(made, name) for name in names}
        return {**given, CTX: ctx} if takes_ctx else given

    if inspect.iscoroutinefunction(function):

        async def handle_async(self: FunctionJob, ctx: JobContext) -> Any:
            return await function(**arguments(self, ctx))

        return handle_async

    def handle(self: FunctionJob, ctx: JobContext) -> Any:
        return function(**arguments(self, ctx))

    return handle
