"""Which topic filters the broker has for us, and which it should have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from ..errors import EdgeqError
from .connection import Connection
from .topics import merge

MEMORY_SECONDS = 10.0
"""How long the store may take to remember the filters."""


class SubscriptionMemory(Protocol):
    """Where the filters that the broker has for us are kept over restarts."""

    async def load(self) -> list[str]:
        """The filters last saved; none at first."""

    async def save(self, filters: list[str]) -> None:
        """Keep these instead."""


class Subscriptions:
    """The filters of the routes (filter -> QoS), merged so that they don't overlap, and shared when there is a `group`.

    The memory holds every filter that the broker may have, before it gets it; so what a changed configuration no longer
    has is unsubscribed, however the last run ended. `refused` maps a filter to the broker's reason for refusing it.

    Filters that are `private` are not shared: each member gets what they match; unless others overlap with them, as
    then some member would get it twice.
    """

    def __init__(
        self, filters: Mapping[str, int], group: str | None, memory: SubscriptionMemory, private: Collection[str] = ()
    ) -> None:
        self.refused: dict[str, str] = {}
        self._group = group
        self._memory = memory
        self._private = private
        self._wanted = self._to_subscribe(filters)
        self._confirmed: dict[str, int] = {}  # by the broker, for the session that it has
        self._known: list[str] = []  # what the broker may have, from this run or an earlier one
        self._saved: list[str] = []
        self._lock = asyncio.Lock()
        self._log = logging.getLogger("edgeq.session")

    async def load(self) -> None:
        """Recall what an earlier run subscribed to."""
        self._known = self._saved = await self._memory.load()

    def forgotten(self) -> bool:
        """The broker has no session for us; whether it should have had one."""
        self._confirmed = {}
        return bool(self._known)

    async def sync(self, connection: Connection) -> None:
        """Bring the broker to what is wanted: first what is new, so that no message falls between.

        Asks again for what was refused. Raises NotConnected.
        """
        async with self._lock:
            wanted = self._wanted
            missing = {name: qos for name, qos in wanted.items() if self._confirmed.get(name) != qos}
            dropped = [name for name in self._known if name not in wanted]
            await self._remember([*wanted, *dropped])
            self.refused = await connection.subscribe(missing)
            await connection.unsubscribe(dropped)
            self._confirmed = {name: qos for name, qos in wanted.items() if name not in self.refused}
            await self._remember(list(wanted))

    async def _remember(self, filters: list[str]) -> None:
        self._known = filters
        if sorted(filters) == sorted(self._saved):
            return
        try:
            async with asyncio.timeout(MEMORY_SECONDS):
                await self._memory.save(filters)
            self._saved = filters
        except (TimeoutError, EdgeqError) as error:
            self._log.warning("can't store which subscriptions the broker has: %s", error or "no answer in time")

    def _to_subscribe(self, filters: Mapping[str, int]) -> dict[str, int]:
        # QoS 2 is never asked for: the state it needs on our side wouldn't be durable.
        merged = merge({name: min(qos, 1) for name, qos in filters.items()})
        if not self._group:
            return merged
        return {name if name in self._private else f"$share/{self._group}/{name}": qos for name, qos in merged.items()}
