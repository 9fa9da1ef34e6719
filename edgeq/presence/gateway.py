"""The presence of one gateway: its info and its health, and that it is there, for Home Assistant."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

from ..clock import Clock, rfc3339
from ..config.checks import is_postgres
from ..config.schema import Config
from ..errors import StoreError
from ..events import to_json
from ..mqtt.connection import NotConnected
from ..mqtt.presence import below
from ..service import Service
from ..store.store import Store
from ..version import edgeq_version
from .birth import Births
from .health import Health
from .retained import Memory, Publisher

HEALTH_SECONDS = 60.0
"""How often at most health is published if nothing has."""


def info(config: Config, routes: int, contracts: int, started_at: int) -> dict[str, Any]:
    """What runs here; `started_at` is in microseconds since 1970 UTC."""
    return {
        "gateway": config.gateway,
        "version": edgeq_version(),
        "started_at": rfc3339(started_at),
        "host": socket.gethostname(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "pid": os.getpid(),
        "store": "postgresql" if is_postgres(config.store.url) else "sqlite",
        "group": config.mqtt.group,
        "routes": routes,
        "contracts": contracts,
        "requests": list(config.mqtt.requests),
    }


class Presence(Service):
    """Publishes `told` once for each connection, and health when it has changed."""

    def __init__(
        self,
        config: Config,
        told: dict[str, Any],
        health: Health,
        publisher: Publisher,
        store: Store,
        births: Births,
        clock: Clock,
    ) -> None:
        super().__init__("presence", clock)
        self._config = config
        self._told = told
        self._health = health
        self._publisher = publisher
        self._memory = Memory(store, f"presence:{config.gateway}", publisher)
        self._woken = asyncio.Event()
        self._published_for = 0
        self._device_is_due = True
        self._signs: tuple[object, ...] = ()
        self._said: dict[str, Any] | None = None
        self._looked_at = 0.0
        publisher.session.when_connected(self._woken.set)
        births.when(self._again)

    def tick(self) -> None:
        """To be called every few seconds: looks whether it is time to look at the health."""
        if self._said is None or self._health.signs() != self._signs or self._due():
            self._woken.set()

    async def run(self) -> None:
        """See Service."""
        self._published_for = 0
        while not self.stopping.is_set():
            self._woken.clear()
            try:
                await self._turn()
            except NotConnected:
                self._published_for = 0
            await self._rest()

    def _again(self) -> None:
        self._published_for = 0
        self._woken.set()

    async def _turn(self) -> None:
        connection = self._publisher.connection
        if not connection:
            return
        if connection != self._published_for:
            await self._publisher.put(self._topic("info"), to_json(self._told).encode())
            self._said, self._device_is_due = None, True
            self._published_for = connection
        signs = self._health.signs()
        if self._said is not None and signs == self._signs and not self._due():
            return
        health = await self._health.look()
        self._looked_at, self._signs = self.clock.monotonic(), signs
        if health != self._said:
            said = {"at": rfc3339(self.clock.now()), **health}
            await self._publisher.put(self._topic("health"), to_json(said).encode())
            self._said = health
        if self._device_is_due:  # behind the health, which says why, if the store can't remember this
            await self._publish_device(temperature=health["temperature"] is not None)

    async def _publish_device(self, *, temperature: bool) -> None:
        devices = {}
        prefix = self._config.mqtt.discovery
        if prefix is not None:
            from .discovery import config_topic, device_id, gateway_device  # who has no Home Assistant doesn't pay

            topic = config_topic(prefix, device_id(self._config.gateway))
            devices[topic] = gateway_device(self._config, temperature=temperature)
        try:
            await self._memory.publish(devices)
        except StoreError as error:
            self.log.warning("what Home Assistant knows can't be brought up to date yet: %s", error)
        else:
            self._device_is_due = False

    def _due(self) -> bool:
        return self.clock.monotonic() - self._looked_at >= HEALTH_SECONDS

    def _topic(self, rest: str) -> str:
        return below(self._config.mqtt.status_topic, self._config.gateway, rest)

    async def _rest(self) -> None:
        """Until something calls."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._woken, self.stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
