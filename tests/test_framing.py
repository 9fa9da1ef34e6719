"""The byte stream of a broker becomes the same packets however it is cut, and never an exception."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from support.packets import packet, publish, publish_head, variable

from edgeq.mqtt.delivery import Delivery
from edgeq.mqtt.framing import OVERSIZE_PAYLOAD_BYTES, Framer
from edgeq.mqtt.properties import decode

MAX = 2000


def framer(*, version5: bool = True, packet_bytes_max: int = MAX) -> Framer:
    return Framer(version5=version5, connection=7, packet_bytes_max=packet_bytes_max)


def values(delivery: Delivery) -> tuple[Any, ...]:
    return tuple(getattr(delivery, name) for name in Delivery.__slots__)


def feed(framing: Framer, stream: bytes, cuts: list[int]) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    deliveries: list[tuple[Any, ...]] = []
    controls: list[bytes] = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, stop in itertools.pairwise(edges):
        some, others = framing.feed(stream[start:stop], 5)
        deliveries += [values(delivery) for delivery in some]
        controls += others
    return deliveries, controls


PUBLISHES = st.builds(
    publish,
    st.binary(min_size=1, max_size=10),
    st.one_of(st.binary(max_size=300), st.integers(MAX - 30, 5 * MAX).map(lambda size: b"p" * size)),
    mid=st.integers(1, 65535),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    dup=st.booleans(),
    properties=st.sampled_from([b"", b"\x03\x00\x01a", b"\x26\x00\x01a\x00\xc8" + b"b" * 200]),
)
CONTROLS = st.builds(packet, st.integers(0x40, 0xFF), st.binary(max_size=300))
STREAMS = st.lists(st.one_of(PUBLISHES, CONTROLS), max_size=6).map(b"".join)
CUTS = st.lists(st.integers(0, 10**6), max_size=12)


@given(st.one_of(STREAMS, st.binary(max_size=100), st.builds(lambda a, b: a + b, STREAMS, st.binary())), CUTS)
def test_cutting_the_stream_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    whole, pieces = framer(), framer()
    assert feed(whole, stream, []) == feed(pieces, stream, cuts)
    assert whole.malformed == pieces.malformed


@given(PUBLISHES)
@settings(max_examples=30)
def test_one_byte_at_a_time(one: bytes) -> None:
    assert feed(framer(), one, []) == feed(framer(), one, list(range(len(one))))


def test_what_a_publish_holds() -> None:
    stream = publish(b"a/b", b"hi", mid=513, qos=1, retain=True, dup=True, properties=b"\x01\x01")
    stream += publish("ü".encode(), b"", qos=0, properties=b"")
    (first, second), controls = framer().feed(stream, 42)
    assert (first.topic, first.payload, first.mid, first.qos, first.retain, first.dup) == (
        "a/b", b"hi", 513, 1, True, True,
    )  # fmt: skip
    assert (first.connection, first.received_at, first.properties_raw, first.payload_size) == (7, 42, b"\x01\x01", 2)
    assert (second.topic, second.payload, second.mid, second.qos, second.retain, second.dup) == (
        "ü", b"", 0, 0, False, False,
    )  # fmt: skip
    assert controls == []


def test_mqtt_3_has_no_properties() -> None:
    (delivery,), _ = framer(version5=False).feed(publish(b"a", b"\x05hello"), 0)
    assert (delivery.payload, delivery.properties_raw) == (b"\x05hello", b"")


def test_other_packets_are_handed_on_whole() -> None:
    stream = packet(0xD0, b"") + publish(b"a", b"x", properties=b"") + packet(0x90, b"\0\1\0" + b"\1" * 200)
    deliveries, controls = feed(framer(), stream, [1, 3])
    assert len(deliveries) == 1
    assert controls == [packet(0xD0, b""), packet(0x90, b"\0\1\0" + b"\1" * 200)]


def test_the_largest_packet_and_one_byte_more() -> None:
    room = MAX - len(publish_head(b"t", properties=b""))
    (exact,), _ = framer().feed(publish(b"t", b"x" * room, properties=b""), 0)
    assert exact.payload_size == len(exact.payload) == room
    room += 1
    (over,), _ = framer(packet_bytes_max=MAX).feed(publish(b"t", b"x" * room, properties=b""), 0)
    assert over.payload_size == len(over.payload) == room  # small enough to be kept whole, and yet too large to take


def test_an_oversize_message_passes_without_being_kept() -> None:
    framing = framer()
    size = 256 * 1024 * 1024 - 100
    head = publish_head(b"cam/1", mid=9, properties=b"\x01\x01")
    announced = b"\x3b" + variable(len(head) + size) + head
    assert framing.feed(announced + b"begin", 3) == ([], [])
    chunk = b"x" * 65536
    left = size - 5
    while left > len(chunk):
        assert framing.feed(chunk, 4) == ([], [])
        assert len(framing._rest) <= 200_000
        left -= len(chunk)
    (over, after), _ = framing.feed(b"x" * left + publish(b"a", b"next", properties=b""), 5)
    assert (over.topic, over.mid, over.qos, over.retain, over.dup) == ("cam/1", 9, 1, True, True)
    assert over.payload_size == size
    assert over.payload == b"begin" + b"x" * (OVERSIZE_PAYLOAD_BYTES - 5)
    assert over.properties_raw == b"\x01\x01"
    assert after.payload == b"next"
    assert not framing.malformed


def test_oversize_properties() -> None:
    pair = b"\x26\x00\x01a\xea\x60" + b"b" * 60000
    framing = framer()
    (over, after), _ = framing.feed(
        publish(b"a", b"payload", properties=pair * 4) + publish(b"a", b"next", properties=b""), 0
    )
    assert (over.payload, over.payload_size, over.properties_raw) == (b"", 7, b"")
    assert after.payload == b"next"


def test_a_topic_that_is_no_text_still_arrives() -> None:
    (bad, null), _ = framer().feed(
        publish(b"a/\xff\xed\xa0\x80", b"1", properties=b"") + publish(b"a/\0", b"2", properties=b""), 0
    )
    assert bad.topic == "a/\\xff\\xed\\xa0\\x80"
    assert null.topic == "a/\\x00"
    bad.topic.encode()


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x00\x00", "type 0"),
        (b"\x30\xff\xff\xff\xff\x01", "remaining length"),
        (packet(0x36, b"\0\1a\0\1\0"), "QoS 3"),
        (packet(0x32, b"\0\1a\0\0\0"), "packet identifier 0"),
        (packet(0x30, b""), "without a topic"),
        (packet(0x30, b"\0"), "without a topic"),
        (packet(0x30, b"\0\0\0"), "empty topic"),
        (packet(0x30, b"\0\5a\0"), "ends before its properties"),
        (packet(0x32, b"\0\1a\0"), "ends before its packet identifier"),
        (packet(0x32, b"\0\1a\0\1"), "ends before its properties"),
        (packet(0x32, b"\0\1a\0\1\7ab"), "ends before its payload"),
        (packet(0x32, b"\0\1a\0\1\xff\xff\xff\xff\1"), "length of properties"),
        (b"\x90" + variable(300_000), "300000 bytes"),
        (packet(0x36, b"\0\1a\0\1\0" + b"x" * MAX), "QoS 3"),
        (packet(0x32, b"\xff\xffa" + b"x" * MAX), "ends before"),
    ],
)
def test_what_is_no_mqtt_ends_it(stream: bytes, reason: str) -> None:
    framing = framer()
    good = publish(b"a", b"x", properties=b"")
    deliveries, _ = framing.feed(good + stream, 0)
    assert [delivery.topic for delivery in deliveries] == ["a"]
    assert reason in framing.malformed
    assert framing.feed(good, 0) == ([], [])


def test_the_memory_of_topics_is_bounded() -> None:
    framing = framer()
    for number in range(10_000):
        framing.feed(publish(b"t/%d" % number, b"", properties=b""), 0)
        framing.feed(publish(b"t" * 300 + b"%d" % number, b"", properties=b""), 0)
    assert len(framing._topics) <= 4096
    assert all(len(topic) <= 256 for topic in framing._topics)


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff"), max_size=10)


@given(
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | st.binary(max_size=10),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 1),
    st.none() | st.integers(1, 2**28 - 1),
)
def test_properties_are_read_as_paho_writes_them(
    user: list[tuple[str, str]],
    content_type: str | None,
    response_topic: str | None,
    correlation: bytes | None,
    expiry: int | None,
    is_text: int | None,
    subscription: int | None,
) -> None:
    written = PahoProperties(PacketTypes.PUBLISH)
    if user:
        written.UserProperty = user
    for name, value in {
        "ContentType": content_type, "ResponseTopic": response_topic, "CorrelationData": correlation,
        "MessageExpiryInterval": expiry, "PayloadFormatIndicator": is_text, "SubscriptionIdentifier": subscription,
        "TopicAlias": 3,
    }.items():  # fmt: skip
        if value is not None:
            setattr(written, name, value)
    packed = written.pack()
    read = decode(packed[1 if packed[0] < 128 else 2 :])
    assert read.user == user
    assert (read.content_type, read.response_topic, read.correlation_data) == (
        content_type, response_topic, correlation,
    )  # fmt: skip
    assert (read.expiry_seconds, read.payload_is_text) == (expiry, is_text == 1)


@given(st.binary(max_size=30))
def test_any_bytes_are_properties_or_a_value_error(raw: bytes) -> None:
    try:
        decode(raw)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(b"\x11\0\0\0\1", "no property 0x11"), (b"\x03\0\5ab", "end in the middle"), (b"\x0b\xff", "end in the middle")],
)
def test_bad_properties_say_why(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(raw)
