"""The errors edgeq raises on purpose.

Each says what went wrong, where, and, in `hint`, what an operator can do about it. The command line
prints them without a traceback; anything else that escapes is a defect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class EdgeqError(Exception):
    """Base of all errors raised on purpose. `hint` says what to do, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration: where it stands and what is wrong.

    `where` is `file:line` (or the name of an environment variable), `path` the dotted path of the key
    (`mqtt.tls.ca`, `routes[2].topic`), `hint` a suggestion such as "did you mean 'topic'?".
    """

    where: str
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.path}: {self.message}" if self.path else f"{self.where}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class ConfigError(EdgeqError):
    """The configuration can't be used. `problems` holds every mistake found, in order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class StoreError(EdgeqError):
    """The store can't be used: locked by another process, not a database, of a newer edgeq."""


class StoreMissing(StoreError):
    """There is no store yet: edgeq hasn't run on it."""


class StoreUnavailable(StoreError):
    """The store can't take a commit now (disk full, read-only, locked) and the caller asked not to wait."""


class RejectedMessage(EdgeqError):
    """A message can't be handled, and trying again won't help.

    Raised by a controller (or for it) to send the message to the dead letters with `reason`, one short
    word from a fixed set that is also the label of a counter: `undecodable`, `missing_field`, `too_large`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MissingExtra(EdgeqError):
    """An optional library isn't installed; the message names the extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}'", hint=f"pip install 'edgeq[{extra}]'")


@contextmanager
def contained(who: str) -> Iterator[None]:
    """Around a call of code that isn't ours: whatever it raises is an Exception, also sys.exit().

    Only a cancellation that is meant for the task passes, and a coroutine may be closed when no loop runs any more.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is None or (isinstance(error, asyncio.CancelledError) and task.cancelling()):
            raise
        raise RuntimeError(f"{who} raised {type(error).__name__}") from error
