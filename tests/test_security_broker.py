"""What whoever gets at the broker can do to edgeq, without an access list and with users."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer

CONFIGURATION = """
gateway: gw
mqtt: {{url: "{url}"{more}}}
store: {{url: edgeq.db}}
routes: [{{topic: "t/{{subject}}", emit: t.reading, subject: "{{subject}}"}}]
"""
MIB = 2**20
TAKEN = "does another client use our client id 'edgeq-gw'?"

Make = Callable[..., Appliance]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes the appliance on a broker, with more keys below `mqtt`."""
    made: list[Appliance] = []

    def appliance(broker: Mosquitto, more: str = "") -> Appliance:
        made.append(Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url, more=more)))
        return made[0]

    yield appliance
    for each in made:
        each.kill()


def subjects(edgeq: Appliance) -> list[str]:
    return [row[0] for row in edgeq.sql("SELECT subject FROM events ORDER BY id")]


def test_a_stranger_can_lie_and_can_not_ask(broker: Mosquitto, make: Make) -> None:
    """Without an access list, readings and the state can be forged. Requests are off unless they are allowed."""
    edgeq = make(broker)
    edgeq.start()
    with Peer(broker.port, "edgeq/gw/#", version5=True) as stranger:
        stranger.wait(lambda: ("edgeq/gw/state", b"online") in stranger.seen)
        stranger.publish("edgeq/gw/request/emit", '{"type": "forged"}', ResponseTopic="edgeq/gw/response/emit")
        stranger.publish("edgeq/gw/state", "offline", retain=True)
        stranger.publish("t/forged", '{"value": 1}')
        edgeq.until(lambda: "forged" in subjects(edgeq), "the forged reading")
    with Peer(broker.port, "edgeq/gw/#") as other:
        other.wait(lambda: ("edgeq/gw/state", b"offline") in other.seen)
        assert not [topic for topic, _ in other.seen if "/response/" in topic]
    assert edgeq.sql("SELECT count(*) FROM events WHERE type <> 't.reading'") == [(0,)]
    assert edgeq.sql("SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_huge_message_costs_no_memory(broker: Mosquitto, make: Make) -> None:
    edgeq = make(broker)
    edgeq.start()
    with Peer(broker.port) as stranger:
        stranger.publish("t/small", '{"value": 1}')
        edgeq.until(lambda: subjects(edgeq) == ["small"], "the reading")
        before = peak_bytes(edgeq)
        stranger.publish("t/huge", bytes(64 * MIB))
        stranger.publish("t/after", '{"value": 1}')
    edgeq.until(lambda: "after" in subjects(edgeq), "what came behind it")
    assert peak_bytes(edgeq) - before < 16 * MIB
    assert edgeq.sql("SELECT reason, length(payload) FROM dead_letters") == [("too_large", 4096)]


def peak_bytes(edgeq: Appliance) -> int:
    """The most memory that it ever had."""
    assert edgeq.process is not None
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{edgeq.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("safe", [False, True], ids=["by client id", "use_username_as_clientid"])
def test_a_sensor_s_login_takes_the_session_unless_names_are_users(
    mosquitto: Callable[..., Mosquitto], make: Make, tmp_path: Path, safe: bool
) -> None:
    users, rights = tmp_path / "users", tmp_path / "rights"
    for option, name in ((["-c"], "edgeq"), ([], "bed-1")):
        subprocess.run(["mosquitto_passwd", "-b", *option, str(users), name, "secret"], check=True)
    rights.write_text("user edgeq\ntopic readwrite #\npattern write t/%u\n")
    broker = mosquitto(
        "allow_anonymous false", f"password_file {users}", f"acl_file {rights}",
        *(["use_username_as_clientid true"] if safe else []),
    )  # fmt: skip
    edgeq = make(broker, ", username: edgeq, password: secret")
    edgeq.start()
    with Peer(broker.port, client_id="edgeq-gw", username="bed-1", password="secret", version5=True) as sensor:
        if safe:
            sensor.publish("t/bed-2", '{"value": 1}')  # the broker drops it without a word
            sensor.publish("t/bed-1", '{"value": 1}')
            edgeq.until(lambda: subjects(edgeq) == ["bed-1"], "the reading")
        else:
            edgeq.until(lambda: TAKEN in edgeq.log, "the log to say so")
    edgeq.until(edgeq.connected, "a connection")
    assert (TAKEN in edgeq.log) != safe
    assert ("the broker has lost our session" in edgeq.log) != safe
