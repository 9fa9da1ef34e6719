"""Home Assistant says when it was born: it has forgotten what it doesn't hear again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ..intake.context import MessageContext
from ..intake.table import CompiledRoute
from ..intake.threads import Threads
from ..mqtt.topics import Template

DELAY_SECONDS = (0.5, 5.0)
"""Not every gateway shall answer at the same moment."""

_SECONDS = 5.0
_BYTES_MAX = 64
_BORN = b"online"


class Births:
    """Calls back some moments after Home Assistant was born; once, however often it says so meanwhile."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def when(self, callback: Callable[[], None]) -> None:
        """Call `callback`, each time."""
        self._callbacks.append(callback)

    def route(self, prefix: str) -> CompiledRoute:
        """The route that takes its messages; `prefix` is that of its discovery."""
        topic = f"{prefix}/status"
        return CompiledRoute(
            label=topic,
            template=Template.exact(topic),
            qos=1,
            payload="raw",
            takes_retained=False,
            payload_bytes_max=_BYTES_MAX,
            timeout_seconds=_SECONDS,
            inline=(),
            own=self._take,
            limiter=None,
            limit_key=lambda ctx: "",
            over_limit_is_dead_letter=False,
            takes_oversize=True,
            private=True,
        )

    async def _take(self, ctx: MessageContext, threads: Threads) -> None:
        if ctx.payload == _BORN and self._timer is None:
            delay = random.uniform(*DELAY_SECONDS)  # noqa: S311
            self._timer = asyncio.get_running_loop().call_later(delay, self._born)

    def _born(self) -> None:
        self._timer = None
        for callback in self._callbacks:
            callback()
