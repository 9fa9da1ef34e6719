"""The queues that the bench of jobs measures, all in one form. The job does nothing, and has a small JSON argument."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

HOW = {"number": 12_345, "name": "bench"}


class Side(ABC):
    """One queue with a database of its own. What it dispatches and completes is on disk when the method returns."""

    name: ClassVar[str]

    @abstractmethod
    def dispatch(self, count: int) -> None:
        """Dispatch so many jobs one by one, each in a commit of its own."""

    @abstractmethod
    def dispatch_many(self, count: int) -> int:
        """Dispatch so many jobs the quickest way there is; how many it was."""

    @abstractmethod
    def run(self, count: int) -> float:
        """Run all that was dispatched, which is so many, in one process; in how many seconds they were all done."""

    def close(self) -> None:  # noqa: B027 - not every side needs it
        """Disconnect."""
