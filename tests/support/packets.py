"""MQTT packets, written byte by byte as the standard says, for brokers that don't exist."""

from __future__ import annotations

import struct


def packet(head: int, body: bytes) -> bytes:
    """A packet of any type."""
    return bytes([head]) + variable(len(body)) + body


def variable(number: int) -> bytes:
    """A variable byte integer."""
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (128 if number else 0))
        if not number:
            return bytes(out)


def publish(
    topic: bytes,
    payload: bytes,
    *,
    mid: int = 1,
    qos: int = 1,
    retain: bool = False,
    dup: bool = False,
    properties: bytes | None = None,
) -> bytes:
    """A PUBLISH; with `properties` (maybe empty) as in MQTT 5, without as in 3.1.1."""
    return packet(
        0x30 | dup << 3 | qos << 1 | retain,
        publish_head(topic, mid=mid, qos=qos, properties=properties) + payload,
    )


def publish_head(topic: bytes, *, mid: int = 1, qos: int = 1, properties: bytes | None = None) -> bytes:
    """What stands before the payload of a PUBLISH, without the fixed header."""
    head = struct.pack(">H", len(topic)) + topic
    if qos:
        head += struct.pack(">H", mid)
    if properties is not None:
        head += variable(len(properties)) + properties
    return head


def connack(code: int = 0, *, session_present: bool = False, version5: bool = True) -> bytes:
    """A CONNACK."""
    return packet(0x20, bytes([session_present, code]) + (b"\0" if version5 else b""))


def suback(mid: int, codes: bytes, *, version5: bool = True) -> bytes:
    """A SUBACK."""
    return packet(0x90, struct.pack(">H", mid) + (b"\0" if version5 else b"") + codes)
