"""By MQTT: the batch as JSON in one message at QoS 1, over a connection of its own or over edgeq's session.

Taken means that the broker has acknowledged it and has somebody to give it to: one to whom nobody has subscribed would
vanish there. (Brokers say so with MQTT 5 only.)
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

from ..clock import Clock
from ..config.schema import Mqtt
from ..mqtt.address import Address
from ..mqtt.connection import NO_SUBSCRIBERS, Connection, NotConnected, TooLarge
from .settings import ForwardSettings
from .target import Answer, Away, Parcel, Refused, Taken, Target

_PACKET_BYTES_MAX = 64 * 1024

Publish = Callable[..., Awaitable[object]]


class SessionTarget(Target):
    """Over edgeq's own session, to the broker that it has anyway."""

    def __init__(self, settings: ForwardSettings, topic: str, publish: Publish) -> None:
        self.place = f"topic {topic}"
        self._topic = topic
        self._publish = publish
        self._gzip = settings.gzip

    async def send(self, parcel: Parcel) -> Answer:
        """See Target.send."""
        body = await asyncio.to_thread(gzip.compress, parcel.body, mtime=0) if self._gzip else parcel.body
        try:
            code = await self._published(body)
        except TooLarge as error:
            return Refused(str(error), too_large=True)
        except Exception as error:  # noqa: BLE001 - whatever the session raises, the broker hasn't got it
            return Away(str(error) or type(error).__name__)
        if code == NO_SUBSCRIBERS:
            return Away(f"nobody has subscribed to {self._topic}: the broker would drop it")
        return Taken(len(body))

    async def _published(self, body: bytes) -> object:
        return await self._publish(self._topic, body, qos=1)


class BrokerTarget(SessionTarget):
    """Over a connection of its own, which lasts as long as it is good."""

    def __init__(self, settings: ForwardSettings, topic: str, client_id: str, clock: Clock) -> None:
        super().__init__(settings, topic, self._publish_alone)
        self._mqtt = Mqtt(
            url=settings.to,
            version=settings.version,
            client_id=settings.client_id or client_id,
            username=settings.username,
            password=settings.password,
            tls=settings.tls,
        )
        self._address = Address.parse(settings.to)
        self._timeout_seconds = settings.timeout
        self._clock = clock
        self._number = 0
        self._connection: Connection | None = None
        self.place = f"{self._address}, topic {topic}"

    async def close(self) -> None:
        """See Target.close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not connection.over.done():
                await connection.goodbye()
            connection.close()

    async def _publish_alone(self, topic: str, payload: bytes, *, qos: int) -> int:
        connection = await self._connected()
        return await connection.publish(topic, payload, qos, False, self._timeout_seconds)

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.over.done():
            return self._connection
        await self.close()
        self._number += 1
        connection = Connection(
            self._number, self._mqtt, self._mqtt.client_id, "", self._clock, lambda deliveries: None, _PACKET_BYTES_MAX
        )
        try:
            refused = await connection.open(self._address)
        except BaseException:
            connection.close()
            raise
        if refused is not None:
            connection.close()
            raise NotConnected(refused.reason)
        self._connection = connection
        return connection
