"""paho-mqtt, tuned: the only file that knows its insides.

paho reads the socket byte by byte and decodes every property. This client reads 64 KiB at a time, makes
deliveries of the PUBLISH packets itself (`framing`) and serves every other packet to paho through the one
hook that it reads by, `_sock_recv`; acknowledgements go out in one write through `_packet_queue`. Should
a paho without these hooks be installed, everything still works by its public means, slower.
`tests/test_mqtt_session_client.py` compares the two.

A client is one network connection: it is made anew for each attempt, so that nothing of the last one is
left in it.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol

from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ..config.schema import Mqtt, Tls
from ..lean import without
from .address import Address
from .delivery import Delivery
from .framing import Framer
from .presence import OFFLINE

# Where PySocks is installed, paho looks for a proxy through urllib, which brings HTTP and e-mail: 2.2 MiB.
_wants_proxy = any(name.lower() == "mqtt_proxy" for name in os.environ)
_FOR_PROXIES = {"socks": None, "urllib.request": ModuleType("urllib.request")}

with without({} if _wants_proxy else _FOR_PROXIES):
    import paho.mqtt.client as paho

READ_BYTES = 64 * 1024

Kind = Literal["refused", "unreachable", "lost", "closed", "taken_over", "stopped"]

_ACKS = {1: 0x40020000, 2: 0x50020000}  # PUBACK and PUBREC, two bytes long, before the packet identifier
_FOREVER = 0xFFFFFFFF
_CLOSED = "the broker closed the connection"


def has_hooks(client: type[paho.Client]) -> bool:
    """Whether `client` reads through `_sock_recv` and writes through `_packet_queue`."""
    reader = getattr(getattr(client, "_packet_read", None), "__code__", None)
    return reader is not None and "_sock_recv" in reader.co_names and hasattr(client, "_packet_queue")


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the broker said when it accepted the connection.

    `session_expiry_seconds` is how long it keeps the session, as far as it says. We may have
    `receive_maximum` unacknowledged messages out to it, of `packet_bytes_max` bytes and QoS `qos_max` at
    most. `shared_available` and `wildcards_available` are of subscriptions.
    """

    session_present: bool
    session_expiry_seconds: float | None = None
    receive_maximum: int = 65535
    packet_bytes_max: int = 268_435_455
    qos_max: int = 2
    retain_available: bool = True
    shared_available: bool = True
    wildcards_available: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """Why there is no connection (any more), in words that are the same each time it happens."""

    reason: str
    kind: Kind = "lost"


class Listener(Protocol):
    """Who hears what happens on the connection. Called on the event loop, never from another thread."""

    def accepted(self, welcome: Welcome) -> None:
        """The broker accepted the connection."""

    def ended(self, ending: Ending) -> None:
        """The connection is closed, or was refused."""

    def answered(self, mid: int, codes: list[tuple[int, str]]) -> None:
        """The broker answered packet `mid`: a reason code and its name for each filter, or for the message."""

    def received(self, deliveries: list[Delivery]) -> None:
        """Messages came, in this order."""


class Client(paho.Client):
    """One connection of a persistent session, read in large pieces."""

    hooked = has_hooks(paho.Client)

    def __init__(self, settings: Mqtt, client_id: str, will_topic: str, framer: Framer, listener: Listener) -> None:
        self._version5 = settings.version == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._version5 else not settings.session_expiry,
            protocol=paho.MQTTv5 if self._version5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.abandoned = False
        self._settings = settings
        self._framer = framer
        self._listener = listener
        self._unread: bytes | None = b""  # what `_sock_recv` serves; None is the end of the stream
        self._why = ""
        self._kind: Kind = "lost"
        self._received_at = 0
        self._tls: ssl.SSLContext | None = None
        self.max_inflight_messages = 0  # the connection counts them, by what the broker allows
        self.connect_timeout = 10.0
        self.username_pw_set(settings.username, settings.password)
        if will_topic:
            self.will_set(will_topic, OFFLINE, qos=1, retain=True)

    def dial(self, address: Address) -> None:
        """Connect and send CONNECT. Blocks: DNS, TCP, TLS. Raises OSError (which ssl.SSLError is)."""
        settings = self._settings
        if address.tls:
            self._tls = tls_context(settings.tls)
            self.tls_set_context(self._tls)
        keepalive = min(65535, max(1, round(settings.keepalive)))
        if self._version5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = min(_FOREVER, round(settings.session_expiry))
            properties.ReceiveMaximum = min(65535, max(1, settings.receive_maximum))
            self.connect(address.host, address.port, keepalive, clean_start=False, properties=properties)
        else:
            self.connect(address.host, address.port, keepalive)

    def attach(self) -> None:
        """Begin to tell the listener. Call it on the event loop after `dial`, which runs on another thread."""
        self.on_connect = self._on_connack
        self.on_disconnect = self._on_end
        self.on_subscribe = self._on_answers
        self.on_unsubscribe = self._on_answers
        self.on_publish = self._on_answer
        if not self.hooked:
            self.on_message = self._on_plain_message

    def read(self, received_at: int) -> bool:
        """Read what the socket has, up to 64 KiB. True when more is waiting that epoll doesn't know of (TLS)."""
        sock = self.socket()
        if sock is None:
            return False
        if self.hooked:
            self._read_buffered(sock, received_at)
        else:
            self._received_at = received_at
            self.loop_read()
        sock = self.socket()
        return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0

    def tick(self, *, reading: bool) -> None:
        """Keep the connection alive; call it several times in a keepalive.

        While nobody is `reading`, the broker is pinged but its answers can't be seen, so they aren't missed.
        """
        if not reading:
            self._ping_t = 0.0  # or paho 2.1 gives up
            self._last_bytes_received = time.monotonic()
        self.loop_misc()

    def ack_many(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these, in this order, in one write. At QoS 2 that is a PUBREC: see `_read_buffered`."""
        if not self.hooked:
            for delivery in deliveries:
                self.ack(delivery.mid, delivery.qos)
            return
        words = [_ACKS[delivery.qos] | delivery.mid for delivery in deliveries]
        self._packet_queue(paho.PUBACK, struct.pack(f">{len(words)}I", *words), 0, 1)

    def send(
        self, topic: str, payload: bytes, qos: int, retain: bool, correlation_data: bytes | None = None
    ) -> int | None:
        """Send one PUBLISH; its packet identifier, or None when the connection is gone. MQTT 3.1.1 has no place for
        `correlation_data`."""
        properties = None
        if correlation_data is not None and self._version5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation_data
        info = self.publish(topic, payload, qos, retain, properties)
        return info.mid if info.rc == paho.MQTT_ERR_SUCCESS else None

    def subscribe_to(self, filters: Mapping[str, int]) -> int | None:
        """Send one SUBSCRIBE; its packet identifier, or None when the connection is gone.

        With MQTT 5, retained messages come only for subscriptions that the session didn't have.
        """
        if self._version5:
            options = [(name, SubscribeOptions(qos, retainHandling=1)) for name, qos in filters.items()]
            return self.subscribe(options)[1]
        return self.subscribe(list(filters.items()))[1]

    def unsubscribe_from(self, filters: list[str]) -> int | None:
        """Send one UNSUBSCRIBE; its packet identifier, or None when the connection is gone."""
        return self.unsubscribe(filters)[1]

    def _create_socket(self) -> Any:
        """What paho does, but closing the socket when TLS fails, or when it is too late to send CONNECT."""
        sock = socket.create_connection((self.host, self.port), timeout=self.connect_timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an ack mustn't wait for the next
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self.host)
            if self.abandoned:
                raise ConnectionAbortedError("nobody waits for this connection any more")
        except BaseException:
            sock.close()
            raise
        return sock

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.hooked:
            return super()._sock_recv(bufsize)
        if self._unread is None:
            return b""
        if not self._unread:
            raise BlockingIOError
        served, self._unread = self._unread[:bufsize], self._unread[bufsize:]
        return served

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return int(super()._sock_send(buf))
        except ConnectionError:
            if not self._why:
                self._why, self._kind = _CLOSED, "closed"
            raise

    def _read_buffered(self, sock: Any, received_at: int) -> None:
        try:
            chunk = sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except ConnectionResetError:
            chunk = b""  # it closed before it had read all that we sent
        except OSError as error:
            self._lose(f"the connection broke: {error.strerror or error}")
            return
        if not chunk:
            self._lose(_CLOSED, "closed")
            return
        self._last_bytes_received = time.monotonic()  # paho's clock, which sends the pings
        deliveries, controls = self._framer.feed(chunk, received_at)
        for packet in controls:
            if self.socket() is None:
                return
            if packet[0] & 0xF0 == paho.PUBREL:
                # The message was committed before its PUBREC went out, so there is no state to keep.
                mid = _body(packet)[:2]
                if len(mid) < 2:
                    self._lose("malformed packet: a PUBREL without a packet identifier")
                    return
                self._packet_queue(paho.PUBCOMP, b"\x70\x02" + mid, 0, 1)
                continue
            if packet[:1] == b"\x20" and packet[3:4] == b"\x01":
                self._refuse("Unsupported protocol version")  # of which paho doesn't tell with MQTT 3.1.1
            self._unread = packet
            self.loop_read()
        if deliveries:
            if self.is_connected():
                self._listener.received(deliveries)
            elif self.socket() is not None:
                self._lose("malformed packet: a PUBLISH before the broker accepted the connection")
        if self._framer.malformed and self.socket() is not None:
            self._lose(f"malformed packet: {self._framer.malformed}")

    def _lose(self, reason: str, kind: Kind = "lost") -> None:
        """End the connection: paho sees the end of the stream."""
        if not self._why:
            self._why, self._kind = reason, kind
        self._unread = None
        self.loop_read()

    def _refuse(self, name: str) -> None:
        self._why = f"the broker refused the connection: {name}"
        self._kind = "refused"

    def _on_connack(
        self, _client: Any, _data: Any, flags: paho.ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._refuse(_name(code, properties))
            return
        said: dict[str, Any] = {} if properties is None else properties.json()  # type: ignore[no-untyped-call]
        self._listener.accepted(
            Welcome(
                flags.session_present,
                said.get("SessionExpiryInterval"),
                said.get("ReceiveMaximum", 65535),
                said.get("MaximumPacketSize", 268_435_455),
                said.get("MaximumQoS", 2),
                bool(said.get("RetainAvailable", 1)),
                bool(said.get("SharedSubscriptionAvailable", 1)),
                bool(said.get("WildcardSubscriptionAvailable", 1)),
            )
        )

    def _on_end(
        self, _client: Any, _data: Any, flags: paho.DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._kind = "taken_over" if code.value == 0x8E else "lost"
            self._why = f"the broker closed the connection: {_name(code, properties)}"
        elif not self._why:
            self._why = {
                0x8D: "the broker doesn't answer: no PINGRESP within the keepalive",
                0x82: "malformed packet: not what MQTT allows",
            }.get(code.value, "the connection broke")
        self._listener.ended(Ending(self._why, self._kind))

    def _on_answers(
        self, _client: Any, _data: Any, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._listener.answered(mid, [(code.value, str(code)) for code in codes])

    def _on_answer(self, _client: Any, _data: Any, mid: int, code: ReasonCode, properties: Properties) -> None:
        self._listener.answered(mid, [(code.value, _name(code, properties))])

    def _on_plain_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        """A message as a paho without hooks reads it: complete, however large, and decoded."""
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            topic = error.object.decode(errors="backslashreplace")
        properties = b"" if message.properties is None else _body(b"\0" + message.properties.pack())  # type: ignore[no-untyped-call]
        delivery = Delivery(
            topic.replace("\0", "\\x00"),
            bytes(message.payload),
            received_at=self._received_at,
            qos=message.qos,
            retain=bool(message.retain),
            dup=bool(message.dup),
            mid=message.mid,
            connection=self._framer.connection,
            properties_raw=properties,
        )
        self._listener.received([delivery])


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The context that `mqtt.tls` asks for. Raises OSError that names the file it can't use."""
    path = tls.ca
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        path = tls.cert
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")  # else OpenSSL asks the terminal
    except OSError as error:
        raise OSError(f"TLS: {path} can't be used: {error.strerror or error}") from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _body(packet: bytes) -> bytes:
    """What follows the fixed header of a whole packet."""
    start = 1
    while packet[start] > 127:
        start += 1
    return packet[start + 1 :]


def _name(code: ReasonCode, properties: Properties | None) -> str:
    """The name of a reason code, and what the broker said with it."""
    text = str(getattr(properties, "ReasonString", ""))[:200]
    return f"{code.getName()} ({text.encode('unicode_escape').decode()})" if text else str(code.getName())
