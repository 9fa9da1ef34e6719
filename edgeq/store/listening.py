"""Waiting for what others will commit, in programs without an event loop of the store's."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Listening(Protocol):
    """Hears of commits, for as long as it was made for. Whoever has heard something looks whether that was it."""

    @property
    def seconds(self) -> float:
        """How long the next wait may take; nothing when the time is over."""

    def wait(self) -> None:
        """Return when something was heard, or after `seconds`."""

    async def heard(self) -> None:
        """`wait` for a coroutine."""

    def close(self) -> None:
        """End it."""


def wait_for(listening: Listening, look: Callable[[], T | None]) -> T | None:
    """The first answer of `look` that isn't None: it is asked again whenever something is heard, and a last time when
    the time is over."""
    with contextlib.closing(listening):
        while (found := look()) is None and listening.seconds > 0:
            listening.wait()
        return found


async def wait_for_async(listening: Listening, look: Callable[[], Awaitable[T | None]]) -> T | None:
    """`wait_for` for a coroutine."""
    with contextlib.closing(listening):
        while (found := await look()) is None and listening.seconds > 0:
            await listening.heard()
        return found
