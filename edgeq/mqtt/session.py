"""The session with the broker: persistent, always coming back, and acknowledging only what it is told to.

What one can rely on: the client id is stable and the session is never started clean, so that the broker keeps what
comes while edgeq is away (G2). A QoS 1 message is acknowledged by `ack` and by nothing else (G1). Reading stops while
the inbox is full (G8). Whatever goes wrong, the session tries again, with jitter, for ever; `state` and `reason` say
how it stands, and the log says it once, not for each attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Any

from ..backoff import Backoff
from ..clock import Clock
from ..config.schema import Mqtt
from ..service import Service
from ..telemetry.metrics import Metrics
from ..units import Duration
from .address import Address
from .client import Ending, Welcome
from .connection import Connection, NotConnected, PublishFailed
from .delivery import Delivery
from .inbox import Inbox
from .presence import OFFLINE, ONLINE, state_topic
from .subscriptions import SubscriptionMemory, Subscriptions
from .topics import check_topic

STABLE_SECONDS = 10.0
"""A connection that lasted as long was a good one: the next waiting time is a short one again."""
FIGHT_SECONDS = 120.0
"""The same when another client takes our session away, and will again."""
CLOSINGS_MAX = 3
"""Brokers that don't say that another client took the session just close the connection, so often at least."""
REPEAT_SECONDS = 300.0
"""A reason that stays is logged again after this time, and a refused subscription asked for again."""
ANSWER_SECONDS = 30.0
"""How long the broker may take to answer a SUBSCRIBE or the first message, while we read."""
WAITS_FOR_ROOM = "the inbox is full: nothing more is read until something is committed"


class State(StrEnum):
    """How the session stands; connected means subscribed, too."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Session(Service):
    """The session that `settings` describe, for the topic filters of the routes (filter -> QoS).

    Filters that overlap are merged, so that a message comes once: see `topics.merge`. Raises ValueError for a URL or a
    status topic that can't be used. For `private` see Subscriptions. A message whose packet is larger than
    `packet_bytes_max` arrives as an oversize delivery. Times are microseconds since 1970 UTC, `connections` counts
    those that the broker accepted.
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
        private: Collection[str] = (),
    ) -> None:
        super().__init__("session", clock)
        self.state = State.DISCONNECTED
        self._reason = "not connected yet"
        self.connected_since: int | None = None
        self.disconnected_since: int | None = None  # None before the first connection, too
        self.last_message_at: int | None = None
        self.connections = 0
        self.client_id = settings.client_id or f"edgeq-{gateway}"
        self.address = Address.parse(settings.url)
        self._settings = settings
        self._state_topic = state_topic(settings.status_topic, gateway)
        self._subscriptions = Subscriptions(filters, settings.group, known_filters, private)
        self._inbox = inbox
        self._inbox.when_room(self._on_room)
        self._room = asyncio.Event()
        self._metrics = metrics
        self._packet_bytes_max = packet_bytes_max
        self._connection: Connection | None = None
        self._on_connected: list[Callable[[], None]] = []
        self._number = 0
        self._accepted_at: float | None = None
        self._ready = asyncio.Event()
        self._discarding = False
        self._attempt = 0
        self._closings = 0
        self._flapping = False
        self._steady: asyncio.TimerHandle | None = None
        self._told = ""
        self._told_at = 0.0

    @property
    def reason(self) -> str:
        """In words for people: why there is no connection, or what doesn't work. Empty when all is well."""
        paused = self._connection is not None and not self._connection.reading
        return WAITS_FOR_ROOM if paused else self._reason

    @property
    def refused(self) -> Mapping[str, str]:
        """The filters that the broker refuses, with its reasons."""
        return self._subscriptions.refused

    async def wait_ready(self) -> None:
        """Return when the broker has answered for every subscription; see `refused` for those it refused."""
        await self._ready.wait()

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        """Acknowledge in the order given; the number of those that were.

        Deliveries at QoS 0 need none, and those of an earlier connection can't be: the broker sends them again.
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

    def when_connected(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time a new connection is subscribed, and the broker was told that we are online. There
        may be several callbacks; none is forgotten."""
        self._on_connected.append(callback)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        timeout_seconds: float = 30.0,
        correlation_data: bytes | None = None,
    ) -> int:
        """Publish, and return when the broker has acknowledged it (at QoS 0: when it is sent), with its reason code.
        `correlation_data` goes with it where there is MQTT 5.

        It needs no subscription: what an earlier connection left unacknowledged comes again, and may be answered,
        before the broker has confirmed the subscriptions. Raises NotConnected, without waiting for a connection;
        PublishFailed when the broker refuses the message or doesn't acknowledge it in time (it may have arrived
        then); ValueError for a topic that can't be published to.
        """
        check_topic(topic)
        connection = self._connection
        if connection is None or self._accepted_at is None or connection.over.done():
            raise NotConnected(f"not connected to the broker: {self.reason}")
        return await connection.publish(topic, payload, qos, retain, timeout_seconds, correlation_data)

    def stop_reading(self) -> None:
        """Take no more messages, and close the inbox: the first step of a drain.

        Acknowledgements and `publish` go on working until `stop`. What the broker still sends at QoS 1 comes again with
        the next connection.
        """
        self._discarding = True
        self._inbox.close()
        if self._connection is not None:
            self._connection.start_reading()

    async def run(self) -> None:
        """See `Service`."""
        await self._subscriptions.load()
        stop = asyncio.create_task(self.stopping.wait())
        try:
            while not self.stopping.is_set():
                ending = await self._one_connection(stop)
                if not self.stopping.is_set():
                    delay = self._after(ending)
                    await self.pause(delay)
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
            if self._steady is not None:
                self._steady.cancel()
            self._ready.clear()
            self.state = State.DISCONNECTED
            if self.connected_since is not None:
                self.connected_since, self.disconnected_since = None, self.clock.now()
            connection.close()

    async def _live(self, connection: Connection) -> Ending:
        refused = await connection.open(self.address)
        if refused is not None:
            return refused
        self._on_accepted(connection.welcome)
        try:
            await _answered(connection, self._subscribe(connection))
        except TimeoutError:
            return Ending("the broker doesn't answer a SUBSCRIBE")
        except NotConnected:
            return await connection.over
        self.state = State.CONNECTED
        self.connected_since, self.disconnected_since = self.clock.now(), None
        self._ready.set()
        try:
            await _answered(connection, connection.publish(self._state_topic, ONLINE, 1, True, None))
        except NotConnected:
            return await connection.over
        except (PublishFailed, TimeoutError) as error:
            why = error or "the broker doesn't answer"
            self.log.warning("can't publish that the gateway is online to %s: %s", self._state_topic, why)
        for callback in self._on_connected:
            callback()
        while True:
            await asyncio.wait({connection.over}, timeout=REPEAT_SECONDS if self.refused else None)
            if connection.over.done():
                return connection.over.result()
            with contextlib.suppress(NotConnected):
                await self._subscribe(connection)

    async def _say_goodbye(self, connection: Connection) -> None:
        self._discarding = True
        with contextlib.suppress(PublishFailed):
            await connection.publish(self._state_topic, OFFLINE, 1, True, 1.0)
        await connection.goodbye()
        self._reason = "stopped"

    async def _subscribe(self, connection: Connection) -> None:
        await self._subscriptions.sync(connection)
        self._reason = "; ".join(
            f"the broker refused the subscription to {name!r}: {why}" for name, why in self.refused.items()
        )
        if self._reason:
            self._warn(self._reason)

    async def _wait_for_room(self, stop: asyncio.Task[bool]) -> None:
        """Don't connect while the inbox is full: each connection would bring one read more into it (G8)."""
        if self._inbox.full:
            self._reason = WAITS_FOR_ROOM
            self._room.clear()
            room = asyncio.create_task(self._room.wait())
            await asyncio.wait({room, stop}, return_when=asyncio.FIRST_COMPLETED)
            room.cancel()

    def _take(self, deliveries: list[Delivery]) -> None:
        if self._discarding:
            lost = sum(1 for delivery in deliveries if not delivery.qos)
            if lost:
                self._metrics.dropped.add(lost, "stopping")
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

    def _on_accepted(self, welcome: Welcome) -> None:
        self.connections += 1
        self._accepted_at = self.clock.monotonic()
        self._metrics.connects.add(1, "accepted")
        if self._flapping:
            self._steady = asyncio.get_running_loop().call_later(STABLE_SECONDS, self._say_connected, welcome)
        else:
            self._say_connected(welcome)
        if not welcome.session_present and self._subscriptions.forgotten():
            self.log.warning("the broker has lost our session: what it kept for us, and what came meanwhile, is gone")
        kept = welcome.session_expiry_seconds
        if kept is not None and kept < self._settings.session_expiry:
            self._warn(f"the broker keeps the session for {Duration(kept)} only; it loses what comes later")

    def _say_connected(self, welcome: Welcome) -> None:
        self._told = ""
        kind = "known" if welcome.session_present else "new"
        self.log.info("connected to %s as %s (%s session)", self.address, self.client_id, kind)

    def _after(self, ending: Ending) -> float:
        """Say why there is no connection, in `reason` always and in the log once; the seconds to wait."""
        lasted = 0.0 if self._accepted_at is None else self.clock.monotonic() - self._accepted_at
        closed = ending.kind == "closed" and 0 < lasted < FIGHT_SECONDS
        self._closings = self._closings + 1 if closed else 0
        self._flapping = 0 < lasted < STABLE_SECONDS
        self._reason = ending.reason
        fight = True
        if ending.kind == "taken_over":
            self._reason = (
                f"another client took the session over with our client id {self.client_id!r}: "
                "give each its own mqtt.client_id"
            )
        elif self._closings >= CLOSINGS_MAX:
            self._reason += f" again and again: does another client use our client id {self.client_id!r}?"
        else:
            fight = False
        self._metrics.connects.add(1, ending.kind)
        self._warn(f"not connected: {self._reason}")
        if lasted >= (FIGHT_SECONDS if fight else STABLE_SECONDS):
            self._attempt = 0
        self._attempt = max(self._attempt + 1, 4) if fight else self._attempt + 1
        return self.reconnect_backoff.delay(self._attempt)

    def _warn(self, text: str) -> None:
        now = self.clock.monotonic()
        if text != self._told or now - self._told_at >= REPEAT_SECONDS:
            self._told, self._told_at = text, now
            self.log.warning("%s", text)


async def _answered(connection: Connection, work: Coroutine[Any, Any, object]) -> None:
    """Do `work`, which waits for an answer. Raises TimeoutError when none comes although we read."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            paused = not connection.reading
            _, waiting = await asyncio.wait({task}, timeout=ANSWER_SECONDS)
            if waiting and connection.reading and not paused:
                raise TimeoutError
    finally:
        task.cancel()
    task.result()
