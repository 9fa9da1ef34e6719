"""Sessions for tests: quick to reconnect, with a memory for subscriptions, and ways to wait for what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.config.schema import Mqtt
from edgeq.mqtt.delivery import Delivery
from edgeq.mqtt.inbox import Inbox
from edgeq.mqtt.session import Session
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

DEADLINE_SECONDS = 120.0


class Memory:
    """A SubscriptionMemory that outlives sessions, but not the test."""

    def __init__(self) -> None:
        self.filters: list[str] = []
        self.saves = 0

    async def load(self) -> list[str]:
        return list(self.filters)

    async def save(self, filters: list[str]) -> None:
        self.filters = list(filters)
        self.saves += 1


class Rig:
    """A session and what stands around it."""

    def __init__(
        self,
        url: str,
        filters: Mapping[str, int],
        *,
        gateway: str = "gw",
        memory: Memory | None = None,
        inbox: Inbox | None = None,
        packet_bytes_max: int = 300_000,
        private: Collection[str] = (),
        **settings: Any,
    ) -> None:
        self.inbox = Inbox() if inbox is None else inbox
        self.metrics = Metrics()
        self.memory = memory or Memory()
        for name in ("keepalive", "session_expiry"):
            if name in settings:
                settings[name] = Duration(settings[name])
        self.session = Session(
            Mqtt(url=url, **settings),
            gateway,
            filters,
            self.inbox,
            self.metrics,
            Clock(),
            packet_bytes_max=packet_bytes_max,
            known_filters=self.memory,
            private=private,
        )
        self.session.reconnect_backoff = Backoff(0.02, 0.05)

    async def ready(self) -> None:
        """Wait until the session is subscribed."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.session.wait_ready()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds of the session."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - the session has no event for each of its values
                await asyncio.sleep(0.005)

    async def take(self, count: int, *, ack: bool = True) -> list[Delivery]:
        """Exactly `count` deliveries from the inbox, acknowledged unless told not to."""
        taken: list[Delivery] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(taken) < count:
                taken += await self.inbox.get_batch(count - len(taken))
        if ack:
            self.session.ack(taken)
        return taken


@asynccontextmanager
async def running(url: str, filters: Mapping[str, int], **options: Any) -> AsyncIterator[Rig]:
    """A session that runs, and is stopped at the end."""
    rig = Rig(url, filters, **options)
    await rig.session.start()
    try:
        yield rig
    finally:
        await rig.session.stop()
        assert rig.session.crashes == 0, rig.session.last_error


def payloads(deliveries: list[Delivery]) -> list[bytes]:
    """What they carry, in order."""
    return [delivery.payload for delivery in deliveries]
