"""What strangers send to the whole appliance, and what brokers and lines do to it: all of it is acknowledged and
accounted for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer
from support.proxy import Proxy

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}", receive_maximum: 50}}
store: {{url: edgeq.db}}
routes:
  - {{topic: "plain/#", emit: plain}}
  - {{topic: "named/+", emit: named, subject: "{{payload.device}}"}}
  - {{topic: "text/#", emit: text, payload: text}}
  - {{topic: "kept/#", emit: kept, retained: handle}}
  - {{topic: "$SYS/broker/version", emit: version, payload: text, retained: handle}}
"""

UNDECODABLE = [
    b"not json", b"NaN", b'{"value": -Infinity}', b"\xff\xfe{}", b'{"a": 1', b"[" * 100_000, b'{"a":' * 5000,
    b"\x00", b'"\\ud800"', b"\x1b]0;owned\x07",
]  # fmt: skip
WITHOUT_THE_FIELD = [b"5", b"null", b"[]", b'"text"', b'{"device": {}}', b'{"device": null}', b'{"other": 1}']


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url))
    yield made
    made.kill()


def counted(edgeq: Appliance, name: str) -> dict[str, int]:
    counters: dict[str, int] = edgeq.status()["counters"].get(name, {})
    return counters


def settled(edgeq: Appliance, count: int) -> Callable[[], bool]:
    """Whether `count` messages were taken in, and all of them are done with."""

    def look() -> bool:
        status = edgeq.status()  # once: between two of them messages come
        received = sum(status["counters"].get("edgeq_messages_received_total", {}).values())
        return received >= count and status["session"]["waiting"] == status["session"]["in_flight"] == 0

    return look


def test_whatever_a_stranger_sends_is_acknowledged_and_accounted_for(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    deep = "plain/" + "/".join("x" * 199)
    with Peer(broker.port) as peer:
        peer.publish_many([("plain/u", payload) for payload in UNDECODABLE])
        peer.publish_many([("named/f", payload) for payload in WITHOUT_THE_FIELD])
        peer.publish("plain/large", b"9" * 2 * 2**20)
        peer.publish("plain/empty", b"")
        peer.publish("text/a \u202eb", "any\x1btext")
        peer.publish("text/lost", b"\xff")
        peer.publish(deep, '{"value": 1}')
        peer.publish("plain/q0", "{}", qos=0)
        peer.publish("named/last", '{"device": "d"}')
    sent = len(UNDECODABLE) + len(WITHOUT_THE_FIELD) + 7
    edgeq.until(settled(edgeq, sent + 1), "all to be done with")  # and one that mosquitto keeps: its version

    rows = edgeq.sql("SELECT reason, count(*) FROM dead_letters GROUP BY reason")
    assert dict(rows) == {
        "undecodable": len(UNDECODABLE) + 1, "missing_field": len(WITHOUT_THE_FIELD), "too_large": 1,
    }  # fmt: skip
    ((kept, detail),) = edgeq.sql("SELECT payload, detail FROM dead_letters WHERE reason = 'too_large'")
    assert json.loads(detail)["payload_size"] == 2 * 2**20
    assert set(kept) == {ord("9")}
    topics = [row[0] for row in edgeq.sql("SELECT topic FROM events ORDER BY id")]
    assert sorted(topics) == sorted(["$SYS/broker/version", "text/a \u202eb", deep, "plain/q0", "named/last"])
    assert counted(edgeq, "edgeq_messages_dropped_total") == {"empty": 1}
    assert counted(edgeq, "edgeq_dead_letters_total") == {"intake": len(UNDECODABLE) + len(WITHOUT_THE_FIELD) + 2}
    assert edgeq.stop() == 0

    edgeq.start()  # what is not acknowledged comes again now, before anything new
    with Peer(broker.port) as peer:
        peer.publish("plain/after", "{}")
    edgeq.until(lambda: "plain/after" in [row[0] for row in edgeq.sql("SELECT topic FROM events")], "what is new")
    assert edgeq.sql("SELECT count(*) FROM events") == [(len(topics) + 1,)]
    assert edgeq.sql("SELECT count(*) FROM dead_letters") == [(len(UNDECODABLE) + len(WITHOUT_THE_FIELD) + 2,)]
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log
    assert not [sign for sign in edgeq.log if not sign.isprintable() and sign != "\n"]


def test_retained_messages_are_taken_only_where_they_are_wanted(edgeq: Appliance, broker: Mosquitto) -> None:
    with Peer(broker.port) as peer:
        for topic in ("plain/1", "kept/1"):
            peer.publish(topic, "{}", retain=True)
        edgeq.start()
        peer.publish("plain/2", "{}")
        edgeq.until(settled(edgeq, 4), "all to be done with")
    topics = [row[0] for row in edgeq.sql("SELECT topic FROM events")]
    assert sorted(topics) == ["$SYS/broker/version", "kept/1", "plain/2"]
    assert counted(edgeq, "edgeq_messages_dropped_total") == {"retained": 1}
    assert edgeq.stop() == 0


def test_a_thousand_bad_messages_are_a_handful_of_lines(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    before = len(edgeq.log.splitlines())
    with Peer(broker.port) as peer:
        peer.publish_many([(f"plain/{n}", f"garbage {n}") for n in range(1000)])
        edgeq.until(lambda: edgeq.sql("SELECT count(*) FROM dead_letters") == [(1000,)], "all dead letters")
        peer.publish("plain/good", "{}")
        edgeq.until(lambda: edgeq.sql("SELECT count(*) FROM events WHERE topic = 'plain/good'") == [(1,)], "a good one")
    assert len(edgeq.log.splitlines()) - before <= 3, edgeq.log
    assert edgeq.stop() == 0


# The broker


class Stream:
    """Numbered messages at QoS 1, one after the other, each sent until the broker has it."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Peer(self._port) as peer:
                    while not self._stop.is_set():
                        peer.publish(f"plain/{self.sent}", "{}")
                        self.sent += 1
            except (OSError, AssertionError, RuntimeError):
                self._stop.wait(0.02)

    def stop(self) -> int:
        self._stop.set()
        self._thread.join(30)
        return self.sent


def stored(edgeq: Appliance) -> Counter[int]:
    rows = edgeq.sql("SELECT topic FROM events WHERE type = 'plain'")
    return Counter(int(row[0].rpartition("/")[2]) for row in rows)


def test_a_broker_that_restarts_under_load_loses_nothing(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    stream = Stream(broker.port)
    for _ in range(2):
        count = stream.sent
        edgeq.until(lambda count=count: stream.sent > count + 100, "some load")
        broker.stop()
        edgeq.until(lambda: edgeq.status()["session"]["state"] != "connected", "the session to notice")
        assert edgeq.status()["session"]["reason"]
        broker.start()
        edgeq.until(edgeq.connected, "a connection")
    count = stream.sent
    edgeq.until(lambda: stream.sent > count + 100, "some load")
    sent = stream.stop()
    edgeq.until(lambda: len(stored(edgeq)) >= sent, "all messages")
    assert set(range(sent)) - set(stored(edgeq)) == set()
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


def test_a_broker_that_is_killed_takes_nothing_that_was_acknowledged(edgeq: Appliance, broker: Mosquitto) -> None:
    """What a broker that saves nothing had taken is lost with it; edgeq comes back, and keeps what it had."""
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish_many([(f"plain/{n}", "{}") for n in range(100)])
    edgeq.until(lambda: len(stored(edgeq)) == 100, "the messages")
    broker.kill()
    edgeq.until(lambda: edgeq.status()["session"]["state"] != "connected", "the session to notice")
    broker.start()
    edgeq.until(edgeq.connected, "a connection")
    with Peer(broker.port) as peer:
        peer.publish("plain/100", "{}")
    edgeq.until(lambda: len(stored(edgeq)) == 101, "the message of after")
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


async def test_a_line_that_is_cut_within_packets_loses_nothing(tmp_path: Path, broker: Mosquitto) -> None:
    async with Proxy(broker.port) as proxy:
        edgeq = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=f"mqtt://127.0.0.1:{proxy.port}"))
        try:
            await asyncio.to_thread(edgeq.start)
            sent = 0
            with Peer(broker.port) as peer:
                for cut_after in (3, 333):
                    connections = proxy.connections
                    proxy.cut_after = cut_after
                    messages = [(f"plain/{n}", json.dumps({"text": "x" * 50})) for n in range(sent, sent + 60)]
                    await asyncio.to_thread(peer.publish_many, messages)
                    sent += 60
                    await asyncio.to_thread(
                        edgeq.until,
                        lambda connections=connections: proxy.connections > connections and edgeq.connected(),
                        "another connection",
                    )
            await asyncio.to_thread(edgeq.until, lambda: len(stored(edgeq)) == sent, "all messages")
            assert max(stored(edgeq).values()) <= 2
            assert await asyncio.to_thread(edgeq.stop) == 0
            assert "Traceback" not in edgeq.log
        finally:
            edgeq.kill()
