"""Services that run in one process at a time, of all that share a store: see store.ownership."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from .clock import Clock
from .service import Service
from .store.ownership import Held, Ownership

_END_SECONDS = 5.0


class Owned(Service):
    """Runs `services` while `name` is owned by this process, after `first` each time.

    When it is lost they are stopped at once, and it isn't asked for again before all of them have ended: what they had
    in hand is void (see `cursors.take`), or is done again by the next owner. They must be able to run several times.
    """

    def __init__(
        self,
        name: str,
        services: Sequence[Service],
        ownership: Ownership,
        clock: Clock,
        *,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(name, clock)
        self.services = services
        self._ownership = ownership
        self._first = first

    async def run(self) -> None:
        """See Service."""
        while not self.stopping.is_set():
            async with contextlib.AsyncExitStack() as stack:
                held = await self._until_held(stack)
                if held is not None:
                    await self._work(held)

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """See Service. They are stopped with the grace, and only then is the name given back."""
        self.stopping.set()
        await self._stop_all(grace_seconds)
        await super().stop(_END_SECONDS)

    async def _until_held(self, stack: contextlib.AsyncExitStack) -> Held | None:
        """None when it is to stop before it owns anything."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        async with asked(stack, self._ownership, self.name) as asking:
            await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            return None if self.stopping.is_set() else asking.result()

    async def _work(self, held: Held) -> None:
        self.log.info("is this process's to do now")
        ends = lost, stopping = [asyncio.ensure_future(event.wait()) for event in (held.lost, self.stopping)]
        try:
            if self._first is not None:
                await self._first()
            if not any(event.is_set() for event in (held.lost, self.stopping)):
                for service in self.services:
                    await service.start()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():  # `stop` gives them their grace
                await asyncio.wait((lost, self._all_ended()), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await self._stop_all(0.0)
            await self._all_ended()

    def _all_ended(self) -> asyncio.Future[list[None]]:
        return asyncio.gather(*(service.ended() for service in self.services))

    async def _stop_all(self, grace_seconds: float) -> None:
        await asyncio.gather(*(service.stop(grace_seconds) for service in self.services))


@contextlib.asynccontextmanager
async def asked(
    stack: contextlib.AsyncExitStack, ownership: Ownership, name: str
) -> AsyncIterator[asyncio.Future[Held]]:
    """Ask for `name` and hand its block over to `stack`; asks no longer after the end of this one."""
    asking = asyncio.ensure_future(stack.enter_async_context(ownership.own(name)))
    try:
        yield asking
    finally:
        if not asking.done():
            asking.cancel()
            await asyncio.wait((asking,))
