"""What is queued, until when it is held, and where the end of something is told."""

from __future__ import annotations

from typing import Any

import pytest
from support.outbox import NOON, Outbox, Scripted

from edgeq.clock import MICROSECONDS
from edgeq.notifications.channels import Outcome, Rejected, Sent
from edgeq.notifications.notification import Notification
from edgeq.notifications.outbox import Sender
from edgeq.store import notifications
from edgeq.store import outbox as verbs
from edgeq.store.notifications import Group, NewNotification
from edgeq.testing.clock import FakeClock

ROOM = Group("room", 30 * MICROSECONDS, 300 * MICROSECONDS)
QUIET = Group("quiet:7", 0, 0)


async def add(box: Outbox, kind: str, fingerprint: str = "door", **more: Any) -> None:
    """Queue one, now; its title says what it is."""
    fields = {"channel": "phone", "severity": "info", "body": "", "created_at": box.clock.now(), **more}
    new = NewNotification(title=f"{fingerprint} {kind}", fingerprint=fingerprint, kind=kind, **fields)
    await box.store.write(lambda tx: notifications.add(tx, [new]))


async def send_all(box: Outbox, channel: Scripted, name: str = "phone") -> float | None:
    """Send what is due now; in how many seconds there is more."""
    channel.digests = True
    return await Sender(name, channel, box.store, box.metrics, box.clock).work()


async def due(box: Outbox) -> dict[str, float]:
    """In how many seconds each is due, by its title."""
    return {row.title: (row.next_attempt_at - box.clock.now()) / MICROSECONDS for row in await box.rows()}


async def test_a_group_waits_together_and_then_for_its_interval(box: Outbox, clock: FakeClock) -> None:
    channel = Scripted()
    await add(box, "alert", "a", group=ROOM)
    clock.advance(10)
    await add(box, "alert", "b", group=ROOM)
    await add(box, "alert", "other", group=Group("hall", 5 * MICROSECONDS, 5))
    assert await due(box) == {"a alert": 20, "b alert": 20, "other alert": 5}
    assert await send_all(box, channel) == pytest.approx(5)
    clock.advance(20)
    await send_all(box, channel)
    assert channel.got == ["other alert", "2 notifications: a alert, …"]
    clock.advance(100)
    await add(box, "alert", "c", group=ROOM)
    assert (await due(box))["c alert"] == 200, "so long after the group was told"
    clock.advance(50)
    await add(box, "alert", "d", group=ROOM)
    assert (await due(box))["d alert"] == 150
    clock.advance(1000)
    await send_all(box, channel)
    assert channel.got[-1] == "2 notifications: c alert, …"
    clock.advance(1000)
    await add(box, "alert", "e", group=ROOM)
    assert (await due(box))["e alert"] == 30
    clock.advance(31)
    await send_all(box, channel)
    assert channel.got[-1] == "e alert", "one alone is sent as it is"


async def test_a_group_that_is_due_is_joined_at_once(box: Outbox, clock: FakeClock) -> None:
    await add(box, "alert", "a", group=ROOM)
    clock.advance(500)  # its channel is away
    await add(box, "alert", "b", group=ROOM)
    assert (await due(box))["b alert"] == 0


async def test_quiet_hours_hold_and_are_summed_up(box: Outbox, clock: FakeClock) -> None:
    channel = Scripted()
    until = NOON + 3600 * MICROSECONDS
    for number in range(3):
        await add(box, "alert", f"f{number}", group=QUIET, not_before=until)
        clock.advance(60)
    await add(box, "resolved", "f1", group=QUIET, not_before=until)
    await add(box, "alert", "fire", severity="critical")
    assert await send_all(box, channel) == pytest.approx(600)
    assert channel.got == ["fire alert"]
    clock.advance(3600 - 180)
    await send_all(box, channel)
    assert channel.got == ["fire alert", "Quiet hours: 3 notifications, 1 resolved"]
    states = await box.states()
    assert states["f1 resolved"] == "grouped"
    assert [row.digest_id for row in await box.rows() if row.state == "grouped"] == [6, 6, 6, 6]


async def test_what_is_over_before_its_group_was_told_is_not_told(box: Outbox, clock: FakeClock) -> None:
    await add(box, "alert", group=ROOM)
    await add(box, "update", group=ROOM)
    clock.advance(29)
    await add(box, "resolved", group=ROOM)
    rows = await box.rows()
    assert [(row.state, row.error) for row in rows] == [("silenced", "resolved before it was told")] * 3
    assert await send_all(box, channel := Scripted()) is None
    assert channel.got == []


async def test_what_waits_for_something_else_is_told_with_its_end(box: Outbox, clock: FakeClock) -> None:
    await add(box, "alert", "outage")
    await add(box, "alert", "quiet", group=QUIET, not_before=NOON + 3600 * MICROSECONDS)
    await add(box, "alert", "told", group=ROOM)
    clock.advance(40)
    await send_all(box, channel := Scripted())
    await add(box, "alert", "interval", group=ROOM)
    clock.advance(100)
    for fingerprint in ("outage", "quiet", "told", "interval"):
        await add(box, "resolved", fingerprint, group=QUIET if fingerprint == "quiet" else ROOM)
    assert {state for title, state in (await box.states()).items() if "resolved" in title} == {"queued"}
    clock.advance(5000)
    await send_all(box, channel)
    assert set((await box.states()).values()) == {"sent", "grouped"}


async def test_resolved_only_where_it_was_told(box: Outbox) -> None:
    silenced = ("silenced", "what it resolves was not told here")
    await add(box, "resolved", "nothing")
    await add(box, "alert", "silenced", state="silenced", error="silence 3")
    await add(box, "resolved", "silenced")
    await add(box, "alert", "refused")

    def answer(notification: Notification) -> Outcome:
        return Rejected("400") if "refused" in notification.title else Sent()

    await send_all(box, Scripted(answer))
    await add(box, "resolved", "refused")
    for fingerprint in ("nothing", "silenced", "refused"):
        row = await box.row(f"{fingerprint} resolved")
        assert (row.state, row.error) == silenced
    await add(box, "alert", "twice")
    await send_all(box, Scripted())
    await add(box, "resolved", "twice")
    assert (await box.row("twice resolved")).state == "queued"
    await add(box, "resolved", "twice", body="again")
    assert [row.state for row in await box.rows() if row.title == "twice resolved"] == ["queued", "silenced"]


async def test_what_dies_in_a_digest_was_not_told(box: Outbox, clock: FakeClock) -> None:
    await add(box, "alert", "a", group=ROOM)
    await add(box, "alert", "b", group=ROOM)
    clock.advance(30)
    await send_all(box, Scripted(lambda notification: Rejected("400")))
    await add(box, "resolved", "a")
    assert (await box.row("a resolved")).state == "silenced"


async def test_the_end_is_told_to_whom_it_was_told_instead(box: Outbox) -> None:
    await add(box, "alert", failover=("mail", "siren"))
    await send_all(box, Scripted(lambda notification: Rejected("400")))
    await send_all(box, Scripted(), "mail")
    await add(box, "resolved", failover=("mail", "siren"))
    found = [(row.channel, row.kind, row.state) for row in await box.rows()]
    assert found == [
        ("phone", "alert", "dead"),
        ("mail", "alert", "sent"),
        ("phone", "resolved", "silenced"),
        ("mail", "resolved", "queued"),
    ]


async def test_what_comes_behind_one_that_failed_waits_for_it(box: Outbox, clock: FakeClock) -> None:
    await add(box, "alert")
    row = await box.row("door alert")
    later = clock.now() + 77 * MICROSECONDS
    await box.store.write(lambda tx: verbs.mark_retry(tx, row, attempt=1, next_attempt_at=later, error="500"))
    await add(box, "update", severity="critical")
    assert await due(box) == {"door alert": 77, "door update": 77}


async def test_a_group_told_by_a_clock_since_set_back_waits_no_longer_than_its_interval(
    box: Outbox, clock: FakeClock
) -> None:
    await add(box, "alert", "a", group=ROOM)
    clock.advance(30)
    await send_all(box, Scripted())
    clock.step(-86400 * 365)
    await add(box, "alert", "b", group=ROOM)
    assert (await due(box))["b alert"] == 300


async def test_what_a_clock_since_set_back_has_held_is_told(box: Outbox, clock: FakeClock) -> None:
    channel = Scripted()
    await add(box, "alert", "held", not_before=clock.now() + 3600 * MICROSECONDS)
    clock.step(-86400 * 365)
    await add(box, "alert", "right", not_before=clock.now() + 3600 * MICROSECONDS)
    await send_all(box, channel)
    assert channel.got == ["held alert"]
