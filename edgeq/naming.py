"""No two `edgeq run` go by one gateway's name on one store: they would take each other's session at the broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from .errors import StoreError
from .owned import asked
from .store.ownership import Held
from .store.store import Store

log = logging.getLogger("edgeq.app")

NAME_SECONDS = 6.0
"""A predecessor that crashed or froze may have its name for almost as long."""
NEWS_SECONDS = 1.0
"""For us to hear of the name that the server has just given to us."""


class GatewayName:
    """The name `gateway` on `store`. `refused` is called when another one has it, which may be after an outage."""

    def __init__(self, gateway: str, store: Store, refused: Callable[[], None]) -> None:
        self._gateway = gateway
        self._name = f"gateway:{gateway}"
        self._store = store
        self._refused = refused
        self._claimed = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def claim(self, stop: asyncio.Event) -> bool:
        """Have the name, until it is given back; False when another one has it, or `stop` is set first."""
        self._keeping = asyncio.create_task(self._keep())
        self._keeping.add_done_callback(lambda done: None if done.cancelled() else self._refused())
        ends = [asyncio.ensure_future(event.wait()) for event in (self._claimed, stop)]
        await asyncio.wait([*ends, self._keeping], return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return self._claimed.is_set() and not stop.is_set()

    async def give_back(self) -> StoreError | None:
        """Have it no longer. Why it was refused, if it was."""
        if self._keeping is None:
            return None
        self._keeping.cancel()
        try:
            await self._keeping
        except asyncio.CancelledError:
            pass
        except StoreError as error:
            return error
        return None

    async def _keep(self) -> None:
        while True:
            async with contextlib.AsyncExitStack() as stack:
                held = await self._until_held(stack)
                self._claimed.set()
                await held.lost.wait()

    async def _until_held(self, stack: contextlib.AsyncExitStack) -> Held:
        async with asked(stack, self._store.ownership, self._name) as asking:
            while not (await asyncio.wait((asking,), timeout=NAME_SECONDS))[0]:
                if await self._taken() and not (await asyncio.wait((asking,), timeout=NEWS_SECONDS))[0]:
                    raise StoreError(
                        f"another edgeq run goes by the name {self._gateway} on {self._store.place}",
                        hint="end it, or give this one another `gateway`",
                    )
            return asking.result()

    async def _taken(self) -> bool:
        try:
            return self._name in await self._store.ownership.owner_of([self._name])
        except StoreError as error:  # an outage: nobody may have it
            log.debug("who has %s can't be asked: %s", self._name, error)
            return False
