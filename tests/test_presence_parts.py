"""The parts of the presence by themselves: ids, health and when it is told, what Home Assistant is told of many
contracts, and what is remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.homeassistant import HomeAssistant, device
from support.stores import Database

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.config.schema import Config, Mqtt, Notifications
from edgeq.errors import StoreUnavailable
from edgeq.events import to_json
from edgeq.mqtt.connection import PublishFailed
from edgeq.mqtt.presence import below
from edgeq.mqtt.session import Session, State
from edgeq.presence import gateway
from edgeq.presence.birth import Births
from edgeq.presence.discovery import config_topic, contracts_device, device_id, gateway_device
from edgeq.presence.gateway import Presence
from edgeq.presence.health import Health
from edgeq.presence.ids import all_safe, safe
from edgeq.presence.retained import Memory, Publisher
from edgeq.store.dead_letters import NewDeadLetter, add
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import FakeClock


class FakeSession:
    """A session that publishes into a list."""

    def __init__(self) -> None:
        self.state, self.connections, self.connected_since = State.CONNECTED, 1, 1
        self.sent: list[tuple[str, bytes]] = []
        self.refuses = False

    def when_connected(self, callback: object) -> None: ...

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        assert (qos, retain) == (1, True)
        if self.refuses:
            raise PublishFailed("not authorised")
        self.sent.append((topic, payload))
        return 0

    @property
    def real(self) -> Session:
        return cast(Session, self)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    made = database.store()
    await made.open()
    yield made
    await made.close()


def counted(store: Store, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Grows with each call of these."""
    calls: list[str] = []

    def count(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            calls.append(name)
            return real(*given, **named)

        return call

    for name in names:
        monkeypatch.setattr(store, name, count(name, getattr(store, name)))
    return calls


# Ids


def test_a_safe_name_is_its_id_and_no_two_have_the_same() -> None:
    assert safe("freezer-cold_1") == "freezer-cold_1"
    odd = safe("küche/1")
    found = all_safe(["küche/1", "küche+1", odd, "a" * 500, "#"])
    assert found[odd] == odd, "who has a safe name keeps it"
    assert found["küche/1"].startswith("k_che_1_")
    assert found["küche/1"] != odd


@given(st.lists(st.text(min_size=1), unique=True))
def test_ids_are_safe_unique_and_know_no_order(names: list[str]) -> None:
    found = all_safe(names)
    assert len({*found.values()}) == len(names)
    assert all(len(made) < 100 and set(made) <= ALLOWED for made in found.values())
    assert all_safe(reversed(names)) == found


ALLOWED = {*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"}


# Health


@pytest.fixture
def health(store: Store, session: FakeSession, tmp_path: Path) -> Health:
    return Health(store, session.real, {}, ["default"], Metrics(), Clock(), tmp_path / "temp")


async def test_what_always_moves_a_little_is_no_news(health: Health, tmp_path: Path) -> None:
    said = []
    for millidegrees in ("45300", "45900", "46400", "47800", "nonsense"):
        (tmp_path / "temp").write_text(millidegrees)
        said.append((await health.look())["temperature"])
    assert said == [45, 45, 45, 48, None]


async def test_health_of_much_is_bounded(store: Store, session: FakeSession) -> None:
    queues = [f"queue-{number}" for number in range(5000)]
    found = await Health(store, session.real, {}, queues, Metrics(), Clock()).look()
    assert len(to_json(found)) < 16_000
    assert found["jobs_waiting"] == 0


async def test_a_store_that_cannot_be_read_is_told_with_what_was_read_last(
    health: Health, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(lambda tx: add(tx, [NewDeadLetter(source="intake", reason="r", error="e", created_at=1)]))

    async def read(*_: object) -> Any:
        raise StoreUnavailable("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(store, "read", read)
        first = await health.look()
        assert first["store"] == {"ok": False, "reason": "the disk is gone"}
        assert first["dead_letters"] is None
    assert (await health.look())["dead_letters"] == 1
    await store.write(lambda tx: add(tx, [NewDeadLetter(source="intake", reason="r", error="e", created_at=1)]))
    monkeypatch.setattr(store, "read", read)
    assert (await health.look())["dead_letters"] == 1


async def test_a_quiet_gateway_publishes_nothing_and_reads_nothing(
    store: Store, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, metrics, births = FakeClock(), Metrics(), Births()
    health = Health(store, session.real, {}, ["default"], metrics, clock)
    monkeypatch.setattr(clock, "synchronised", lambda: True)
    presence = Presence(Config(gateway="gw"), {}, health, Publisher(session.real, clock), store, births, clock)
    await presence._turn()
    assert [topic for topic, _ in session.sent] == ["edgeq/gw/info", "edgeq/gw/health"]
    asked = counted(store, monkeypatch, "read", "submit")
    quiet = False
    async with asyncio.timeout(60):
        while not quiet:  # the store may have to say first that it was opened
            await asyncio.sleep(0)
            asked.clear()
            for _ in range(20):
                clock.advance(gateway.HEALTH_SECONDS)
                await presence._turn()
            quiet = not asked
    assert len(session.sent) == 2
    metrics.dead_letters.add(1, "intake")
    await presence._turn()
    assert asked, "what may be of meaning is looked at"
    session.connections += 1
    await presence._turn()
    assert [topic for topic, _ in session.sent[2:]] == ["edgeq/gw/info", "edgeq/gw/health"]


# What Home Assistant is told


def config(**mqtt: Any) -> Config:
    return Config(gateway="gw", mqtt=Mqtt(discovery="homeassistant", **mqtt))


def test_hundreds_of_contracts_are_one_message() -> None:
    names = [f"contract-{number} of Küche+/#" for number in range(300)]
    topics = {name: below("edgeq/{gateway}", "gw", f"contracts/{key}") for name, key in all_safe(names).items()}
    payload = to_json(contracts_device(config(), "gw", topics, ["gw"])).encode()
    assert len(payload) < 128 * 1024, "the largest packet that some brokers take"
    home = HomeAssistant()
    home.feed(config_topic("homeassistant", f"{device_id('gw')}_contracts"), payload)
    assert home.names == sorted(names)


@pytest.mark.parametrize("name", ["gw", "Küche.1", "a" * 300, "'\"{{ 7 * 7 }}{%"])
def test_whatever_the_gateway_is_called_it_is_understood(name: str) -> None:
    text = Config(gateway=name, notifications=Notifications(public_url="https://gw.example.net/"))
    payload = to_json(gateway_device(text, temperature=True)).encode()
    assert device(payload)["device"]["configuration_url"] == "https://gw.example.net/"
    home = HomeAssistant()
    home.feed(config_topic("homeassistant", device_id(name)), payload)
    assert "Temperature" in home.names


def test_every_sensor_shows_what_there_is_and_unknown_what_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text("gateway: gw\njobs: {queues: {default: {}, a.b-c_d: {}}}")
    loaded = load(str(tmp_path / "edgeq.yaml"), environ={}).config
    home = HomeAssistant()
    home.feed("homeassistant/device/edgeq_gw/config", to_json(gateway_device(loaded, temperature=True)).encode())
    home.feed("edgeq/gw/state", b"online")
    queues = {key: {"waiting": 3} for key in ("default", "a.b-c_d")}
    known = {
        "store": {"ok": False, "reason": "full"}, "processors": {}, "lag_events": 5, "dead_letters": 1,
        "messages_per_second": 0.5, "contracts_violated": 2, "disk_free_bytes": 7, "clock_synchronised": True,
        "temperature": 48, "queues": queues,
    }  # fmt: skip
    home.feed("edgeq/gw/health", json.dumps(known).encode())
    states = {name: home.named(name).state for name in home.names}
    assert states == {
        "Lag": "5", "Dead letters": "1", "Messages": "0.5", "Contracts violated": "2", "Store": "on", "Clock": "off",
        "Disk free": "7", "Temperature": "48", "Queue default": "3", "Queue a.b-c_d": "3",
    }  # fmt: skip
    unread = dict.fromkeys(known) | {"store": {"ok": False, "reason": ""}}
    home.feed("edgeq/gw/health", json.dumps(unread).encode())
    states = {name: home.named(name).state for name in home.names}
    assert {*states.values()} == {"unknown", "on"}, states
    assert home.named("Lag").attributes == {}


# What is remembered


@pytest.fixture
def memory(store: Store, session: FakeSession) -> Memory:
    return Memory(store, "presence_test", Publisher(session.real, Clock()))


async def test_what_is_not_wanted_any_more_is_cleared_once(memory: Memory, store: Store, session: FakeSession) -> None:
    two = {"cmps": {"a": {"p": "sensor"}, "b": {"p": "binary_sensor"}}}
    await memory.publish({"ha/x": two}, [("t/1", b"1"), ("t/2", b"2")])
    assert [topic for topic, _ in session.sent] == ["ha/x", "t/1", "t/2"]
    session.sent.clear()
    await memory.publish({"ha/x": {"cmps": {"a": {"p": "sensor"}}}}, [("t/1", b"1")])
    removed, left, kept, cleared = session.sent
    assert json.loads(removed[1])["cmps"] == {"a": {"p": "sensor"}, "b": {"p": "binary_sensor"}}
    assert json.loads(left[1])["cmps"] == {"a": {"p": "sensor"}}
    assert (kept, cleared) == (("t/1", b"1"), ("t/2", b""))
    session.sent.clear()
    await memory.publish({}, [])
    assert sorted(session.sent) == [("ha/x", b""), ("t/1", b"")]
    session.sent.clear()
    await memory.publish({}, [])
    assert not session.sent


async def test_what_a_crash_cut_short_is_done_by_the_next_start(
    memory: Memory, store: Store, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.publish({}, [("t/1", b"1")])

    async def crash(topic: str, *_: object, **__: object) -> int:
        raise KeyboardInterrupt(topic)

    with monkeypatch.context() as crashing:
        crashing.setattr(session, "publish", crash)
        with pytest.raises(KeyboardInterrupt):
            await memory.publish({}, [("t/2", b"2")])
    session.sent.clear()
    again = Memory(store, "presence_test", Publisher(session.real, Clock()))
    await again.publish({}, [("t/3", b"3")])
    assert session.sent == [("t/3", b"3"), ("t/1", b""), ("t/2", b"")]


async def test_nothing_is_written_while_nothing_changes(
    memory: Memory, store: Store, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.publish({}, [("t/1", b"1")])
    written = counted(store, monkeypatch, "submit", "submit_lazily")
    await memory.publish({}, [("t/1", b"2")])
    assert not written
    assert session.sent[-1] == ("t/1", b"2")


async def test_what_a_broker_refuses_is_said_once(
    memory: Memory, session: FakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    session.refuses = True
    await memory.publish({}, [(f"t/{number}", b"1") for number in range(300)])
    assert len([record for record in caplog.records if "not authorised" in record.message]) == 1
