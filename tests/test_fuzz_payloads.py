"""Whatever a message holds, it becomes what its route says, or a dead letter, and is acknowledged."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import JSON, damaged, fuzz
from support.intake import running, table_of
from support.stores import SqliteDatabase

from edgeq.clock import Clock
from edgeq.config.schema import Route
from edgeq.errors import RejectedMessage
from edgeq.events import NESTING_MAX
from edgeq.forward import wire
from edgeq.intake.context import MessageContext
from edgeq.mqtt.delivery import Delivery

WRITTEN = JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode())
EXTREME = st.sampled_from(
    [b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 4301, b"9" * 400, b"0" * 50, b"\xef\xbb\xbf{}", b"\xed\xa0\x80",
     b'"\\ud800"', b'"\\u0000"', b'{"a":1,"a":2}', b"[" * 100_000, b'{"":' * 150 + b"1" + b"}" * 150, b"{}\n{}",
     b"[" * NESTING_MAX + b"]" * NESTING_MAX, b'"' + b"\\\\" * 50_000 + b'"', b'{"value": 1e308, "ts": -1e308}',
     b'{"value": {"__class__": {"__init__": 1}}, "ts": "9999-12-31T23:59:59.9999999+23:59"}']
)  # fmt: skip
PAYLOADS = damaged(WRITTEN) | WRITTEN | EXTREME | st.binary(max_size=40)


def decoded(payload: bytes) -> Any:
    """What edgeq reads in it; the exception when it refuses it."""
    ctx = MessageContext(Clock(), Delivery("a", payload, received_at=1), "a", {})
    try:
        return ctx.json()
    except RejectedMessage as rejected:
        return rejected


def naive(payload: bytes) -> Any:
    """The same by Python's library, which is more lenient; ValueError when that refuses it."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    value = json.loads(payload.decode(), parse_constant=refuse)
    if not sound(value):
        raise ValueError("not to be stored")
    return value


def sound(value: Any, depth: int = 0) -> bool:
    """No infinity, no half characters, no more depth than is allowed."""
    if isinstance(value, dict | list):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        return depth < NESTING_MAX and all(sound(item, depth + 1) for item in items)
    if isinstance(value, str):
        return not any("\ud800" <= sign <= "\udfff" for sign in value)
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.usefixtures("deep")
@fuzz(600)
@given(PAYLOADS)
def test_json_is_what_it_is_elsewhere(payload: bytes) -> None:
    found = decoded(payload)
    try:
        expected = naive(payload)
    except (ValueError, RecursionError):
        assert isinstance(found, RejectedMessage)
        assert found.reason == "undecodable"
    else:
        assert not isinstance(found, RejectedMessage), found
        assert found == expected


ROUTES = [
    Route(topic="plain/#", emit="plain"),
    Route(topic="text/#", emit="text", payload="text"),
    Route(
        topic="filled/{name}", emit="{name}.{payload.kind}", subject="{payload.device}", dedup="{payload.seq}",
        occurred_at="{payload.ts}", data={"v": "{value}", "all": "{payload}", "text": "{{}} {topic}"}, tags=["a"],
    ),
    Route(topic="small/{number:int}/{rest:#}", emit="small", subject="{rest}", max_payload=64),
]  # fmt: skip
FILLED = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("kind", "device", "seq", "ts", "value"), JSON)
).map(msgspec.json.encode)  # fmt: skip
LEVELS = st.text(max_size=6) | st.sampled_from(["1", "-5", "9" * 30, "{payload.kind}", "__class__", ".."])
MESSAGES = st.tuples(
    st.sampled_from(["plain", "text", "filled", "small"]), st.lists(LEVELS, min_size=1, max_size=3),
    PAYLOADS | FILLED | damaged(FILLED),
).map(lambda message: ("/".join((message[0], *message[1])), message[2]))  # fmt: skip


@fuzz(8, shrink=False)
@given(messages=st.lists(MESSAGES, min_size=20, max_size=120))
def test_every_message_is_accounted_for(tmp_path: Path, messages: list[tuple[str, bytes]]) -> None:
    async def all_of_them() -> None:
        database = SqliteDatabase(tmp_path)
        async with running(database, table_of(ROUTES)) as rig:
            before = len(await rig.events()), len(await rig.dead_letters())
            await rig.acked(*rig.send_all(messages))
            events, dead = (await rig.events())[before[0] :], (await rig.dead_letters())[before[1] :]
            passed = rig.metrics.dropped.total() + rig.metrics.duplicates.total()
            assert len(events) + len(dead) + passed == len(messages)
            sent = Counter(topic for topic, _ in messages)
            assert not Counter(each.topic for each in (*events, *dead)) - sent
            for event in events:
                route, name, *_ = f"{event.topic}".split("/")
                assert event.type.startswith(f"{name}." if route == "filled" else route)
                msgspec.json.encode(event.as_dict())
            for each in dead:
                assert each.reason in {"undecodable", "missing_field", "bad_time", "bad_text", "too_large"}

    asyncio.run(all_of_them())


SENT = st.fixed_dictionaries(
    {"type": st.text(max_size=8) | JSON},
    optional={
        "id": st.integers(-2, 2**70), "idempotency_key": JSON, "subject": JSON, "data": JSON, "tags": JSON,
        "description": JSON, "topic": JSON, "occurred_at": JSON,
    },
)  # fmt: skip
BATCH = st.fixed_dictionaries(
    {"events": st.lists(SENT, max_size=3)},
    optional={"gateway": JSON | st.just("gw"), "store": JSON | st.just("s"), "head": JSON | st.integers(0, 9)},
)
BODIES = (SENT | BATCH | st.lists(SENT, max_size=3)).map(msgspec.json.encode)


@fuzz(400)
@given(BODIES | damaged(BODIES) | st.lists(BODIES, max_size=3).map(b"\n".join) | PAYLOADS)
def test_what_is_handed_over_by_http_is_read_or_refused(body: bytes) -> None:
    try:
        read = wire.read(body, 1)
    except wire.Unreadable as refused:
        said = str(refused)
        assert said
        said.encode()
        return
    for event in read if isinstance(read, list) else read.events:
        assert event.type
        msgspec.json.decode(event.data_json)
