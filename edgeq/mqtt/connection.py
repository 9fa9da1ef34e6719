"""One network connection with the broker on the event loop, from dialling to its end.

Everything here happens on the loop, but for dialling, which blocks and has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..clock import Clock
from ..config.schema import Mqtt
from ..errors import EdgeqError
from .address import Address
from .client import Client, Ending, Welcome
from .delivery import Delivery
from .framing import Framer

CONNACK_SECONDS = 10.0
OUT_MAX = 20
"""Messages that we have out to the broker at once, if it doesn't allow fewer."""
WAITING_MAX = 1000
"""Messages that wait for one of those places; the next is refused."""
NO_SUBSCRIBERS = 0x10
"""The broker has taken a message, and nobody is there to whom it would give it."""
REFUSED = 0x80
"""Reason codes from here on are refusals."""
FILTERS_A_PACKET = 8  # some brokers (AWS IoT) take no more in one SUBSCRIBE


Codes = list[tuple[int, str]]


class PublishFailed(EdgeqError):
    """The broker didn't take a message, or didn't say so in time. It may arrive nevertheless."""


class TooLarge(PublishFailed):
    """The message is larger than the broker takes."""


class NotConnected(PublishFailed):
    """There is no connection with the broker, or it ended before the broker answered."""


class Connection:
    """One connection, number `number` of its session. `over` is done, with the reason, when it has ended."""

    def __init__(
        self,
        number: int,
        settings: Mqtt,
        client_id: str,
        will_topic: str,
        clock: Clock,
        on_messages: Callable[[list[Delivery]], None],
        packet_bytes_max: int,
    ) -> None:
        self.number = number
        self.reading = True
        self.welcome = Welcome(session_present=False)
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[Ending] = self._loop.create_future()
        self._clock = clock
        self._on_messages = on_messages
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[Codes | None]] = {}
        self._out = asyncio.Semaphore(OUT_MAX)
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self._writing = False
        self._version5 = settings.version == "5"
        framer = Framer(version5=self._version5, connection=number, packet_bytes_max=packet_bytes_max)
        self._client = Client(settings, client_id, will_topic, framer, self)

    async def open(self, address: Address) -> Ending | None:
        """Dial, and wait until the broker accepts. None when it did, else why not."""
        try:
            await _in_thread(lambda: self._client.dial(address))
        except (OSError, ValueError) as error:
            return Ending(_unreachable(error, address), "unreachable")
        sock = self._client.socket()
        if not isinstance(sock, socket.socket):
            return Ending(f"{address} closed the connection at once", "refused")
        self._socket = sock
        self._client.attach()
        self._client.on_socket_close = lambda *_: self._forget_socket()
        self._client.on_socket_register_write = self._write_soon
        self._loop.add_reader(sock, self._read)
        self._write()
        self._tick()
        answers: set[asyncio.Future[Any]] = {self._accepted, self.over}
        await asyncio.wait(answers, timeout=CONNACK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if self.over.done():
            ending = self.over.result()
            if ending.kind == "closed":
                hint = " (one without MQTT 5 needs mqtt.version 3.1.1)" if self._version5 else ""
                return Ending(f"{address} closed the connection without accepting it{hint}", "refused")
            return ending
        if not self._accepted.done():
            return Ending(f"{address} doesn't answer as an MQTT broker: no CONNACK", "unreachable")
        return None

    def close(self) -> None:
        """Let go of the socket, without a word to the broker. Safe at any time, also while dialling."""
        self._client.abandoned = True
        self._client.on_socket_close = None
        self._client.on_socket_register_write = None
        sock = self._socket
        self._forget_socket()
        if sock is not None:
            sock.close()
        self.ended(Ending("closed", "stopped"))

    async def goodbye(self) -> None:
        """Send DISCONNECT, so that the broker doesn't publish the will, and wait until it is out."""
        self._client.disconnect()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.over), 1.0)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these deliveries of this connection, in this order."""
        self._client.ack_many(deliveries)

    def stop_reading(self) -> None:
        """Leave what comes in the socket, until `start_reading`. The connection is kept alive."""
        if self.reading and self._socket is not None:
            self.reading = False
            self._loop.remove_reader(self._socket)

    def start_reading(self) -> None:
        """Read on."""
        if not self.reading and self._socket is not None:
            self.reading = True
            self._loop.add_reader(self._socket, self._read)
            self._loop.call_soon(self._read)  # TLS may hold bytes of which epoll doesn't know

    async def subscribe(self, filters: Mapping[str, int]) -> dict[str, str]:
        """Subscribe; the filters that the broker refused, with its reasons. Raises NotConnected."""
        names = list(filters)
        packets = [names[at : at + FILTERS_A_PACKET] for at in range(0, len(names), FILTERS_A_PACKET)]
        sent = [self._sent(self._client.subscribe_to({name: filters[name] for name in p})) for p in packets]
        refused: dict[str, str] = {}
        for packet, answer in zip(packets, sent, strict=True):
            for name, (code, text) in zip(packet, _told(await answer), strict=False):
                if code >= REFUSED:
                    refused[name] = text
                elif code < filters[name]:
                    refused[name] = f"only QoS {code} was granted"
        return refused

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe. Raises NotConnected."""
        packets = [filters[at : at + FILTERS_A_PACKET] for at in range(0, len(filters), FILTERS_A_PACKET)]
        for answer in [self._sent(self._client.unsubscribe_from(list(packet))) for packet in packets]:
            _told(await answer)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        timeout: float | None,
        correlation_data: bytes | None = None,
    ) -> int:
        """Publish; returns when the broker has acknowledged it (QoS 0: when it is sent), with its reason code, such as
        NO_SUBSCRIBERS (always 0 with MQTT 3.1.1).

        Raises PublishFailed.
        """
        welcome = self.welcome
        if len(topic.encode()) + len(payload) + len(correlation_data or b"") + 24 > welcome.packet_bytes_max:
            raise TooLarge(f"{len(payload)} bytes are more than the broker takes")
        if retain and not welcome.retain_available:
            raise PublishFailed("the broker keeps no retained messages")
        if self._waiting >= WAITING_MAX:
            raise PublishFailed(f"{WAITING_MAX} messages wait for the broker already")
        try:
            async with asyncio.timeout(timeout):
                self._waiting += 1
                try:
                    await self._out.acquire()
                finally:
                    self._waiting -= 1
                sent = self._client.send(topic, payload, min(qos, welcome.qos_max), retain, correlation_data)
                answer = self._sent(sent)
                answer.add_done_callback(lambda _: self._out.release())
                codes = _told(await asyncio.shield(answer))
        except TimeoutError:
            raise PublishFailed(f"the broker didn't acknowledge the message within {timeout:g}s") from None
        for code, text in codes:
            if code >= REFUSED:
                raise PublishFailed(f"the broker refused the message: {text}")
        return codes[0][0] if codes else 0

    # What the client tells: see `Listener`.

    def accepted(self, welcome: Welcome) -> None:
        if not self._accepted.done():
            self.welcome = welcome
            self._out = asyncio.Semaphore(min(OUT_MAX, max(1, welcome.receive_maximum)))
            self._accepted.set_result(None)

    def ended(self, ending: Ending) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.over.done():
            self.over.set_result(ending)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)

    def answered(self, mid: int, codes: Codes) -> None:
        answer = self._answers.pop(mid, None)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def received(self, deliveries: list[Delivery]) -> None:
        self._on_messages(deliveries)

    def _sent(self, mid: int | None) -> asyncio.Future[Codes | None]:
        """The answer to come to packet `mid`; None when the connection ends before."""
        answer: asyncio.Future[Codes | None] = self._loop.create_future()
        if mid is None or self.over.done():
            answer.set_result(None)
        else:
            self._answers[mid] = answer
        return answer

    def _read(self) -> None:
        if self._socket is None or not self.reading:
            return
        try:
            more = self._client.read(self._clock.now())
        except Exception as error:  # noqa: BLE001 - whatever paho makes of hostile bytes
            self.ended(Ending(f"malformed packet: {type(error).__name__}: {error}"))
            self.close()
            return
        if more:
            self._loop.call_soon(self._read)

    def _write(self) -> None:
        if self._socket is None:
            return
        self._client.loop_write()
        if self._socket is None:
            return
        if self._client.want_write() and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self._write)
        elif self._writing and not self._client.want_write():
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _write_soon(self, *_: object) -> None:
        self._loop.call_soon(self._write)

    def _tick(self) -> None:
        if self.over.done():
            return
        self._client.tick(reading=self.reading)
        keepalive = self._client.keepalive or 20  # the broker may have said 0: none
        self._timer = self._loop.call_later(min(5.0, keepalive / 4), self._tick)

    def _forget_socket(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None
            self.reading = True


def _told(codes: Codes | None) -> Codes:
    if codes is None:
        raise NotConnected("the connection with the broker ended before it answered")
    return codes


async def _in_thread(work: Callable[[], None]) -> None:
    """Run blocking `work` on a daemon thread: one that hangs (DNS) must not hold up the end of the program."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def report(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failed: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again on the loop
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(report, failed)

    threading.Thread(target=run, name="edgeq-dial", daemon=True).start()
    await done


def _unreachable(error: Exception, address: Address) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name {address.host!r} can't be resolved: {error.strerror}"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {address}"
    if isinstance(error, TimeoutError):
        return f"{address} doesn't answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate of {address} isn't trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: no handshake with {address}: {error.reason or error}"
    if isinstance(error, ConnectionResetError) and address.tls:
        return f"TLS: no handshake with {address}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return f"{address} can't be reached: {error.strerror}"
    return str(error)
