"""Hostile messages, and a store that can't or won't: everything is acknowledged in the end, nothing before its time."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.intake import Rig, running, table_of
from support.stores import Database, emptied

from edgeq.config.schema import EmitMap, Limit, Route
from edgeq.intake import intake
from edgeq.intake.router import Router
from edgeq.mqtt.delivery import Delivery
from edgeq.store.decisions import record
from edgeq.store.store import Tx
from edgeq.testing import until

POISON: list[tuple[bytes, dict[str, Any]]] = [
    (b"not json", {}),
    (b"NaN", {}),
    (b'{"v": Infinity}', {}),
    (b"\xff\xfe", {}),
    (b"\xff\xfe", {"payload": "text"}),
    (b"[" * 200 + b"]" * 200, {}),
    (b"[" * 100_000, {}),
    (b"5", {"subject": "{payload.device}"}),
    (b'{"device": {"a": 1}}', {"subject": "{payload.device}"}),
    (b'"\\ud800"', {}),
    (b'{"device": "a\\u0000b"}', {"subject": "{payload.device}"}),
    (b'{"ts": 99999999999999999999999999}', {"occurred_at": "{payload.ts}"}),
    (b'{"ts": "10000-01-01T00:00:00Z"}', {"occurred_at": "{payload.ts}"}),
    (b"{}", {"dedup": "{payload.id}"}),
    (b"x" * 300_000, {}),
]


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize(("payload", "keys"), POISON)
async def test_poison_becomes_a_dead_letter_and_stops_nothing(
    database: Database, payload: bytes, keys: dict[str, Any]
) -> None:
    table = table_of([Route(topic="good", emit="good"), Route(**{"topic": "bad/#", "emit": "bad", **keys})])
    async with running(database, table) as rig:
        mids = rig.send_all([("good", "1"), ("bad/x", payload), ("good", "2")])
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        [letter] = await rig.dead_letters()
        assert (letter.topic, letter.payload, letter.source) == ("bad/x", payload, "intake")
        assert letter.reason in ("undecodable", "missing_field", "bad_text", "bad_time", "too_large")
        assert [event.type for event in await rig.events()] == ["good", "good"]
        assert rig.metrics.dead_letters.values == {"intake": 1}
        assert rig.metrics.rejected.values == {letter.reason: 1}


async def test_numbers_beyond_64_bits_and_null_characters_in_data_are_kept(database: Database) -> None:
    data = {"big": 2**70, "small": -(2**70), "text": "a\0b", "deep": [[[{}]]]}
    async with running(database, table_of([Route(topic="a", emit="x")])) as rig:
        await rig.acked(rig.send("a", json.dumps(data)))
        assert [event.data for event in await rig.events()] == [data]
        assert await rig.dead_letters() == []


async def test_topics_of_any_shape(database: Database) -> None:
    topics = ["/".join(["x"] * 200), "/", "//", "a//b", "ä/ö", "a b", "\\xff/x", "x" * 65_000]
    async with running(database, table_of([Route(topic="#", emit="x", subject="{topic}")])) as rig:
        await rig.acked(*(rig.send(topic, "1") for topic in [*topics, "$SYS/broker/uptime"]))
        assert [event.subject for event in await rig.events()] == topics
        assert rig.metrics.dropped.values == {"unrouted": 1}


async def test_a_stream_of_poison_says_it_once(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    async with running(database, table_of([Route(topic="a", emit="x")])) as rig:
        await rig.acked(*rig.send_all([("a", "poison\nERROR forged"), ("a", "{}")] * 300))
        assert len(await rig.events()) == 300
        assert len(await rig.dead_letters()) == 300
        assert rig.metrics.commits.total() < 20
    said = [record.getMessage() for record in caplog.records if record.name == "edgeq.intake"]
    assert len(said) == 1
    assert "became a dead letter (undecodable)" in said[0]


async def test_an_error_cannot_forge_lines_of_the_log(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.on("a", payload="text")
    async def fails(ctx: Any) -> None:
        raise ValueError(ctx.text())

    async with running(database, table_of([], [router])) as rig:
        await rig.acked(rig.send("a", "x\nedgeq: all is well\x1b[2J\u2028\u202e"))
    [record] = [record for record in caplog.records if record.name == "edgeq.intake"]
    assert record.getMessage().isprintable()


MANY = [
    Route(topic="json/{a}", emit="{a}.x", subject="{payload.s}", dedup="{payload.id}"),
    Route(topic="json/#", emit="y", data={"v": "{payload.v}", "all": "{payload}"}, occurred_at="{payload.ts}"),
    Route(topic="text/+", emit="z", payload="text", subject="{payload}", description="{payload}"),
    Route(topic="raw/+", emit="r", payload="raw"),
    Route(topic="map/+", emit=EmitMap(map="{payload}", to={"true": "on", "1": "one"})),
    Route(topic="limit/+", emit="l", limit=Limit(rate="1/s", key="{payload.k}", over="dead_letter")),
]
TOPICS = ["json/a", "json/a/b", "text/a", "raw/a", "map/a", "limit/a", "own/a", "none/a"]

json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
fields: Any = st.fixed_dictionaries({}, optional=dict.fromkeys(("s", "id", "v", "ts", "k"), json_values))
payloads: Any = st.one_of(
    st.binary(max_size=50),
    st.text(max_size=20).map(lambda text: text.encode()),
    json_values.map(lambda value: json.dumps(value).encode()),
    fields.map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=60)
@given(messages=st.lists(st.tuples(st.sampled_from(TOPICS), payloads), min_size=1, max_size=25))
def test_whatever_comes_is_acknowledged_in_order_and_accounted_for(
    database: Database, messages: list[tuple[str, bytes]]
) -> None:
    router = Router()

    @router.on("own/{a}")
    async def own(ctx: Any, a: str) -> None:
        ctx.emit("own", subject=ctx.json()["s"], data=ctx.json(), idempotency_key=ctx.json().get("id"))

    async def scenario() -> None:
        async with running(database, table_of(MANY, [router])) as rig:
            await rig.store.write(emptied)
            mids = rig.send_all(messages)
            await rig.acked(*mids)
            assert rig.acks.mids == mids
            assert rig.intake.crashes == 0
            stored, letters = await rig.events(), await rig.dead_letters()
            for event in stored:
                assert event.as_dict()
            routed = sum(len(rig.intake._table.lookup(topic).routes) for topic, _ in messages)
            dropped = sum(count for reason, count in rig.metrics.dropped.values.items() if reason != "unrouted")
            assert len(stored) + len(letters) + rig.metrics.duplicates.total() + dropped == routed
            assert rig.metrics.events.total() == len(stored)
            assert rig.metrics.dead_letters.total() == len(letters)

    asyncio.run(scenario())


async def test_a_database_that_is_locked_stops_the_acknowledgements_until_it_is_free(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.store.sqlite.patience.BUSY_SECONDS", 0.2)
    router = Router()

    @router.on("own/{n}")
    async def own(ctx: Any, n: str) -> None:
        ctx.emit("own", subject=n)

    async with running(database, table_of([Route(topic="a/{n}", emit="x", subject="{n}")], [router])) as rig:
        with rig.database.locked():
            mids = rig.send_all([(f"{'own' if n % 7 == 0 else 'a'}/{n}", "1") for n in range(300)])
            await until(lambda: not rig.store.health.ok, "the store to notice")
            assert rig.acks.mids == []
            assert rig.intake.in_flight() == 300
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        assert sorted(int(event.subject) for event in await rig.events()) == list(range(300))
        assert await rig.dead_letters() == []


async def test_a_store_that_closes_first_leaves_the_rest_unacknowledged(database: Database) -> None:
    rig = Rig(database, table_of([Route(topic="a", emit="x")]))
    await rig.store.open()
    await rig.intake.start()
    await rig.acked(rig.send("a", "1"))
    await rig.store.close()
    rig.send("a", "2")
    rig.inbox.close()
    await rig.intake.stop(20)
    assert rig.intake.in_flight() == 0
    assert len(rig.acks.mids) == 1


class Refusal(Exception):
    """What a store says of a row that it doesn't like."""


def refusing(monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    """From now on, recording raises for decisions of which `refused` says so."""

    def picky(tx: Tx, decisions: Any) -> int:
        if refused(decisions):
            raise Refusal("no such column")
        return record(tx, decisions)

    monkeypatch.setattr("edgeq.intake.intake.record", picky)


async def test_of_messages_committed_together_only_the_one_that_the_store_refuses_is_put_aside(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, lambda decisions: any(event.subject == "3" for event in decisions.events))
    routes = [Route(topic="a/{n}", emit="x", subject="{n}"), Route(topic="dropped/+", emit="x")]
    async with running(database, table_of(routes)) as rig:
        mids = rig.send_all([("dropped/1", ""), *((f"a/{n}", "1") for n in range(6)), ("dropped/2", ""), ("a/9", "1")])
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        assert [event.subject for event in await rig.events()] == ["0", "1", "2", "4", "5", "9"]
        [letter] = await rig.dead_letters()
        assert (letter.topic, letter.payload, letter.reason) == ("a/3", b"1", "failed")
        assert "Refusal: no such column" in letter.error


async def test_a_dead_letter_that_the_store_refuses_is_offered_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_REFUSED_RETRY_SECONDS", 0.01)
    refusals = 3

    def refuse(decisions: Any) -> bool:
        nonlocal refusals
        if decisions.dead_letters and refusals:
            refusals -= 1
            return True
        return False

    refusing(monkeypatch, refuse)
    async with running(database, table_of([Route(topic="a", emit="x")])) as rig:
        mids = rig.send_all([("a", "poison")]) + rig.send_all([("a", "1")])
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        assert refusals == 0
        assert [letter.payload for letter in await rig.dead_letters()] == [b"poison"]
        assert [event.type for event in await rig.events()] == ["x"]


async def test_what_a_controller_wants_stored_beside_events_may_be_refused_too(database: Database) -> None:
    router = Router()

    @router.on("a")
    def refused(ctx: Any) -> None:
        def unit(tx: Tx) -> None:
            raise Refusal("no such row")

        ctx.decisions.also.append(unit)

    async with running(database, table_of([Route(topic="b", emit="x")], [router])) as rig:
        mids = rig.send_all([("a", "1"), ("b", "1")])
        await rig.acked(*mids)
        [letter] = await rig.dead_letters()
        assert (letter.topic, letter.reason) == ("a", "failed")
        assert "Refusal: no such row" in letter.error
        assert [event.type for event in await rig.events()] == ["x"]


async def test_an_intake_that_crashed_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with running(database, table_of([Route(topic="a", emit="x")])) as rig:
        monkeypatch.setattr(type(rig.intake), "restart_backoff", _Soon())
        get_batch = rig.inbox.get_batch
        crashes = 1

        async def broken(most: int) -> list[Delivery]:
            nonlocal crashes
            batch = await get_batch(most)
            if crashes:
                crashes -= 1
                rig.inbox.put(batch)
                raise RuntimeError("a defect")
            return batch

        rig.inbox.get_batch = broken  # type: ignore[method-assign]
        await rig.acked(*rig.send_all([("a", "1")] * 3))
        await rig.acked(*rig.send_all([("a", "1")] * 3))
        assert rig.intake.crashes == 1


class _Soon:
    def delay(self, attempt: int) -> float:
        return 0.0
