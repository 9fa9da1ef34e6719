"""Ownership by the advisory locks of the control session (see `session`), which go with it.

A lock has two numbers: that of the table `events`, which stands for the store, and a hash of the name. The store's own
lock has one number, so the two kinds never meet. Two names with one hash would keep each other out; among a hundred
names that is one store in 800,000.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from hashlib import blake2b

import peewee as pw

from ..ownership import Held, Ownership
from ..store import Row

_OWNERS = pw.SQL("""
SELECT objid::bigint, coalesce(nullif(application_name, ''), 'pid ' || pid)
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = 'events'::regclass::oid
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


class PostgresOwnership(Ownership):
    """See Ownership. The session asks for what is `wanted`, lets go of what isn't, and tells what was granted or lost.

    `alive` says whether the server surely keeps the session's locks now, `ask` makes the session ask at once, `read`
    is that of the store.
    """

    shared = True

    def __init__(
        self, alive: Callable[[], bool], ask: Callable[[], None], read: Callable[[pw.Node], Awaitable[list[Row]]]
    ) -> None:
        self._alive = alive
        self._ask = ask
        self._read = read
        self._names: set[str] = set()
        self._waiting: dict[str, asyncio.Future[Held]] = {}
        self._held: dict[str, Held] = {}
        self._locked: set[int] = set()

    @asynccontextmanager
    async def own(self, name: str) -> AsyncIterator[Held]:
        """See Ownership.own."""
        if name in self._names:
            raise ValueError(f"{name} is asked for twice")
        self._names.add(name)
        granted = self._waiting[name] = asyncio.get_running_loop().create_future()
        self._ask()
        try:
            yield await granted
        finally:
            self._waiting.pop(name, None)
            self._held.pop(name, None)
            self._names.discard(name)
            self._ask()

    def holds(self, name: str) -> bool:
        """See Ownership.holds."""
        return name in self._held and self._alive()

    async def owner_of(self, names: Iterable[str]) -> dict[str, str]:
        """See Ownership.owner_of."""
        found = {key: _spoken(owner) for key, owner in await self._read(_OWNERS)}
        return {name: found[key] for name in names if (key := lock_key(name) % 2**32) in found}

    # For the session

    def wanted(self) -> list[int]:
        """The locks to try for."""
        return sorted({lock_key(name) for name in self._waiting} - self._locked)

    def unwanted(self) -> list[int]:
        """The locks to let go of."""
        return sorted(self._locked - {lock_key(name) for name in (*self._waiting, *self._held)})

    def granted(self, keys: Iterable[int]) -> None:
        """The session has these locks, too."""
        self._locked.update(keys)
        for name in [name for name in self._waiting if lock_key(name) in self._locked]:
            granted = self._waiting.pop(name)
            if not granted.done():  # else who waited has given up
                held = self._held[name] = Held(name)
                granted.set_result(held)

    def released(self, keys: Iterable[int]) -> None:
        """The session has let go of these locks."""
        self._locked.difference_update(keys)

    def lost(self) -> None:
        """The session is gone, and all its locks with it."""
        self._locked.clear()
        held, self._held = self._held, {}
        for each in held.values():
            each.lost.set()


def lock_key(name: str) -> int:
    """The second number of the lock for `name`."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big", signed=True)


def _spoken(application: str) -> str:
    return application.removeprefix("edgeq ").removesuffix(" session").removesuffix(" run")
