"""Fifteen days without the target, in simulated time: nothing lost, critical ones first, and the rest is readable."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from support.outbox import Outbox, Scripted

from edgeq.clock import MICROSECONDS
from edgeq.notifications.bucket import Limit
from edgeq.notifications.channels import Outcome, Retry, Sent
from edgeq.notifications.notification import Notification
from edgeq.notifications.outbox import Sender
from edgeq.store import notifications
from edgeq.store.notifications import Group, NewNotification
from edgeq.testing.clock import NOON, FakeClock

DAY = 86400
GONE = Retry("no route to host", target_down=True, unreachable=True)


class Phone(Scripted):
    """Away until `back_at`; then it takes 60 at once and one every 5 s, and says so to those that come too early."""

    digests = True
    body_bytes_max = 4096

    def __init__(self, clock: FakeClock, back_at: int) -> None:
        super().__init__(self._answer)
        self.clock = clock
        self.back_at = back_at
        self.taken: list[tuple[float, Notification]] = []
        self.refused = 0
        self._tokens, self._then = 60.0, clock.monotonic()

    def _answer(self, notification: Notification) -> Outcome:
        if self.clock.now() < self.back_at:
            return GONE
        now = self.clock.monotonic()
        self._tokens, self._then = min(60.0, self._tokens + (now - self._then) / 5), now
        if self._tokens < 1 - 1e-6:
            self.refused += 1
            return Retry("429 Too Many Requests", after_seconds=5.0, target_down=True)
        self._tokens -= 1
        self.taken.append(((self.clock.now() - self.back_at) / MICROSECONDS, notification))
        return Sent()


def history(episodes: int, critical: float, days: float) -> list[NewNotification]:
    """Alerts, reminders and (for most) the end of so many episodes, 2,000 rows for 300, in the order of time."""
    choice = random.Random(5)
    rows = []
    for number in range(episodes):
        severity = "critical" if choice.random() < critical else choice.choice(["info", "warning"])
        at = NOON + round(choice.random() * days * DAY) * MICROSECONDS
        group = Group(f"room {number % 7}", 30 * MICROSECONDS, 300 * MICROSECONDS) if number % 3 == 0 else None
        kinds = ["alert", *["reminder"] * choice.choice([4, 5, 5]), *(["resolved"] if choice.random() < 0.9 else [])]
        for kind in kinds:
            rows.append(
                NewNotification(
                    channel="phone", severity=severity, title=f"Freezer {number} is too warm", body="-12 °C",
                    fingerprint=f"episode {number}", created_at=at, kind=kind, group=group,
                )
            )  # fmt: skip
            at += round(choice.uniform(60, 3600)) * MICROSECONDS
    return sorted(rows, key=lambda row: row.created_at)


async def play(box: Outbox, clock: FakeClock, sender: Sender, rows: list[NewNotification], until: int) -> None:
    """Let time pass until then, with these notifications raised at their times, and until all is sent."""
    coming = iter(rows)
    new = next(coming, None)
    while True:
        while new is not None and new.created_at <= clock.now():
            await box.store.write(lambda tx, new=new: notifications.add(tx, [new]))  # type: ignore[misc]
            new = next(coming, None)
        seconds = await sender.work()
        if seconds is None and clock.now() >= until:
            return
        at = clock.now() + round(600 * MICROSECONDS if seconds is None else seconds * MICROSECONDS) + 1
        clock.advance((min(at, at if new is None else new.created_at) - clock.now()) / MICROSECONDS)


async def account(box: Outbox, phone: Phone) -> dict[str, float]:
    """Check that every row was told once; when each fingerprint was first told, in seconds after the return."""
    by_id = {notification.id: (at, notification) for at, notification in phone.taken}
    assert len(by_id) == len(phone.taken), "told twice"
    first: dict[str, float] = {}
    for row in await box.rows():
        assert row.state in ("sent", "grouped"), row
        at, notification = by_id[row.id if row.state == "sent" else row.digest_id or 0]
        if row.kind != "digest":
            assert row.title in notification.title + notification.body, "not in the message that tells it"
            first[row.fingerprint] = min(at, first.get(row.fingerprint, at))
    return first


@pytest.mark.parametrize(
    ("days", "critical", "limit"),
    [(15, 0.1, Limit(0.2, 60)), (1, 0.5, Limit(0.2, 60)), (1, 0.1, None), (3, 0.5, None)],
)
@pytest.mark.timeout(1800)  # a server is asked some 40,000 times
async def test_days_offline(box: Outbox, clock: FakeClock, days: int, critical: float, limit: Limit | None) -> None:
    back_at = NOON + days * DAY * MICROSECONDS
    rows = history(300, critical, days - 0.5)
    assert len(rows) >= 1900
    phone = Phone(clock, back_at)
    phone.limit = limit
    sender = Sender("phone", phone, box.store, box.metrics, clock)
    await play(box, clock, sender, rows, back_at)

    first = await account(box, phone)
    assert len(first) == 300
    urgent = {row.fingerprint for row in rows if row.severity == "critical"}
    assert max(first[fingerprint] for fingerprint in urgent) <= 60
    calm = set(first) - urgent
    assert max(first.values()) <= 120
    digests = [notification for _, notification in phone.taken if notification.kind == "digest"]
    alone = [notification for _, notification in phone.taken if notification.kind != "digest"]
    assert len(alone) <= len(urgent) + 6, "a flood"
    assert sum(notification.body.count("\n- ") + 1 for notification in digests) >= len(calm) - 6
    assert all(len(notification.body.encode()) <= 4096 for notification in digests)
    last_urgent = max(n for n, (_, notification) in enumerate(phone.taken) if notification.severity == "critical")
    assert last_urgent <= len(urgent) + 1, "critical ones first"
    assert phone.refused <= (0 if limit else 2)


async def test_opened_and_resolved_while_offline_is_one_line(box: Outbox, clock: FakeClock) -> None:
    phone = Phone(clock, NOON + DAY * MICROSECONDS)
    sender = Sender("phone", phone, box.store, box.metrics, clock)
    rows = [
        NewNotification(
            channel="phone", severity="info", title=f"Door {door}", body="", fingerprint=f"door {door}", kind=kind,
            created_at=NOON + (door * 60 + minutes * 60) * MICROSECONDS,
        )
        for door in range(7)
        for kind, minutes in (("alert", 0), ("resolved", 30))
    ]  # fmt: skip
    await play(box, clock, sender, sorted(rows, key=lambda row: row.created_at), phone.back_at)
    (_, probe), (_, digest) = phone.taken
    assert (probe.kind, probe.title) == ("resolved", "Door 0")
    assert digest.title == "6 late notifications, 6 resolved"
    assert len(digest.body.splitlines()) == 6
    assert all("(30m)" in line for line in digest.body.splitlines())


async def test_what_was_put_together_and_had_no_way_out_is_sent_as_it_is(box: Outbox, clock: FakeClock) -> None:
    phone = Phone(clock, NOON + 3600 * MICROSECONDS)
    sender = Sender("phone", phone, box.store, box.metrics, clock)
    await box.queue("Door", "Door", fingerprint="door", body="It is open.")
    await sender.work()
    clock.advance(600)
    await box.queue("Fire", severity="critical")  # goes first, so that the other one is picked anew
    await sender.work()
    clock.advance(7200)
    await sender.work()
    (_, fire), (_, door) = phone.taken
    assert (fire.title, door.title) == ("Fire", "Door")
    assert door.body.count("2 times, the last") == 1
    assert len(await box.rows()) == 4


async def test_memory_is_flat(box: Outbox, clock: FakeClock) -> None:
    body = "x" * 10_000
    rows = [
        NewNotification(
            channel="phone", severity="info" if number % 5 else "critical", title=f"n{number}", body=body,
            fingerprint=f"f{number % 600}", created_at=NOON,
        )
        for number in range(3000)
    ]  # fmt: skip
    for start in range(0, 3000, 100):
        await box.store.write(lambda tx, start=start: notifications.add(tx, rows[start : start + 100]))  # type: ignore[misc]
    clock.advance(3600)

    class Heard(Scripted):
        digests = True
        number = 0

        async def send(self, notification: Notification) -> Outcome:
            self.number += 1
            return Sent()

    heard = Heard()
    heard.limit = Limit(0.2, 60)
    sender = Sender("phone", heard, box.store, box.metrics, clock)
    tracemalloc.start()
    try:
        while (seconds := await sender.work()) is not None:
            clock.advance(seconds + 0.001)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert heard.number < 200
    assert peak < 4 * 2**20, "that is not a page but all of it: 30 MB"
