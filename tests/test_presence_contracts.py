"""Contracts on the broker and in Home Assistant: what is shown follows what is told, and nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.homeassistant import HomeAssistant
from support.mosquitto import Mosquitto, Peer
from support.postgres import Postgres
from support.stores import PostgresDatabase

BASE = """
gateway: gw
mqtt: {{url: "{url}", discovery: homeassistant{mqtt}}}
{store}
routes: [{{topic: "t/{{subject}}", emit: t.reading, subject: "{{subject}}"}}]
contracts: [{contracts}]
"""
COLD = "{name: cold, kind: threshold, of: t.reading, field: value, above: 5, severity: critical}"
ODD = '{name: "heiß/Küche", kind: threshold, of: t.reading, field: humidity, above: 80}'
FAST = "{name: rises, kind: stuck, of: t.reading, field: value, for: 1h}"


def configuration(broker: Mosquitto, *contracts: str, mqtt: str = "", store: str = "store: {url: edgeq.db}") -> str:
    return BASE.format(url=broker.url, contracts=", ".join(contracts), mqtt=mqtt, store=store)


class Home:
    """Home Assistant at a broker, which it can ask what it shows."""

    def __init__(self, broker: Mosquitto, prefix: str = "homeassistant") -> None:
        self.peer = Peer(broker.port, "edgeq/#", f"{prefix}/#")
        self._prefix = prefix

    @property
    def now(self) -> HomeAssistant:
        made = HomeAssistant(self._prefix)
        for topic, payload in self.peer.seen:
            made.feed(topic, payload)
        return made

    def until(self, condition: Callable[[HomeAssistant], bool]) -> HomeAssistant:
        """What it shows once `condition` holds."""

        def holds() -> bool:
            try:
                return condition(self.now)
            except (KeyError, ValueError):  # not there yet
                return False

        self.peer.wait(holds)
        return self.now

    def born_again(self) -> None:
        """It starts anew: what it knew it knows no more."""
        self.peer.messages.clear()
        self.peer.publish(f"{self._prefix}/status", "online")


@pytest.fixture
def home(broker: Mosquitto) -> Iterator[Home]:
    made = Home(broker)
    with made.peer:
        yield made


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    made = Appliance(tmp_path, configuration(broker, COLD, ODD))
    yield made
    made.kill()


def shows(name: str, state: str) -> Callable[[HomeAssistant], bool]:
    return lambda home: home.named(name).state == state


def kept(broker: Mosquitto) -> set[str]:
    """The topics of which the broker keeps something, but for those that every gateway has."""
    with Peer(broker.port, "edgeq/#", "homeassistant/#", "end") as peer:
        peer.publish("end", "end")
        peer.wait(lambda: ("end", b"end") in peer.seen)  # behind it may come what is published meanwhile
        return {topic for topic, _ in peer.seen[: peer.seen.index(("end", b"end"))] if topic.count("/") > 2}


def test_contracts_are_shown_as_they_are_told(edgeq: Appliance, home: Home) -> None:
    edgeq.start()
    shown = home.until(lambda home: {home.named(name).state for name in ("cold", "heiß/Küche")} == {"off"})
    assert shown.named("cold").device["identifiers"] == ["edgeq_gw"]
    home.peer.publish_many([("t/f1", '{"value": 7}'), ("t/f2", '{"value": 8}'), ("t/f3", '{"value": 1}')])
    shown = home.until(lambda home: home.named("cold").attributes["violated"] == 2)
    cold = shown.named("cold")
    assert cold.state == "on"
    attributes = cold.attributes
    assert (attributes["severity"], attributes["subjects"]) == ("critical", ["f1", "f2"])
    assert attributes["message"] == "f2 value above 5 (observed 8)"
    assert (attributes["subject"], attributes["episode"]) == ("f2", 1)
    home.peer.publish("t/f2", '{"value": 1}')
    attributes = home.until(lambda home: home.named("cold").attributes["violated"] == 1).named("cold").attributes
    assert attributes["message"] == "f1 value above 5 (observed 7)", "what it says is of what still stands"
    home.peer.publish("t/f1", '{"value": 1}')
    shown = home.until(shows("cold", "off"))
    assert "message" not in shown.named("cold").attributes
    assert shown.named("heiß/Küche").state == "off"


def test_the_gateway_has_sensors_and_goes_with_it(edgeq: Appliance, home: Home) -> None:
    edgeq.start()
    home.peer.publish("t/s", "no JSON")
    shown = home.until(lambda home: home.named("Dead letters").state == "1")
    assert {"Lag", "Messages", "Store", "Clock", "Disk free", "Contracts violated", "Queue default"} <= {*shown.names}
    assert shown.named("Store").state == "off"
    assert shown.named("Store").attributes == {"ok": True, "reason": ""}
    assert shown.named("Lag").state == "0"
    assert shown.named("Lag").attributes["sentinel"]["state"] == "running"
    edgeq.kill()
    home.until(lambda home: {home.named(name).state for name in home.names} == {"unavailable"})


def test_after_a_restart_what_stood_still_stands(edgeq: Appliance, home: Home, broker: Mosquitto) -> None:
    edgeq.start()
    home.peer.publish("t/f1", '{"value": 7}')
    home.until(shows("cold", "on"))
    edgeq.kill()
    home.peer.messages.clear()
    edgeq.start()
    shown = home.until(shows("cold", "on"))
    assert shown.named("cold").attributes["message"] == "f1 value above 5 (observed 7)"
    home.peer.publish("t/f1", '{"value": 1}')
    home.until(shows("cold", "off"))


@pytest.mark.parametrize("how", ["reload", "stopped", "killed"])
def test_a_contract_that_goes_or_is_renamed_leaves_nothing(
    how: str, edgeq: Appliance, home: Home, broker: Mosquitto
) -> None:
    edgeq.start()
    home.peer.publish("t/f1", '{"value": 7}')
    home.until(shows("cold", "on"))
    edgeq.until(lambda: len(kept(broker)) == 4, "the gateway and both contracts to be there")  # each in its own time
    before = kept(broker)
    text = configuration(broker, ODD, FAST, COLD.replace("cold", "too-cold"))
    if how == "reload":
        edgeq.reload(text)
    else:
        edgeq.stop() if how == "stopped" else edgeq.kill()
        edgeq.configure(text)
        edgeq.start()
    home.until(lambda home: {"rises", "too-cold"} <= {*home.names} and "cold" not in home.names)
    after = {"edgeq/gw/contracts/rises", "edgeq/gw/contracts/too-cold"}
    edgeq.until(lambda: kept(broker) == before - {"edgeq/gw/contracts/cold"} | after, "the old topic to be cleared")
    edgeq.reload(configuration(broker).replace("contracts: []", ""))  # all go
    home.until(lambda home: "Lag" in home.names and "rises" not in home.names)
    edgeq.until(lambda: kept(broker) == {"homeassistant/device/edgeq_gw/config"}, "the topics to be cleared")


def test_without_discovery_nothing_is_left_of_it(edgeq: Appliance, home: Home, broker: Mosquitto) -> None:
    edgeq.start()
    home.until(lambda home: len(home.names) > 8 and home.named("cold").state == "off")
    edgeq.reload(configuration(broker, COLD, ODD).replace(", discovery: homeassistant", ""))
    home.until(lambda home: not home.names)
    edgeq.until(lambda: all(topic.startswith("edgeq/gw/contracts/") for topic in kept(broker)), "only the contracts")
    home.peer.publish("t/f1", '{"value": 7}')
    home.until(lambda home: json.loads(home.topics["edgeq/gw/contracts/cold"])["state"] == "violated")


def test_another_prefix_takes_the_place_of_the_first(edgeq: Appliance, home: Home, broker: Mosquitto) -> None:
    edgeq.start()
    home.until(shows("cold", "off"))
    edgeq.reload(configuration(broker, COLD, ODD).replace("discovery: homeassistant", "discovery: ha/two"))
    other = Home(broker, "ha/two")
    with other.peer:
        other.until(shows("cold", "off"))
        home.until(lambda home: not home.names)


def test_born_again_home_assistant_is_told_again(edgeq: Appliance, home: Home) -> None:
    edgeq.start()
    home.until(lambda home: home.named("cold").state == "off" and home.named("Lag").state == "0")
    home.born_again()
    home.born_again()
    home.until(lambda home: {"cold", "Lag"} <= {*home.names} and home.topics.keys() > {"edgeq/gw/contracts/cold"})
    assert edgeq.status()["counters"]["edgeq_messages_rejected_total"] == {}


@pytest.mark.parametrize("payload", ["offline", "", "online" * 1000, "\x00"])
def test_only_a_birth_is_one(edgeq: Appliance, home: Home, payload: str) -> None:
    edgeq.start()
    home.until(lambda home: home.named("cold").state == "off" and home.named("Lag").state == "0")
    home.peer.messages.clear()
    home.peer.publish("homeassistant/status", payload)
    home.peer.publish("t/f1", '{"value": 7}')
    home.peer.wait(lambda: any(topic == "edgeq/gw/contracts/cold" for topic, _ in home.peer.seen))
    assert not any(topic.endswith("/config") for topic, _ in home.peer.seen)
    assert not edgeq.sql("SELECT * FROM dead_letters")


def test_the_broker_is_told_all_again_when_it_comes_back(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto("max_inflight_messages 0")
    edgeq = Appliance(tmp_path / "edgeq", configuration(broker, COLD))
    try:
        edgeq.start()
        with Peer(broker.port, "edgeq/gw/contracts/cold") as peer:
            peer.wait(lambda: bool(peer.messages))
        broker.kill()
        (broker.folder / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        home = Home(broker)
        with home.peer:
            home.until(lambda home: home.named("cold").state == "off" and home.named("Lag").state == "0")
    finally:
        edgeq.kill()


def test_members_of_a_group_show_each_contract_once(
    tmp_path: Path, broker: Mosquitto, home: Home, postgres: Postgres
) -> None:
    database = PostgresDatabase.on(postgres)
    members = {}
    try:
        for name in ("a", "b"):
            text = configuration(broker, COLD, mqtt=", group: site", store="").replace(
                "gateway: gw", f"gateway: {name}"
            )
            members[name] = Appliance(tmp_path / name, text, on=database)
            members[name].start()
        shown = home.until(
            lambda home: (
                home.named("cold").state == "off"
                and len([name for name in home.names if name == "Lag"]) == 2
                and len(home.named("cold").availability) == 2
            )
        )
        assert shown.named("cold").device["identifiers"] == ["edgeq_site"]
        owner = owner_of(members["a"])
        other = "b" if owner == "a" else "a"
        home.peer.publish_many([("t/f1", '{"value": 7}')] * 2)
        home.until(shows("cold", "on"))
        members[owner].kill()
        members[other].until(lambda: owner_of(members[other]) == other, "the other to take over")
        home.until(lambda home: home.topics[f"edgeq/{owner}/state"] == b"offline")
        assert home.now.named("cold").state == "on", "somebody is there, and it stands as before"
        # What the broker deals to the one who is away waits for it, so some of several come.
        home.peer.publish_many([("t/f1", '{"value": 1}')] * 4)
        home.until(shows("cold", "off"))
        assert [topic for topic in kept(broker) if "/contracts/" in topic] == ["edgeq/site/contracts/cold"]
        members[other].kill()
        home.until(lambda home: home.named("cold").state == "unavailable")
    finally:
        for member in members.values():
            member.kill()
        database.drop()


def owner_of(member: Appliance) -> Any:
    places = member.status().get("processors", [])
    return next((place.get("owner") for place in places if place["name"] == "sentinel"), None)
