"""The keys that every entry of `processors` has, whatever its kind."""

from __future__ import annotations

from typing import Annotated, Literal

from ..config import checks
from ..config.schema import OnError, Record
from ..units import Duration

# A batch is held in memory, each event with its payload.
BATCH_SIZE_MAX = 1000
EVENT_ID_MAX = 2**63 - 1


class ProcessorSettings(Record, frozen=True):
    """`types`, `tags` and `subject`, when given, take the place of the class's own. `start` is where a new cursor
    begins; an id is that of the last event to pass over."""

    types: list[str] | None = None
    tags: list[str] | None = None
    subject: str | None = None
    batch_size: Annotated[int, checks.between(1, BATCH_SIZE_MAX)] = 100
    poll_interval: Annotated[Duration, checks.at_least(Duration(0.1))] = Duration(5)
    start: Literal["latest", "beginning"] | Annotated[int, checks.between(0, EVENT_ID_MAX)] = "latest"
    on_error: OnError = OnError()
