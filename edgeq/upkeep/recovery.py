"""What the start has left in a damaged database is taken over while edgeq runs."""

from __future__ import annotations

from contextlib import aclosing

from ..clock import Clock
from ..context import Context
from ..errors import StoreError
from ..service import Service
from ..store.decisions import record
from ..store.sqlite.later import finish, pending, take_over
from ..store.sqlite.recover import Recovery
from ..store.sqlite.salvage import Unreadable
from ..store.store import Store, Tx

_REST_SECONDS = 0.05
_AGAIN_SECONDS = 600.0


class Recoverer(Service):
    """Takes over what is to be had, and stores an event that says how much that was. Interrupted, it begins again at
    the next start; without room on the disk, when there is some."""

    def __init__(self, store: Store, gateway: str, clock: Clock) -> None:
        super().__init__("recovery", clock)
        self._store = store
        self._gateway = gateway

    async def run(self) -> None:
        """See Service."""
        while not self.stopping.is_set() and (found := await pending(self._store)) is not None:
            try:
                async with aclosing(take_over(self._store, found)) as steps:
                    async for _ in steps:
                        await self.pause(_REST_SECONDS)
                        if self.stopping.is_set():
                            return
            except Unreadable as error:
                self.log.error("no more is recovered: %s", error)
            except StoreError as error:
                self.log.warning("the rest is recovered later: %s", error)
                await self.pause(_AGAIN_SECONDS)
                continue
            await self._store.write(lambda tx, found=found: self._end(tx, found))  # type: ignore[misc]
            self.log.info("recovered from %s: %s", found.aside, found.summary())
        await self.stopping.wait()

    def _end(self, tx: Tx, found: Recovery) -> None:
        finish(tx, found)
        ctx = Context(self.clock)
        ctx.emit(
            "edgeq.store_recovered",
            subject=self._gateway,
            data={"severity": "info", "put_aside_as": found.aside, "recovered": found.rows, "unreadable": found.gaps},
            description=f"Recovered from the damaged database {found.aside}: {found.summary()}.",
        )
        record(tx, ctx.decisions)
