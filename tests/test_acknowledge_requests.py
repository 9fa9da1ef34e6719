"""`edgeq/<gateway>/request/ack` on a real broker: what is asked, what is answered, and nothing that does harm."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer

REQUEST, RESPONSE = "edgeq/gw/request/ack", "edgeq/gw/response/ack"
CONFIGURATION = """
gateway: gw
mqtt: {{url: "{url}", requests: [ack]}}
store: {{url: edgeq.db}}
channels: {{box: {{kind: inbox}}}}
notifications: {{routes: [{{channels: [box], repeat: [1h]}}]}}
routes: [{{topic: "violated/{{subject}}", controller: "violations:violated"}}]
app: {{path: .}}
"""
CONTROLLER = """
def violated(ctx, subject):
    data = {"contract": "cold", "episode": 1, "severity": "warning", "message": f"{subject} is too warm"}
    ctx.emit("contract.violated", subject=subject, data=data, tags=("notification",))
"""


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    made = Appliance(tmp_path, CONFIGURATION.format(url=broker.url))
    (tmp_path / "violations.py").write_text(CONTROLLER)
    yield made
    made.kill()


@pytest.fixture
def peer(broker: Mosquitto) -> Iterator[Peer]:
    with Peer(broker.port, RESPONSE) as made:
        yield made


def violate(edgeq: Appliance, peer: Peer, *subjects: str) -> None:
    """Have the contract violated for these subjects, and return when it is open."""
    peer.publish_many([(f"violated/{subject}", "") for subject in subjects])
    edgeq.until(lambda: edgeq.sql("SELECT count(*) FROM threads")[0][0] == len(subjects), "the threads")


def answers(peer: Peer) -> list[dict[str, Any]]:
    return [json.loads(payload) for _, payload in peer.seen]


def ask(peer: Peer, request: Any) -> dict[str, Any]:
    """Ask, and return the answer."""
    count = len(peer.messages)
    peer.publish(REQUEST, request if isinstance(request, bytes) else json.dumps(request))
    peer.wait(lambda: len(peer.messages) > count)
    return answers(peer)[count]


def recorded(edgeq: Appliance) -> list[dict[str, Any]]:
    rows = edgeq.sql("SELECT data FROM events WHERE type = 'notification.acknowledged' ORDER BY id")
    return [json.loads(data) for (data,) in rows]


def test_acknowledged_by_contract_and_subject_and_by_the_id_of_a_notification(edgeq: Appliance, peer: Peer) -> None:
    edgeq.start()
    violate(edgeq, peer, "f1", "f2", "f3")
    asked = {"contract": "cold", "subject": "f2", "by": "panel", "comment": "seen", "transaction": {"n": [7]}}
    answer = ask(peer, asked)
    assert answer["status"] == "ok"
    assert answer["transaction"] == {"n": [7]}
    assert answer["data"]["acknowledged"] == 1
    (what,) = answer["data"]["what"]
    assert (what["contract"], what["subject"], what["by"]) == ("cold", "f2", "panel")
    assert edgeq.sql("SELECT acknowledged_by, comment FROM threads WHERE acknowledged_at") == [("panel", "seen")]

    (place,) = edgeq.sql("SELECT id FROM notifications WHERE detail LIKE '%\"f1\"%'")[0]
    answer = ask(peer, {"notification": place})
    assert "transaction" not in answer
    assert answer["data"]["what"][0]["subject"] == "f1"
    answer = ask(peer, {"contract": "cold"})
    assert (answer["data"]["acknowledged"], answer["data"]["before"]) == (1, 2)
    assert [each["how"] for each in recorded(edgeq)] == ["mqtt"] * 3
    assert not edgeq.sql("SELECT * FROM dead_letters")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 15_000, "not JSON"),
        (b'{"contract": "cold"' + b" " * 20_000 + b"}", "20020 bytes"),
        (b'{"contract": "cold"' + b" " * 400_000 + b"}", "400020 bytes"),
        ([1], "no JSON object"),
        ({}, "must name either contract or notification"),
        ({"contract": "cold", "notification": 1}, "must name either"),
        ({"notification": 1, "subject": "f1"}, "subject goes with contract"),
        ({"notification": 2**70}, "can't be understood"),
        ({"notification": -1}, "can't be understood"),
        ({"notification": True}, "can't be understood"),
        ({"contract": ["cold"]}, "can't be understood"),
        ({"contract": "c" * 5000}, "can't be understood"),
        ({"contract": "cold", "forever": 1}, "forever"),
        ({"contract": "%"}, "nothing is open of it"),
        ({"contract": "'\"\\_"}, "nothing is open of it"),
        ({"contract": "\0"}, "contract has a null character"),
        ({"notification": 4711}, "nothing is open of it"),
        ({"contract": "cold", "transaction": "t" * 2000}, "transaction is longer"),
    ],
)
def test_what_makes_no_sense_is_answered(running: tuple[Appliance, Peer], request_: Any, error: str) -> None:
    edgeq, peer = running
    if isinstance(request_, dict) and "transaction" not in request_:
        request_["transaction"] = 5
    answer = ask(peer, request_)
    assert answer["status"] == "error"
    assert error in answer["error"]
    assert answer.get("transaction") == (
        5 if isinstance(request_, dict) and "t" * 2000 not in request_.values() else None
    )
    assert not edgeq.sql("SELECT * FROM dead_letters")
    assert not edgeq.sql("SELECT * FROM threads WHERE acknowledged_at")
    assert edgeq.status()["running"] is not False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Appliance, Peer]]:
    """One appliance for all that changes nothing."""
    from support.mosquitto import find_mosquitto

    if find_mosquitto() is None:
        pytest.skip("mosquitto isn't installed: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("requests")
    broker = Mosquitto(folder / "mosquitto")
    broker.start()
    edgeq = Appliance(folder, CONFIGURATION.format(url=broker.url))
    (folder / "violations.py").write_text(CONTROLLER)
    try:
        edgeq.start()
        with Peer(broker.port, RESPONSE) as peer:
            violate(edgeq, peer, "f1")
            yield edgeq, peer
    finally:
        edgeq.kill()
        broker.kill()


def test_nothing_may_be_asked_unless_the_configuration_says_so(edgeq: Appliance, peer: Peer, broker: Mosquitto) -> None:
    edgeq.configure(CONFIGURATION.format(url=broker.url).replace("requests: [ack]", "requests: []"))
    edgeq.start()
    violate(edgeq, peer, "f1")
    peer.publish(REQUEST, '{"contract": "cold"}')
    violate(edgeq, peer, "f1", "f2")  # comes behind it
    assert not edgeq.sql("SELECT * FROM threads WHERE acknowledged_at")
    assert not peer.messages


def test_a_retained_request_is_not_asked_again_at_each_start(edgeq: Appliance, peer: Peer) -> None:
    peer.publish(REQUEST, '{"contract": "cold"}', retain=True)
    edgeq.start()
    violate(edgeq, peer, "f1")  # comes behind it
    assert not edgeq.sql("SELECT * FROM threads WHERE acknowledged_at")
    ask(peer, {"contract": "cold"})
    assert len(peer.messages) == 1


@pytest.mark.parametrize("step", ["received", "handled", "committed", "acked"])
def test_killed_at_any_moment_it_is_acknowledged_once_and_answered(edgeq: Appliance, peer: Peer, step: str) -> None:
    edgeq.start()
    violate(edgeq, peer, "f1")
    edgeq.stop()
    process = edgeq.spawn(EDGEQ_FAILPOINT=f"intake.{step}:1")
    edgeq.until(edgeq.connected, "a connection")
    peer.publish(REQUEST, '{"contract": "cold", "by": "panel", "transaction": 1}')
    assert process.wait(60) == -signal.SIGKILL
    edgeq.start()
    if step == "acked":  # it is done, and who asked may ask again
        answer = ask(peer, {"contract": "cold", "by": "again", "transaction": 1})
    else:
        peer.wait(lambda: bool(peer.messages))
        answer = answers(peer)[-1]
    assert (answer["status"], answer["transaction"]) == ("ok", 1)
    assert [each["by"] for each in recorded(edgeq)] == ["panel"]
    assert answer["data"]["what"][0]["by"] == "panel"
