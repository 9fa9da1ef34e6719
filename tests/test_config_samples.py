"""The files in `config/` do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from support.mosquitto import Mosquitto, Peer
from support.sample import FOLDER, SAMPLE, uncommented_in

from edgeq.clock import Clock
from edgeq.config import schema
from edgeq.config.load import load
from edgeq.config.schema import Config, LoadedConfig
from edgeq.config.section import Section
from edgeq.contracts import KINDS
from edgeq.errors import Problem
from edgeq.notifications.channels import KINDS as CHANNEL_KINDS
from edgeq.plan import make_plan
from edgeq.telemetry.metrics import Metrics

EXAMPLES = sorted((FOLDER / "examples").glob("*.yaml"))


@pytest.fixture
def uncommented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    """The sample with every key of it in use; its TLS wants another URL than the default, its jobs an app."""
    path = uncommented_in(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("greenhouse", "greenhouse.jobs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return load(str(path), environ={}, overrides={"mqtt.url": "mqtts://localhost:8883"})


def test_the_sample_as_it_is_changes_nothing() -> None:
    assert load(str(SAMPLE), environ={}).config == Config()


def test_the_sample_loads_with_every_key_in_use(uncommented: LoadedConfig) -> None:
    config = uncommented.config
    assert [route.topic for route in config.routes] == ["sensors/{device}/{metric}", "doors/{door}/state"]
    assert {section.data["kind"] for section in config.contracts} == {*KINDS}
    assert {section.data["kind"] for section in config.channels.values()} == {*CHANNEL_KINDS}
    assert config.mqtt.password == "x"


def test_the_sample_gives_the_defaults(uncommented: LoadedConfig) -> None:
    def differences(record: Any, default: Any) -> set[str]:
        return {name for name in record.__struct_fields__ if getattr(record, name) != getattr(default, name)}

    config = uncommented.config
    examples = {"gateway", "client_id", "username", "password", "tls", "group", "url", "path", "requests", "discovery"}
    assert differences(config.mqtt, schema.Mqtt()) <= examples
    assert differences(config.store, schema.Store()) == {"backup", "retention"}
    assert differences(config.store.retention, schema.Retention()) == {"max_rows"}
    assert config.store.backup == schema.Backup("/media/usb/edgeq")
    assert differences(config.app, schema.App()) <= examples
    assert differences(config.log, schema.Log()) == set()
    assert differences(config.jobs.queues["default"], schema.Queue()) == {"rate", "memory_max", "context"}
    assert differences(config.jobs, schema.Jobs()) == {"queues", "concurrency", "breakers"}
    assert config.jobs.breakers == {"crm": schema.Breaker()}
    schedule = schema.Schedule(name="nightly-report", job="greenhouse.jobs:Report")
    assert differences(config.schedules[0], schedule) == {"cron", "timezone", "args"}
    route = config.routes[0]
    assert differences(route, schema.Route(topic=route.topic)) == {
        "emit", "subject", "tags", "occurred_at", "dedup", "limit"
    }  # fmt: skip
    assert config.notifications.heartbeat == schema.Heartbeat("https://hc.example.net/0a1b2c")
    problems: list[Problem] = []
    on_error = Section("on_error", config.processors["sentinel"].data["on_error"])
    assert on_error.read(schema.OnError, problems) == schema.OnError()


STATIONS = ("edgeq.config.", "edgeq.contracts.", "edgeq.forward.", "edgeq.notifications.", "edgeq.processors.")


def records(base: type[Any]) -> set[type[Any]]:
    """All records of the configuration that are imported by now."""
    below = {each for each in base.__subclasses__() if each.__module__.startswith(STATIONS)}
    return below.union(*map(records, below))


def test_the_sample_explains_every_key(uncommented: LoadedConfig) -> None:
    plan(uncommented)  # imports all kinds that there are
    fields = {field.encode_name for record in records(schema.Record) for field in msgspec.structs.fields(record)}
    text = SAMPLE.read_text()
    assert {name for name in fields if not re.search(rf"(?m)(^ *|# ?|- |{{|, ){name}(_file)?: ?", text)} == set()
    assert {"of", "retain", "headers", "within", "batch_size"} <= fields


def test_the_sample_can_run(uncommented: LoadedConfig) -> None:
    plan(uncommented)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_can_run(path: Path) -> None:
    loaded = load(str(path), environ={})
    plan(loaded)
    config = loaded.config
    assert config.routes
    assert config.contracts
    assert {section.data["kind"] for section in config.processors.values()} == {"sentinel", "courier"}


def test_there_are_three_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["cold-chain", "greenhouse", "machine-shop"]


def plan(loaded: LoadedConfig) -> None:
    """Raises ConfigError when the parts of edgeq find something wrong with what they were given."""

    async def publish(*_: Any, **__: Any) -> None: ...

    make_plan(loaded, publish=publish, clock=Clock(), metrics=Metrics())


Brokers = Callable[..., Mosquitto]


@pytest.fixture
def broker(mosquitto: Brokers, tmp_path: Path) -> Mosquitto:
    """A mosquitto with the settings of `config/mosquitto/`, its files in a folder of the test, and its port free."""
    users = tmp_path / "edgeq.passwd"
    for option, name in (("-c", "edgeq"), ("", "bed-1"), ("", "homeassistant")):
        arguments = [
            argument for argument in ("mosquitto_passwd", "-b", option, str(users), name, "secret") if argument
        ]
        subprocess.run(arguments, check=True)
    text = (FOLDER / "mosquitto" / "edgeq.conf").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert "listener 1883 127.0.0.1" in lines
    lines.remove("listener 1883 127.0.0.1")  # the fixture has its own
    moved = [line.replace("/etc/mosquitto/edgeq.acl", str(FOLDER / "mosquitto" / "edgeq.acl")) for line in lines]
    return mosquitto(*(line.replace("/etc/mosquitto", str(tmp_path)) for line in moved))


def test_mosquitto_keeps_a_long_queue_over_a_restart(broker: Mosquitto) -> None:
    count = 1500  # mosquitto's default is to drop all beyond 1000
    session = paho.Client(CallbackAPIVersion.VERSION2, client_id="edgeq-g", clean_session=False)
    session.username_pw_set("edgeq", "secret")
    subscribed: list[bool] = []
    received: list[bytes] = []
    session.on_subscribe = lambda *_: subscribed.append(True)
    session.on_message = lambda _client, _data, message: received.append(bytes(message.payload))
    session.connect("127.0.0.1", broker.port)
    session.subscribe("sensors/#", 1)
    until(session, lambda: bool(subscribed))
    session.disconnect()
    with Peer(broker.port, username="bed-1", password="secret") as sensor:
        sensor.publish_many([("sensors/bed-1/t", str(number)) for number in range(count)])
    broker.restart()
    session.connect("127.0.0.1", broker.port)
    until(session, lambda: len(received) >= count)
    session.disconnect()
    assert received == [str(number).encode() for number in range(count)]


def test_mosquitto_lets_nobody_do_what_isnt_theirs(broker: Mosquitto) -> None:
    with Peer(broker.port, "#", username="edgeq", password="secret") as edgeq:
        with Peer(broker.port, username="bed-1", password="secret") as sensor:
            sensor.publish("sensors/bed-2/t", "1")
            sensor.publish("edgeq/g/status", "1")
            sensor.publish("sensors/bed-1/t", "1")
        edgeq.publish("edgeq/g/status", "online")
        edgeq.wait(lambda: len(edgeq.messages) >= 2)
        assert edgeq.seen == [("sensors/bed-1/t", b"1"), ("edgeq/g/status", b"online")]
    with Peer(broker.port, "#", username="homeassistant", password="secret") as home:
        with Peer(broker.port, username="edgeq", password="secret") as edgeq:
            home.publish("edgeq/g/state", "offline")
            home.publish("edgeq/g/request/emit", "{}")
            edgeq.publish_many([("homeassistant/status", "offline"), ("sensors/bed-1/t", "2")])
            edgeq.publish_many([("homeassistant/device/edgeq_g/config", "{}"), ("edgeq/g/contracts/cold", "{}")])
            home.publish("homeassistant/status", "online")
        home.wait(lambda: len(home.messages) >= 3)
        assert [topic for topic, _ in home.seen] == [
            "homeassistant/device/edgeq_g/config", "edgeq/g/contracts/cold", "homeassistant/status"
        ]  # fmt: skip
    client = paho.Client(CallbackAPIVersion.VERSION2)
    refused: list[str] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: refused.append(str(reason))
    client.connect("127.0.0.1", broker.port)
    until(client, lambda: bool(refused))
    assert refused == ["Not authorized"]


def until(client: paho.Client, condition: Callable[[], bool]) -> None:
    """Run the client until `condition` holds; the test's own time limit ends it otherwise."""
    while not condition():
        client.loop(0.1)
