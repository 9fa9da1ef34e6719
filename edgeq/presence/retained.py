"""Publishing what the broker keeps, and clearing what it shall keep no longer.

The broker keeps a retained message for ever. So the store remembers, before they are published, which topics there are
besides those that every gateway has, and of a device of Home Assistant which components; what is no longer wanted is
cleared with the next connection, and forgotten then. Nothing is written while nothing changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..clock import Clock
from ..events import to_json
from ..mqtt.connection import NotConnected, PublishFailed
from ..mqtt.session import Session, State
from ..store import meta
from ..store.store import Store
from ..telemetry.log import Calm

log = logging.getLogger("edgeq.presence")

STORE_SECONDS = 10.0


class Known(msgspec.Struct, frozen=True):
    """Which topics the broker may hold of us, and of which devices which components, by id with their platforms."""

    topics: list[str] = []
    components: dict[str, dict[str, str]] = {}


class Publisher:
    """Publishes through `session`, one message after the other: each waits until the broker has the one before, so that
    hundreds of them leave room for others. What a broker refuses is logged, once in a while."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self.session = session
        self._calm = Calm(log, clock.monotonic, 3600.0)

    @property
    def connection(self) -> int:
        """The number of the present connection; 0 while there is none."""
        return self.session.connections if self.session.state is State.CONNECTED else 0

    async def put(self, topic: str, payload: bytes) -> None:
        """Publish; an empty payload clears. Raises NotConnected."""
        try:
            await self.session.publish(topic, payload, qos=1, retain=True)
        except NotConnected:
            raise
        except PublishFailed as error:
            self._calm.warning(str(error), "can't publish to %s: %s", topic, error)


class Memory:
    """What is remembered in `store` under `key`."""

    def __init__(self, store: Store, key: str, publisher: Publisher) -> None:
        self._store = store
        self._key = key
        self._publisher = publisher

    async def publish(self, devices: Mapping[str, dict[str, Any]], retained: Iterable[tuple[str, bytes]] = ()) -> None:
        """Publish these devices of Home Assistant, by their topics, and these messages; clear all that was published
        before and isn't among them. Raises NotConnected and StoreError; then some of it may be done."""
        messages = dict(retained)
        components = {
            topic: {name: part["p"] for name, part in each["cmps"].items()} for topic, each in devices.items()
        }
        now = Known(sorted({*devices, *messages}), components)
        before = await self._load()
        if now != before:
            topics = sorted({*before.topics, *now.topics})
            both = {
                topic: before.components.get(topic, {}) | now.components.get(topic, {})
                for topic in {**before.components, **now.components}
            }
            await self._save(Known(topics, both))
        for topic, device in devices.items():
            gone = before.components.get(topic, {}).keys() - device["cmps"].keys()
            if gone:  # Home Assistant wants to be told of each that goes, and then of those that are left
                removed = {name: {"p": before.components[topic][name]} for name in gone}
                await self._publisher.put(topic, to_json({**device, "cmps": device["cmps"] | removed}).encode())
            await self._publisher.put(topic, to_json(device).encode())
        for topic, payload in messages.items():
            await self._publisher.put(topic, payload)
        for topic in before.topics:
            if topic not in now.topics:
                await self._publisher.put(topic, b"")
        if now != before:
            await self._save(now)

    async def _load(self) -> Known:
        text = await meta.get(self._store, self._key)
        try:
            return Known() if text is None else msgspec.json.decode(text, type=Known)
        except msgspec.MsgspecError:
            return Known()

    async def _save(self, known: Known) -> None:
        text = msgspec.json.encode(known).decode()
        await self._store.write(lambda tx: meta.put(tx, self._key, text), timeout_seconds=STORE_SECONDS)
