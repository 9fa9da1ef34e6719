"""Calls of controllers of one's own, with a time limit that holds whatever the controller does.

A coroutine may go on after it was cancelled (`except:` around what it awaits is enough). It isn't waited for any longer
than a plain function is: nothing that is behind its message may depend on its good will.
"""

from __future__ import annotations

import asyncio

from ..errors import RejectedMessage, contained
from .context import MessageContext
from .middleware import Own
from .table import CompiledRoute
from .threads import Threads

THREADS_MAX = 16
_CANCEL_SECONDS = 1.0


class Calls:
    """Calls controllers. At most THREADS_MAX plain functions run at once; nothing is called while as many coroutines go
    on though they were cancelled."""

    def __init__(self) -> None:
        self._most = THREADS_MAX
        self._threads = Threads(self._most)
        self._overdue: set[asyncio.Task[None]] = set()

    async def run(self, route: CompiledRoute, ctx: MessageContext) -> None:
        """Have all controllers of `route` decide in their order. Raises what they raise."""
        for controller in route.inline:
            controller(ctx)
        if route.own is not None:
            await self.call(route.own, ctx, route.timeout_seconds)

    async def call(self, own: Own, ctx: MessageContext, timeout_seconds: float) -> None:
        """Return when it has returned. Raises what it raises, always an Exception, and RejectedMessage when it takes
        longer than `timeout_seconds` (and a second more, if it doesn't end when it is cancelled)."""
        if len(self._overdue) >= self._most:
            await asyncio.wait(self._overdue, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if len(self._overdue) >= self._most:
            raise RejectedMessage("timeout", f"not called: {self._most} controllers go on though they were cancelled")
        task = asyncio.create_task(self._call(own, ctx), name=f"controller:{ctx.topic}")
        try:
            await asyncio.wait([task], timeout=timeout_seconds)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=_CANCEL_SECONDS)
        finally:
            if not task.done():
                task.cancel()
                self._overdue.add(task)
                task.add_done_callback(self._ended)
        if not task.done() or task.cancelled():
            raise RejectedMessage("timeout", f"the controller took longer than {timeout_seconds:g}s")
        task.result()

    def close(self) -> None:
        """End the threads that wait for work."""
        self._threads.close()

    async def _call(self, own: Own, ctx: MessageContext) -> None:
        with contained("the controller"):
            await own(ctx, self._threads)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._overdue.discard(task)
        if not task.cancelled():
            task.exception()  # seen: its message is a dead letter already
