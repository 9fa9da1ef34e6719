"""One claim of a job, and the author's code that it is claimed for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Literal

from ..store import claims
from ..store.jobs import StoredJob
from .job import Definition
from .outcome import Failed
from .threads import Call, Threads


class Attempt:
    """One claim of a job, and the task in which its author's code runs: `handle`, and for a job that is to be
    buried `failed`.

    `deadline` is when the task is cancelled, or given up if it is `cancelled` already; on the monotonic clock.
    `fate`: why it is over, whatever comes of it: the claim is `lost`, or to be `released`.
    """

    __slots__ = (
        "_calls", "_noted", "_progress", "_reported", "_stored", "_threads", "begun", "buried", "cancelled", "deadline",
        "definition", "failure", "fate", "job", "task",
    )  # fmt: skip

    def __init__(
        self,
        job: StoredJob,
        definition: Definition | None,
        threads: Threads,
        reported: Callable[[Attempt], None],
    ) -> None:
        self.job = job
        self.definition = definition
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        self.deadline = inf
        self.cancelled = False
        self.fate: Literal["", "lost", "released"] = ""
        self.buried: claims.Buried | None = None
        self.failure: Failed | None = None
        self._threads = threads
        self._calls: list[Call] | None = None
        self._reported = reported
        self._noted = False
        self._progress: str | None = None
        self._stored: str | None = None

    async def call(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """See handling.Call."""
        call = self._threads.start(function, *args)
        if self._calls is None:
            self._calls = []
        self._calls.append(call)
        return await call.result()

    def report(self, text: str) -> None:
        """Have a progress stored soon; the latest counts. In any thread."""
        self._progress = text  # in this order: who looks forgets first that it was told
        if not self._noted:
            self._noted = True
            self._reported(self)

    def progress(self) -> str | None:
        """The latest progress, if it wasn't asked for before."""
        self._noted = False
        text = self._progress
        if text is self._stored:
            return None
        self._stored = text
        return text

    def unreturned(self) -> list[Call]:
        """The functions that were called in threads and haven't come back. They are no longer the attempt's."""
        calls, self._calls = self._calls, None
        return [call for call in calls or () if not call.returned]
