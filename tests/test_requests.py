"""What may be asked by a message, on a real broker: every request does what it says, and whatever is sent is answered.
`ack` has tests of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer, find_mosquitto

from edgeq.requests import TABLE, look
from edgeq.requests.answers import ANSWERS_MAX

CONFIGURATION = """
gateway: gw
mqtt: {{url: "{url}", requests: [{requests}]}}
store: {{url: edgeq.db}}
app: {{path: ., modules: [asked]}}
routes: [{{topic: "t/{{subject}}", emit: t.reading, subject: "{{subject}}"}}]
channels: {{box: {{kind: inbox}}}}
"""
MODULE = """
from edgeq import Job

class Note(Job):
    text: str = ""
    number: int = 0

    async def handle(self, ctx):
        ctx.emit("noted", data={"text": self.text})
"""


class Asker:
    """One appliance, and who asks it."""

    def __init__(self, edgeq: Appliance, peer: Peer) -> None:
        self.edgeq = edgeq
        self.peer = peer
        self._number = 0

    def answers(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload in self.peer.seen if topic == f"edgeq/gw/response/{name}"]

    def ask(self, request: str, payload: Any, answered: str = "", **properties: Any) -> dict[str, Any]:
        """The answer to what is asked with this payload, which comes to `answered`."""
        answered = answered or request
        count = len(self.answers(answered))
        text = payload if isinstance(payload, bytes) else json.dumps(payload)
        self.peer.publish(f"edgeq/gw/request/{request}", text, **properties)
        self.peer.wait(lambda: len(self.answers(answered)) > count)
        return self.answers(answered)[count]

    def done(self, request: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The data of the answer, which is that it is done."""
        self._number += 1
        answer = self.ask(request, {**payload, "transaction": self._number})
        assert answer["status"] == "ok", answer
        assert answer["transaction"] == self._number
        data: dict[str, Any] = answer["data"]
        return data

    def refused(self, request: str, payload: Any) -> str:
        """Why it is not done."""
        answer = self.ask(request, payload)
        assert answer["status"] == "error", answer
        return str(answer["error"])


@pytest.fixture(scope="module", params=[True, False], ids=["5", "3.1.1"])
def asker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """One for all tests; each looks at what it has done itself."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto isn't installed: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("requests")
    broker = Mosquitto(folder / "mosquitto", "max_queued_messages 0", "max_inflight_messages 0")
    broker.start()
    edgeq = Appliance(folder, CONFIGURATION.format(url=broker.url, requests=", ".join(TABLE)))
    if not request.param:
        edgeq.configure((folder / "edgeq.yaml").read_text().replace("mqtt: {", 'mqtt: {version: "3.1.1", '))
    (folder / "asked.py").write_text(MODULE)
    try:
        edgeq.start()
        with Peer(broker.port, "edgeq/gw/response/#", version5=request.param) as peer:
            yield Asker(edgeq, peer)
        assert not edgeq.sql("SELECT * FROM dead_letters WHERE topic LIKE 'edgeq/%'")
        assert "defect" not in edgeq.log
    finally:
        edgeq.kill()
        broker.kill()


def test_every_request_is_tested_here_or_with_acknowledging(asker: Asker) -> None:
    assert TABLE.keys() == {
        "ack", "dispatch", "emit", "health", "processors", "queues", "redrive", "silence", "status"
    }  # fmt: skip


def test_status_and_health_say_how_it_is(asker: Asker) -> None:
    status, health = asker.done("status", {}), asker.done("health", {})
    assert status["gateway"] == "gw"
    assert status["pid"] == asker.edgeq.status()["pid"]
    assert health["store"]["ok"] is True
    assert health["processors"]["courier"]["lag_events"] == 0


def test_an_event_by_hand(asker: Asker) -> None:
    asked = {"type": "door.opened", "subject": "north", "data": {"a": [1]}, "tags": ["x"], "idempotency_key": "k1"}
    done = asker.done("emit", {**asked, "occurred_at": "2026-01-01T00:00:00Z", "description": "by hand"})
    assert done["stored"] is True
    row = asker.edgeq.sql(
        "SELECT type, subject, data, tags, description, occurred_at FROM events WHERE id = ?", done["id"]
    )
    assert row == [("door.opened", "north", '{"a":[1]}', '["x"]', "by hand", 1_767_225_600_000_000)]
    assert asker.done("emit", asked) == {"stored": False, "id": None}
    assert "occurred_at" in asker.refused("emit", {**asked, "occurred_at": True})
    assert "is no time" in asker.refused("emit", {**asked, "occurred_at": "soon"})
    assert "null character" in asker.refused("emit", {"type": "a\0b"})


def test_a_job_by_hand(asker: Asker) -> None:
    done = asker.done("dispatch", {"job": "asked:Note", "args": {"text": "hello"}, "unique_key": "u"})
    asker.edgeq.until(lambda: asker.edgeq.sql("SELECT data FROM events WHERE type = 'noted'"), "the job")
    assert done["existed"] is False
    later = asker.done("dispatch", {"job": "asked:Note", "delay": "1h", "queue": "default", "priority": "high"})
    assert asker.edgeq.sql("SELECT state FROM jobs WHERE id = ?", later["id"]) == [("scheduled",)]
    assert "there is no job os:system" in asker.refused("dispatch", {"job": "os:system", "args": {}})
    assert "no argument 'nix'" in asker.refused("dispatch", {"job": "asked:Note", "args": {"nix": 1}})
    assert "number" in asker.refused("dispatch", {"job": "asked:Note", "args": {"number": "x"}})
    assert "don't go together" in asker.refused("dispatch", {"job": "asked:Note", "delay": "1h", "run_at": 1})
    assert "is not a duration" in asker.refused("dispatch", {"job": "asked:Note", "delay": "later"})
    assert "max_attempts" in asker.refused("dispatch", {"job": "asked:Note", "max_attempts": -1})


def test_dead_letters_get_another_chance(asker: Asker) -> None:
    asker.peer.publish_many([("t/a", "no JSON"), ("t/b", "nor this")])
    query = (
        "SELECT id FROM dead_letters WHERE redriven_at IS NULL AND redrive_requested_at IS NULL AND topic LIKE 't/%'"
    )
    asker.edgeq.until(lambda: len(asker.edgeq.sql(query)) == 2, "the dead letters")
    ids = [row[0] for row in asker.edgeq.sql(query)]
    assert asker.done("redrive", {"ids": ids[:1]}) == {"to_be_redriven": 1, "more": False}
    asker.edgeq.until(lambda: f"redrive of dead letter {ids[0]} failed" in asker.edgeq.log, "the redrive")
    asker.edgeq.until(lambda: len(asker.edgeq.sql(query)) == 2, "the request to be taken back")
    assert asker.done("redrive", {"source": "intake", "reason": "undecodable"})["to_be_redriven"] == 2
    assert asker.refused("redrive", {"source": "nowhere"}) == "no dead letter fits"
    assert asker.refused("redrive", {"ids": [2**62]}) == "no dead letter fits"
    for wrong in ({}, {"ids": []}, {"ids": [0]}, {"ids": [1], "source": "intake"}, {"ids": [1] * 1001}, {"ids": "all"}):
        assert asker.refused("redrive", wrong)


def test_processors_and_queues_pause_and_resume(asker: Asker) -> None:
    assert asker.done("processors", {"pause": "courier"}) == {"processor": "courier", "paused": True}
    assert asker.edgeq.sql("SELECT paused FROM cursors WHERE processor = 'courier'") == [(1,)]
    assert asker.done("processors", {"resume": "courier"})["paused"] is False
    assert asker.edgeq.sql("SELECT paused FROM cursors WHERE processor = 'courier'") == [(0,)]
    assert "no processor 'nobody'" in asker.refused("processors", {"pause": "nobody"})
    assert asker.done("queues", {"pause": "default"}) == {"queue": "default", "paused": True}
    assert asker.edgeq.sql("SELECT paused FROM queues WHERE name = 'default'") == [(1,)]
    assert asker.done("queues", {"resume": "default"})["paused"] is False
    assert "no queue 'nix'" in asker.refused("queues", {"pause": "nix"})
    for name in ("processors", "queues"):
        assert "either pause or resume" in asker.refused(name, {})
        assert "either pause or resume" in asker.refused(name, {"pause": "a", "resume": "b"})


def test_something_is_silenced_for_a_while(asker: Asker) -> None:
    asked = {"match": {"contract": "freezer-*"}, "for": "2h", "comment": "defrosting", "by": "panel"}
    done = asker.done("silence", asked)
    row = asker.edgeq.sql(
        "SELECT match, ends_at - starts_at, comment, created_by FROM silences WHERE id = ?", done["id"]
    )
    assert row == [('{"contract":"freezer-*"}', 7_200_000_000, "defrosting", "panel")]
    assert asker.done("silence", {"expire": done["id"]}) == {"expired": done["id"]}
    assert "that isn't over" in asker.refused("silence", {"expire": done["id"]})
    for wrong, why in (
        ({}, "either match or expire"),
        ({**asked, "for": None}, "needs for"),
        ({**asked, "comment": ""}, "a comment"),
        ({**asked, "for": "ever"}, "ever"),
        ({**asked, "for": "0s"}, "between 1s"),
        ({**asked, "for": "999d"}, "366d"),
        ({**asked, "match": {"nix": 1}}, "nix"),
        ({**asked, "match": {"severity": "loud"}}, "severity"),
    ):
        assert why in asker.refused("silence", wrong), wrong


@pytest.mark.parametrize("name", [name for name in TABLE if name != "ack"])
@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"[]", b"null", b'"x"', b"[" * 15_000, b'{"a":' * 5_000, b"{}" + b" " * 300_000, b'{"nix": 1}',
     b'{"transaction": "' + b"t" * 2000 + b'"}', b'{"type": 1, "job": 2, "match": 3, "pause": 4, "ids": 5}',
     b'{"data": ' + b"[" * 200 + b"]" * 200 + b', "type": "deep"}'],
)  # fmt: skip
def test_nonsense_is_answered(asker: Asker, name: str, payload: bytes) -> None:
    assert asker.refused(name, payload)


@pytest.mark.parametrize("name", ["nix", "ACK", "ack ", "a" * 100, "é", "$SYS"])
def test_what_there_is_not_is_answered(asker: Asker, name: str) -> None:
    answered = name if name == "nix" else "unknown"
    answer = asker.ask(name, {"transaction": 7}, answered)
    assert answer["error"].startswith("there is no request")
    assert answer["transaction"] == 7


def test_a_retained_request_is_passed_over(asker: Asker) -> None:
    asker.ask("emit", {"type": "retained"}, retain=True)  # edgeq is there, so it comes as any other
    before = len(asker.answers("emit"))
    asker.edgeq.stop()
    asker.edgeq.start()
    asker.done("health", {})
    assert len(asker.answers("emit")) == before
    asker.peer.publish("edgeq/gw/request/emit", b"", retain=True)


def test_a_flood_stops_nothing_and_is_bounded(asker: Asker) -> None:
    names = [*TABLE, "nix"] * (5 * ANSWERS_MAX)
    asker.peer.publish_many([(f"edgeq/gw/request/{name}", '{"transaction": "flood"}') for name in names])
    asker.peer.publish("t/after", '{"value": 1}')
    asker.edgeq.until(lambda: asker.edgeq.sql("SELECT * FROM events WHERE subject = 'after'"), "the reading")

    def accounted() -> bool:
        lost = asker.edgeq.status()["counters"]["edgeq_messages_dropped_total"].get("answer", 0)
        answered = sum(1 for _, payload in asker.peer.seen if b'"transaction":"flood"}' in payload)
        return answered + lost == len(names)

    asker.edgeq.until(accounted, "every request to be answered, or its answer to be counted as lost")
    assert asker.done("emit", {"type": "after.the.flood"})["stored"]


def test_an_answer_goes_where_the_request_wants_it(asker: Asker) -> None:
    if not asker.edgeq.folder.joinpath("edgeq.yaml").read_text().count("3.1.1"):
        answer = asker.ask(
            "emit",
            {"type": "a"},
            "emit/panel-7",
            ResponseTopic="edgeq/gw/response/emit/panel-7",
            CorrelationData=b"\x00c",
        )
        assert answer["status"] == "ok"
        message = asker.peer.messages[-1]
        assert message.properties.CorrelationData == b"\x00c"
        for topic in ("siren/set", "edgeq/gw/state", "edgeq/gw/response"):
            before = asker.edgeq.sql("SELECT count(*) FROM events WHERE type = 'elsewhere'")
            answer = asker.ask("emit", {"type": "elsewhere"}, ResponseTopic=topic, CorrelationData=b"c")
            assert "response topic" in answer["error"]
            assert asker.edgeq.sql("SELECT count(*) FROM events WHERE type = 'elsewhere'") == before
        assert "correlation" in asker.ask("emit", {"type": "a"}, CorrelationData=b"c" * 2000)["error"]


def test_an_answer_is_bounded_and_says_where_it_was_cut() -> None:
    found = {"gateway": "gw", "routes": [{"topic": "t" * 1000, "number": number} for number in range(5000)]}
    cut = look.bounded(found)
    assert len(json.dumps(cut)) < look.ANSWER_BYTES_MAX
    assert cut["gateway"] == "gw"
    assert cut["cut"] == len(cut["routes"]) == 100
    assert look.bounded({"routes": [1]}) == {"routes": [1]}
    assert look.bounded({str(number): "x" * 300 for number in range(10_000)}) == {"cut": 0}
