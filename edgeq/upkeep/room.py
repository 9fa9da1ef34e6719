"""The limits of `store.retention`: rows, bytes, and what is to stay free on the disk."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..config.schema import Retention as Limits
from ..store.space import Space, measure
from ..store.store import Store
from ..units import Size
from .pruner import Pruner

_NEAR = 0.9
_ROWS_FIRST = 10
DISK_PART = 4  # of a small disk, a quarter stays free at most
_FREE_KEPT = 4 * 2**20
_FREE_PART = 8
_TAKEN_MIN = 2**19  # less may be what intake took between two measurements


class Room:
    """Keeps the store within its limits. `trouble` says for an operator why it can't, "" when it can.

    Free pages inside the database are room for rows to come, and count as free everywhere; a log that has become
    longer than it stays counts as free disk. For a disk that others fill, nothing is deleted that wouldn't help: not
    when all of ours would be too little, nor once more after they have taken what was deleted. From then on it is only
    as much as came, so that intake goes on.
    """

    def __init__(self, limits: Limits, store: Store, pruner: Pruner, log: logging.Logger) -> None:
        self.trouble = ""
        self._limits = limits
        self._store = store
        self._pruner = pruner
        self._log = log
        self._used_alone: int | None = None  # how much that was when others were found to fill the disk

    def is_near(self) -> bool:
        """Whether a limit may be near, as far as can be seen without reading the store."""
        disk, limits = self._store.disk(), self._limits
        if not disk:
            return False
        full = limits.max_size is not None and _taken(disk) > _NEAR * limits.max_size
        return full or disk["free_disk_bytes"] < self._free_wanted(disk) / _NEAR

    async def make(self, *, dry: bool = False) -> None:
        """Delete until all limits are kept, as far as that goes; then hand back what is free."""
        trouble = [] if dry else [await self._rows(), await self._bytes(), await self._disk()]
        self._say("; ".join(each for each in trouble if each))

    async def _rows(self) -> str:
        most = self._limits.max_rows
        excess = 0 if most is None else await self._pruner.excess(most)
        if not excess or await self._pruner.make_room(_counting(excess), "max_rows", hard=False):
            return ""
        return f"there are more than {most} events (max_rows), and processors have not seen the rest yet"

    async def _bytes(self) -> str:
        most = self._limits.max_size
        room = await measure(self._store)
        if most is None or (over := self._used(room) - most) <= 0:
            await self._pruner.hand_back(keep := max(_FREE_KEPT, room.used // _FREE_PART), at_least=2 * keep)
            return ""

        async def lacking(deleted: int) -> int:
            now = await measure(self._store)
            return _rows(self._used(now) - most, room.used - now.used, deleted)

        enough = lacking if room.exact else _counting(-(-over // room.row))
        if await self._pruner.make_room(enough, "max_size", hard=True):
            return ""
        taken = Size(self._used(await measure(self._store)))
        return f"the store takes {taken}, more than max_size ({most}), and nothing is left that may be deleted"

    async def _disk(self) -> str:
        disk = self._store.disk()
        if not disk:
            return ""
        wanted = self._free_wanted(disk)
        room = await measure(self._store)
        lacking = wanted - _free(disk, room)
        said = "" if lacking <= 0 else await self._free_some(disk, room, wanted, lacking)
        if lacking <= 0:
            self._used_alone = None
        if disk["free_disk_bytes"] < wanted:
            await self._pruner.hand_back(0)
        return said

    async def _free_some(self, disk: dict[str, int], room: Space, wanted: int, lacking: int) -> str:
        short = f"there is less than {Size(wanted)} free on the disk (min_free_disk)"
        alone = self._used_alone
        if lacking > room.used if alone is None else room.used < _NEAR * alone:
            self._used_alone = room.used
        due = lacking if self._used_alone is None else min(lacking, room.used - self._used_alone)

        async def still(deleted: int) -> int:
            now = await measure(self._store)
            more = min(now.used - room.used + due, wanted - _free(self._store.disk(), now))
            return _rows(more, room.used - now.used, deleted)

        if not await self._pruner.make_room(still, "min_free_disk", hard=True):
            return f"{short}, and nothing is left that may be deleted"
        disk_now, now = self._store.disk(), await measure(self._store)
        taken = _others(disk_now) - _others(disk)
        if _free(disk_now, now) < wanted and taken > max((room.used - now.used) // 2, _TAKEN_MIN):
            self._used_alone = now.used
        return "" if self._used_alone is None else f"{short}, and it isn't edgeq that fills it"

    def _used(self, room: Space) -> int:
        disk = self._store.disk()
        return room.used + (min(disk["wal_bytes"], disk["wal_bytes_kept"]) if disk else 0)

    def _free_wanted(self, disk: dict[str, int]) -> int:
        return min(self._limits.min_free_disk, disk["disk_bytes"] // DISK_PART) if disk else 0

    def _say(self, trouble: str) -> None:
        if trouble and not self.trouble:
            self._log.error("%s", trouble)
        elif self.trouble and not trouble:
            self._log.warning("the store is within its limits again")
        self.trouble = trouble


def _counting(rows: int) -> Callable[[int], Awaitable[int]]:
    """So many rows are to go."""

    async def left(deleted: int) -> int:
        return rows - deleted

    return left


def _rows(lacking: int, gained: int, deleted: int) -> int:
    """How many rows it may take to gain so many bytes, when `deleted` ones gained some; a few while nobody knows."""
    if lacking <= 0:
        return 0
    return _ROWS_FIRST if gained <= 0 else max(_ROWS_FIRST, lacking * deleted // gained)


def _taken(disk: dict[str, int]) -> int:
    return disk["file_bytes"] + disk["wal_bytes"]


def _others(disk: dict[str, int]) -> int:
    return disk["disk_bytes"] - disk["free_disk_bytes"] - _taken(disk)


def _free(disk: dict[str, int], room: Space) -> int:
    return disk["free_disk_bytes"] + room.free + max(0, disk["wal_bytes"] - disk["wal_bytes_kept"])
