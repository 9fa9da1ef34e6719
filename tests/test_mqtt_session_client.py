"""The hooks into paho: a client that uses them hears the same as one that doesn't."""

from __future__ import annotations

import asyncio
from typing import Any

import paho.mqtt.client as paho
import pytest
from support.fakebroker import FakeBroker, Line
from support.mosquitto import Mosquitto, Peer
from support.packets import packet, publish
from support.sessions import payloads, running

from edgeq.mqtt.client import Client, has_hooks
from edgeq.mqtt.delivery import Delivery
from edgeq.mqtt.properties import decode

versions = pytest.mark.parametrize("version", ["5", "3.1.1"])


def values(delivery: Delivery) -> dict[str, Any]:
    left_out = ("received_at", "connection", "properties_raw")
    told = {name: getattr(delivery, name) for name in Delivery.__slots__ if name not in left_out}
    return told | {"properties": decode(delivery.properties_raw)}


def test_this_paho_has_the_hooks() -> None:
    assert has_hooks(paho.Client)
    assert Client.hooked


def test_a_paho_that_reads_otherwise_has_no_hooks() -> None:
    class Other(paho.Client):
        def _packet_read(self) -> paho.MQTTErrorCode:
            return paho.MQTT_ERR_SUCCESS

    class Empty:
        pass

    assert not has_hooks(Other)
    assert not has_hooks(Empty)  # type: ignore[arg-type]


@versions
async def test_both_ways_of_reading_hear_the_same(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version5 = version == "5"

    def one(topic: bytes, payload: bytes, mid: int, properties: bytes = b"", **options: Any) -> bytes:
        return publish(topic, payload, mid=mid, properties=properties if version5 else None, **options)

    stream = b"".join(
        [
            one(b"a/b", b"first", 1),
            packet(0xD0, b""),
            one(b"a/b", b"", 2, retain=True),
            one(b"a/\xc3\xbc", b"x" * 5000, 65535, b"\x26\x00\x01k\x00\x01v" if version5 else b"", dup=True),
            one(b"a/b", b"zero", 0, qos=0),
            one(b"a/\xff", b"no text", 3),
            one(b"a/b", bytes(range(256)) * 400, 4, b"\x03\x00\x04text\x02\x00\x00\x00\x07"),
            one(b"a/b", b"last", 5),
        ]
    )
    heard: list[list[dict[str, Any]]] = []
    acked: list[bytes] = []

    async def script(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        for at in range(0, len(stream), 1000):
            await line.send(stream[at : at + 1000])
        acks = b""
        for _ in range(6):
            acks += (await line.expect(0x40))[1]
        acked.append(acks)
        await line.serve()

    for hooked in (True, False):
        monkeypatch.setattr(Client, "hooked", hooked)
        async with (
            FakeBroker(script, version5=version5) as broker,
            running(broker.url, {"a/+": 1}, version=version) as rig,
        ):
            heard.append([values(delivery) for delivery in await rig.take(7)])
            await rig.until(lambda: len(acked) == len(heard))
            await rig.session.publish("out", b"x")
    assert heard[0] == heard[1]
    assert acked[0] == acked[1] == b"\0\1\0\2\xff\xff\0\3\0\4\0\5"


@versions
async def test_without_hooks_everything_still_works(
    broker: Mosquitto, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "hooked", False)
    async with running(broker.url, {"a/#": 1}, version=version) as rig:
        await rig.ready()
        with Peer(broker.port) as peer:
            await asyncio.to_thread(peer.publish_many, [("a/b", b"%d" % n) for n in range(300)])
        assert payloads(await rig.take(300)) == [b"%d" % n for n in range(300)]
        await rig.session.publish("out", b"")  # the acknowledgements are out before this is
        before = rig.session.connections
        broker.restart()
        await rig.until(lambda: rig.session.connections > before)
        await rig.ready()
        await rig.session.publish("a/b", b"again")
        assert payloads(await rig.take(1)) == [b"again"]
