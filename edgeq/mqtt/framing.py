"""From the byte stream of a broker to deliveries. Pure, and the hottest code of edgeq: every message passes here.

MQTT 5, 2.1: a packet is one byte of type and flags, its remaining length in one to four bytes of seven
bits, and as many bytes more. PUBLISH packets become deliveries; all others are handed on as they are.
MQTT 5 properties stay undecoded (see `properties`). However the stream is cut into chunks, the packets
are the same.
"""

from __future__ import annotations

from .delivery import Delivery

OVERSIZE_PAYLOAD_BYTES = 4096
"""How much of the payload of an oversize message is kept."""

_OVERSIZE_HEAD_BYTES = 128 * 1024  # the longest topic, some properties, and the payload's beginning
_CONTROL_BYTES_MAX = 256 * 1024
_TOPICS_MAX = 4096
_TOPIC_BYTES_MAX = 256  # longer topics aren't worth remembering


class Framer:
    """Splits what one connection brings.

    A PUBLISH of more than `packet_bytes_max` bytes passes through without being kept: its delivery holds
    the true `payload_size` and the first 4 KiB of the payload. After bytes that are no MQTT, `malformed`
    says what is wrong, and nothing more comes out: close the connection.
    """

    def __init__(self, *, version5: bool, connection: int, packet_bytes_max: int) -> None:
        self.malformed = ""
        self._version5 = version5
        self.connection = connection
        self._packet_bytes_max = packet_bytes_max
        self._rest = bytearray()
        self._needed = 0  # bytes that `_rest` must have before it is worth looking at again
        self._skip = 0  # bytes of an oversize packet still to pass by
        self._oversize: Delivery | None = None
        self._topics: dict[bytes, str] = {}

    def feed(self, chunk: bytes, received_at: int) -> tuple[list[Delivery], list[bytes]]:
        """The deliveries, and all other packets, that `chunk` completes; each list in order of arrival."""
        deliveries: list[Delivery] = []
        controls: list[bytes] = []
        if self.malformed:
            return deliveries, controls
        if self._skip:
            if len(chunk) < self._skip:
                self._skip -= len(chunk)
                return deliveries, controls
            chunk = chunk[self._skip :]
            self._skip = 0
            self._pass(deliveries)
        rest = self._rest
        if rest:
            rest += chunk
            if len(rest) < self._needed:
                return deliveries, controls
            chunk = bytes(rest)
            rest.clear()
        try:
            used = self._split(chunk, received_at, deliveries, controls)
        except _Malformed as error:
            self.malformed = str(error)
        else:
            rest += chunk[used:]
        return deliveries, controls

    def _split(self, data: bytes, received_at: int, deliveries: list[Delivery], controls: list[bytes]) -> int:
        """Take the whole packets from `data`; the number of bytes used."""
        version5 = self._version5
        connection = self.connection
        packet_bytes_max = self._packet_bytes_max
        topics = self._topics
        end = len(data)
        start = 0
        while start + 2 <= end:
            head = data[start]
            length = data[start + 1]
            body = start + 2
            if length > 127:
                length &= 127
                shift = 7
                while True:
                    if body == end:
                        self._needed = body - start + 1
                        return start
                    byte = data[body]
                    body += 1
                    length |= (byte & 127) << shift
                    if byte < 128:
                        break
                    shift += 7
                    if shift == 28:
                        raise _Malformed("a remaining length of more than four bytes")
            stop = body + length
            if head & 0xF0 != 0x30:
                if head < 0x10 or length > _CONTROL_BYTES_MAX:
                    raise _Malformed(f"a packet of type {head >> 4} with {length} bytes")
                if stop > end:
                    self._needed = stop - start
                    return start
                controls.append(data[start:stop])
                start = stop
                continue
            if length > packet_bytes_max:
                kept = min(length, _OVERSIZE_HEAD_BYTES)
                if body + kept > end:
                    self._needed = body + kept - start
                    return start
                self._oversize = self._beginning(head, data[body : body + kept], length, received_at)
                self._skip = length - kept
                start = body + kept
                if self._skip > end - start:
                    self._skip -= end - start
                    return end
                start += self._skip
                self._skip = 0
                self._pass(deliveries)
                continue
            if stop > end:
                self._needed = stop - start
                return start

            # A PUBLISH. `mark` walks over topic, packet identifier and properties to the payload.
            if length < 2:
                raise _Malformed("a PUBLISH without a topic")
            mark = body + 2 + (data[body] << 8 | data[body + 1])
            raw_topic = data[body + 2 : mark]
            topic = topics.get(raw_topic)
            if topic is None:
                topic = self._topic(raw_topic)
            qos = (head >> 1) & 3
            if qos:
                if qos == 3:
                    raise _Malformed("a PUBLISH with QoS 3")
                mark += 2
                if mark > stop:
                    raise _Malformed("a PUBLISH that ends before its packet identifier")
                mid = data[mark - 2] << 8 | data[mark - 1]
                if not mid:
                    raise _Malformed("a PUBLISH with packet identifier 0")
            else:
                mid = 0
            properties = b""
            if version5:
                if mark >= stop:
                    raise _Malformed("a PUBLISH that ends before its properties")
                size = data[mark]
                mark += 1
                if size:
                    if size > 127:
                        size, mark = _variable_integer(data, mark - 1, stop)
                    properties = data[mark : mark + size]
                    mark += size
            if mark > stop:
                raise _Malformed("a PUBLISH that ends before its payload begins")
            deliveries.append(
                Delivery(
                    topic,
                    data[mark:stop],
                    received_at=received_at,
                    qos=qos,
                    retain=head & 1 == 1,
                    dup=head & 8 == 8,
                    mid=mid,
                    connection=connection,
                    properties_raw=properties,
                )
            )
            start = stop
        self._needed = 2
        return start

    def _beginning(self, head: int, kept: bytes, length: int, received_at: int) -> Delivery:
        """The delivery of an oversize PUBLISH of `length` bytes from its first bytes."""
        mark = 2 + int.from_bytes(kept[:2], "big")
        if mark + 2 > len(kept):
            raise _Malformed("a PUBLISH that ends before its packet identifier")
        topic = self._topic(kept[2:mark])
        qos = (head >> 1) & 3
        mid = 0
        if qos:
            mid = int.from_bytes(kept[mark : mark + 2], "big")
            mark += 2
            if qos == 3 or not mid:
                raise _Malformed("a PUBLISH with QoS 3 or packet identifier 0")
        properties = b""
        if self._version5:
            size, mark = _variable_integer(kept, mark, len(kept))
            if mark + size <= len(kept):
                properties = kept[mark : mark + size]
            mark += size
        if mark > length:
            raise _Malformed("a PUBLISH that ends before its payload begins")
        return Delivery(
            topic,
            kept[mark : mark + OVERSIZE_PAYLOAD_BYTES],
            received_at=received_at,
            qos=qos,
            retain=head & 1 == 1,
            dup=head & 8 == 8,
            mid=mid,
            connection=self.connection,
            properties_raw=properties,
            payload_size=length - mark,
        )

    def _pass(self, deliveries: list[Delivery]) -> None:
        """The end of an oversize packet has gone by."""
        if self._oversize is not None:
            deliveries.append(self._oversize)
            self._oversize = None

    def _topic(self, raw: bytes) -> str:
        """The text of a topic.

        Bytes that aren't UTF-8, and the null character, become `\\x..`: a broker must not send them
        (1.5.4), but the message has to reach the dead letters, where closing the connection would bring
        it back for ever.
        """
        if not raw:
            raise _Malformed("a PUBLISH with an empty topic")
        topic = raw.decode(errors="backslashreplace").replace("\0", "\\x00")
        if len(raw) <= _TOPIC_BYTES_MAX:
            if len(self._topics) >= _TOPICS_MAX:
                self._topics.clear()
            self._topics[raw] = topic
        return topic


class _Malformed(Exception):
    pass


def _variable_integer(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """A variable byte integer (1.5.5) at `position`: its value, and the position after it."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= stop:
            raise _Malformed("a PUBLISH that ends before its properties")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise _Malformed("a length of properties of more than four bytes")
