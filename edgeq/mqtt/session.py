"""The session with the broker: persistent, always coming back, and acknowledging only what it is told to.

What one can rely on: the client id is stable and the session is never started clean, so that the broker
keeps what comes while edgeq is away (G2). A QoS 1 message is acknowledged by `ack` and by nothing else
(G1). Reading stops while the inbox is full (G8). Whatever goes wrong, the session tries again, with
jitter, for ever; `state` and `reason` say how it stands, and the log says it once, not for each attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from ..backoff import Backoff
from ..clock import Clock
from ..config.schema import Mqtt
from ..errors import EdgeqError
from ..service import Service
from ..telemetry.metrics import Metrics
from ..units import Duration
from .address import Address
from .client import Ending
from .connection import Connection, NotConnected, PublishFailed
from .delivery import Delivery
from .inbox import Inbox
from .presence import OFFLINE, ONLINE, state_topic
from .topics import check_topic, merge

STABLE_SECONDS = 10.0
"""A connection that lasted as long was a good one: the next waiting time is a short one again."""
FIGHT_SECONDS = 120.0
"""The same when another client takes our session away, and will again."""
CLOSINGS_MAX = 3
"""Brokers that don't say that another client took the session just close the connection, so often at least."""
REPEAT_SECONDS = 300.0
"""A reason that stays is logged again after this time."""
ANSWER_SECONDS = 30.0
"""How long the broker may take to answer a SUBSCRIBE or the first message."""
MEMORY_SECONDS = 10.0
"""How long the session waits for the store to remember its subscriptions."""


class State(StrEnum):
    """How the session stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class SubscriptionMemory(Protocol):
    """Where the session keeps, over restarts, which filters the broker has for it."""

    async def load(self) -> list[str]:
        """The filters last saved; none at first."""

    async def save(self, filters: list[str]) -> None:
        """Keep these instead."""


class Session(Service):
    """The session that `settings` describe, for the topic filters of the routes (filter -> QoS).

    Filters that overlap are merged, so that a message comes once: see `topics.merge`. Raises ValueError
    for a URL or a status topic that can't be used. A message whose packet is larger than
    `packet_bytes_max` arrives as an oversize delivery.
    """

    reconnect_backoff = Backoff(1.0, 60.0)

    def __init__(
        self,
        settings: Mqtt,
        gateway: str,
        filters: Mapping[str, int],
        inbox: Inbox,
        metrics: Metrics,
        clock: Clock,
        *,
        packet_bytes_max: int,
        known_filters: SubscriptionMemory,
    ) -> None:
        super().__init__("session", clock)
        self.state = State.DISCONNECTED
        self.reason = "not started"
        self.connected_since: int | None = None
        self.last_message_at: int | None = None
        self.connections = 0
        self.refused: dict[str, str] = {}
        self.client_id = settings.client_id or f"edgeq-{gateway}"
        self.address = Address.parse(settings.url)
        self._settings = settings
        self._state_topic = state_topic(settings.status_topic, gateway)
        self._wanted = self._to_subscribe(filters)
        self._subscribed: dict[str, int] = {}  # what the broker confirmed for the session it has
        self._memory = known_filters
        self._known: list[str] = []  # what the broker may have from this or an earlier run
        self._saved: list[str] = []
        self._subscribing = asyncio.Lock()
        self._inbox = inbox
        self._room = asyncio.Event()
        self._inbox.when_room(self._on_room)
        self._metrics = metrics
        self._packet_bytes_max = packet_bytes_max
        self._connection: Connection | None = None
        self._number = 0
        self._closings = 0
        self._accepted_at: float | None = None
        self._ready = asyncio.Event()
        self._discarding = False
        self._told = ""
        self._told_at = 0.0

    async def wait_ready(self) -> None:
        """Return when the broker has answered for every subscription; see `refused` for those it refused."""
        await self._ready.wait()

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        """Acknowledge in the order given; the number of those that were.

        Deliveries at QoS 0 need none, and those of an earlier connection can't be: the broker sends them
        again.
        """
        connection = self._connection
        number = connection.number if connection is not None and not connection.over.done() else 0
        current = [delivery for delivery in deliveries if delivery.qos and delivery.connection == number]
        if connection is not None and current:
            connection.ack(current)
            self._metrics.acked.add(len(current))
        if len(current) < len(deliveries):
            stale = sum(1 for delivery in deliveries if delivery.qos) - len(current)
            if stale:
                self._metrics.skipped.add(stale, "ack_of_an_earlier_connection")
        return len(current)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout_seconds: float = 30.0
    ) -> None:
        """Publish, and return when the broker has acknowledged it (at QoS 0: when it is sent).

        Raises NotConnected without waiting for a connection, PublishFailed when the broker refuses the
        message or doesn't acknowledge it in time (it may have arrived then), and ValueError for a topic
        with a wildcard.
        """
        check_topic(topic)
        connection = self._connection
        if connection is None or self.state is not State.CONNECTED:
            raise NotConnected(f"not connected to the broker: {self.reason}")
        await connection.publish(topic, payload, qos, retain, timeout_seconds)

    async def set_filters(self, filters: Mapping[str, int]) -> None:
        """Subscribe to these from now on, and unsubscribe from what isn't among them any more."""
        self._wanted = self._to_subscribe(filters)
        if self._connection is not None and self._ready.is_set():
            with contextlib.suppress(NotConnected):  # the next connection will
                await self._subscribe(self._connection)

    def stop_reading(self) -> None:
        """Take no more messages, and close the inbox: the first step of a drain.

        Acknowledgements and `publish` go on working until `stop`. What the broker still sends at QoS 1
        comes again with the next connection.
        """
        self._discarding = True
        self._inbox.close()
        if self._connection is not None:
            self._connection.start_reading()

    async def run(self) -> None:
        """See `Service`."""
        self._known = self._saved = await self._memory.load()
        stop = asyncio.create_task(self.stopping.wait())
        attempt = 0
        try:
            while not self.stopping.is_set():
                ending = await self._one_connection(stop)
                if self.stopping.is_set():
                    break
                lasted = 0.0 if self._accepted_at is None else self.clock.monotonic() - self._accepted_at
                closed = ending.kind == "closed" and 0 < lasted < FIGHT_SECONDS
                self._closings = self._closings + 1 if closed else 0
                fight = ending.kind == "taken_over" or self._closings >= CLOSINGS_MAX
                if lasted >= (FIGHT_SECONDS if fight else STABLE_SECONDS):
                    attempt = 0
                attempt = max(attempt + 1, 4) if fight else attempt + 1
                self._tell(ending)
                await self.pause(self.reconnect_backoff.delay(attempt))
                await self._wait_for_room(stop)
        finally:
            stop.cancel()

    async def _one_connection(self, stop: asyncio.Task[bool]) -> Ending:
        """From dialling to the end of one connection, or to our own farewell."""
        self._number += 1
        self._accepted_at = None
        self.state = State.CONNECTING
        connection = Connection(
            self._number,
            self._settings,
            self.client_id,
            self._state_topic,
            self.clock,
            self._take,
            self._packet_bytes_max,
        )
        self._connection = connection
        living = asyncio.create_task(self._live(connection))
        try:
            await asyncio.wait({living, stop}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                return living.result()
            living.cancel()
            if self._accepted_at is not None:
                await self._say_goodbye(connection)
            return Ending("stopped", "stopped")
        finally:
            living.cancel()
            self._ready.clear()
            self.state = State.DISCONNECTED
            self.connected_since = None
            connection.close()

    async def _live(self, connection: Connection) -> Ending:
        refused = await connection.open(self.address)
        if refused is not None:
            return refused
        self._on_accepted(connection)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._subscribe(connection)
        except TimeoutError:
            return Ending("the broker doesn't answer a SUBSCRIBE")
        except NotConnected:
            return await connection.over
        self._ready.set()
        try:
            await connection.publish(self._state_topic, ONLINE, 1, True, ANSWER_SECONDS)
        except NotConnected:
            return await connection.over
        except PublishFailed as error:
            self.log.warning("can't publish that the gateway is online to %s: %s", self._state_topic, error)
        while True:
            await asyncio.wait({connection.over}, timeout=REPEAT_SECONDS if self.refused else None)
            if connection.over.done():
                return connection.over.result()
            with contextlib.suppress(NotConnected):
                await self._subscribe(connection)  # ask again for what was refused

    async def _say_goodbye(self, connection: Connection) -> None:
        self._discarding = True
        connection.start_reading()  # the answer to the last message comes behind what is still to read
        with contextlib.suppress(PublishFailed):
            await connection.publish(self._state_topic, OFFLINE, 1, True, 1.0)
        await connection.goodbye()
        self.reason = "stopped"

    async def _subscribe(self, connection: Connection) -> None:
        """Bring the broker's subscriptions to what is wanted: first the new ones, so that no message falls between."""
        async with self._subscribing:
            wanted = self._wanted
            missing = {name: qos for name, qos in wanted.items() if self._subscribed.get(name) != qos}
            dropped = [name for name in self._known if name not in wanted]
            await self._remember([*wanted, *dropped])
            self.refused = await connection.subscribe(missing)
            await connection.unsubscribe(dropped)
            self._subscribed = {name: qos for name, qos in wanted.items() if name not in self.refused}
            await self._remember(list(wanted))
        self.reason = "; ".join(
            f"the broker refused the subscription to {name!r}: {why}" for name, why in self.refused.items()
        )
        if self.reason:
            self._warn(self.reason)

    async def _remember(self, filters: list[str]) -> None:
        self._known = filters
        if sorted(filters) == sorted(self._saved):
            return
        try:
            async with asyncio.timeout(MEMORY_SECONDS):
                await self._memory.save(filters)
            self._saved = filters
        except (TimeoutError, EdgeqError) as error:
            self.log.warning("can't store which subscriptions the broker has: %s", error or "no answer in time")

    async def _wait_for_room(self, stop: asyncio.Task[bool]) -> None:
        """Don't connect while the inbox is full: each connection would bring one read more into it (G8)."""
        if self._inbox.full:
            self.reason = "waits for room in the inbox: nothing is being committed"
            self._room.clear()
            room = asyncio.create_task(self._room.wait())
            await asyncio.wait({room, stop}, return_when=asyncio.FIRST_COMPLETED)
            room.cancel()

    def _take(self, deliveries: list[Delivery]) -> None:
        if self._discarding:
            self._metrics.dropped.add(sum(1 for delivery in deliveries if not delivery.qos), "stopping")
            return
        self._metrics.received.add(len(deliveries))
        self.last_message_at = deliveries[-1].received_at
        self._inbox.put(deliveries)
        if self._inbox.full and self._connection is not None:
            self._connection.stop_reading()

    def _on_room(self) -> None:
        self._room.set()
        if self._connection is not None:
            self._connection.start_reading()

    def _on_accepted(self, connection: Connection) -> None:
        self.state = State.CONNECTED
        self.connections += 1
        self.connected_since = self.clock.now()
        self._accepted_at = self.clock.monotonic()
        self._metrics.connects.add(1, "accepted")
        welcome = connection.welcome
        if not welcome.session_present:
            self._subscribed = {}
        self.log.info(
            "connected to %s as %s (%s session)",
            self.address,
            self.client_id,
            "known" if welcome.session_present else "new",
        )
        kept = welcome.session_expiry_seconds
        if kept is not None and kept < self._settings.session_expiry:
            self._warn(f"the broker keeps the session for {Duration(kept)} only; what comes later is lost")

    def _tell(self, ending: Ending) -> None:
        """Say why there is no connection: in `reason` always, in the log once."""
        self.reason = ending.reason
        self._metrics.connects.add(1, ending.kind)
        if ending.kind == "taken_over":
            self.reason = (
                f"another client took the session over with our client id {self.client_id!r}: "
                "give each its own mqtt.client_id"
            )
        elif self._closings >= CLOSINGS_MAX:
            self.reason += f" again and again: does another client use our client id {self.client_id!r}?"
        self._warn(f"not connected: {self.reason}")

    def _warn(self, text: str) -> None:
        now = self.clock.monotonic()
        if text != self._told or now - self._told_at >= REPEAT_SECONDS:
            self._told, self._told_at = text, now
            self.log.warning("%s", text)

    def _to_subscribe(self, filters: Mapping[str, int]) -> dict[str, int]:
        merged = merge({name: min(qos, 1) for name, qos in filters.items()})
        group = self._settings.group
        return {f"$share/{group}/{name}": qos for name, qos in merged.items()} if group else merged
