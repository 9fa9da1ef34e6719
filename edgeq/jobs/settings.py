"""What a job class says about how it is run, checked when the class is made."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from ..backoff import Backoff
from ..config.suggest import did_you_mean
from ..units import Duration

NAMES = ("queue", "priority", "max_attempts", "timeout", "backoff")
PRIORITIES = {"high": 10, "normal": 0, "low": -10}
PRIORITY_MAX = 1000
ATTEMPTS_MAX = 1000
SECONDS_MAX = 366 * 86400.0

_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Settings(msgspec.Struct, frozen=True):
    """How jobs of a class are run. A greater `priority` runs first; `timeout_seconds` is for one attempt."""

    queue: str
    priority: int
    max_attempts: int
    timeout_seconds: float
    backoff: Backoff


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
        checked("queue", _queue),
        checked("priority", _priority),
        checked("max_attempts", _attempts),
        checked("timeout", _timeout),
        checked("backoff", _backoff),
    )


def _is_plain(value: object) -> bool:
    """Not a method, a nested class, a property: a value that its author meant to set something with."""
    return not callable(value) and not hasattr(type(value), "__get__")


def _queue(value: object) -> str:
    if not isinstance(value, str) or not _QUEUE.fullmatch(value):
        raise ValueError("must be a name of up to 64 letters, digits, '_', '-' and '.'")
    return value


def _priority(value: object) -> int:
    number = PRIORITIES.get(value) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) > PRIORITY_MAX:
        raise ValueError(
            f"must be {', '.join(map(repr, PRIORITIES))} or a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"
        )
    return number


def _attempts(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= ATTEMPTS_MAX:
        raise ValueError(f"must be a whole number from 1 to {ATTEMPTS_MAX}")
    return value


def _timeout(value: object) -> float:
    seconds = float(Duration.parse(value))
    if not 0 < seconds <= SECONDS_MAX:
        raise ValueError("must be longer than nothing and at most 366d")
    return seconds


def _backoff(value: object) -> Backoff:
    backoff = Backoff.parse(value)
    if backoff.most > SECONDS_MAX:
        raise ValueError("must be at most 366d")
    return backoff
