"""Threads for controllers that are plain functions.

A function can't be ended from outside: one that hangs keeps its thread until it returns. So there are several threads,
never more than `most`, and they are daemons, for which the end of the program doesn't wait. They are started when they
are needed, and wait for the next call without costing anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Call:
    work: Callable[[], Any]
    done: asyncio.Future[None]
    result: Any = None
    error: BaseException | None = None


class Threads:
    """Runs functions for one event loop."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._started = 0
        self._running = 0

    async def call(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """What `function` returns or raises. Waits while all threads are busy; who is cancelled then isn't called."""
        await self._free.acquire()  # given back when the function has returned, not when we stop waiting for it
        loop = asyncio.get_running_loop()
        call = _Call(functools.partial(function, *args, **named), loop.create_future())
        self._running += 1
        if self._started < self._running:
            self._started += 1
            threading.Thread(target=self._run, args=(loop,), name="edgeq-controller", daemon=True).start()
        self._calls.put(call)
        await call.done
        if call.error is not None:
            raise call.error
        return call.result

    def close(self) -> None:
        """End the threads: those that wait now, the others when their function returns."""
        for _ in range(self._started):
            self._calls.put(None)
        self._started = 0

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call.result = call.work()
            except BaseException as error:  # noqa: BLE001 - raised again by `call`
                call.error = error
            with contextlib.suppress(RuntimeError):  # the loop may have ended by now
                loop.call_soon_threadsafe(self._finished, call)

    def _finished(self, call: _Call) -> None:
        self._running -= 1
        self._free.release()
        if not call.done.done():
            call.done.set_result(None)
