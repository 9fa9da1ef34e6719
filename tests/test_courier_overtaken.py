"""Threads whose end the courier never heard of: it was set forward past that, or the event became a dead letter."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from support.couriers import Desk, contract, desk
from support.stores import Database

from edgeq.contracts.instance import Verdict
from edgeq.contracts.verdict_event import build
from edgeq.store import contract_states, events
from edgeq.store.contract_states import ContractState

PHONE = {"channels": ["phone"], "repeat": ["15m"]}


@pytest.fixture
async def box(database: Database) -> AsyncIterator[Desk]:
    async with desk(database, PHONE) as box:
        yield box


async def judged(
    box: Desk,
    what: Literal["violated", "resolved"],
    state: str | None,
    *,
    episode: int = 1,
    detail: str = "{}",
    subject: str = "f1",
) -> int:
    """The sentinel tells something; the state as it stands then, if there is one. The event's id."""
    now = box.clock.now()
    verdict = Verdict(what=what, at=now, since=now, episode=episode)
    told = build("cold", "presence", "warning", subject, verdict, "cold", now)

    def unit(tx: Any) -> int:
        contract_states.delete(tx, [("cold", subject)])
        if state is not None:
            contract_states.put(tx, [ContractState("cold", subject, state, now, None, episode, detail)])
        events.append(tx, [told])
        return events.newest_id(tx)

    return await box.store.write(unit)


async def violated(box: Desk, subject: str = "f1") -> int:
    """A violation of which the courier has told."""
    event_id = await judged(box, "violated", "violated", subject=subject)
    await box.tell(contract("violated", id=event_id, at=box.clock.now(), subject=subject))
    await box.sent()
    return event_id


@pytest.mark.parametrize("state", ["ok", "pending", None])
async def test_what_is_over_is_reminded_of_no_more(
    box: Desk, state: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    for subject in ("f1", "f2"):
        await violated(box, subject)
        passed_over = await judged(box, "resolved", state, subject=subject, detail='{"report": {}}')
    with caplog.at_level(logging.WARNING, "edgeq.courier"):
        await box.restart(passed_over)
    await box.pass_time(3600)
    assert await box.threads() == []
    assert await box.kinds() == []
    assert [record.getMessage() for record in caplog.records] == [
        "2 threads are closed: they are over, and the courier never heard of their end"
    ]


async def test_what_is_still_to_be_consumed_ends_it(box: Desk) -> None:
    opened_by = await violated(box)
    await judged(box, "resolved", "ok")
    await box.restart(opened_by)
    await box.tick()
    assert len(await box.threads()) == 1
    await box.happens("resolved")
    assert await box.kinds() == [(0, "resolved")]


@pytest.mark.parametrize(
    ("state", "episode", "detail"),
    [
        ("violated", 1, "{}"),
        ("suppressed", 1, '{"state": "ok", "report": {"told": "violated", "episode": 1, "suppressed": true}}'),
        ("unknown", 1, '{"report": {"told": "unknown", "episode": 1, "gap": true}}'),
        ("violated", 2, '{"report": {"told": "violated", "episode": 1, "suppressed": true}}'),
    ],
)
async def test_what_was_told_and_not_resolved_stays_open(box: Desk, state: str, episode: int, detail: str) -> None:
    newest = await violated(box)
    row = ContractState("cold", "f1", state, box.clock.now(), None, episode, detail)
    await box.store.write(lambda tx: contract_states.put(tx, [row]))
    await box.restart(newest)
    await box.pass_time(900)
    assert await box.kinds() == [(15, "reminder")]


async def test_a_later_episode_ends_the_one_before(box: Desk) -> None:
    await violated(box)
    await judged(box, "resolved", "ok")
    newest = await judged(box, "violated", "violated", episode=2)
    await box.restart(newest)
    await box.tick()
    assert await box.threads() == []


async def test_what_another_than_the_sentinel_said_stays_open(box: Desk) -> None:
    await box.happens("violated")
    await box.sent()
    await box.restart(1000)
    await box.pass_time(900)
    assert await box.kinds() == [(15, "reminder")]
