"""Keeps in the store which topic filters the broker holds for a client."""

from __future__ import annotations

from .store import meta
from .store.store import Store

_KEY = "mqtt_filters"


class StoredFilters:
    """Those of one client. See mqtt.subscriptions.SubscriptionMemory.

    `own`: it is the gateway's own client, the only one that an earlier version had.
    """

    def __init__(self, store: Store, client_id: str, *, own: bool = False) -> None:
        self._store = store
        self._key = f"{_KEY}:{client_id}"
        self._own = own

    async def load(self) -> list[str]:
        """What was saved last."""
        found = await meta.get(self._store, self._key)
        if found is None and self._own:  # what an earlier version has stored
            found = await meta.get(self._store, _KEY)
        return (found or "").splitlines()

    async def save(self, filters: list[str]) -> None:
        """Put these in the place of what was saved before."""
        await self._store.write(lambda tx: meta.put(tx, self._key, "\n".join(filters)))
