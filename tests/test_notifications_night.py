"""Quiet hours are kept by what becomes due in them, however it does, and over a clock that is set back."""

from __future__ import annotations

from typing import Any

import pytest
from support.outbox import NOON, Outbox, Scripted

from edgeq.clock import MICROSECONDS
from edgeq.config.schema import NotificationRoute, Quiet
from edgeq.notifications.bucket import Limit
from edgeq.notifications.channels import Outcome, Retry, Sent
from edgeq.notifications.outbox import Sender
from edgeq.notifications.policy import Policy
from edgeq.store.notifications import Group
from edgeq.testing.clock import FakeClock

HOUR = 3600
# It is noon: what is raised now is raised an hour before the quiet hours.
ROUTE = NotificationRoute(channels=["phone"], quiet=Quiet("13:00-18:30", timezone="UTC"))
POLICY = Policy([ROUTE], ["phone", "mail"])
(ID,) = POLICY.quiet(NOON + 2 * HOUR * MICROSECONDS)
GONE = Retry("no route to host", target_down=True, unreachable=True)
FAILED = Retry("500 Internal Server Error")


class Phone:
    """A channel, its sender, and when what came of it, in hours since noon."""

    def __init__(self, box: Outbox, clock: FakeClock, name: str = "phone", limit: Limit | None = None) -> None:
        self.outcome: Outcome = Sent()
        self.got: list[tuple[float, str]] = []
        self.clock = clock
        channel = Scripted(self.answer)
        channel.digests = True
        channel.limit = limit
        self.sender = Sender(name, channel, box.store, box.metrics, clock, quiet=POLICY.quiet)

    def answer(self, notification: Any) -> Outcome:
        if isinstance(self.outcome, Sent):
            self.got.append(((self.clock.now() - NOON) / MICROSECONDS / HOUR, notification.title))
        return self.outcome

    async def until(self, hour: float) -> None:
        """Let it be that hour."""
        while (rest := (NOON + hour * HOUR * MICROSECONDS - self.clock.now()) / MICROSECONDS) > 0:
            wait = await self.sender.work()
            self.clock.advance(rest if wait is None else min(rest, max(wait, 0.001)))
        await self.sender.work()


async def test_a_group_whose_wait_ends_in_quiet_hours_is_told_after_them(box: Outbox, clock: FakeClock) -> None:
    phone = Phone(box, clock)
    group = Group("room", 2 * HOUR * MICROSECONDS, 0)
    await box.queue("door", "window", severity="warning", group=group, route=ID)
    await box.queue("fire", severity="critical", group=group, route=ID)
    await box.queue("of a route that is gone", group=group, route="gone-1")
    await phone.until(6.4)
    assert phone.got == [(2, "fire"), (2, "of a route that is gone")]
    await phone.until(7)
    assert phone.got[2:] == [(6.5, "Quiet hours: 2 notifications")]


@pytest.mark.parametrize("outcome", [GONE, FAILED])
async def test_an_attempt_is_not_made_again_in_quiet_hours(box: Outbox, clock: FakeClock, outcome: Outcome) -> None:
    phone = Phone(box, clock)
    phone.outcome = outcome
    await phone.until(0.9)
    await box.queue("door", severity="warning", route=ID, expires_at=clock.now() + HOUR * MICROSECONDS)
    await phone.until(1.5)
    phone.outcome = Sent()
    await phone.until(6.4)
    assert phone.got == []
    await phone.until(7)
    assert phone.got == [(6.5, "door")]


async def test_what_a_rate_holds_up_is_not_sent_in_quiet_hours(box: Outbox, clock: FakeClock) -> None:
    phone = Phone(box, clock, limit=Limit(1 / HOUR, 1))
    await box.queue("door", "window", route=ID)
    await phone.until(6)
    assert [title for _, title in phone.got] == ["door"]
    await phone.until(7)
    assert phone.got[1:] == [(6.5, "window")]


async def test_what_becomes_critical_takes_along_what_is_held(box: Outbox, clock: FakeClock) -> None:
    phone = Phone(box, clock)
    phone.outcome = FAILED
    await phone.until(0.99)
    await box.queue("door", severity="warning", route=ID, fingerprint="door")
    await phone.until(2)
    phone.outcome = Sent()
    await box.queue("door on fire", severity="critical", route=ID, fingerprint="door")
    await phone.until(2.1)
    assert phone.got == [(2, "door"), (2, "door on fire")]


async def test_a_copy_on_another_channel_keeps_them_too(box: Outbox, clock: FakeClock) -> None:
    phone, mail = Phone(box, clock), Phone(box, clock, "mail")
    phone.outcome = GONE
    await phone.until(0.9)
    await box.queue("door", severity="warning", route=ID, failover=("mail",))
    await phone.until(1.05)
    assert ("mail", "door") in {(row.channel, row.title) for row in await box.rows()}
    await mail.until(6.4)
    assert mail.got == []
    await mail.until(7)
    assert mail.got == [(6.5, "door")]


async def test_what_a_clock_since_set_back_has_held_goes_out_in_no_quiet_hours(box: Outbox, clock: FakeClock) -> None:
    phone = Phone(box, clock)
    days = 3
    clock.step(days * 24 * HOUR)
    clock.advance(2 * HOUR)
    until = NOON + round((days * 24 + 6.5) * HOUR * MICROSECONDS)
    await box.queue("door", severity="warning", route=ID, not_before=until, group=Group(f"quiet:{ID}", 0, 0))
    clock.step(-days * 24 * HOUR)
    await phone.until(6.4)
    assert phone.got == []
    await phone.until(7)
    assert phone.got == [(6.5, "door")]


async def test_what_is_held_hides_no_attempt_that_a_clock_since_set_back_has_put_off(
    box: Outbox, clock: FakeClock
) -> None:
    phone = Phone(box, clock)
    phone.outcome = FAILED
    await box.queue("door")
    clock.step(5 * HOUR)
    await phone.sender.work()
    clock.step(-5 * HOUR)
    phone.outcome = Sent()
    held = {"not_before": NOON + 20 * HOUR * MICROSECONDS, "group": Group(f"quiet:{ID}", 0, 0)}
    await box.queue("window", severity="warning", route=ID, **held)
    await phone.until(0.1)
    assert [title for _, title in phone.got] == ["door"]
