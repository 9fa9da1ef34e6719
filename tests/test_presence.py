"""What others see of a gateway on the broker, with a real one: state, info, health, and what outlasts what."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer

from edgeq.presence import gateway as service

CONFIGURATION = """
gateway: gw
mqtt: {{url: "{url}", version: "{version}"}}
store: {{url: edgeq.db}}
routes: [{{topic: "t/{{s}}", emit: t.reading, subject: "{{s}}"}}]
"""
STATE, INFO, HEALTH = "edgeq/gw/state", "edgeq/gw/info", "edgeq/gw/health"


class Seen:
    """A peer, and what it saw."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def all(self, topic: str) -> list[Any]:
        found = [payload for each, payload in self.peer.seen if each == topic]
        return [payload.decode() if topic == STATE else json.loads(payload) for payload in found if payload]

    def wait(self, topic: str, condition: Callable[[Any], bool] = lambda value: True, *, after: int = 0) -> Any:
        """The first message to `topic` that fits, of those after the first `after`."""
        self.peer.wait(lambda: any(map(condition, self.all(topic)[after:])))
        return next(value for value in self.all(topic)[after:] if condition(value))


@pytest.fixture(params=["5", "3.1.1"])
def edgeq(request: pytest.FixtureRequest, tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    made = Appliance(tmp_path, CONFIGURATION.format(url=broker.url, version=request.param))
    yield made
    made.kill()


@pytest.fixture
def seen(broker: Mosquitto) -> Iterator[Seen]:
    with Peer(broker.port, "edgeq/gw/+") as peer:
        yield Seen(peer)


def retained(broker: Mosquitto, *topics: str) -> dict[str, bytes]:
    """What the broker has kept for who comes now."""
    with Peer(broker.port, *topics, "end") as peer:
        peer.publish("end", "end", retain=False)
        peer.wait(lambda: ("end", b"end") in peer.seen)  # behind it may come what is published meanwhile
        return {message.topic: message.payload for message in peer.messages if message.retain}


def test_state_info_and_health_are_kept_by_the_broker(edgeq: Appliance, seen: Seen, broker: Mosquitto) -> None:
    edgeq.start()
    info, health = seen.wait(INFO), seen.wait(HEALTH)
    assert retained(broker, "edgeq/#").keys() == {STATE, INFO, HEALTH}
    assert seen.all(STATE) == ["online"]
    assert (info["gateway"], info["store"], info["routes"], info["contracts"]) == ("gw", "sqlite", 1, 0)
    assert edgeq.process is not None
    assert info["pid"] == edgeq.process.pid
    assert info["version"] in edgeq.cli("--version").stdout
    assert health["store"] == {"ok": True, "reason": ""}
    assert health["session"]["connections"] == 1
    assert health["queues"] == {"default": {"waiting": 0, "executing": 0, "dead": 0, "paused": False}}
    assert (health["dead_letters"], health["lag_events"], health["contracts_violated"]) == (0, 0, 0)
    assert health["disk_free_bytes"] > 0
    assert edgeq.stop() == 0
    seen.wait(STATE, lambda state: state == "offline")


def test_killed_the_broker_says_offline(edgeq: Appliance, seen: Seen, broker: Mosquitto) -> None:
    edgeq.start()
    seen.wait(HEALTH)
    edgeq.kill()
    seen.wait(STATE, lambda state: state == "offline")
    assert retained(broker, STATE) == {STATE: b"offline"}
    edgeq.start()
    seen.wait(STATE, lambda state: state == "online", after=2)
    seen.wait(HEALTH, after=1)


def test_a_broker_that_has_lost_everything_is_told_again(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto("max_inflight_messages 0")
    edgeq = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url, version="5"))
    try:
        edgeq.start()
        with Peer(broker.port, HEALTH) as peer:
            peer.wait(lambda: bool(peer.messages))
        broker.kill()
        (broker.folder / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        with Peer(broker.port, "edgeq/#") as peer:
            seen = Seen(peer)
            assert seen.wait(HEALTH)["session"]["connections"] == 2
            for topic in (STATE, INFO):  # of what it had before we came, the broker says nothing about the order
                seen.wait(topic)
            assert seen.all(STATE) == ["online"]
            assert len(seen.all(INFO)) == 1
    finally:
        edgeq.kill()


def test_a_reload_says_what_the_new_configuration_is(edgeq: Appliance, seen: Seen) -> None:
    edgeq.start()
    assert seen.wait(INFO)["routes"] == 1
    text = (edgeq.folder / "edgeq.yaml").read_text()
    edgeq.reload(text.replace("routes: [", "routes: [{topic: u, emit: u}, "))
    assert seen.wait(INFO, after=1)["routes"] == 2
    assert len({info["started_at"] for info in seen.all(INFO)}) == 1, "it is the same process"


def test_what_is_of_meaning_is_told_at_once(edgeq: Appliance, seen: Seen) -> None:
    edgeq.start()
    seen.wait(HEALTH)
    began = time.monotonic()
    seen.peer.publish_many([("t/s", "not JSON")] * 50)
    seen.wait(HEALTH, lambda health: health["dead_letters"] == 50)
    assert time.monotonic() - began < service.HEALTH_SECONDS, "it doesn't wait for its turn"
    assert any(health["messages_per_second"] > 0 for health in seen.all(HEALTH))


def test_two_gateways_stand_side_by_side(edgeq: Appliance, broker: Mosquitto, tmp_path: Path) -> None:
    other = Appliance(
        tmp_path / "other",
        CONFIGURATION.format(url=broker.url, version="5").replace("gateway: gw", "gateway: barn.2"),
    )
    try:
        edgeq.start()
        other.start()
        with Peer(broker.port, "edgeq/+/info", "edgeq/+/state", "edgeq/+/health") as peer:
            peer.wait(lambda: len({topic for topic, _ in peer.seen}) == 6)
            other.kill()
            peer.wait(lambda: ("edgeq/barn.2/state", b"offline") in peer.seen)
            assert (STATE, b"offline") not in peer.seen
    finally:
        other.kill()
