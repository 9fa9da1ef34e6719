"""What a job class says about how it is run, checked when the class is made."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import msgspec

from ..backoff import Backoff
from ..config.checks import label
from ..config.suggest import did_you_mean
from ..units import Duration
from .keys import Limit, Unique

NAMES = (
    "queue", "priority", "max_attempts", "timeout", "backoff", "unique", "expires", "isolation", "limit", "needs",
)  # fmt: skip
PRIORITIES = {"high": 10, "normal": 0, "low": -10}
PRIORITY_MAX = 1000
ATTEMPTS_MAX = 1000
SECONDS_MAX = 366 * 86400.0


class Settings(msgspec.Struct, frozen=True):
    """How jobs of a class are run. A greater `priority` runs first; `timeout_seconds` is for one attempt. No attempt
    begins later than `expires_us` microseconds after the job's first `run_at`. `isolation`: `none` or `process`.
    `needs` is the dependency whose breaker the job heeds."""

    queue: str
    priority: int
    max_attempts: int
    timeout_seconds: float
    backoff: Backoff
    unique: Unique | None = None
    expires_us: int | None = None
    isolation: str = "none"
    limit: Limit | None = None
    needs: str | None = None


def read(job_class: type) -> Settings:
    """The settings that stand on `job_class`. Raises ValueError that names the setting."""

    def checked(name: str, parse: Any) -> Any:
        value = getattr(job_class, name)
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"{name} = {value!r}: {error}") from None

    arguments = inspect.get_annotations(job_class)
    for name, value in vars(job_class).items():
        if name.islower() and name[0] != "_" and name not in NAMES and name not in arguments and _is_plain(value):
            raise ValueError(
                f"there is no setting {name!r} ({did_you_mean(name, NAMES)}); an argument needs a type "
                f"('{name}: str'), a constant a name in capitals"
            )
    return Settings(
        checked("queue", queue),
        checked("priority", priority),
        checked("max_attempts", max_attempts),
        checked("timeout", _seconds),
        checked("backoff", _backoff),
        checked("unique", unique),
        checked("expires", expires_us),
        checked("isolation", _isolation),
        checked("limit", _limit),
        checked("needs", _needs),
    )


def check_names(how: Settings, arguments: Collection[str]) -> None:
    """Raise ValueError when a key is to be made of an argument that isn't there."""
    check_arguments("unique", how.unique, arguments)
    check_arguments("limit", how.limit, arguments)


def check_arguments(setting: str, rule: Unique | Limit | None, arguments: Collection[str]) -> None:
    """Raise ValueError when `rule` names an argument that isn't there."""
    for name in (rule.by if rule else None) or ():
        if name not in arguments:
            raise ValueError(f"{setting}: there is no argument {name!r} ({did_you_mean(name, arguments)})")


def _is_plain(value: object) -> bool:
    """Not a method, a nested class, a property: a value that its author meant to set something with."""
    return not callable(value) and not hasattr(type(value), "__get__")


def queue(value: object) -> str:
    """The name of a queue. Raises ValueError, as all below, for anything else."""
    return _label(value)


def _label(value: object) -> str:
    text = value if isinstance(value, str) else ""
    label(text)
    return text


def priority(value: object) -> int:
    """`"high"`, `"normal"`, `"low"` or a number, as a number."""
    number = PRIORITIES.get(value) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) > PRIORITY_MAX:
        raise ValueError(
            f"must be {', '.join(map(repr, PRIORITIES))} or a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"
        )
    return number


def max_attempts(value: object) -> int:
    """From 1 to ATTEMPTS_MAX."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= ATTEMPTS_MAX:
        raise ValueError(f"must be a whole number from 1 to {ATTEMPTS_MAX}")
    return value


def expires_us(value: object) -> int | None:
    """`"1h"` in microseconds; None: never."""
    return None if value is None else round(_seconds(value) * 1e6)


def unique(value: object) -> Unique | None:
    """False, True (by all arguments), the names of arguments, or Unique(...)."""
    if value is False or isinstance(value, Unique):
        return value or None
    if value is True:
        return Unique()
    if isinstance(value, str | tuple | list):
        return Unique(by=value)
    raise ValueError("must be False, True, the names of arguments such as ('device',), or Unique(...)")


def _seconds(value: object) -> float:
    seconds = float(Duration.parse(value))
    if not 0 < seconds <= SECONDS_MAX:
        raise ValueError("must be longer than nothing and at most 366d")
    return seconds


def _backoff(value: object) -> Backoff:
    backoff = Backoff.parse(value)
    if backoff.most > SECONDS_MAX:
        raise ValueError("must be at most 366d")
    return backoff


def _isolation(value: object) -> str:
    if value not in ("none", "process"):
        raise ValueError("must be 'none' or 'process'")
    return str(value)


def _limit(value: object) -> Limit | None:
    if value is not None and not isinstance(value, Limit):
        raise ValueError("must be Limit(...), such as Limit(by=('device',), concurrency=1)")
    return value


def _needs(value: object) -> str | None:
    return None if value is None else _label(value)
