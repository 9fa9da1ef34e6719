"""How an attempt ended, as values."""

from __future__ import annotations

from dataclasses import dataclass

from ..store.decisions import Decisions
from .job import Job


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned. `result` is JSON text, `decisions` what it recorded."""

    result: str
    decisions: Decisions


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt didn't succeed. `reason` is the dead letter's, should it come to that.

    `final`: trying again won't help. `job` is None when it could not even be made.
    """

    reason: str
    error: BaseException
    job: Job | None = None
    final: bool = False


Outcome = Completed | Failed
