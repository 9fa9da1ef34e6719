"""Straight into the site's store, a PostgreSQL database in which the site's edgeq has made its tables.

Each batch is one transaction, in which its events get their ids in the order of commits, as all others there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import EdgeqError
from ..store.forwarded import Restored
from ..store.postgres.site import Site, WrongEvents
from .settings import ForwardSettings
from .target import Answer, Away, Parcel, Refused, Taken, Target


class PostgresTarget(Target):
    """A connection that lasts as long as it is good; it has a thread while it is used."""

    def __init__(self, settings: ForwardSettings, gateway: str) -> None:
        self._site = Site(settings.to, settings.password, f"{gateway} forward")
        self._timeout_seconds = settings.timeout
        self.place = self._site.place

    async def send(self, parcel: Parcel) -> Answer:
        """See Target.send."""
        try:
            await self._done(lambda: self._site.receive(parcel.batch))
        except WrongEvents as error:
            return Refused(str(error))
        except Restored as error:
            return Away(f"{error} ({error.hint})")
        except EdgeqError as error:
            return Away(f"{error} ({error.hint})" if error.hint else str(error))
        return Taken(len(parcel.body))

    async def close(self) -> None:
        """See Target.close."""
        await self._done(self._site.close)

    async def _done(self, work: Callable[[], object]) -> None:
        """Do it in a thread, which is not to wait for a server that doesn't answer, nor when nobody waits any more."""
        late = asyncio.get_running_loop().call_later(self._timeout_seconds, self._site.cut)
        try:
            await asyncio.to_thread(work)
        except asyncio.CancelledError:
            self._site.cut()
            raise
        finally:
            late.cancel()
