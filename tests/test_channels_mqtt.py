"""Channel `mqtt` over a real session: a notification stays queued until the broker has acknowledged it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from support.fakebroker import FakeBroker, Line
from support.mosquitto import Mosquitto, Peer
from support.outbox import outbox
from support.sessions import running
from support.stores import Database
from support.targets import until
from test_channels_kinds import build

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.notifications.channels.mqtt import MqttChannel

FILTERS = {"nothing/here": 1}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MqttChannel, "backoff", Backoff(0.01, 0.02))


async def test_it_arrives_at_once_or_when_the_broker_is_back(
    mosquitto: Callable[..., Mosquitto], database: Database
) -> None:
    broker = mosquitto()
    async with running(broker.url, FILTERS) as rig, outbox(database, Clock()) as box:
        await rig.ready()
        sender = await box.start(build(rig.session.publish, kind="mqtt", topic="alarms", retain=True), "siren")
        await box.queue("first", channel="siren")
        await box.until({"first": "sent"})

        broker.kill()
        await rig.until(lambda: not rig.session.connected_since)
        await box.queue("second", "third", channel="siren")
        await until(lambda: sender.last_error)
        assert (await box.states())["second"] == "queued"

        broker.start()
        with Peer(broker.port, "alarms") as peer:
            await box.until({"second": "sent", "third": "sent"})
            await asyncio.to_thread(peer.wait, lambda: bool(peer.seen) and b"third" in peer.seen[-1][1])
            payload = json.loads(peer.seen[-1][1])
    assert payload["title"] == "third"
    assert payload["idempotency_key"] == f"{box.store.id}-3"


async def test_it_stays_queued_until_the_broker_has_acknowledged_it(database: Database) -> None:
    arrived, acknowledge = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.welcome()
        await line.subscribed()
        while True:
            head, body = await line.read()
            if b"siren/set" in body:
                arrived.set()
                await acknowledge.wait()
            await line.acknowledge(head, body)

    async with FakeBroker(script) as broker, running(broker.url, FILTERS) as rig, outbox(database, Clock()) as box:
        await rig.ready()
        await box.start(build(rig.session.publish, kind="mqtt", topic="siren/set", payload="ON"), "siren")
        await box.queue("alarm", channel="siren")
        async with asyncio.timeout(60):
            await arrived.wait()
        assert await box.states() == {"alarm": "queued"}
        acknowledge.set()
        await box.until({"alarm": "sent"})


async def test_a_siren_that_could_not_be_reached_sounds_and_stops_in_order(
    mosquitto: Callable[..., Mosquitto], database: Database
) -> None:
    broker = mosquitto()
    keys = {"kind": "mqtt", "topic": "siren/set", "payload": "ON", "resolved_payload": "OFF"}
    async with running(broker.url, FILTERS) as rig, outbox(database, Clock()) as box:
        await rig.ready()
        broker.kill()
        await rig.until(lambda: not rig.session.connected_since)
        sender = await box.start(build(rig.session.publish, **keys), "siren")
        await box.queue("fire", channel="siren", fingerprint="f", severity="critical")
        await box.queue("fire is out", channel="siren", fingerprint="f", severity="critical", kind="resolved")
        await until(lambda: sender.last_error)
        broker.start()
        with Peer(broker.port, "siren/set") as peer:
            await box.until({"fire": "sent", "fire is out": "sent"})
            await asyncio.to_thread(peer.wait, lambda: len(peer.seen) >= 2)
            assert [payload for _, payload in peer.seen] == [b"ON", b"OFF"]
