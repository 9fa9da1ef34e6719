"""Channel `inbox`: what is queued for it is there to be read, at once, one by one."""

from __future__ import annotations

from support.outbox import NOON, outbox
from support.stores import Database
from test_channels_kinds import build

from edgeq.store import history, notifications
from edgeq.testing.clock import FakeClock


async def test_what_is_queued_is_sent_at_once_and_unread(database: Database) -> None:
    async with outbox(database, FakeClock(NOON)) as box:
        await box.start(build(kind="inbox"), "inbox")
        await box.queue("door open", "window open", channel="inbox")
        await box.until({"door open": "sent", "window open": "sent"})
        rows = await box.rows()
        assert [(row.attempt, row.sent_at, row.read_at) for row in rows] == [(1, NOON, None)] * 2
        assert await box.store.write(lambda tx: history.mark_read(tx, [rows[0].id], NOON + 5)) == 1
        unread = await notifications.find(box.store, limit=10, channel="inbox", unread=True)
        assert [row.title for row in unread] == ["window open"]


async def test_after_a_pause_each_is_there_by_itself(database: Database) -> None:
    clock = FakeClock(NOON)
    async with outbox(database, clock) as box:
        titles = [f"door {number} open" for number in range(20)]
        await box.queue(*titles, channel="inbox")
        clock.advance(86_400)
        await box.start(build(kind="inbox"), "inbox")
        await box.until(dict.fromkeys(titles, "sent"))
        assert [row.title for row in await box.rows()] == titles
