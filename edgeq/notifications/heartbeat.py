"""The dead-man ping: an address outside is asked for every so often, so that somebody there notices when it isn't.

It is asked for only while edgeq is well: the event loop runs, and the store takes a commit, which is tried out each
time (an empty one, which writes nothing). So the ping says more than that the machine is on, and it stays away when the
process hangs, when commits don't go through, and when there is no way out. It says nothing of the broker.
"""

from __future__ import annotations

import asyncio

from ..backoff import Backoff
from ..clock import Clock
from ..config.schema import Heartbeat as Settings
from ..errors import StoreError
from ..service import Service
from ..store.store import Store
from ..telemetry.metrics import Metrics
from .channels.channel import Sent
from .channels.http import Endpoint, Request

TIMEOUT_SECONDS = 10.0

# Who waits outside should not take one lost packet for our death.
_AGAIN = Backoff(5.0, 60.0)


class Heartbeat(Service):
    """Asks for the address when it is started and every so often from then on, sooner after a failure.

    `last_success_at` (microseconds since 1970 UTC) and `last_error` are since the start; redirects aren't followed.
    """

    def __init__(self, settings: Settings | str, store: Store, metrics: Metrics, clock: Clock) -> None:
        super().__init__("heartbeat", clock)
        if isinstance(settings, str):
            settings = Settings(settings)
        self.last_success_at: int | None = None
        self._every_seconds = settings.every
        self._endpoint = Endpoint(settings.url, timeout_seconds=TIMEOUT_SECONDS, redirects=None)
        self._store = store
        self._metrics = metrics
        self._failures = 0

    async def run(self) -> None:
        """See Service.run."""
        while not self.stopping.is_set():
            beat = asyncio.ensure_future(self.beat())
            stopping = asyncio.ensure_future(self.stopping.wait())
            try:
                await asyncio.wait((beat, stopping), return_when=asyncio.FIRST_COMPLETED)
                if beat.done():
                    await self.pause(beat.result())
            finally:
                beat.cancel()
                stopping.cancel()

    async def beat(self) -> float:
        """Ask once, if all is well; in how many seconds to do so again."""
        began = self.clock.monotonic()
        try:
            await self._store.write(lambda tx: None, timeout_seconds=TIMEOUT_SECONDS)
        except StoreError as error:
            self._metrics.heartbeats.add(1, "withheld")
            return self._failed(f"not asked, as the store takes no commits: {error}")
        outcome = await self._endpoint.ask(Request(method="GET", now=self.clock.now()))
        if not isinstance(outcome, Sent):
            self._metrics.heartbeats.add(1, "failed")
            return self._failed(outcome.reason)
        self._metrics.heartbeats.add(1, "sent")
        if self._failures:
            self.log.info("was answered again, after %d failures", self._failures)
        self._failures = 0
        self.last_error = None
        self.last_success_at = self.clock.now()
        return max(0.0, self._every_seconds - (self.clock.monotonic() - began))

    def _failed(self, reason: str) -> float:
        self._failures += 1
        self.last_error = reason
        if self._failures == 1:
            self.log.warning("was not answered: %s; trying again", reason)
        return min(self._every_seconds, _AGAIN.delay(self._failures))
