"""Threads for jobs that are plain functions.

A function can't be ended from outside: one that hangs keeps its thread until it returns. So there are several threads,
never more than `size`, and they are daemons, for which the end of the program doesn't wait. They are started when they
are needed and reused, and wait for the next call without costing anything. There is no queue behind them: who calls
sees to it that no more than `size` functions are called at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Call:
    """A function that was called. `returned`: it has come back. `on_return` is called then, on the event loop, if it is
    set by who no longer waits."""

    __slots__ = ("_args", "_context", "_error", "_function", "_value", "_waiter", "on_return", "returned")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], waiter: asyncio.Future[None]) -> None:
        self.returned = False
        self.on_return: Callable[[Call], None] | None = None
        self._function = function
        self._args = args
        self._context = contextvars.copy_context()
        self._waiter = waiter
        self._value: Any = None
        self._error: BaseException | None = None

    async def result(self) -> Any:
        """What the function returned or raised. Who is cancelled while waiting doesn't end the function."""
        await self._waiter
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # its traceback refers to this call

    def run(self) -> None:
        """Call the function, in a thread."""
        try:
            self._value = self._context.run(self._function, *self._args)
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._error = error

    def deliver(self) -> None:
        """Tell who waits, on the event loop."""
        self.returned = True
        if not self._waiter.done():
            self._waiter.set_result(None)
        if self.on_return is not None:
            self.on_return(self)


class Threads:
    """Runs functions for one event loop, at most `size` at once. `name` is what the threads are called."""

    def __init__(self, size: int, name: str = "edgeq-job") -> None:
        self._size = size
        self._name = name
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._free = 0  # threads without a call; less than none when calls wait
        self._closed = False
        self._returned: deque[Call] = deque()
        self._told = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def started(self) -> int:
        """How many threads there are."""
        return self._started

    def start(self, function: Callable[..., Any], /, *args: Any) -> Call:
        """Call `function` in a thread, with the context variables of who asks. Raises RuntimeError after `close`, and
        when the system has no thread to give; then the function isn't called."""
        if self._closed:
            raise RuntimeError("the threads are closed")
        self._loop = asyncio.get_running_loop()
        call = Call(function, args, self._loop.create_future())
        with self._lock:
            if self._free <= 0 and self._started < self._size:
                name = f"{self._name}-{self._started + 1}"
                threading.Thread(target=self._run, name=name, daemon=True).start()
                self._started += 1
                self._free += 1
            self._free -= 1
        self._calls.put(call)
        return call

    def close(self) -> None:
        """End the threads: those that wait now, the others when their function returns. Safe to call twice."""
        if not self._closed:
            self._closed = True
            for _ in range(self._started):
                self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            with self._lock:
                self._free += 1  # before it is told: who calls next finds a thread
            self._deliver(call)
            del call  # what it holds is no longer needed while this thread waits

    def _deliver(self, call: Call) -> None:
        self._returned.append(call)
        if not self._told:  # otherwise the loop comes by anyway, and takes all
            self._told = True
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop may have ended by now
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._told = False
        while self._returned:
            self._returned.popleft().deliver()
