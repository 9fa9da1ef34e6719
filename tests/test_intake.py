"""From the inbox to the acknowledgement: nothing before its commit, everything in the order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support.intake import Rig, running, table_of
from support.stores import Database

from edgeq.config.schema import Limit, Route
from edgeq.errors import EdgeqError
from edgeq.intake import intake
from edgeq.intake.router import Router
from edgeq.mqtt.delivery import Delivery
from edgeq.store.dead_letters import DeadLetter
from edgeq.testing import FakeClock, until
from edgeq.units import Size

READINGS = Route(topic="sensors/{device}/{metric}", emit="{metric}.reading", subject="{device}")


def on_disk(rig: Rig) -> list[str]:
    """The subjects of all events, as another program reads them."""
    return [subject for (subject,) in rig.database.sql("SELECT subject FROM events ORDER BY id")]


async def test_a_message_is_acknowledged_when_another_program_can_read_its_event(database: Database) -> None:
    async with running(database, table_of([READINGS])) as rig:
        seen_at_ack: list[list[str]] = []
        ack = rig.acks.ack

        def look(deliveries: Sequence[Delivery]) -> int:
            seen_at_ack.append(on_disk(rig))
            return ack(deliveries)

        rig.acks.ack = look  # type: ignore[method-assign]
        await rig.acked(rig.send("sensors/d-1/temperature", "21.5"))
        assert seen_at_ack == [["d-1"]]


async def test_nothing_is_acknowledged_while_the_commit_is_under_way(database: Database) -> None:
    async with running(database, table_of([READINGS])) as rig:
        async with rig.busy_store():
            mids = rig.send_all([(f"sensors/d-{number}/t", "1") for number in range(1200)])
            await until(lambda: rig.intake.in_flight() == 1000, "the window to be full")
            assert rig.acks.mids == []
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        assert on_disk(rig) == [f"d-{number}" for number in range(1200)]
        assert rig.metrics.commits.total() < 20  # many messages a commit


async def test_no_more_than_the_window_is_taken(database: Database) -> None:
    async with running(database, table_of([READINGS]), window=10) as rig:
        async with rig.busy_store():
            mids = rig.send_all([("sensors/d/t", "1")] * 35)
            await until(lambda: rig.intake.in_flight() == 10, "the window to be full")
            assert len(rig.inbox) == 25
        await rig.acked(*mids)


async def test_no_more_bytes_than_the_bound_are_taken(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BYTES_MAX", 50_000)
    monkeypatch.setattr(intake, "BATCH_MAX", 2)
    async with running(database, table_of([READINGS])) as rig:
        async with rig.busy_store():
            mids = rig.send_all([("sensors/d/t", '"' + "x" * 10_000 + '"')] * 20)
            await until(lambda: rig.intake.in_flight() == 6, "the bound to be reached")
            assert len(rig.inbox) == 14
        await rig.acked(*mids)


async def test_every_route_that_matches_decides_in_one_commit(database: Database) -> None:
    router = Router()

    @router.on("#")
    async def everything(ctx: Any) -> None:
        ctx.emit("third", subject=ctx.topic)

    table = table_of([Route(topic="a/+", emit="first"), Route(topic="a/{b}", emit="second", subject="{b}")], [router])
    async with running(database, table) as rig:
        await rig.acked(rig.send("a/b", "{}"))
        assert [(event.type, event.subject) for event in await rig.events()] == [
            ("first", ""),
            ("second", "b"),
            ("third", "a/b"),
        ]
        assert rig.metrics.routed.values == {"a/+": 1, "a/{b}": 1, "#": 1}
        assert rig.metrics.commits.total() == 1


async def test_what_nobody_wants_is_acknowledged_in_its_turn_and_counted(database: Database) -> None:
    table = table_of([READINGS, Route(topic="kept/{x}", emit="kept", retained="handle")])
    async with running(database, table) as rig:
        mids = [
            rig.send("nobody/here", "1"),
            rig.send("sensors/d/t", ""),
            rig.send("sensors/d/t", "1", retain=True),
            rig.send("kept/a", "1", retain=True),
            rig.send("sensors/d/t", "1"),
        ]
        await rig.acked(*mids)
        assert rig.acks.mids == mids
        assert rig.metrics.dropped.values == {"unrouted": 1, "empty": 1, "retained": 1}
        assert [event.type for event in await rig.events()] == ["kept", "t.reading"]
        assert await rig.dead_letters() == []


async def test_messages_that_are_only_dropped_cause_no_commit(database: Database) -> None:
    async with running(database, table_of([READINGS])) as rig:
        await rig.acked(rig.send("nobody/here"), rig.send("sensors/d/t", ""))
        assert rig.metrics.commits.total() == 0


async def test_a_message_that_comes_again_is_stored_once_with_dedup(database: Database) -> None:
    table = table_of([Route(topic="a/{b}", emit="x", dedup="{b}:{payload.seq}")])
    async with running(database, table) as rig:
        await rig.acked(rig.send("a/b", '{"seq": 1}'), rig.send("a/b", '{"seq": 1}', dup=True))
        await rig.acked(rig.send("a/b", '{"seq": 1}'), rig.send("a/b", '{"seq": 2}'))
        assert [event.idempotency_key for event in await rig.events()] == ["x/b:1", "x/b:2"]
        assert rig.metrics.duplicates.total() == 2
        assert rig.metrics.events.total() == 2


async def test_a_limit_drops_or_keeps_what_is_over_it(database: Database) -> None:
    clock = FakeClock()
    table = table_of(
        [
            Route(topic="drop/{key}", emit="x", limit=Limit(rate="1/s", burst=2, key="{key}")),
            Route(topic="keep/+", emit="y", limit=Limit(rate="1/m", over="dead_letter")),
            Route(topic="by/payload", emit="z", limit=Limit(rate="1/s", key="{payload.who}")),
        ],
        clock=clock,
    )
    async with running(database, table, clock=clock) as rig:
        await rig.acked(*rig.send_all([("drop/a", "1")] * 5 + [("drop/b", "1")] * 2 + [("keep/a", "1")] * 3))
        clock.advance(1)
        await rig.acked(*rig.send_all([("drop/a", "1")] * 5 + [("by/payload", "{}")]))
        assert [event.type for event in await rig.events()] == ["x"] * 4 + ["y"] + ["x"]
        assert rig.metrics.dropped.values == {"over_limit": 7}
        assert [letter.reason for letter in await rig.dead_letters()] == ["over_limit", "over_limit", "missing_field"]


async def test_a_payload_above_the_routes_limit_is_kept_as_a_dead_letter(database: Database) -> None:
    table = table_of([Route(topic="a", emit="x", max_payload=Size(10)), Route(topic="a", emit="y")])
    async with running(database, table) as rig:
        await rig.acked(rig.send("a", "12345678901"), rig.send("a", "1234567890"))
        [letter] = await rig.dead_letters()
        assert (letter.reason, letter.payload, letter.detail["route"]) == ("too_large", b"12345678901", "a")
        assert [event.type for event in await rig.events()] == ["y", "x", "y"]


async def test_of_an_oversize_message_the_beginning_and_the_size_are_kept(database: Database) -> None:
    async with running(database, table_of([Route(topic="a", emit="x")])) as rig:
        await rig.acked(rig.send("a", b"x" * 4096, payload_size=300_000_000))
        [letter] = await rig.dead_letters()
        assert (letter.reason, len(letter.payload or b"")) == ("too_large", 4096)
        assert letter.detail["payload_size"] == 300_000_000
        with pytest.raises(EdgeqError, match="4096 of the message's 300000000 bytes"):
            await rig.redrive(letter)


async def test_closing_the_inbox_drains(database: Database) -> None:
    async with running(database, table_of([READINGS])) as rig:
        async with rig.busy_store() as release:
            mids = rig.send_all([("sensors/d/t", "1")] * 700)
            rig.inbox.close()
            asyncio.get_running_loop().call_later(0.05, release)
            await rig.intake.stop(60)
        assert rig.acks.mids == mids
        assert rig.intake.in_flight() == 0
        assert rig.intake.crashes == 0


async def test_the_end_waits_no_longer_than_it_may_and_acknowledges_nothing_uncommitted(database: Database) -> None:
    async with running(database, table_of([READINGS])) as rig, rig.busy_store():
        rig.send("sensors/d/t", "1")
        await rig.taken()
        rig.inbox.close()
        await rig.intake.stop(0.05)
        assert rig.acks.mids == []
        assert rig.intake.in_flight() == 1


async def test_a_dead_letter_is_handled_again_by_the_route_that_failed(database: Database) -> None:
    clock = FakeClock()
    error: BaseException | None = RuntimeError("not today")
    router = Router()

    @router.on("a/{b}")
    async def flaky(ctx: Any, b: str) -> None:
        if error is not None:
            raise error
        ctx.emit("mended", subject=b, data=ctx.json())

    table = table_of([Route(topic="a/+", emit="always")], [router], clock=clock)
    async with running(database, table, clock=clock) as rig:
        arrived = clock.now()
        await rig.acked(rig.send("a/b", '{"n": 1}'))
        clock.advance(3600)
        [letter] = await rig.dead_letters()
        with pytest.raises(EdgeqError, match=r"'a/{b}' failed again: RuntimeError: not today"):
            await rig.redrive(letter)
        assert (await rig.dead_letters())[0].redriven_at is None
        error = SystemExit(1)
        with pytest.raises(EdgeqError, match=r"raised SystemExit"):
            await rig.redrive(letter)
        error = None
        await rig.redrive(letter)
        await rig.redrive(letter)  # somebody asked twice
        assert (await rig.dead_letters())[0].redriven_at == clock.now()
        stored = await rig.events()
        assert [(event.type, event.data) for event in stored] == [("always", {"n": 1}), ("mended", {"n": 1})]
        assert (stored[1].occurred_at, stored[1].recorded_at) == (arrived, clock.now())
        assert (rig.metrics.events.total(), rig.metrics.duplicates.total()) == (2, 0)


async def test_a_dead_letter_whose_route_is_gone_is_handled_by_those_that_take_its_topic(database: Database) -> None:
    async with running(database, table_of([Route(topic="a/{b}/#", emit="x", data={"v": "{v}"})])) as rig:
        await rig.acked(rig.send("a/b", "{}"))
    async with running(database, table_of([Route(topic="a/+", emit="new")])) as rig:
        [letter] = await rig.dead_letters()
        await rig.redrive(letter)
        assert [event.type for event in await rig.events()] == ["new"]
        with pytest.raises(EdgeqError, match="no route takes the topic 'elsewhere'"):
            await rig.redrive(_letter(topic="elsewhere"))
        with pytest.raises(EdgeqError, match="holds no message"):
            await rig.redrive(_letter(payload=None))


def _letter(**changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "id": 999, "source": "intake", "reason": "failed", "error": "", "topic": "a/b", "payload": b"{}",
        "event_id": None, "job_id": None, "created_at": 1, "redriven_at": None, "redrive_requested_at": None,
        "detail": {},
    }  # fmt: skip
    return DeadLetter(**{**fields, **changes})
