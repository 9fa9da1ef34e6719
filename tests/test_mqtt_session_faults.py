"""What brokers and networks do wrong: the session says why, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.fakebroker import FakeBroker, Line
from support.mosquitto import Mosquitto, Peer
from support.packets import connack, packet, publish, publish_head, suback, variable
from support.proxy import Proxy
from support.sessions import Memory, Rig, payloads, running

from edgeq.errors import StoreUnavailable
from edgeq.mqtt import client as client_module
from edgeq.mqtt import connection as connection_module
from edgeq.mqtt import session as session_module
from edgeq.mqtt.connection import NotConnected, PublishFailed
from edgeq.mqtt.inbox import Inbox
from edgeq.mqtt.session import State

versions = pytest.mark.parametrize("version", ["5", "3.1.1"])


async def good(line: Line) -> None:
    await line.welcome()
    await line.subscribed()
    await line.serve()


def sends(*chunks: bytes) -> Callable[[Line], Awaitable[None]]:
    """A broker that accepts the connection, sends this, and waits."""

    async def script(line: Line) -> None:
        await line.welcome()
        for chunk in chunks:
            await line.send(chunk)
        await line.serve()

    return script


def told(caplog: pytest.LogCaptureFixture, reason: str) -> bool:
    """Whether the log said why there is no connection. `reason` itself is gone when the next connection stands."""
    return any(record.getMessage().startswith(f"not connected: {reason}") for record in caplog.records)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"\x00\x00", "malformed packet: a packet of type 0"),
        (b"\x30\xff\xff\xff\xff\xff", "malformed packet: a remaining length of more than four bytes"),
        (packet(0x36, b"\0\1a\0\1\0"), "malformed packet: a PUBLISH with QoS 3"),
        (packet(0x90, b"\0"), "malformed packet: "),  # SUBACK without its packet identifier
        (packet(0x40, b""), "malformed packet: "),  # PUBACK the same
        (packet(0x62, b"\0"), "malformed packet: "),  # PUBREL the same
        (packet(0x10, b"\0\4MQTT"), "malformed packet: "),  # CONNECT, from a broker
        (packet(0xE0, b"\x01"), "malformed packet: "),  # DISCONNECT with a code that isn't one
    ],
)
async def test_a_malformed_packet_ends_the_connection_and_not_the_session(
    garbage: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeBroker(sends(garbage), good) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("lost"))
        assert told(caplog, reason)
        await rig.ready()
        assert broker.connections == 2
        assert rig.session.reason == ""


@versions
@pytest.mark.parametrize("seed", range(8))
async def test_random_bytes_never_crash_the_session(version: str, seed: int) -> None:
    noise = random.Random(seed)

    async def noisy(line: Line) -> None:
        await line.welcome()
        await line.send(bytes([noise.choice([0x20, 0x30, 0x32, 0x40, 0x62, 0x90, 0xB0, 0xD0, 0xE0, 0xF0])]))
        await line.send(noise.randbytes(noise.randrange(1, 400)))

    async with (
        FakeBroker(*[noisy] * 5, good, version5=version == "5") as broker,
        running(broker.url, {"a": 1}, version=version) as rig,
    ):
        await rig.until(lambda: broker.connections == 6)
        await rig.ready()


@versions
async def test_a_message_before_the_connack(version: str, caplog: pytest.LogCaptureFixture) -> None:
    early = publish(b"a", b"x", properties=b"" if version == "5" else None)

    async def hasty(line: Line) -> None:
        await line.send(early)
        await line.serve()

    async with (
        FakeBroker(hasty, good, version5=version == "5") as broker,
        running(broker.url, {"a": 1}, version=version) as rig,
    ):
        await rig.until(lambda: rig.metrics.connects.total())
        assert told(caplog, "malformed packet: a PUBLISH before the broker accepted the connection")
        await rig.ready()
        assert len(rig.inbox) == 0


@pytest.mark.parametrize(
    ("version", "code", "reason"),
    [
        ("3.1.1", 1, "Unsupported protocol version"),
        ("3.1.1", 2, "Client identifier not valid"),
        ("3.1.1", 3, "Server unavailable"),
        ("3.1.1", 4, "Bad user name or password"),
        ("3.1.1", 5, "Not authorized"),
        ("5", 1, "Unsupported protocol version"),
        ("5", 0x84, "Unsupported protocol version"),
        ("5", 0x85, "Client identifier not valid"),
        ("5", 0x86, "Bad user name or password"),
        ("5", 0x87, "Not authorized"),
        ("5", 0x8A, "Banned"),
    ],
)
async def test_a_refusal_is_told_in_words(
    version: str, code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuses(line: Line) -> None:
        await line.expect(0x10)
        await line.send(connack(code, version5=version == "5"))

    async with (
        FakeBroker(refuses, good, version5=version == "5") as broker,
        running(broker.url, {"a": 1}, version=version) as rig,
    ):
        await rig.until(lambda: rig.metrics.connects.values.get("refused"))
        assert told(caplog, f"the broker refused the connection: {reason}")
        await rig.ready()


async def test_the_brokers_own_words_are_kept_short_and_harmless() -> None:
    text = b"go\naway\x1b[31m" + b"!" * 500
    properties = b"\x1f" + len(text).to_bytes(2, "big") + text

    async def refuses(line: Line) -> None:
        await line.expect(0x10)
        await line.send(packet(0x20, b"\0\x87" + variable(len(properties)) + properties))

    async with FakeBroker(refuses) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("refused"))
        assert rig.session.reason.startswith(r"the broker refused the connection: Not authorized (go\naway\x1b[31m!")
        assert len(rig.session.reason) < 300


async def test_a_broker_that_says_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(connection_module, "CONNACK_SECONDS", 0.1)
    hears = False

    async def silent(line: Line) -> None:
        await line.expect(0xF0)

    async def deaf(line: Line) -> None:  # as often as it takes: on a busy machine its CONNACK may be too late as well
        await line.welcome()
        if hears:
            await line.subscribed()
        await line.serve()

    monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.1)
    async with FakeBroker(silent, deaf) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("unreachable"))
        assert told(caplog, f"{rig.session.address} doesn't answer as an MQTT broker: no CONNACK")
        await rig.until(lambda: rig.metrics.connects.values.get("lost"))
        assert told(caplog, "the broker doesn't answer a SUBSCRIBE")
        monkeypatch.setattr(connection_module, "CONNACK_SECONDS", 20)
        monkeypatch.setattr(session_module, "ANSWER_SECONDS", 20)
        hears = True
        await rig.ready()


@versions
async def test_a_broker_that_hangs_up_at_once(version: str) -> None:
    async def rude(line: Line) -> None:
        await line.expect(0x10)

    async with FakeBroker(rude) as broker, running(broker.url, {"a": 1}, version=version) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("refused"))
        assert "closed the connection without accepting it" in rig.session.reason
        assert ("mqtt.version" in rig.session.reason) == (version == "5")


async def test_a_fight_for_the_client_id_is_seen_however_the_broker_closes(caplog: pytest.LogCaptureFixture) -> None:
    async def resets(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await line.expect(0x30)  # the presence, which is sent when we are connected
        line.reset()

    async with FakeBroker(resets) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.until(lambda: told(caplog, "the broker closed the connection again and again: does another client"))


async def test_a_name_that_does_not_resolve() -> None:
    async with running("mqtt://no-such-host.invalid", {"a": 1}) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get("unreachable"))
        assert rig.session.reason.startswith("the host name 'no-such-host.invalid' can't be resolved")


async def test_it_publishes_before_the_subscriptions_are_confirmed() -> None:
    """A message left over from the last connection comes right after the CONNACK, and must be answered."""
    heard: list[bytes] = []

    async def confirms_late(line: Line) -> None:
        await line.welcome(session_present=True)
        _, subscribe = await line.expect(0x80)
        head, body = await line.expect(0x30)
        heard.append(body)
        await line.acknowledge(head, body)
        await line.send(suback(int.from_bytes(subscribe[:2], "big"), b"\1"))
        await line.serve()

    async with FakeBroker(confirms_late) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.until(lambda: rig.session.connections)
        assert rig.session.state is not State.CONNECTED
        await rig.session.publish("answers", b"done")
        assert heard[0].startswith(b"\0\x07answers")
        await rig.session.wait_ready()


@pytest.mark.parametrize("stage", ["dialling", "connack", "suback"])
async def test_stopping_does_not_wait_for_the_broker(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = asyncio.Event()

    async def hangs(line: Line) -> None:
        if stage == "suback":
            await line.welcome()
            await line.expect(0x80)
        reached.set()
        await line.serve()

    release = threading.Event()
    if stage == "dialling":
        loop = asyncio.get_running_loop()

        def dial(*_: object) -> None:
            loop.call_soon_threadsafe(reached.set)
            release.wait(60)

        monkeypatch.setattr(connection_module.Client, "dial", dial)
    async with FakeBroker(hangs) as broker, running(broker.url, {"a": 1}) as rig:
        await asyncio.wait_for(reached.wait(), 60)
        async with asyncio.timeout(30):
            await rig.session.stop()
    release.set()


async def test_a_connection_that_comes_too_late_takes_nobodys_session(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    dialling = asyncio.Event()
    release = threading.Event()
    connect = socket.create_connection

    def slow(*arguments: Any, **options: Any) -> socket.socket:
        loop.call_soon_threadsafe(dialling.set)
        release.wait(60)
        return connect(*arguments, **options)

    heard: list[bytes] = []

    async def listens(line: Line) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            heard.append(bytes([(await line.read())[0]]))
        heard.append(b"end")

    monkeypatch.setattr(client_module.socket, "create_connection", slow)
    async with FakeBroker(listens) as broker:
        async with running(broker.url, {"a": 1}) as rig:
            await asyncio.wait_for(dialling.wait(), 60)
        release.set()
        await rig.until(lambda: heard)
    assert heard == [b"end"]


async def test_a_connection_cut_while_much_is_to_be_written() -> None:
    cut = asyncio.Event()

    async def stops_reading(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await cut.wait()

    async with FakeBroker(stops_reading, good) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.ready()
        publishing = asyncio.create_task(rig.session.publish("b", b"x" * 20_000_000))
        await rig.until(lambda: rig.session._connection is not None and rig.session._connection._writing)
        cut.set()
        with pytest.raises(NotConnected):
            await publishing
        await rig.until(lambda: rig.session.connections == 2)
        await rig.ready()
        await rig.session.publish("b", b"again")


async def test_filters_are_remembered_before_the_broker_has_them() -> None:
    asked = asyncio.Event()

    async def never_answers(line: Line) -> None:
        await line.welcome()
        await line.expect(0x80)
        asked.set()
        await line.serve()

    memory = Memory()
    memory.filters = ["old"]
    async with FakeBroker(never_answers) as broker, running(broker.url, {"a": 1}, memory=memory):
        await asyncio.wait_for(asked.wait(), 60)
    assert sorted(memory.filters) == ["a", "old"]


async def test_a_broker_that_forgot_the_session_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    async with FakeBroker(good) as broker, running(broker.url, {"a": 1}, memory=memory) as rig:
        await rig.ready()
        assert "lost our session" not in caplog.text
    async with FakeBroker(good) as broker, running(broker.url, {"a": 1}, memory=memory) as rig:
        await rig.ready()
        assert "the broker has lost our session" in caplog.text


async def test_refused_subscriptions_are_named_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "REPEAT_SECONDS", 0.2)
    asked: list[bytes] = []

    async def picky(line: Line) -> None:
        await line.welcome()
        asked.append((await line.subscribed(b"\1\x87\0"))[1])
        asked.append((await line.subscribed(b"\1\1"))[1])
        await line.serve()

    async with FakeBroker(picky) as broker, running(broker.url, {"a/#": 1, "b/#": 1, "c/#": 1}) as rig:
        await rig.ready()
        assert rig.session.refused == {"b/#": "Not authorized", "c/#": "only QoS 0 was granted"}
        assert "refused the subscription to 'b/#': Not authorized" in rig.session.reason
        assert rig.session.state is State.CONNECTED
        await rig.until(lambda: not rig.session.refused)
        assert rig.session.reason == ""
        assert b"a/#" not in asked[1]
        assert b"b/#" in asked[1]


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"\x8e", "taken_over", "another client took the session over with our client id 'edgeq-gw'"),
        (b"\x8b\0", "lost", "the broker closed the connection: Server shutting down"),
        (b"", "lost", "the broker closed the connection: "),
    ],
)
async def test_the_broker_says_why_it_disconnects(
    body: bytes, kind: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def leaves(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await line.send(packet(0xE0, body))
        await line.serve()

    async with FakeBroker(leaves, good) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.until(lambda: rig.metrics.connects.values.get(kind))
        assert told(caplog, reason)
        await rig.until(lambda: rig.session.connections == 2)
        await rig.ready()


async def test_a_broker_that_keeps_the_session_for_less(caplog: pytest.LogCaptureFixture) -> None:
    async def forgetful(line: Line) -> None:
        await line.expect(0x10)
        await line.send(packet(0x20, b"\0\0\5\x11\0\0\x0e\x10"))
        await line.subscribed()
        await line.serve()

    async with FakeBroker(forgetful) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.ready()
    assert "the broker keeps the session for 1h only" in caplog.text


async def test_qos_2_that_nobody_asked_for_is_delivered_and_finished() -> None:
    answers: list[tuple[int, bytes]] = []

    async def generous(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await line.send(publish(b"a", b"two", mid=300, qos=2, properties=b""))
        answers.append(await line.expect(0x50))
        await line.send(packet(0x62, b"\x01\x2c"))
        answers.append(await line.expect(0x70))
        await line.serve()

    async with FakeBroker(generous) as broker, running(broker.url, {"a": 1}) as rig:
        (delivery,) = await rig.take(1)
        assert (delivery.qos, delivery.payload) == (2, b"two")
        await rig.until(lambda: len(answers) == 2)
    assert answers == [(0x50, b"\x01\x2c"), (0x70, b"\x01\x2c")]


@versions
async def test_a_message_of_256_mib_passes_through_flat_memory(version: str) -> None:
    properties = b"" if version == "5" else None
    head = publish_head(b"cam", mid=2, properties=properties)
    size = 268_435_455 - len(head)

    async def floods(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await line.send(publish(b"cam", b"before", mid=1, properties=properties))
        await line.send(b"\x32" + variable(len(head) + size) + head)
        chunk = b"x" * 2**18
        for at in range(0, size, len(chunk)):
            await line.send(chunk[: size - at])
        await line.send(publish(b"cam", b"after", mid=3, properties=properties))
        await line.serve()

    async with (
        FakeBroker(floods, version5=version == "5") as broker,
        running(broker.url, {"cam": 1}, version=version) as rig,
    ):
        await rig.ready()
        tracemalloc.start()
        try:
            before, over, after = await rig.take(3)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert payloads([before, after]) == [b"before", b"after"]
        assert over.payload_size == size
        assert len(over.payload) == 4096
        assert over.mid == 2
        assert peak < 8 * 2**20
        assert rig.session.connections == 1


@versions
async def test_cuts_in_the_middle_of_packets_lose_nothing(broker: Mosquitto, version: str) -> None:
    async with (
        Proxy(broker.port) as proxy,
        running(f"mqtt://127.0.0.1:{proxy.port}", {"a/#": 1}, version=version) as rig,
    ):
        await rig.ready()
        with Peer(broker.port) as peer:
            for number in range(12):
                connections = rig.session.connections
                proxy.cut_after = 300 + 37 * number
                await asyncio.to_thread(
                    peer.publish_many, [("a/b", b"%d-%d %s" % (number, n, b"x" * 80)) for n in range(10)]
                )
                await rig.until(lambda before=connections: rig.session.connections > before)
                await rig.ready()
        wanted = {b"%d-%d" % (number, n) for number in range(12) for n in range(10)}
        got: list[bytes] = []
        while set(got) != wanted:
            got += [payload.split()[0] for payload in payloads(await rig.take(1))]
        assert rig.session.connections >= 13


@versions
async def test_a_dead_connection_is_noticed_after_the_keepalive(version: str, caplog: pytest.LogCaptureFixture) -> None:
    """A real broker would notice it, too, and who comes first would be chance."""

    async def dies(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await asyncio.Event().wait()  # nothing passes any more, and nothing is closed

    async with (
        FakeBroker(dies, good, version5=version == "5") as broker,
        running(broker.url, {"a": 1}, version=version, keepalive=1) as rig,
    ):
        await rig.ready()
        await rig.until(lambda: told(caplog, "the broker doesn't answer: no PINGRESP within the keepalive"))
        await rig.ready()


async def test_a_slow_network_is_no_dead_one(broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy, running(f"mqtt://127.0.0.1:{proxy.port}", {"a": 1}) as rig:
        proxy.delay_seconds = 0.05
        with Peer(broker.port) as peer:
            await rig.ready()
            await asyncio.to_thread(peer.publish_many, [("a", b"%d" % n) for n in range(50)])
        assert payloads(await rig.take(50)) == [b"%d" % n for n in range(50)]
        assert rig.session.connections == 1


async def test_noise_in_the_line(broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy, running(f"mqtt://127.0.0.1:{proxy.port}", {"a": 1}) as rig:
        await rig.ready()
        proxy.inject(b"\xff\xff\xff\xff\xff")
        await rig.until(lambda: rig.session.connections == 2)
        await rig.ready()


async def test_a_full_inbox_keeps_the_session_from_connecting_again() -> None:
    async def twenty(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        await line.send(b"".join(publish(b"a", b"x", mid=n + 1, properties=b"") for n in range(20)))

    inbox = Inbox(capacity=10)
    async with FakeBroker(twenty) as broker, running(broker.url, {"a": 1}, inbox=inbox, keepalive=1) as rig:
        await rig.until(lambda: rig.session.reason == session_module.WAITS_FOR_ROOM)
        await rig.until(lambda: rig.metrics.connects.values.get("lost") or rig.metrics.connects.values.get("closed"))
        await rig.until(lambda: rig.session.reason == session_module.WAITS_FOR_ROOM)
        assert (broker.connections, len(inbox)) == (1, 20)
        await rig.take(20)
        await rig.until(lambda: broker.connections == 2)


async def test_a_backlog_that_fills_the_inbox_does_not_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def overflows(line: Line) -> None:
        await line.welcome(session_present=True)
        for mid in range(1, 301):  # more than one read takes, so the answers come behind what isn't read yet
            await line.send(publish(b"a", b"x" * 10_000, mid=mid, properties=b""))
        await line.subscribed()
        await line.serve()

    monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.5)
    inbox = Inbox(capacity=5)
    async with FakeBroker(overflows) as broker, running(broker.url, {"a": 1}, inbox=inbox) as rig:
        await rig.until(lambda: rig.session.reason == session_module.WAITS_FOR_ROOM)
        await asyncio.sleep(1.2)  # more than twice what an answer may take
        assert rig.session.connections == 1
        monkeypatch.setattr(session_module, "ANSWER_SECONDS", 20)
        assert len(await rig.take(300)) == 300
        await rig.ready()
        assert (rig.session.connections, rig.session.reason) == (1, "")


async def test_publishing_fails_with_a_reason() -> None:
    sent: list[bytes] = []
    greeted = asyncio.Event()

    async def sleepy(line: Line) -> None:
        await line.expect(0x10)
        await line.send(packet(0x20, b"\0\0\3\x21\0\2"))  # a receive maximum of 2
        await line.subscribed()
        _, body = await line.expect(0x30)  # the presence
        mid = 2 + int.from_bytes(body[:2], "big")
        await line.send(b"\x40\x02" + body[mid : mid + 2])
        greeted.set()
        while len(sent) < 2:
            sent.append((await line.expect(0x30))[1])
        sent.append((await line.read())[1])

    async with FakeBroker(sleepy, good) as broker, running(broker.url, {"a": 1}) as rig:
        await rig.ready()
        await greeted.wait()
        with pytest.raises(PublishFailed, match=r"within 0\.2s"):
            await rig.session.publish("b", b"1", timeout_seconds=0.2)
        waiting = [asyncio.create_task(rig.session.publish("b", b"%d" % n)) for n in range(2, 1003)]
        await rig.until(lambda: len(sent) == 2)
        with pytest.raises(PublishFailed, match="1000 messages wait"):
            await rig.session.publish("b", b"one too many")
        assert not any(task.done() for task in waiting)
        assert rig.session._connection is not None
        assert len(sent) == 2  # the broker allows two at once, so the others wait here
        rig.session._connection._client.ack(1, 1)  # any packet: the broker goes away
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {NotConnected}
        await rig.ready()
        await rig.session.publish("b", b"again")


class Forgetful(Memory):
    async def save(self, filters: list[str]) -> None:
        raise StoreUnavailable("disk full")


async def test_a_store_that_takes_nothing_does_not_keep_the_session_from_working(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeBroker(good) as broker, running(broker.url, {"a": 1}, memory=Forgetful()) as rig:
        await rig.ready()
        assert "can't store which subscriptions the broker has: disk full" in caplog.text


async def test_nothing_is_left_open() -> None:
    async with FakeBroker(good) as broker:
        rig = Rig(broker.url, {"a": 1})
        await rig.session.start()
        await rig.ready()
        await rig.session.stop()
        await rig.session.stop()
        assert rig.session.reason == "stopped"
        assert rig.session._connection is not None
        assert rig.session._connection._client.socket() is None
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await rig.until(lambda: all(task.done() or "FakeBroker" in repr(task) for task in others))
