"""One message as it came from the broker, waiting to be acknowledged."""

from __future__ import annotations


class Delivery:
    """A message taken from the broker.

    `payload` holds `payload_size` bytes, or only the first of them when the message was larger than the session
    takes (`payload_size > len(payload)`). `mid` is the packet identifier (0 at QoS 0) and means something only on
    connection number `connection`. `properties_raw` are the undecoded MQTT 5 properties. `received_at` is in
    microseconds since 1970 UTC.
    """

    __slots__ = (
        "connection", "dup", "mid", "payload", "payload_size", "properties_raw", "qos", "received_at",
        "retain", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        payload: bytes,
        *,
        received_at: int,
        qos: int = 1,
        retain: bool = False,
        dup: bool = False,
        mid: int = 0,
        connection: int = 0,
        properties_raw: bytes = b"",
        payload_size: int = -1,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.payload_size = len(payload) if payload_size < 0 else payload_size
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.mid = mid
        self.connection = connection
        self.properties_raw = properties_raw
        self.received_at = received_at

    def __repr__(self) -> str:
        return f"Delivery({self.topic!r}, {self.payload_size} bytes, qos={self.qos}, mid={self.mid})"
