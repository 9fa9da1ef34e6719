"""The built-in controllers: what one message becomes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support.intake import table_of

from edgeq.clock import Clock
from edgeq.config.schema import EmitMap, Route
from edgeq.errors import RejectedMessage
from edgeq.events import NewEvent
from edgeq.intake.context import MessageContext
from edgeq.jobs.job import Job, registry
from edgeq.mqtt.delivery import Delivery
from edgeq.store.jobs import NewJob

ARRIVED = 1_767_268_800_000_000


def handled(route: Route, payload: bytes | str, topic: str = "sensors/d-1/temperature") -> MessageContext:
    """The message's context after the built-in controllers of its only route."""
    raw = payload.encode() if isinstance(payload, str) else payload
    [(compiled, params)] = table_of([route], resolve_job=lambda name: JOBS[name]).lookup(topic).routes
    ctx = MessageContext(Clock(), Delivery(topic, raw, received_at=ARRIVED), compiled.label, params, compiled.payload)
    for controller in compiled.inline:
        controller(ctx)
    return ctx


def emitted(sent: bytes | str, /, **keys: Any) -> NewEvent:
    """The event that a route with these keys makes."""
    route = Route(**{"topic": "sensors/{device}/{metric}", "emit": "reading", **keys})
    [event] = handled(route, sent).decisions.events
    return event


def rejected(sent: bytes | str, /, **keys: Any) -> str:
    """The reason why a route with these keys doesn't take the payload."""
    with pytest.raises(RejectedMessage) as caught:
        emitted(sent, **keys)
    return caught.value.reason


def test_an_event_with_nothing_but_a_type() -> None:
    event = emitted('{"value": 21.50}')
    assert event == NewEvent(
        "reading",
        occurred_at=ARRIVED,
        recorded_at=ARRIVED,
        topic="sensors/d-1/temperature",
        data_json='{"value": 21.50}',
    )


def test_an_event_with_everything() -> None:
    event = emitted(
        '{"ts": 1767225600.5, "seq": 7, "v": 3}',
        emit="{metric}.reading",
        subject="{device}",
        data={"celsius": "{v}", "of": {"device": "{device}"}},
        tags=["reading", "indoor"],
        description="{device} says {payload.v}",
        occurred_at="{payload.ts}",
        dedup="{device}:{payload.seq}",
    )
    assert event == NewEvent(
        "temperature.reading",
        subject="d-1",
        occurred_at=1_767_225_600_500_000,
        recorded_at=ARRIVED,
        topic="sensors/d-1/temperature",
        data_json='{"celsius":3,"of":{"device":"d-1"}}',
        tags=("reading", "indoor"),
        description="d-1 says 3",
        idempotency_key="temperature.reading/d-1:7",
    )


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        ("21.5", '{"value":21.5}'),
        ('"on"', '{"value":"on"}'),
        ("null", '{"value":null}'),
        ("[1, 2]", '{"value":[1, 2]}'),
        (' {"a": 1.10, "a": 2}\n', ' {"a": 1.10, "a": 2}\n'),
        ("123456789012345678901234567890", '{"value":123456789012345678901234567890}'),
        ('{"n": 1.00000000000000000001}', '{"n": 1.00000000000000000001}'),
        ('{"null": "\\u0000"}', '{"null": "\\u0000"}'),
    ],
)
def test_json_is_kept_to_the_last_digit(payload: str, data: str) -> None:
    assert emitted(payload).data_json == data
    json.loads(data)


def test_text_and_raw_payloads() -> None:
    assert emitted("grün", payload="text").data_json == '{"value":"grün"}'
    assert emitted("", payload="text").data_json == '{"value":""}'
    assert emitted("{not json", payload="text", subject="{payload}").subject == "{not json"
    raw = emitted(b"\xff\0", payload="raw").data_json
    assert base64.b64decode(json.loads(raw)["base64"]) == b"\xff\0"


@pytest.mark.parametrize(
    ("payload", "keys", "reason"),
    [
        ("nonsense", {}, "undecodable"),
        (b"\xff", {}, "undecodable"),
        ("NaN", {}, "undecodable"),
        ("[" * 101 + "]" * 101, {}, "undecodable"),
        (b"\xff", {"payload": "text"}, "undecodable"),
        ("5", {"subject": "{payload.device}"}, "missing_field"),
        ("{}", {"dedup": "{payload.seq}"}, "missing_field"),
        ("{}", {"data": {"v": "{payload.v}"}}, "missing_field"),
        ('{"k": ""}', {"emit": "{payload.k}"}, "missing_field"),
        ('{"k": "a\\u0000b"}', {"subject": "{payload.k}"}, "bad_text"),
        ('{"ts": "soon"}', {"occurred_at": "{payload.ts}"}, "bad_time"),
        ('{"ts": 1e25}', {"occurred_at": "{ts}"}, "bad_time"),
        ('{"ts": null}', {"occurred_at": "{ts}"}, "bad_time"),
    ],
)
def test_what_cannot_become_an_event_is_rejected_with_a_reason(
    payload: bytes | str, keys: dict[str, Any], reason: str
) -> None:
    assert rejected(payload, **keys) == reason


@pytest.mark.parametrize(
    ("ts", "microseconds"),
    [
        ("1767225600", 1_767_225_600_000_000),
        ("1767225600250", 1_767_225_600_250_000),
        ("1767225600250000", 1_767_225_600_250_000),
        ('"2026-01-01T00:00:00.25Z"', 1_767_225_600_250_000),
    ],
)
def test_when_it_happened_in_the_forms_that_devices_use(ts: str, microseconds: int) -> None:
    assert emitted(f'{{"ts": {ts}}}', occurred_at="{payload.ts}").occurred_at == microseconds


def test_a_type_by_map() -> None:
    emit = EmitMap(map="{payload.state}", to={"open": "door.opened", "1": "door.opened", "true": "door.ok"})
    assert emitted('{"state": "open"}', emit=emit).type == "door.opened"
    assert emitted('{"state": 1}', emit=emit).type == "door.opened"
    assert emitted('{"state": true}', emit=emit).type == "door.ok"
    assert rejected('{"state": "ajar"}', emit=emit) == "unmapped"
    assert rejected('{"state": []}', emit=emit) == "missing_field"


def test_two_types_with_one_dedup_text_are_two_events() -> None:
    one, other = (emitted('{"seq": 1}', emit=kind, dedup="{payload.seq}") for kind in ("a", "b"))
    assert one.idempotency_key != other.idempotency_key


class Shot(Job):
    """A job for these tests."""

    queue = "video"
    payload: bytes
    camera: str
    topic: str = ""

    async def handle(self, ctx: Any) -> None:
        """Not run here."""


class Valve(Job):
    """Another."""

    device: str
    open: bool
    percent: int = 100

    async def handle(self, ctx: Any) -> None:
        """Not run here."""


JOBS: dict[str, type[Job]] = {"tests:Shot": Shot, "tests:Valve": Valve}


def dispatched(sent: bytes | str, /, **keys: Any) -> NewJob:
    [job] = handled(Route(**{"topic": "sensors/{device}/+", **keys}), sent).decisions.jobs
    return job


def test_a_job_gets_the_parameters_of_the_topic_and_the_fields_of_the_payload() -> None:
    job = dispatched('{"open": true, "device": "from the payload", "unknown": 1}', dispatch="tests:Valve")
    made = registry[job.kind].decode(job.args)
    assert made == Valve(device="d-1", open=True, percent=100)
    assert (job.created_at, job.run_at) == (ARRIVED, ARRIVED)


def test_a_job_gets_the_payload_itself() -> None:
    job = dispatched(b"\xff\xd8\0", dispatch="tests:Shot", topic="sensors/{camera}/temperature", payload="raw")
    made = registry[job.kind].decode(job.args)
    assert made == Shot(payload=b"\xff\xd8\0", camera="d-1", topic="sensors/d-1/temperature")
    assert job.queue == "video"


@pytest.mark.parametrize(
    ("payload", "dispatch", "reason"),
    [
        ('{"open": "yes"}', "tests:Valve", "bad_arguments"),
        ("{}", "tests:Valve", "bad_arguments"),
        ("5", "tests:Valve", "bad_arguments"),
        ('{"open": true, "percent": 1.5}', "tests:Valve", "bad_arguments"),
        ("nonsense", "tests:Valve", "undecodable"),
    ],
)
def test_what_does_not_fit_the_job_is_rejected(payload: str, dispatch: str, reason: str) -> None:
    with pytest.raises(RejectedMessage) as caught:
        dispatched(payload, dispatch=dispatch)
    assert caught.value.reason == reason
    assert reason != "bad_arguments" or str(caught.value).startswith("job Valve: ")


def test_arguments_too_large_for_a_job_are_rejected() -> None:
    with pytest.raises(RejectedMessage) as caught:
        dispatched(bytes(10**6), dispatch="tests:Shot", topic="sensors/{camera}/+", payload="raw")
    assert caught.value.reason == "bad_arguments"


def test_an_event_and_a_job_from_one_message() -> None:
    route = Route(topic="sensors/{device}/+", emit="asked", dispatch="tests:Valve")
    decisions = handled(route, '{"open": false}').decisions
    assert [event.type for event in decisions.events] == ["asked"]
    assert [job.queue for job in decisions.jobs] == ["default"]
