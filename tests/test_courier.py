"""What the courier makes of events: rows, threads, and what follows from them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from support.couriers import MINUTE, Desk, contract, desk, event
from support.stores import Database

from edgeq.events import from_json
from edgeq.notifications import rows as rows_of
from edgeq.notifications import telling
from edgeq.testing.clock import NOON

PHONE = {"channels": ["phone"]}


@pytest.fixture
async def box(database: Database) -> AsyncIterator[Desk]:
    async with desk(database, PHONE) as box:
        yield box


class TestRows:
    async def test_each_channel_gets_a_row_of_its_own(self, box: Desk) -> None:
        await box.open({"channels": ["mail", "phone"]})
        await box.tell(event(data={"severity": "critical", "title": "Open", "body": "Front door"}))
        rows = await box.rows()
        assert [row.channel for row in rows] == ["mail", "phone"]
        for row in rows:
            assert (row.event_id, row.severity, row.title, row.body) == (9, "critical", "Open", "Front door")
            assert (row.state, row.kind, row.created_at, row.next_attempt_at) == ("queued", "alert", NOON, NOON)
        assert rows[0].fingerprint == rows[1].fingerprint
        assert box.metrics.notifications.values == {"queued": 2}

    async def test_what_no_route_takes_is_counted_and_said(self, box: Desk, caplog: pytest.LogCaptureFixture) -> None:
        await box.open({"match": {"severity": "critical"}, "channels": ["mail"]})
        with caplog.at_level(logging.INFO, "edgeq.courier"):
            await box.tell(event())
        assert await box.rows() == []
        assert box.metrics.skipped.values == {"unrouted_notification": 1}
        assert "event 9 (info) is routed to no channel: door.opened front" in caplog.text

    async def test_odd_events_are_no_obstacle(self, box: Desk) -> None:
        odd: list[object] = [
            [1, 2], "text", 17, {"title": {"a": 1}}, {"body": ["x"]}, {"severity": [1]}, {"title": "a\0b"},
            {"channels": {"a": 1}}, {"channels": [None, [1]]},
        ]  # fmt: skip
        for number, data in enumerate(odd):
            await box.tell(event("notification", data=data, id=number))
            await box.tell(event("contract.violated", data=data, id=number))
            await box.tell(event("contract.resolved", data={"contract": data, "since": data}, id=number))
        assert len(await box.rows()) == 3 * len(odd)

    async def test_a_row_says_what_it_is_about(self, box: Desk) -> None:
        await box.tell(contract("violated", since=NOON - 5, observed=[1]))
        (row,) = await box.rows()
        detail = from_json(row.detail)
        assert detail.pop("data")["observed"] == [1]
        assert detail == {
            "type": "contract.violated", "subject": "f1", "contract": "cold", "episode": "1",
            "tags": ["contract", "notification"], "occurred_at": NOON, "since": NOON - 5,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("made", "left_out"),
        [
            (event(data={"a": "x" * 8000}), None),
            (event(data={"a": "x" * 9000}), ["data"]),
            (event(data={"a": "ä" * 9000}, tags=("notification", "t" * 9000)), ["data", "tags"]),
            (event("t" * 9000, "s" * 9000, data={"a": "x" * 9000}), ["data", "tags", "since"]),
        ],
    )
    async def test_what_is_too_long_is_left_out_visibly(self, box: Desk, made: object, left_out: object) -> None:
        await box.tell(made)  # type: ignore[arg-type]
        (row,) = await box.rows()
        assert len(row.detail.encode()) <= rows_of.DETAIL_BYTES_MAX
        assert from_json(row.detail).get("left_out") == left_out

    async def test_of_data_that_is_too_long_plain_values_are_kept_as_far_as_they_fit(self, box: Desk) -> None:
        plain = {"room": "cellar", "ok": True, "none": None, "n": 1.5, "ä": "ä" * 199}
        await box.tell(event(data={"log": "x" * 9000, "list": [1], "text": "y" * 200, **plain}))
        many = {f"key{number}": "ä" * 150 for number in range(100)}
        await box.tell(event(data={**many, "last": 1}), event("t" * 9000, data={**many, "last": 1}))
        first, *full = await box.rows()
        detail = from_json(first.detail)
        assert (detail["data"], detail["left_out"]) == (plain, ["data"])
        for row in full:
            kept = from_json(row.detail)["data"]
            assert 20 < len(kept) < 30
            assert kept == {**dict(list(many.items())[: len(kept) - 1]), "last": 1}
            assert rows_of.DETAIL_BYTES_MAX - 400 < len(row.detail.encode()) <= rows_of.DETAIL_BYTES_MAX

    async def test_ttl_counts_from_when_it_was_raised(self, box: Desk) -> None:
        await box.open({**PHONE, "ttl": "1h"})
        box.clock.advance(600)
        await box.tell(event(at=NOON))
        assert [row.expires_at for row in await box.rows()] == [NOON + 60 * MINUTE]

    async def test_a_time_before_the_clock_was_set_is_none(self, box: Desk) -> None:
        await box.open({**PHONE, "ttl": "1h"})
        await box.tell(event(at=5 * MINUTE), event(at=NOON + 5 * MINUTE))
        assert [row.created_at for row in await box.rows()] == [NOON, NOON]

    async def test_failover_leaves_out_the_channels_that_get_it_anyway(self, box: Desk) -> None:
        await box.open({"channels": ["phone", "mail"], "failover": ["mail", "siren"]})
        await box.tell(event())
        assert [row.failover for row in await box.rows()] == [("siren",), ("siren",)]


BY_TYPE = {**PHONE, "group_by": ["type", "data.room"], "group_wait": "30s", "group_interval": "5m"}


class TestGroups:
    async def test_the_same_values_are_one_group(self, box: Desk) -> None:
        await box.open(BY_TYPE)
        await box.tell(event(subject="a", data={"room": 1}), event(subject="b", data={"room": 1}))
        await box.tell(event(subject="a", data={"room": "1"}), event(subject="a"), event("door.closed"))
        keys = [row.group_key for row in await box.rows()]
        assert keys[0] == keys[1]
        assert len(set(keys)) == 4
        assert {row.next_attempt_at - NOON for row in await box.rows()} == {30_000_000}

    async def test_two_routes_have_no_group_in_common(self, box: Desk) -> None:
        first = {**BY_TYPE, "continue": True, "match": {"types": ["door.*"]}}
        await box.open(first, {**BY_TYPE, "channels": ["mail"]})
        await box.tell(event())
        assert len({row.group_key for row in await box.rows()}) == 2

    async def test_without_group_by_nothing_waits(self, box: Desk) -> None:
        await box.tell(event())
        assert [(row.group_key, row.next_attempt_at) for row in await box.rows()] == [(None, NOON)]


class TestEpisodes:
    async def test_from_violated_to_resolved(self, box: Desk) -> None:
        await box.happens("violated")
        await box.sent()
        for what in ("unknown", "violated", "flapping"):
            box.clock.advance(60)
            await box.happens(what)
        assert len(await box.threads()) == 1
        box.clock.advance(60)
        await box.happens("resolved")
        kinds = [(row.kind, row.state) for row in await box.rows()]
        assert kinds == [("alert", "sent"), *[("update", "queued")] * 3, ("resolved", "queued")]
        assert await box.threads() == []

    async def test_each_episode_and_subject_is_one_of_its_own(self, box: Desk) -> None:
        await box.happens("violated")
        await box.happens("violated", subject="f2")
        await box.happens("violated", episode=2)
        assert len(await box.threads()) == 3
        await box.happens("resolved", subject="f2")
        assert {thread.text.title for thread in await box.threads()} == {"f1 violated"}

    async def test_resolved_goes_where_the_alert_went_whatever_matches_it(self, box: Desk) -> None:
        only = {"match": {"types": ["contract.violated"], "data": {"observed": {"above": 3}}}, "channels": ["siren"]}
        await box.open(only, {"channels": ["mail"]})
        await box.happens("violated", observed=5)
        await box.happens("unknown")
        await box.happens("resolved", observed=1)
        assert [(row.channel, row.kind) for row in await box.rows() if row.state == "queued"] == [
            ("siren", "alert"), ("siren", "update"), ("siren", "resolved"),
        ]  # fmt: skip

    async def test_resolved_by_the_routes_when_nothing_is_open(self, box: Desk) -> None:
        await box.happens("unknown")
        await box.happens("resolved", reason="known")
        await box.happens("resolved", episode=7)
        assert [(row.kind, row.state) for row in await box.rows()] == [
            ("update", "queued"), ("resolved", "queued"), ("resolved", "silenced"),
        ]  # fmt: skip
        assert await box.threads() == []

    async def test_resolved_false(self, box: Desk) -> None:
        await box.open({**PHONE, "resolved": False})
        await box.happens("violated")
        await box.happens("resolved")
        assert await box.kinds() == [(0, "alert")]
        assert await box.threads() == []
        assert box.metrics.skipped.values == {}

    async def test_two_routes_have_a_thread_each(self, box: Desk) -> None:
        await box.open({**PHONE, "continue": True}, {"channels": ["phone", "mail"], "match": {"contract": "c*"}})
        await box.happens("violated")
        assert sorted(thread.thread.channels for thread in await box.threads()) == [("mail",), ("phone",)]
        await box.happens("resolved")
        assert sorted(row.channel for row in await box.rows() if row.kind == "resolved") == ["mail", "phone"]

    async def test_other_events_have_a_thread_only_while_something_is_to_come(self, box: Desk) -> None:
        await box.occurs()
        assert await box.threads() == []
        await box.open({**PHONE, "repeat": ["15m"], "escalate": [{"after": "1h", "channels": ["mail"]}]})
        await box.occurs()
        assert len(await box.threads()) == 1
        await box.pass_time(3600)
        assert await box.threads() == []
        assert await box.kinds("mail") == [(60, "alert")]

    async def test_the_next_event_of_its_kind_takes_its_place(self, box: Desk) -> None:
        await box.open({**PHONE, "repeat": ["15m", "1h"]})
        await box.occurs()
        await box.acknowledge()
        await box.sent()
        await box.pass_time(600)
        await box.occurs()
        assert (await box.thread()).thread.acknowledged_at is None
        await box.sent()
        await box.pass_time(900)
        assert await box.kinds() == [(25, "reminder")]

    async def test_there_is_a_bound(self, box: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(telling, "THREADS_MAX", 2)
        for number in range(4):
            await box.happens("violated", subject=f"f{number}")
        assert len(await box.threads()) == 2
        assert box.metrics.skipped.values == {"threads_full": 2}
        for number in range(4):  # told all the same, and by the routes
            await box.happens("resolved", subject=f"f{number}")
        assert [row.state for row in await box.rows()] == ["queued"] * 8

    async def test_resolved_is_told_by_routes_that_no_room_was_left_for(
        self, box: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telling, "THREADS_MAX", 1)
        await box.open({**PHONE, "continue": True}, {"channels": ["phone", "mail"]})
        await box.happens("violated")
        await box.sent()
        await box.happens("resolved")
        assert await box.told() == ["0 phone resolved: f1 resolved", "0 mail resolved: f1 resolved"]


class TestDirect:
    async def test_the_channels_that_it_names_whatever_the_routes_say(self, box: Desk) -> None:
        await box.open({**PHONE, "group_by": ["type"], "repeat": ["15m"]})
        await box.tell(event("notification", data={"title": "Hi", "channels": ["siren", "mail", "siren"]}))
        assert [(row.channel, row.group_key) for row in await box.rows()] == [("siren", None), ("mail", None)]
        assert await box.threads() == []

    @pytest.mark.parametrize(
        ("channels", "told"),
        [(["siren", "fone"], ["siren", "phone"]), (["fone"], ["phone"]), ("siren", ["phone"]), ([7], ["phone"])],
    )
    async def test_one_that_there_isnt_sends_it_by_the_routes(
        self, box: Desk, channels: object, told: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        await box.tell(event("notification", data={"title": "Hi", "channels": channels}))
        assert [row.channel for row in await box.rows()] == told
        assert box.metrics.skipped.values == {"unknown_channel": 1}
        assert "event 9 names a channel that there isn't" in caplog.text

    async def test_none_named_is_by_the_routes(self, box: Desk) -> None:
        await box.tell(event("notification", data={"title": "Hi", "channels": []}))
        await box.tell(event("door.opened", data={"channels": ["siren"]}))
        assert [row.channel for row in await box.rows()] == ["phone", "phone"]
        assert box.metrics.skipped.values == {}


CONTRACTS = {"match": {"types": ["contract.*"]}, "channels": ["phone"], "repeat": ["15m"]}


class TestReload:
    async def test_a_thread_whose_route_is_gone_is_closed(self, box: Desk) -> None:
        await box.open(CONTRACTS)
        await box.happens("violated")
        await box.open({**CONTRACTS, "match": {"types": ["contract.violated"]}})
        await box.pass_time(3600)
        assert await box.threads() == []
        assert await box.kinds() == [(0, "alert")]

    async def test_a_route_that_moved_or_changed_keeps_its_threads(self, box: Desk) -> None:
        await box.open(CONTRACTS)
        await box.happens("violated")
        await box.sent()
        await box.open({"match": {"severity": "debug"}, "channels": ["mail"]}, {**CONTRACTS, "repeat": ["10m"]})
        await box.pass_time(600)
        assert await box.kinds() == [(10, "reminder")]

    @pytest.mark.parametrize(("before", "after", "minute"), [([], ["10m"], 15), (["2h"], ["10m"], 15), (["2h"], [], 0)])
    async def test_reminders_go_by_the_list_as_it_is(
        self, box: Desk, before: list[str], after: list[str], minute: int
    ) -> None:
        await box.open({**CONTRACTS, "repeat": before})
        await box.happens("violated")
        await box.sent()
        await box.pass_time(300)
        await box.open({**CONTRACTS, "repeat": after})
        await box.pass_time(600)
        assert await box.kinds() == ([(minute, "reminder")] if minute else [])
        stored = (await box.thread()).thread.next_at
        assert (stored is None) == (not after)

    async def test_channels_that_are_gone_are_passed_over(self, box: Desk) -> None:
        await box.open({**CONTRACTS, "channels": ["phone", "siren"]})
        await box.happens("violated")
        await box.sent()
        await box.open(CONTRACTS, channels=["phone"])
        await box.pass_time(900)
        assert [row.channel for row in await box.rows() if row.kind == "reminder"] == ["phone"]
        await box.open({**CONTRACTS, "channels": ["mail"]}, channels=["mail"])
        await box.pass_time(900)
        assert [row.channel for row in await box.rows() if row.kind == "reminder"] == ["phone", "mail"]


NAGGING = {**PHONE, "repeat": ["15m"], "escalate": [{"after": "20m", "channels": ["mail"]}]}


class TestAcknowledged:
    async def test_no_reminders_and_no_escalation_but_resolved(self, box: Desk) -> None:
        await box.open(NAGGING)
        await box.happens("violated")
        await box.sent()
        await box.pass_time(900)
        assert await box.acknowledge() == 1
        await box.sent()
        await box.pass_time(7200)
        await box.happens("violated", reminder=3)
        await box.happens("resolved")
        rows = [(row.channel, row.kind, row.state, row.error) for row in (await box.rows())[2:]]
        assert rows == [("phone", "reminder", "silenced", "acknowledged"), ("phone", "resolved", "queued", None)]

    async def test_it_survives_a_restart(self, box: Desk) -> None:
        await box.open(NAGGING)
        await box.happens("violated")
        await box.sent()
        await box.acknowledge()
        await box.restart()
        await box.pass_time(7200)
        assert await box.kinds() == []
        thread = await box.thread()
        assert (thread.acknowledged_by, thread.comment) == ("ann", "on my way")

    async def test_one_that_overtakes_a_reminder_wins(self, box: Desk) -> None:
        """The courier has decided, and somebody acknowledges before that is committed."""
        await box.open(NAGGING)
        await box.happens("violated")
        await box.sent()
        box.clock.advance(900)
        ctx = box.context(None)
        await box.courier.on_time(ctx)
        await box.acknowledge()
        await box.commit(ctx)
        assert await box.kinds() == []
        assert box.metrics.notifications.values == {"queued": 1}

    async def test_of_something_without_an_end_it_is_over_when_it_would_be_due(self, box: Desk) -> None:
        await box.open({**PHONE, "repeat": ["15m"]})
        await box.occurs()
        await box.acknowledge()
        await box.sent()
        await box.pass_time(901)
        assert await box.threads() == []
        assert await box.kinds() == []
