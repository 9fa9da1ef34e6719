"""Where notifications go, and that the courier queues them in the commit of its cursor."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.outbox import Outbox, outbox

from edgeq.config.convert import Converter
from edgeq.config.origin import Origin
from edgeq.config.schema import NotificationRoute
from edgeq.errors import Problem
from edgeq.events import Event, to_json
from edgeq.notifications.policy import Policy
from edgeq.processors.courier import Courier
from edgeq.processors.processor import ProcessorContext
from edgeq.store.decisions import count, record
from edgeq.testing.clock import NOON, FakeClock

CHANNELS = ["phone", "mail", "siren"]


def routes(*written: dict[str, object]) -> list[NotificationRoute]:
    problems: list[Problem] = []
    made = Converter("", Origin(), problems).convert(list[NotificationRoute], list(written), "notifications.routes")
    assert not problems
    return list(made)


def event(
    type: str = "door.opened",  # noqa: A002
    subject: str = "front",
    *,
    tags: tuple[str, ...] = ("notification",),
    data: object = None,
    id: int = 9,  # noqa: A002
) -> Event:
    return Event(id, type, subject, None, to_json(data or {}), to_json(list(tags)), "", NOON, NOON + 5, None, None)


def test_without_routes_every_channel_gets_everything() -> None:
    assert Policy([], CHANNELS).channels_for(event(), "debug") == CHANNELS
    assert Policy([], []).channels_for(event(), "critical") == []


def test_the_first_route_that_matches_says_where_to() -> None:
    policy = Policy(
        routes({"match": {"severity": "critical"}, "channels": ["phone", "siren"]}, {"channels": ["mail"]}), CHANNELS
    )
    assert policy.channels_for(event(), "critical") == ["phone", "siren"]
    assert policy.channels_for(event(), "warning") == ["mail"]


def test_continue_goes_on_and_a_channel_gets_it_once() -> None:
    policy = Policy(
        routes(
            {"match": {"severity": ["critical", "warning"]}, "channels": ["phone", "mail"], "continue": True},
            {"match": {"types": ["window.*"]}, "channels": ["siren"], "continue": True},
            {"channels": ["mail"]},
            {"channels": ["siren"]},
        ),
        CHANNELS,
    )
    assert policy.channels_for(event(), "critical") == ["phone", "mail"]
    assert policy.channels_for(event("window.opened"), "info") == ["siren", "mail"]


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({}, True),
        ({"types": ["door.*"]}, True),
        ({"types": ["window.*", "*.opened"]}, True),
        ({"types": ["door"]}, False),
        ({"types": ["door?opened"]}, False),
        ({"subject": "fr*t"}, True),
        ({"subject": "back"}, False),
        ({"subject": ""}, False),
        ({"tags": ["night", "notification"]}, True),
        ({"tags": ["night", "day"]}, False),
        ({"severity": "info"}, True),
        ({"severity": ["warning", "critical"]}, False),
        ({"types": ["door.*"], "tags": ["day"]}, False),
    ],
)
def test_all_that_is_given_must_match(match: dict[str, object], fits: bool) -> None:
    policy = Policy(routes({"match": match, "channels": ["mail"]}), CHANNELS)
    found = policy.channels_for(event(tags=("notification", "night")), "info")
    assert found == (["mail"] if fits else [])


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with outbox(tmp_path, FakeClock()) as box:
        yield box


async def deliver(courier: Courier, box: Outbox, *events: Event) -> None:
    for each in events:
        ctx = ProcessorContext(box.clock, cause_id=each.id, idempotency_key="k", attempt=1)
        counted = box.metrics.notifications.total() + box.metrics.skipped.total()
        await courier.process_item(each, ctx)
        assert counted == box.metrics.notifications.total() + box.metrics.skipped.total(), "nothing is committed yet"
        decisions = ctx.decisions
        await box.store.write(lambda tx, decisions=decisions: record(tx, decisions))  # type: ignore[misc]
        count(box.metrics, decisions, 0)


async def test_each_channel_gets_a_row_of_its_own(box: Outbox) -> None:
    courier = Courier(Policy(routes({"channels": ["mail", "phone"]}), CHANNELS), box.metrics)
    await deliver(courier, box, event(data={"severity": "critical", "title": "Open", "body": "Front door"}))
    rows = await box.rows()
    assert [row.channel for row in rows] == ["mail", "phone"]
    for row in rows:
        assert (row.event_id, row.severity, row.title, row.body) == (9, "critical", "Open", "Front door")
        assert (row.state, row.attempt, row.created_at) == ("queued", 0, NOON + 5)
    assert rows[0].fingerprint == rows[1].fingerprint
    assert box.metrics.notifications.values == {"queued": 2}


async def test_what_no_route_takes_is_counted_and_said(box: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    courier = Courier(Policy(routes({"match": {"severity": "critical"}, "channels": ["mail"]}), CHANNELS), box.metrics)
    with caplog.at_level(logging.INFO, "edgeq.courier"):
        await deliver(courier, box, event())
    assert await box.rows() == []
    assert box.metrics.skipped.values == {"unrouted_notification": 1}
    assert "event 9 (info) is routed to no channel: door.opened front" in caplog.text


async def test_odd_events_are_no_obstacle(box: Outbox) -> None:
    courier = Courier(Policy([], ["mail"]), box.metrics)
    odd: list[object] = [[1, 2], "text", 17, {"title": {"a": 1}}, {"body": ["x"]}, {"severity": [1]}, {"title": "a\0b"}]
    await deliver(courier, box, *(event(data=data, id=n) for n, data in enumerate(odd)))
    assert len(await box.rows()) == len(odd)
