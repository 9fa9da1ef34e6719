"""By MQTT, with a real broker: what the gateway sends, and what a site takes."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.forwarding import add, forwarder, settings
from support.mosquitto import Mosquitto, Peer
from support.stores import SqliteDatabase

from edgeq.clock import Clock
from edgeq.forward.mqtt import BrokerTarget
from edgeq.forward.target import Away, Parcel, Refused, Taken
from edgeq.store.forwarded import Batch
from edgeq.store.store import Store
from edgeq.testing import until
from edgeq.testing.clock import NOON
from edgeq.units import Duration

TOPIC = "site/gw/events"


def parcel(text: bytes = b'{"id":5}') -> Parcel:
    return Parcel(Batch("gw", "s1", 7, (5,), []), [text], NOON)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with SqliteDatabase(tmp_path).opened() as made:
        yield made


def target(url: str, **keys: Any) -> BrokerTarget:
    return BrokerTarget(settings(url, **{"timeout": Duration(60), **keys}), TOPIC, "edgeq-gw-cloud", Clock())


async def test_a_batch_is_one_message(broker: Mosquitto) -> None:
    with Peer(broker.port, "site/#") as peer:
        way = target(broker.url)
        assert isinstance(await way.send(parcel()), Taken)
        assert isinstance(await way.send(parcel()), Taken)
        await way.close()
        peer.wait(lambda: len(peer.seen) == 2)
        topic, payload = peer.seen[0]
        assert topic == TOPIC
        assert json.loads(payload) == {"gateway": "gw", "store": "s1", "head": 7, "events": [{"id": 5}]}
        assert {message.qos for message in peer.messages} == {1}
        packed = target(broker.url, gzip=True)
        await packed.send(parcel())
        await packed.close()
        peer.wait(lambda: len(peer.seen) == 3)
        assert gzip.decompress(peer.seen[2][1]) == payload
    assert broker.log.count("New client connected") == 3, "one connection lasts"


async def test_what_nobody_would_get_waits(broker: Mosquitto) -> None:
    way = target(broker.url)
    answer = await way.send(parcel())
    assert isinstance(answer, Away)
    assert "nobody has subscribed" in answer.reason
    with Peer(broker.port, TOPIC):
        assert isinstance(await way.send(parcel()), Taken)
    await way.close()


async def test_what_the_broker_has_no_room_for_is_too_large(mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto("max_packet_size 2000")
    with Peer(broker.port, TOPIC):
        way = target(broker.url)
        answer = await way.send(parcel(b'{"id":5,"description":"' + b"x" * 3000 + b'"}'))
        assert isinstance(answer, Refused)
        assert answer.too_large
        assert isinstance(await way.send(parcel()), Taken)
        await way.close()


async def test_a_broker_may_go_away_and_come_back(broker: Mosquitto, store: Store) -> None:
    runner = forwarder(store, target(broker.url), Clock(), batch_size=5)
    await add(store, 10)
    with Peer(broker.port, TOPIC) as peer:
        await runner.start()
        await until(lambda: runner.position == 10, "the first to arrive", store=store)
        peer.wait(lambda: sorted(ids(peer)) == list(range(1, 11)))
    broker.kill()
    await add(store, 10)
    await until(lambda: runner.state == "waiting", "the outage", store=store)
    broker.start()
    with Peer(broker.port, TOPIC) as peer:
        await until(lambda: runner.position == 20, "the rest to arrive", store=store, deadline_seconds=30)
        peer.wait(lambda: set(ids(peer)) == set(range(11, 21)))
    await runner.stop()


def ids(peer: Peer) -> list[int]:
    """Of all events that came to it."""
    return [event["id"] for _, body in peer.seen for event in json.loads(body)["events"]]


async def test_who_is_not_let_in_waits(mosquitto: Callable[..., Mosquitto], tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("")
    broker = mosquitto("allow_anonymous false", f"password_file {tmp_path / 'passwords'}")
    way = target(broker.url, username="gw", password="s3cr3t")
    answer = await way.send(parcel())
    assert isinstance(answer, Away)
    assert "refused the connection" in answer.reason
    assert "s3cr3t" not in answer.reason
    await way.close()


SITE = """
gateway: site
mqtt: {{url: "mqtt://127.0.0.1:{port}"}}
store: {{url: edgeq.db}}
routes:
  - {{topic: "site/{{gateway}}/events", receive: events, tags: [forwarded]}}
"""


@pytest.fixture
def site(broker: Mosquitto, tmp_path: Path) -> Iterator[Appliance]:
    made = Appliance(tmp_path / "site", SITE.format(port=broker.port))
    made.start()
    yield made
    made.kill()


def batch(*ids: int, gateway: str = "gw", head: int = 0, **fields: Any) -> bytes:
    sent = [{"id": n, "type": "reading", "occurred_at": NOON + n, "subject": "s", **fields} for n in ids]
    return json.dumps({"gateway": gateway, "store": "s1", "head": head or max(ids), "events": sent}).encode()


def test_a_site_takes_each_event_once_and_sets_aside_what_it_cannot_read(broker: Mosquitto, site: Appliance) -> None:
    with Peer(broker.port) as peer:
        peer.publish(TOPIC, batch(1, 2))
        peer.publish(TOPIC, gzip.compress(batch(2, 3)))
        for bad in (
            b"nonsense",
            gzip.compress(b"x" * 50_000_000),
            gzip.compress(batch(9))[:-4],
            batch(4, type=""),
            b'[{"type": "a"}]',
        ):
            peer.publish(TOPIC, bad)
        peer.publish(TOPIC, batch(4, gateway="another"))
        peer.publish(TOPIC, batch(5))
        site.until(lambda: site.sql("SELECT count(*) FROM events") == [(4,)], "the events")
    rows = site.sql("SELECT idempotency_key, tags, topic FROM events ORDER BY id")
    assert [row[0] for row in rows] == ["s1:1", "s1:2", "s1:3", "s1:5"]
    assert {row[1:] for row in rows} == {('["from:gw","forwarded"]', None)}
    letters = site.sql("SELECT reason FROM dead_letters ORDER BY id")
    assert [row[0] for row in letters] == [
        "undecodable", "too_large", "undecodable", "undecodable", "undecodable", "not_its_own",
    ]  # fmt: skip


def test_an_old_copy_of_a_gateway_raises_an_alarm_at_the_site(broker: Mosquitto, site: Appliance) -> None:
    with Peer(broker.port) as peer:
        peer.publish(TOPIC, batch(8, 9))
        site.until(lambda: site.sql("SELECT count(*) FROM events") == [(2,)], "the events")
        peer.publish(TOPIC, batch(5, head=6))
        peer.publish(TOPIC, batch(9, type="another"))
        site.until(lambda: site.sql("SELECT count(*) FROM dead_letters") == [(2,)], "the dead letters")
    assert site.sql("SELECT DISTINCT reason FROM dead_letters") == [("restored",)]
    alarms = site.sql("SELECT subject, tags FROM events WHERE type = 'edgeq.gateway_restored'")
    assert alarms == [("gw", '["notification"]')]
