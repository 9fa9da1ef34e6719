"""What becomes of notifications that their channel can't send: another channel, a dead letter, or a later time."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.outbox import NOON, Outbox, Scripted

from edgeq.clock import MICROSECONDS
from edgeq.notifications.bucket import Limit
from edgeq.notifications.channels import Outcome, Rejected, Retry, Sent
from edgeq.notifications.notification import Notification
from edgeq.notifications.outbox import Sender
from edgeq.store import dead_letters, history, notifications
from edgeq.store.notifications import Group
from edgeq.testing.clock import FakeClock

GONE = Retry("no route to host", target_down=True, unreachable=True)
FAILED = Retry("500 Internal Server Error")


def sender(
    box: Outbox, answer: Callable[[Notification], Outcome] | Outcome, name: str = "phone", limit: Limit | None = None
) -> tuple[Sender, Scripted]:
    channel = Scripted(answer if callable(answer) else lambda notification: answer)
    channel.digests = True
    channel.limit = limit
    return Sender(name, channel, box.store, box.metrics, box.clock), channel


async def play(clock: FakeClock, sender: Sender, seconds: float) -> None:
    """Let so much time pass for a sender."""
    end = clock.monotonic() + seconds
    while True:
        wait = await sender.work()
        rest = end - clock.monotonic()
        clock.advance(max(0.0, rest if wait is None else min(rest, max(wait, 0.001))))
        if rest <= 0:
            return


async def shown(box: Outbox) -> list[tuple[str, str, str]]:
    return [(row.channel, row.title, row.state) for row in await box.rows()]


async def test_a_channel_that_is_down_for_five_minutes_is_stood_in_for_once(box: Outbox, clock: FakeClock) -> None:
    phone, _ = sender(box, GONE)
    await box.queue("one", failover=("mail", "siren"))
    await box.queue("held", failover=("mail",), not_before=NOON + 3600 * MICROSECONDS)
    await play(clock, phone, 299)
    assert [row.channel for row in await box.rows()] == ["phone", "phone"]
    await play(clock, phone, 2)
    await box.queue("two", failover=("mail",))
    await play(clock, phone, 290)
    rows = await box.rows("mail")
    assert [row.title for row in rows] == ["one"]
    assert (rows[0].created_at, rows[0].failover, rows[0].state) == (NOON, ("siren",), "queued")
    await play(clock, phone, 3000)
    assert [row.title for row in await box.rows("mail")] == ["one", "two"], "held back, it waits for nobody yet"
    await play(clock, phone, 330)
    assert [row.title for row in await box.rows("mail")] == ["one", "two", "held"]
    assert box.metrics.notifications.values["failed_over"] == 3
    mail, there = sender(box, Sent(), "mail")
    await mail.work()
    assert set(there.got) == {"one", "two", "held"}
    assert {row.state for row in await box.rows("phone")} == {"queued"}, "the first channel goes on trying"
    assert await box.rows("siren") == []


async def test_one_that_failed_three_times_is_told_elsewhere_and_goes_on(box: Outbox, clock: FakeClock) -> None:
    phone, channel = sender(box, lambda notification: FAILED if len(channel.got) < 5 else Sent())
    await box.queue("one", failover=("mail",))
    await play(clock, phone, 25)
    assert (len(channel.got), await shown(box)) == (2, [("phone", "one", "queued")])
    await play(clock, phone, 10)
    assert len(channel.got) == 3
    assert await shown(box) == [("phone", "one", "queued"), ("mail", "one", "queued")]
    await play(clock, phone, 3600)
    assert await shown(box) == [("phone", "one", "sent"), ("mail", "one", "queued")]


async def test_one_that_is_refused_is_told_elsewhere_down_the_list(box: Outbox) -> None:
    phone, _ = sender(box, Rejected("400 Bad Request"))
    mail, _ = sender(box, Rejected("550 no such user"), "mail")
    await box.queue("one", failover=("mail", "siren"), kind="reminder", detail='{"number":2}')
    await phone.work()
    await mail.work()
    assert await shown(box) == [("phone", "one", "dead"), ("mail", "one", "dead"), ("siren", "one", "queued")]
    copy = (await box.rows("siren"))[0]
    assert (copy.kind, copy.detail, copy.failover) == ("reminder", '{"number":2}', ())
    assert len(await dead_letters.find(box.store, limit=9)) == 2


async def test_a_digest_fails_over_as_it_is(box: Outbox, clock: FakeClock) -> None:
    phone, channel = sender(box, Rejected("400 Bad Request"))
    await box.queue("one", "two", group=Group("room", 0, 0), failover=("mail",))
    await phone.work()
    mail, there = sender(box, Sent(), "mail")
    await mail.work()
    assert there.got == channel.got == ["2 notifications: one, …"]
    assert there.sent[0].body == channel.sent[0].body
    assert there.sent[0].kind == "digest"


async def test_what_a_digest_told_elsewhere_is_resolved_there(box: Outbox) -> None:
    phone, _ = sender(box, Rejected("400 Bad Request"))
    await box.queue("one", "two", group=Group("room", 0, 0), failover=("mail",), event_id=7)
    await phone.work()
    mail, there = sender(box, Sent(), "mail")
    await mail.work()
    digest = next(row for row in await box.rows("mail") if row.kind == "digest")
    about = await box.store.write(lambda tx: history.about(tx, digest.id, 9))
    assert about == [("of one", 7), ("of two", 7)]
    await box.queue("shut", fingerprint="of one", kind="resolved", failover=("mail",))
    await mail.work()
    assert there.got == ["2 notifications: one, …", "shut"]


async def test_opened_and_resolved_in_one_is_told_elsewhere_too(box: Outbox) -> None:
    phone, _ = sender(box, Rejected("400 Bad Request"))
    await box.queue("opened", fingerprint="door", failover=("mail",))
    await box.queue("closed", fingerprint="door", kind="resolved", failover=("mail",))
    await phone.work()
    mail, there = sender(box, Sent(), "mail")
    await mail.work()
    assert there.got == ["closed"]
    assert "opened" in there.sent[0].body


async def test_what_is_past_its_time_is_a_dead_letter_when_that_is_over(box: Outbox, clock: FakeClock) -> None:
    phone, channel = sender(box, GONE)
    await box.queue("one", event_id=7, expires_at=NOON + 100 * MICROSECONDS, failover=("mail",))
    await box.queue("two")
    await play(clock, phone, 99)
    assert (await box.states())["one"] == "queued"
    await play(clock, phone, 2)
    assert await shown(box) == [("phone", "one", "dead"), ("phone", "two", "queued")]
    (letter,) = await dead_letters.find(box.store, limit=9)
    assert (letter.source, letter.reason, letter.event_id) == ("channel:phone", "expired", 7)
    assert letter.error == "was to be sent before 2026-01-01T12:01:40.000Z; the last error: no route to host"
    assert json.loads(letter.payload or b"")["title"] == "one"
    assert box.metrics.dead_letters.values == {"channel:phone": 1}
    assert channel.got.count("one") >= 3

    channel.answer = lambda notification: Sent()
    assert await box.store.write(lambda tx: notifications.requeue(tx, [1], clock.now())) == 1
    await play(clock, phone, 60)
    assert (await box.states())["one"] == "sent", "whoever redrives it wants it now"


async def test_a_clock_that_is_set_ahead_lets_nothing_expire(box: Outbox, clock: FakeClock) -> None:
    channel = Scripted(lambda notification: Retry("off", target_down=True))
    await box.queue("one", expires_at=NOON + 100 * MICROSECONDS)
    sender = Sender("phone", channel, box.store, box.metrics, clock)
    await play(clock, sender, 50)
    clock.step(86400)
    await box.queue("two", expires_at=clock.now() + 100 * MICROSECONDS)
    await play(clock, sender, 49)
    assert (await box.states()) == {"one": "queued", "two": "queued"}
    await play(clock, sender, 2)
    assert (await box.states()) == {"one": "dead", "two": "queued"}
    await play(clock, sender, 60)
    assert (await box.states()) == {"one": "dead", "two": "dead"}


@pytest.mark.parametrize("kinds", [("resolved",), ("reminder", "resolved")])
async def test_resolved_isnt_told_elsewhere_when_the_alert_wasnt(box: Outbox, kinds: tuple[str, ...]) -> None:
    phone, channel = sender(box, lambda notification: Sent() if notification.kind == "alert" else Rejected("no"))
    await box.queue("open", fingerprint="door")
    await phone.work()
    for kind in kinds:
        await box.queue(kind, fingerprint="door", kind=kind, detail='{"data":{"merged":1}}', failover=("mail",))
    await phone.work()
    assert channel.got == ["open", "resolved"]
    assert [(row.title, row.state, row.error) for row in await box.rows("mail")] == [
        ("resolved", "silenced", notifications.NEVER_TOLD)
    ]


async def test_a_digest_lives_as_long_as_the_last_of_it(box: Outbox) -> None:
    phone, _ = sender(box, GONE)
    for title, expires_at in (("one", NOON + 5), ("two", NOON + 7)):
        await box.queue(title, group=Group("room", 0, 0), expires_at=expires_at)
    await box.queue("three", group=Group("hall", 0, 0), expires_at=NOON + 5)
    await box.queue("four", group=Group("hall", 0, 0))
    await phone.work()
    digests = [row for row in await box.rows() if row.kind == "digest"]
    assert [row.expires_at for row in digests] == [NOON + 7]


async def test_a_rate_is_kept_to(box: Outbox, clock: FakeClock) -> None:
    phone, channel = sender(box, Sent(), limit=Limit(0.2, 3))
    await box.queue(*(f"n{number}" for number in range(6)), severity="critical")
    assert await phone.work() == pytest.approx(5)
    assert len(channel.got) == 3
    await play(clock, phone, 14)
    assert len(channel.got) == 5
    await play(clock, phone, 2)
    assert len(channel.got) == 6


@pytest.mark.parametrize(("late", "messages"), [(5, 5), (6, 1)])
async def test_more_than_five_that_are_late_are_a_digest(
    box: Outbox, clock: FakeClock, late: int, messages: int
) -> None:
    phone, channel = sender(box, Sent())
    await box.queue(*(f"n{number}" for number in range(late)), created_at=NOON - 61 * MICROSECONDS)
    await box.queue("urgent", severity="critical")
    await phone.work()
    assert channel.got[0] == "urgent"
    assert len(channel.got) == 1 + messages


async def test_those_that_were_held_are_not_late(box: Outbox, clock: FakeClock) -> None:
    phone, channel = sender(box, Sent())
    await box.queue(*(f"n{number}" for number in range(9)), not_before=NOON + 3600 * MICROSECONDS)
    clock.advance(3620)
    await phone.work()
    assert len(channel.got) == 9


async def test_a_dead_digest_can_be_redriven_as_it_was(box: Outbox, clock: FakeClock) -> None:
    phone, channel = sender(box, lambda notification: Rejected("400") if len(channel.got) < 2 else Sent())
    await box.queue("one", "two", group=Group("room", 0, 0))
    await phone.work()
    (letter,) = await dead_letters.find(box.store, limit=9)
    await box.queue("three", group=Group("room", 0, 0))
    digest_id = letter.detail["notification_id"]
    assert await box.store.write(lambda tx: notifications.requeue(tx, [digest_id], clock.now())) == 1
    await play(clock, phone, 60)
    first, *rest = channel.sent
    again = next(each for each in rest if each.id == digest_id)
    assert (again.title, again.body.splitlines()[:2]) == (first.title, first.body.splitlines()[:2])
    assert again.idempotency_key == first.idempotency_key
