"""What is known of a job class: checked once, when the class is made, and registered under its kind."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from ..events import to_json_whole
from . import settings

if TYPE_CHECKING:
    from .job import Job

ARGS_BYTES_MAX = 256 * 1024


class Definition:
    """What is known of one job class. `kind` is the name by which the store knows it, `arguments` are its fields."""

    def __init__(self, job_class: type[Job], how: settings.Settings, *, runnable: bool) -> None:
        self.job_class = job_class
        self.settings = how
        self.name = job_class.__qualname__
        self.kind = f"{job_class.__module__}:{self.name}"
        self.runnable = runnable

    @cached_property
    def arguments(self) -> Mapping[str, Any]:
        """The type of each argument. Raises TypeError when one isn't known."""
        try:
            types = typing.get_type_hints(self.job_class, include_extras=True)
        except NameError as error:
            raise TypeError(f"job {self.name}: a field's type can't be found: {error}") from None
        return {field.name: types[field.name] for field in fields(self.job_class)}

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(self.job_class)

    def values(self, job: Job) -> dict[str, Any]:
        """The arguments of a job by their names."""
        return {name: getattr(job, name) for name in self.arguments}

    def encode(self, job: Job) -> str:
        """The arguments as JSON text from which `decode` makes them again. Raises ValueError."""
        if not self.runnable:
            raise ValueError(f"job {self.name} has no handle() to run")
        values = self.values(job)
        try:
            text = to_json_whole(values)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"job {self.name}: its arguments can't be written as JSON: {error}") from None
        if len(text) > ARGS_BYTES_MAX or len(text.encode()) > ARGS_BYTES_MAX:
            raise ValueError(f"job {self.name}: its arguments take more than {ARGS_BYTES_MAX // 1024} KiB of JSON")
        if not self._comes_back:
            self.decode(text)
        return text

    @cached_property
    def _comes_back(self) -> bool:
        """Whether whatever was made comes back out of JSON as it was, as not every value does."""
        plain = all(wanted in (str, int, bool) for wanted in self.arguments.values())
        return plain and not getattr(self.job_class.__post_init__, "checks_before", False)

    def decode(self, args: str) -> Job:
        """The job with the arguments in a JSON text; those that the class no longer has are passed over.

        Raises ValueError.
        """
        try:
            return self._decoder.decode(args)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - a class's own __post_init__ may raise anything
            raise self.error(error) from None

    def error(self, error: object) -> ValueError:
        """`error` as one that names the job."""
        prefix, text = f"job {self.name}: ", str(error) or type(error).__name__
        return ValueError(text if text.startswith(prefix) else prefix + text)

    def check_types(self) -> None:
        """Raise ValueError for fields whose types JSON arguments can't be checked against. A type that isn't defined
        yet is looked for again when the first job is made."""
        try:
            _ = self.arguments, self._decoder
        except NameError:
            return
        except TypeError as error:
            if not isinstance(error.__context__, NameError):
                raise ValueError(str(error)) from None


Registry = Mapping[str, Definition]
_registered: dict[str, Definition] = {}
registry: Registry = _registered
"""Every job class made so far, by the `kind` that the store knows it by. Of two that share one, the later counts."""


def define(job_class: type[Job], base: type[Job]) -> Definition:
    """Make `job_class`, a subclass of `base`, a dataclass; check it, register it. Raises ValueError."""
    _check_method(job_class.handle, "handle(self, ctx)", 2)
    _check_method(job_class.failed, "failed(self, ctx, error)", 3)
    _check_before(job_class, base)
    how = settings.read(job_class)
    if "__init__" in vars(job_class) and "__dataclass_fields__" not in vars(job_class):
        raise ValueError("arguments are fields, so there is no __init__; what must be checked fits in __post_init__")
    try:
        dataclasses.dataclass(kw_only=True)(job_class)
    except TypeError as error:
        raise ValueError(str(error)) from None
    names = [field.name for field in fields(job_class)]
    for name in names:
        if name.startswith("_") or hasattr(base, name):
            taken = f"write {name!r} without a type" if name in settings.NAMES else "the name is taken"
            raise ValueError(f"{name!r} can't be an argument: {taken}")
    if sorted(inspect.signature(job_class).parameters) != sorted(names):
        raise ValueError("every field must be an argument, and every argument a field")
    made = Definition(job_class, how, runnable=job_class.handle is not base.handle)
    made.check_types()
    if made.runnable:
        settings.check_names(how, names)
        _registered[made.kind] = made
    return made


def fields(job_class: type[Job]) -> tuple[dataclasses.Field[Any], ...]:
    """The arguments of a job class, as dataclasses know them."""
    return dataclasses.fields(job_class)  # type: ignore[arg-type]


def required(job_class: type[Job]) -> list[str]:
    """The arguments that must be given."""
    missing = dataclasses.MISSING
    return [field.name for field in fields(job_class) if field.default is missing and field.default_factory is missing]


def _check_before(job_class: type[Job], base: type[Job]) -> None:
    """Have the arguments checked before the author's `__post_init__`, in the constructor and out of the store."""
    own = job_class.__post_init__
    if own is base.__post_init__ or getattr(own, "checks_before", False):
        return

    @functools.wraps(own)
    def checked(self: Job) -> None:
        base.__post_init__(self)
        own(self)

    vars(checked)["checks_before"] = True
    job_class.__post_init__ = checked  # type: ignore[method-assign]


def _check_method(method: Callable[..., Any], wanted: str, count: int) -> None:
    if not callable(method) or inspect.isclass(method):
        raise ValueError(f"{wanted} must be a method")
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise ValueError(f"{wanted} must return what it has to say, not yield it")
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError as error:
        raise ValueError(f"{wanted} is how it is called: {error}") from None
