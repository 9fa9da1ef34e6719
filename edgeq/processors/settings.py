"""The keys that every entry of `processors` has, whatever its kind."""

from __future__ import annotations

from typing import Literal

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
    batch_size: int = 100
    poll_interval: Duration = Duration(5)
    start: Literal["latest", "beginning"] | int = "latest"
    on_error: OnError = OnError()

    def __post_init__(self) -> None:
        """Raises ValueError for what can't be."""
        if not 1 <= self.batch_size <= BATCH_SIZE_MAX:
            raise ValueError(f"batch_size must be from 1 to {BATCH_SIZE_MAX}, not {self.batch_size}")
        if self.poll_interval <= 0:
            raise ValueError("poll_interval must be longer than 0")
        if isinstance(self.start, int) and not 0 <= self.start <= EVENT_ID_MAX:
            raise ValueError(f"start must be latest, beginning or the id of an event, not {self.start}")
        if self.on_error.attempts < 1:
            raise ValueError(f"on_error.attempts must be at least 1, not {self.on_error.attempts}")
