"""Hearing at once that another process writes to a file: inotify.

What is heard is only that something is being written. A commit shows a moment later, once it is on disk, and nothing
tells of that moment: whoever has heard something looks until nobody is in the midst of a commit (see
SqliteEngine.others_commit). Where the kernel has no more watches to give, or none at all, nothing is heard; then only
looking every so often helps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from typing import Any

from ..clock import Clock

_MODIFIED, _ATTRIBUTES, _REMOVED, _MOVED = 0x2, 0x4, 0x400, 0x800
# The number of links is an attribute: a file that is open elsewhere is not removed, but loses its name.
_ALL = _MODIFIED | _ATTRIBUTES | _REMOVED | _MOVED
_EVENTS_BYTES = 4096
_NET_SECONDS = 0.25
_LOOK_SECONDS, _LOOK_SECONDS_MAX = 0.0005, 0.05


class Watch:
    """Hears of writes to the file at `path`, while it listens. Every method may be called from any thread, but by one
    at a time; none of them raises.

    `descriptor` becomes readable when something was written; it is None when the system can't tell of that.
    """

    def __init__(self, path: str) -> None:
        self.descriptor: int | None = None
        self._path = os.fsencode(path)
        self._add: Any = None
        # Imported when needed: its memory is not for those who never wait for others.
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            # A call that keeps the interpreter's lock: it takes a microsecond, getting the lock back may take more.
            libc = ctypes.PyDLL(None)
            self._add = libc.inotify_add_watch
            self._add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
            descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            self.descriptor = descriptor if descriptor >= 0 else None

    def listen(self) -> bool:
        """Begin to listen, also after `mute`, and to the file that stands at the path now. Whether that works."""
        return self.descriptor is not None and self._add(self.descriptor, self._path, _ALL) >= 0

    def mute(self) -> None:
        """Don't hear of writes until `listen`: they are our own."""
        if self.descriptor is not None:
            self._add(self.descriptor, self._path, _MOVED)

    def drain(self) -> None:
        """Forget what was heard so far."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                while len(os.read(self.descriptor, _EVENTS_BYTES)) > _EVENTS_BYTES // 2:
                    pass

    def wait(self, seconds: float) -> bool:
        """Return as soon as something is heard, or after `seconds`; whether it was."""
        if self.descriptor is None:
            select.select([], [], [], seconds)
            return False
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    async def heard(self, seconds: float) -> bool:
        """`wait` for a coroutine."""
        if self.descriptor is None:
            await asyncio.sleep(seconds)
            return False
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        loop.add_reader(self.descriptor, woken.set)
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self.descriptor)
        return True

    def close(self) -> None:
        """Hear nothing more. Safe to call twice."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class Waiting:
    """Listening to the file at `path`. See listening.Listening.

    Something that was heard is looked for again and again, with growing pauses in which nothing more is heard: on a
    database that is never quiet, that comes to some eighty looks a second.
    """

    def __init__(self, path: str, timeout_seconds: float | None) -> None:
        self._watch = Watch(path)
        self._clock = Clock()
        self._until = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
        self._pause = _NET_SECONDS
        self._watch.listen()

    @property
    def seconds(self) -> float:
        """See Listening.seconds."""
        return self._pause if self._until is None else min(self._pause, self._until - self._clock.monotonic())

    def wait(self) -> None:
        """See Listening.wait."""
        self._waited(self._watch.wait(self.seconds))

    async def heard(self) -> None:
        """See Listening.heard."""
        self._waited(await self._watch.heard(self.seconds))

    def _waited(self, heard: bool) -> None:
        if heard:
            self._watch.mute()
            self._watch.drain()
            self._pause = _LOOK_SECONDS
        elif self._pause < _LOOK_SECONDS_MAX:
            self._pause *= 1.5
        else:
            self._watch.listen()
            self._pause = _NET_SECONDS

    def close(self) -> None:
        """See Listening.close."""
        self._watch.close()
