"""Whatever is asked over MQTT is answered once, in JSON, and is never a dead letter or a defect."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import JSON, damaged, fuzz
from support.intake import running
from support.packets import variable
from support.stores import Database

from edgeq import Job
from edgeq.clock import Clock
from edgeq.config.schema import Config, Mqtt
from edgeq.intake.table import RouteTable
from edgeq.requests import TABLE, Means, request_routes
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until

BELOW = "edgeq/gw/response/"


class Fuzzed(Job):
    """What is dispatched."""

    text: str = ""
    number: int = 0
    share: float = 0.0
    flag: bool | None = None

    async def handle(self, ctx: Any) -> None:
        """Nothing."""


KIND = f"{Fuzzed.__module__}:Fuzzed"
WORDS = st.sampled_from(
    ["", "a", KIND, "default", "courier", "intake", "1h", "0s", "-1s", "1e9d", "999999999999d", "high", "*", "a\0b",
     "é" * 600, "x" * 5000, "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "%", "'; DROP TABLE events; --", "../..",
     "\u202e"]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, 1e300, True])
VALUES = WORDS | NUMBERS | JSON | st.lists(WORDS | NUMBERS, max_size=3)
GOOD: dict[str, list[dict[str, Any]]] = {
    "ack": [{"contract": "cold", "subject": "a", "by": "me"}, {"notification": 1, "comment": "c"}],
    "dispatch": [
        {"job": KIND, "args": {"text": "a", "number": 1, "flag": None}, "delay": "1h", "unique_key": "k"},
        {"job": KIND, "args": {"share": 0.5}, "run_at": "2026-01-01T00:00:00Z", "priority": "high", "expires": "1h"},
    ],
    "emit": [
        {"type": "a", "subject": "s", "data": {"v": 1}, "tags": ["t"], "occurred_at": 1.5, "idempotency_key": "k"}
    ],
    "health": [{}],
    "processors": [{"pause": "courier"}, {"resume": "courier"}],
    "queues": [{"pause": "default"}, {"resume": "default"}],
    "redrive": [{"ids": [1, 2]}, {"source": "intake", "reason": "undecodable"}],
    "silence": [{"match": {"contract": "c*", "severity": ["warning"]}, "for": "1h", "comment": "c"}, {"expire": 1}],
    "status": [{}],
}


def fields(name: str) -> list[str]:
    model = importlib.import_module(f"edgeq.requests.{TABLE[name]}").KIND.model
    return [field.encode_name for field in msgspec.structs.fields(model)]


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A request's name, payload and MQTT properties."""
    name = draw(st.sampled_from([*TABLE, "emit", "dispatch", "silence"]))
    values = {**draw(st.sampled_from(GOOD[name])), "transaction": draw(JSON)}
    for field in draw(st.lists(st.sampled_from([*values, *fields(name)]), max_size=2)):
        inside = values.get(field)
        if isinstance(inside, dict) and draw(st.booleans()):
            values[field] = {**inside, draw(st.sampled_from([*inside, "nix"])): draw(VALUES)}
        else:
            values[field] = draw(VALUES)
    payload = msgspec.json.encode(values)
    if draw(st.integers(0, 5)) == 0:
        payload = draw(damaged(st.just(payload)))
    asked_for = draw(st.sampled_from([name] * 9 + ["NIX", "é" * 50]))
    return asked_for, payload, draw(st.just(b"") | PROPERTIES)


RESPONSE = st.sampled_from(
    [BELOW + "me", BELOW, BELOW + "+", "$SYS/x", "siren/set", "edgeq/gw/state", BELOW + "a\x07", ""]
)
PROPERTIES = (
    st.just(b"")
    | RESPONSE.map(str.encode).map(lambda topic: b"\x08" + len(topic).to_bytes(2, "big") + topic)
    | st.integers(0, 1200).map(lambda size: b"\x09" + size.to_bytes(2, "big") + b"c" * size)
    | st.integers(0, 2**28 - 1).map(lambda number: b"\x0b" + variable(number))
    | st.binary(max_size=12)
)


async def look() -> dict[str, Any]:
    """How it is."""
    return {"fine": True}


@fuzz(6, shrink=False)
@given(requests=st.lists(asked(), min_size=20, max_size=80))
def test_every_request_is_answered(
    database: Database, caplog: pytest.LogCaptureFixture, requests: list[tuple[str, bytes, bytes]]
) -> None:
    ask(database, caplog, requests)


def test_a_text_that_no_database_takes_is_refused(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    requests = []
    for name, examples in GOOD.items():
        for example in examples:
            fields = [field for field, value in example.items() if isinstance(value, str)]
            requests += [(name, {**example, field: "a\0b", "transaction": field}) for field in fields]
    answers = ask(database, caplog, [(name, msgspec.json.encode(values), b"") for name, values in requests])
    assert len(answers) > 15
    assert {answer["status"] for _, answer in answers} == {"error"}


def ask(
    database: Database, caplog: pytest.LogCaptureFixture, requests: list[tuple[str, bytes, bytes]]
) -> list[tuple[str, dict[str, Any]]]:
    """Each in turn; the answers, which were looked at."""
    clock, metrics = Clock(), Metrics()
    config = Config(gateway="gw", mqtt=Mqtt(requests=list(TABLE)))  # type: ignore[arg-type]
    answers: list[tuple[str, dict[str, Any]]] = []

    async def publish(topic: str, payload: bytes, *, qos: int, correlation_data: bytes | None) -> None:
        answers.append((topic, json.loads(payload)))

    async def all_of_them() -> None:
        means = Means(config, clock, metrics, {"status": look, "health": look})
        async with running(database, RouteTable(request_routes(config, means, publish)), clock=clock) as rig:
            for name, payload, properties in requests:
                before = len(answers)
                await rig.acked(rig.send(f"edgeq/gw/request/{name}", payload, properties_raw=properties))
                await until(lambda before=before: len(answers) > before, "an answer", store=rig.store)
                assert len(answers) == before + 1, (name, payload)
                check(payload, *answers[before])
            assert await rig.dead_letters() == []

    with caplog.at_level(logging.ERROR):
        asyncio.run(all_of_them())
    assert not caplog.records, caplog.text
    return answers


def check(payload: bytes, topic: str, answer: Mapping[str, Any]) -> None:
    assert topic.startswith(BELOW)
    assert not set(topic) & set("+#\x07")
    assert answer["status"] in ("ok", "error")
    assert ("data" if answer["status"] == "ok" else "error") in answer
    assert "defect" not in answer.get("error", "")
    try:
        values = json.loads(payload)
    except ValueError:
        return
    if "transaction" in answer:
        assert answer["transaction"] == values["transaction"]
