"""MQTT 5 properties of a message, decoded when somebody asks for them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

_BYTE, _TWO, _FOUR, _VARIABLE, _TEXT, _BINARY, _PAIR = range(7)
_KINDS = {
    0x01: _BYTE,  # payload format indicator
    0x02: _FOUR,  # message expiry interval
    0x03: _TEXT,  # content type
    0x08: _TEXT,  # response topic
    0x09: _BINARY,  # correlation data
    0x0B: _VARIABLE,  # subscription identifier
    0x23: _TWO,  # topic alias
    0x26: _PAIR,  # user property
}


@dataclass(slots=True)
class Properties:
    """What the sender (and the broker) said beside the payload. A user property's name may come more than once."""

    payload_is_text: bool = False
    expiry_seconds: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: list[tuple[str, str]] = field(default_factory=list)


def decode(raw: bytes) -> Properties:
    """The properties in `Delivery.properties_raw`. Raises ValueError when they aren't what MQTT 5 says (3.3.2.3)."""
    properties = Properties()
    position = 0
    try:
        while position < len(raw):
            identifier = raw[position]
            kind = _KINDS[identifier]
            position += 1
            if kind == _VARIABLE:
                while raw[position] > 127:
                    position += 1
                position += 1
            elif kind in (_BYTE, _TWO, _FOUR):
                size = (1, 2, 4)[kind]
                number = int.from_bytes(_take(raw, position, size), "big")
                position += size
                if identifier == 0x01:
                    properties.payload_is_text = number == 1
                elif identifier == 0x02:
                    properties.expiry_seconds = number
            else:
                first, position = _block(raw, position)
                if kind == _PAIR:
                    second, position = _block(raw, position)
                    properties.user.append((first.decode(), second.decode()))
                elif identifier == 0x03:
                    properties.content_type = first.decode()
                elif identifier == 0x08:
                    properties.response_topic = first.decode()
                else:
                    properties.correlation_data = first
    except KeyError as error:
        raise ValueError(f"a message has no property 0x{error.args[0]:02x}") from None
    except IndexError:
        raise ValueError("the properties end in the middle of one") from None
    return properties


def _block(raw: bytes, position: int) -> tuple[bytes, int]:
    size = int.from_bytes(_take(raw, position, 2), "big")
    return _take(raw, position + 2, size), position + 2 + size


def _take(raw: bytes, position: int, size: int) -> bytes:
    taken = raw[position : position + size]
    if len(taken) != size:
        raise IndexError
    return taken
