"""Topic filters against a real mosquitto: what edgeq takes for a filter the broker takes, and they match the same."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.fuzzing import fuzz
from support.mosquitto import Mosquitto
from support.packets import packet, publish

from edgeq.mqtt.topics import Template, check_filter, check_topic

CONNECT = packet(0x10, b"\0\4MQTT\4\2\0\0\0\0")  # 3.1.1, a clean session, no name, no keep-alive
PING, PONG = b"\xc0\0", b"\xd0\0"

LEVELS = st.sampled_from(["a", "b", "", "ä", "$x", "$SYS", "$share", "a b", "{a}"]) | st.text(max_size=3)
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join)
FILTERS = st.lists(st.sampled_from(["+", "+", "#", "a+", "#a", "$share"]) | LEVELS, min_size=1, max_size=5).map(
    "/".join
)


class Wire:
    """A client whose packets nobody looks at before the broker does. The broker handles one after the other, and so
    what comes before the answer to a ping is all that the earlier ones bring."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mids = itertools.cycle(range(1, 65536))
        self._connect()

    def close(self) -> None:
        self._socket.close()

    def subscribe(self, topic_filter: str) -> bool:
        """Whether the broker takes it."""
        mid = struct.pack(">H", next(self._mids))
        answers = self._ask(packet(0x82, mid + _text(topic_filter) + b"\0"))
        return (0x90, mid + b"\0") in answers

    def unsubscribe(self, topic_filter: str) -> None:
        """It is taken back."""
        self._ask(packet(0xA2, struct.pack(">H", next(self._mids)) + _text(topic_filter)))

    def brings(self, topic: str) -> bool:
        """Whether a message comes back that is published there."""
        return bool(self._ask(publish(topic.encode(), b"", qos=0)))

    def _ask(self, octets: bytes) -> list[tuple[int, bytes]]:
        """The packets that come as an answer. A broker that hangs up is called again."""
        found = []
        try:
            self._socket.sendall(octets + PING)
            while (each := self._packet()) != (0xD0, b""):
                found.append(each)
        except (EOFError, ConnectionError):
            self._socket.close()
            self._connect()
        return found

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(CONNECT)
        assert self._packet() == (0x20, b"\0\0")

    def _packet(self) -> tuple[int, bytes]:
        kind, digit = self._read(2)
        length, shift = digit & 127, 7
        while digit & 128:
            (digit,) = self._read(1)
            length, shift = length | (digit & 127) << shift, shift + 7
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        octets = b""
        while len(octets) < size:
            piece = self._socket.recv(size - len(octets))
            if not piece:
                raise EOFError
            octets += piece
        return octets


def _text(text: str) -> bytes:
    octets = text.encode()
    return struct.pack(">H", len(octets)) + octets


@pytest.fixture
def wire(mosquitto: Callable[..., Mosquitto]) -> Iterator[Wire]:
    made = Wire(mosquitto("set_tcp_nodelay true").port)
    yield made
    made.close()


def accepted(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except ValueError:
        return False
    return True


@fuzz(300)
@given(FILTERS, st.lists(TOPICS, max_size=6))
def test_the_broker_takes_and_matches_what_edgeq_does(wire: Wire, topic_filter: str, topics: list[str]) -> None:
    assume(accepted(check_filter, topic_filter))
    template = Template.exact(topic_filter) if set("{}") & set(topic_filter) else Template.parse(topic_filter)
    assert wire.subscribe(topic_filter)
    try:
        for topic in topics:
            if accepted(check_topic, topic) and not topic.startswith("$"):  # a broker need not let one write there
                assert wire.brings(topic) == (template.match(topic.split("/")) is not None), topic
    finally:
        wire.unsubscribe(topic_filter)
