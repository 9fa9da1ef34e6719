"""One message over a connection of its own, beside an appliance that runs or doesn't: no session, no will."""

from __future__ import annotations

import os

import msgspec

from ..clock import Clock
from ..config.schema import Mqtt
from ..units import Duration
from .address import Address
from .connection import Connection, NotConnected
from .topics import check_topic

_SECONDS = 30.0
_PACKET_BYTES_MAX = 64 * 1024


async def publish_alone(
    settings: Mqtt, gateway: str, clock: Clock, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
) -> None:
    """Connect to the broker that `settings` name, publish, and leave; returns when the broker has acknowledged it (at
    QoS 0: when it is sent). The client id is our own with an ending, so that the appliance keeps its session.

    Raises PublishFailed, also when there is no way to the broker; ValueError for a topic that can't be published to.
    """
    check_topic(topic)
    client_id = f"{settings.client_id or f'edgeq-{gateway}'}-{os.getpid()}"
    alone = msgspec.structs.replace(settings, session_expiry=Duration(0))
    connection = Connection(1, alone, client_id, "", clock, lambda deliveries: None, _PACKET_BYTES_MAX)
    try:
        refused = await connection.open(Address.parse(settings.url))
        if refused is not None:
            raise NotConnected(refused.reason)
        await connection.publish(topic, payload, qos, retain, _SECONDS)
        await connection.goodbye()
    finally:
        connection.close()
