"""The senders: nothing lost, nothing twice, in order, and nobody waits for somebody else's target."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import peewee
import pytest
from support.outbox import NOON, Outbox, Scripted, outbox
from support.stores import Database, SqliteDatabase
from support.targets import until

from edgeq.clock import MICROSECONDS
from edgeq.notifications import outbox as module
from edgeq.notifications.channels import Outcome, Rejected, Retry, Sent
from edgeq.notifications.picking import Terms, pick
from edgeq.store import dead_letters, notifications
from edgeq.store import outbox as outbox_verbs
from edgeq.store import outlook as outlook_verbs
from edgeq.store.notifications import Group
from edgeq.testing.clock import FakeClock

DOWN = Retry("connection refused", target_down=True)
FAILED = Retry("500 Internal Server Error")


async def test_what_is_queued_is_sent_in_order_and_marked(box: Outbox) -> None:
    channel = Scripted()
    await box.queue("one", "two", fingerprint="same")
    sender = await box.start(channel)
    await box.queue("three", fingerprint="same")
    await box.queue("four")
    await box.until(dict.fromkeys(("one", "two", "three", "four"), "sent"))
    assert channel.got == ["one", "two", "three", "four"]
    row = await box.row("one")
    assert (row.attempt, row.sent_at, row.error) == (1, NOON, None)
    await until(lambda: sender.sent == 4)  # it is counted a moment after the commit
    assert (sender.sent, sender.last_error, sender.waiting_until) == (4, None, None)
    assert box.metrics.notifications.values == {"sent": 4}
    assert {each.idempotency_key for each in channel.sent} == {f"{box.store.id}-{n}" for n in (1, 2, 3, 4)}


async def test_more_than_a_page_of_a_backlog_goes_in_order(box: Outbox) -> None:
    titles = [f"n{number}" for number in range(250)]
    await box.queue(*titles)
    channel = Scripted()
    await box.start(channel)
    await box.until({"n249": "sent"})
    assert channel.got == titles


@pytest.mark.parametrize("digests", [False, True])
async def test_what_comes_next_costs_the_same_however_many_wait(
    tmp_path: Path, clock: FakeClock, digests: bool
) -> None:
    async with outbox(SqliteDatabase(tmp_path), clock) as box:
        await costs_the_same(box, clock, digests)


async def costs_the_same(box: Outbox, clock: FakeClock, digests: bool) -> None:
    store = box.store

    async def steps(number: int) -> int:
        """Hundreds of steps of SQLite's machine that it takes to find what comes next, and `number` times more."""
        counted: list[None] = []

        def unit(tx: Any) -> None:
            tx._connection.set_progress_handler(lambda: counted.append(None), 100)
            for _ in range(number):
                picked = pick(tx, Terms(channel="phone", digests=digests, body_bytes_max=1000), clock.now())
                assert picked is not None
                outbox_verbs.mark_sent(tx, picked.row.id, attempt=1, now=clock.now())
            tx._connection.set_progress_handler(None, 100)

        await store.write(unit)
        await outlook_verbs.outlook(store, "phone")
        return len(counted)

    for number in range(3):
        await box.queue(f"held {number}", not_before=clock.now() + 10**9, group=Group("g", 0, 0), failover=("mail",))
        await box.queue(f"mail {number}", channel="mail")
    await box.queue(*(f"n{number}" for number in range(20)))
    few = await steps(10)
    await box.queue(*(f"n{number}" for number in range(20, 3000)))
    await box.queue(*(f"h{number}" for number in range(2000)), not_before=clock.now() + 10**9)
    assert await steps(10) <= few + 10
    clock.advance(100)  # now all are late, and as many as fit are told in one digest
    few = await steps(2)
    await box.queue(*(f"late {number}" for number in range(3000)), created_at=clock.now() - 90 * MICROSECONDS)
    assert await steps(2) <= few + 10


async def test_a_channel_sends_only_its_own(box: Outbox) -> None:
    phone, mail = Scripted(), Scripted()
    await box.start(phone)
    await box.start(mail, "mail")
    await box.queue("for mail", channel="mail")
    await box.queue("for phone")
    await box.queue("for nobody", channel="gone")
    await box.until({"for mail": "sent", "for phone": "sent"})
    assert (phone.got, mail.got) == (["for phone"], ["for mail"])
    assert (await box.states())["for nobody"] == "queued"


async def test_a_channel_that_hangs_delays_no_other(box: Outbox) -> None:
    stuck, fine = Scripted(), Scripted()
    stuck.gate.clear()
    await box.queue("stuck")
    await box.queue(*(f"n{number}" for number in range(30)), channel="mail")
    await box.start(stuck)
    await until(lambda: stuck.got)
    await box.start(fine, "mail")
    await box.until({"n29": "sent"})
    assert (await box.states())["stuck"] == "queued"


async def test_while_the_target_is_down_the_channel_waits_and_nothing_is_given_up(
    box: Outbox, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    down = True
    channel = Scripted(lambda notification: DOWN if down else Sent())
    await box.queue("one", "two", "three")
    commits = box.metrics.commits
    with caplog.at_level(logging.INFO, "edgeq.channel.phone"):
        sender = await box.start(channel)
        for attempt in range(1, 3 * module.ATTEMPTS_MAX):
            await until(lambda attempt=attempt: len(channel.got) == attempt and sender.waiting_until is not None)
            if attempt == 2:
                written = commits.total()
            assert sender.last_error == "connection refused"
            assert sender.waiting_until == clock.now() + min(900, 10 * 2 ** (attempt - 1)) * MICROSECONDS
            clock.advance(900)
            box.wake()
        assert commits.total() == written, "an outage wears out the SD card"
        down = False
        await box.until(dict.fromkeys(("one", "two", "three"), "sent"))
    assert set(channel.got[:-2]) == {"one"}, "the target was tried with more than one while it was down"
    assert channel.got[-3:] == ["one", "two", "three"], "those that waited lost their places"
    assert (await box.row("one")).attempt == 1
    assert [record.getMessage() for record in caplog.records] == [
        "notification 1 was not taken: connection refused; trying again",
        f"takes notifications again, after {3 * module.ATTEMPTS_MAX - 1} failed attempts",
    ]


async def test_nothing_is_tried_before_its_time(box: Outbox, clock: FakeClock) -> None:
    answers: list[Outcome] = [Retry("429 Too Many Requests", after_seconds=120.0, target_down=True)]
    channel = Scripted(lambda notification: answers.pop() if answers else Sent())
    await box.queue("one")
    sender = await box.start(channel)
    await until(lambda: sender.waiting_until == NOON + 120 * MICROSECONDS)
    clock.advance(119)
    await box.queue("two")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await box.until({"one": "sent"})
    assert channel.got == ["one"]
    clock.advance(1)
    box.wake()
    await box.until({"one": "sent", "two": "sent"})


async def test_it_looks_again_by_itself_when_the_time_has_come(database: Database) -> None:
    from edgeq.backoff import Backoff
    from edgeq.clock import Clock

    class Quick(Scripted):
        backoff = Backoff(0.01, 0.02)

    async with outbox(database, Clock()) as box:
        answers: list[Outcome] = [DOWN, FAILED, DOWN, FAILED, FAILED]
        channel = Quick(lambda notification: answers.pop() if answers else Sent())
        await box.queue("one")
        await box.start(channel)
        await box.until({"one": "sent"})
        assert channel.got == ["one"] * 6
        assert (await box.row("one")).attempt == 4


async def test_one_that_always_fails_delays_only_its_own_fingerprint_and_dies_in_the_end(
    box: Outbox, clock: FakeClock
) -> None:
    channel = Scripted(lambda notification: FAILED if notification.title == "poison" else Sent())
    await box.queue("poison", "behind it", fingerprint="door")
    await box.queue("other")
    sender = await box.start(channel)
    for attempt in range(1, module.ATTEMPTS_MAX + 1):
        await until(lambda attempt=attempt: channel.got.count("poison") == attempt and sender.waiting_until)
        assert "behind it" not in channel.got
        await box.queue(f"new {attempt}")
        clock.advance(900 * 1.2)
        box.wake()
        if attempt < module.ATTEMPTS_MAX:
            await box.until({"other": "sent", f"new {attempt}": "sent"})
    await box.until({"poison": "dead", "behind it": "sent"})

    row = await box.row("poison")
    assert row.attempt == module.ATTEMPTS_MAX
    (letter,) = await dead_letters.find(box.store, limit=10)
    assert (letter.source, letter.reason) == ("channel:phone", "attempts")
    assert letter.error == "failed 20 times, the last time: 500 Internal Server Error"
    assert letter.detail == {"notification_id": row.id}
    assert json.loads(letter.payload or b"")["title"] == "poison"
    assert box.metrics.dead_letters.values == {"channel:phone": 1}
    assert box.metrics.notifications.values["retried"] == module.ATTEMPTS_MAX - 1


async def test_one_that_is_refused_is_a_dead_letter_at_once_and_the_rest_goes_on(box: Outbox) -> None:
    channel = Scripted(lambda notification: Rejected("400 Bad Request") if notification.title == "bad" else Sent())
    await box.queue("bad", "good", fingerprint="door", event_id=17)
    await box.start(channel)
    await box.until({"bad": "dead", "good": "sent"})
    assert channel.got == ["bad", "good"]
    (letter,) = await dead_letters.find(box.store, limit=10)
    assert (letter.source, letter.reason, letter.error) == ("channel:phone", "rejected", "400 Bad Request")
    assert letter.event_id == 17
    assert (await box.row("bad")).error == "400 Bad Request"


async def test_a_dead_one_can_be_queued_again_and_keeps_its_key(box: Outbox) -> None:
    outcomes: list[Outcome] = [Rejected("400 Bad Request")]
    channel = Scripted(lambda notification: outcomes.pop() if outcomes else Sent())
    await box.queue("one")
    await box.start(channel)
    await box.until({"one": "dead"})
    assert await box.store.write(lambda tx: notifications.requeue(tx, [1], box.clock.now())) == 1
    await box.until({"one": "sent"})
    assert channel.sent[0].idempotency_key == channel.sent[1].idempotency_key
    assert await box.store.write(lambda tx: notifications.requeue(tx, [1, 99], box.clock.now())) == 0


async def test_an_exception_is_a_failed_attempt(box: Outbox, clock: FakeClock) -> None:
    outcomes: list[Outcome | Exception] = [RuntimeError("no \ud800 such\0thing" + "x" * 10_000)]
    channel = Scripted(lambda notification: outcomes.pop() if outcomes else Sent())
    await box.queue("one")
    sender = await box.start(channel)
    row = await box.failed("one")
    assert row.attempt == 1
    assert (row.error or "").startswith("RuntimeError: no \\ud800 such\\x00thing")
    assert len(row.error or "") < 600
    clock.advance(20)
    box.wake()
    await box.until({"one": "sent"})
    assert (sender.crashes, sender.last_error) == (0, None)


async def test_a_channel_that_never_ends_is_ended(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS_MAX", 0.05)
    channel = Scripted()
    channel.gate.clear()
    await box.queue("one")
    sender = await box.start(channel)
    await until(lambda: sender.last_error)
    assert sender.last_error == "took longer than 0.05s"


async def test_what_reached_only_some_is_sent_and_says_so(box: Outbox) -> None:
    channel = Scripted(lambda notification: Sent(missed="ops@example.net: 550 nobody here"))
    await box.queue("one")
    sender = await box.start(channel)
    await box.until({"one": "sent"})
    assert sender.last_error == "not to everyone: ops@example.net: 550 nobody here"
    assert (await box.row("one")).error == sender.last_error


async def test_late_delivery_says_so_and_leaves_the_stored_text_alone(box: Outbox, clock: FakeClock) -> None:
    channel = Scripted()
    await box.queue("one", body="It is open")
    clock.advance(7500)
    await box.start(channel)
    await box.until({"one": "sent"})
    assert channel.sent[0].body.endswith("\n\nraised at 2026-01-01 12:00")
    assert (await box.row("one")).body == "It is open"


async def test_a_clock_that_is_set_back_stops_nothing(box: Outbox, clock: FakeClock) -> None:
    failing = {"tried"}
    channel = Scripted(lambda notification: FAILED if notification.title in failing else Sent())
    await box.queue("tried")
    await box.start(channel)
    await box.failed("tried")
    failing.clear()
    await box.queue("fresh")
    clock.step(-86400 * 365)
    clock.advance(10)
    box.wake()
    await box.until({"tried": "sent", "fresh": "sent"})


async def test_after_a_restart_it_goes_on_with_what_is_queued(database: Database, clock: FakeClock) -> None:
    async with outbox(database, clock) as box:
        channel = Scripted(lambda notification: Sent() if notification.title == "one" else DOWN)
        await box.queue("one", "two", "three")
        sender = await box.start(channel)
        await until(lambda: sender.waiting_until)
        keys = [each.idempotency_key for each in channel.sent]
    async with outbox(database, clock) as box:
        channel = Scripted()
        await box.start(channel)
        await box.until({"two": "sent", "three": "sent"})
        assert channel.got == ["two", "three"]
        assert channel.sent[0].idempotency_key == keys[1]


async def test_when_stopped_what_is_being_sent_is_finished(box: Outbox) -> None:
    channel = Scripted()
    channel.gate.clear()
    await box.queue("one", "two")
    sender = await box.start(channel)
    await until(lambda: channel.got)
    stopping = asyncio.create_task(sender.stop(20))
    await until(lambda: sender.stopping.is_set())
    channel.gate.set()
    await stopping
    assert await box.states() == {"one": "sent", "two": "queued"}


async def test_an_idle_sender_waits_without_a_timer(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Scripted()
    await box.queue("one")
    await box.start(channel)
    await box.until({"one": "sent"})
    waits: list[float | None] = []
    wait = box.store.signal.wait

    async def watched(topic: object, seen: int, seconds: float | None = None, **more: object) -> bool:
        waits.append(seconds)
        return await wait("notifications", seen, seconds, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(box.store.signal, "wait", watched)
    box.wake()
    await until(lambda: waits)
    assert set(waits) == {None}, "it would wake up by itself"


async def test_counts_say_what_waits_where_and_why(box: Outbox, clock: FakeClock) -> None:
    await box.queue("old", "new", channel="gone")
    await box.queue("sent")
    await box.start(Scripted(lambda notification: Sent() if notification.title == "sent" else FAILED))
    await box.until({"sent": "sent"})
    await box.queue("failing", created_at=NOON - 5)
    await box.failed("failing")
    assert await notifications.counts(box.store) == {
        "gone": {"queued": 2, "oldest_queued_at": NOON, "error": None},
        "phone": {"sent": 1, "queued": 1, "oldest_queued_at": NOON - 5, "error": "500 Internal Server Error"},
    }


async def test_find_filters(box: Outbox) -> None:
    await box.queue("a", "b", severity="critical", fingerprint="f")
    await box.queue("c", channel="mail")
    store = box.store
    assert [row.title for row in await notifications.find(store, limit=2)] == ["c", "b"]
    assert [row.title for row in await notifications.find(store, limit=9, channel="phone")] == ["b", "a"]
    assert [row.title for row in await notifications.find(store, limit=9, severity="critical", before_id=2)] == ["a"]
    assert [row.title for row in await notifications.find(store, limit=9, fingerprint="f", state="queued")] == [
        "b",
        "a",
    ]
    assert await notifications.find(store, limit=9, state="dead") == []
    one = await notifications.one(store, 3)
    assert one is not None
    assert one.title == "c"
    assert await notifications.one(store, 4) is None


async def test_hot_queries_use_an_index(tmp_path: Path, clock: FakeClock) -> None:
    dialect, sqlite = peewee.SqliteDatabase(None), SqliteDatabase(tmp_path)
    here, fingerprint, group, expires, failover = (
        f"INDEX notifications_{name} (channel=?" for name in ("due", "waiting", "group", "expires", "failover")
    )
    raised, retried = "INDEX notifications_raised (channel=?", "INDEX notifications_retried (channel=?"
    by_route = "INDEX notifications_route (channel=? AND route=?"
    severity = "INDEX notifications_severity (channel=? AND severity=?"
    told, told_group = "INDEX notifications_told (", "INDEX notifications_group_told ("
    own, members = "INTEGER PRIMARY KEY (rowid=?)", "INDEX notifications_members (digest_id=?"
    digests = "INDEX notifications_digests (channel=? AND kind=?"
    hot = [
        (outbox_verbs._HEADS[True, False], [severity]), (outbox_verbs._HEADS[True, True], [severity]),
        (outbox_verbs._HEADS[False, False], [here]), (outbox_verbs._HEADS[False, True], [retried]),
        (outbox_verbs._PAGE, [fingerprint]), (outbox_verbs._BEGUN, [fingerprint]),
        (outbox_verbs._IS_NEXT, [severity, here, severity, retried, fingerprint]),
        (outbox_verbs._DIGEST_WITH, [digests, members]), (outbox_verbs._NEXT_LATE[True], [severity]),
        (outbox_verbs._NEXT_LATE[False], [here]), (outbox_verbs._DIFFERENT[True], [severity]),
        (outbox_verbs._DIFFERENT[False], [here]), (outbox_verbs._NEXT_OF_GROUP, [group]),
        (outbox_verbs._TAKE_OUT, [fingerprint]), (outbox_verbs._TAKE_OUT_MEMBERS, [members, members]),
        (outbox_verbs._JOIN, [members]), (outbox_verbs._COPY_MEMBERS, [members]), (outbox_verbs._TRY, [own]),
        (outbox_verbs._POSTPONE, [fingerprint]),
        (outbox_verbs._SENT, [own]), (outbox_verbs._RETRY, [own]), (outbox_verbs._NOTE, [own]),
        (outbox_verbs._DEAD, [own]), (outbox_verbs._FAILED_OVER, [own]), (outbox_verbs._BY_ID, [own]),
        (outlook_verbs._OUTLOOK, [here, expires, failover]),
            (outlook_verbs._IS_AHEAD, [raised, retried, here]), (outbox_verbs._HOLD, [own, by_route, fingerprint]),
        (outlook_verbs._EXPIRED, [expires]), (outlook_verbs._PUT_OFF_ENDS, [expires]),
        (outlook_verbs._STUCK, [failover]), (outlook_verbs._AHEAD, [here, here]),
            (outlook_verbs._HELD_AHEAD, [here]),
        (notifications._TOLD, [told, own]), (notifications._GROUP_WAITING, [group]),
        (notifications._GROUP_TOLD, [told_group]), (notifications._SILENCE, [own]),
        (notifications._FAILED_UNTIL, ["INDEX notifications_failed ("]), (notifications._COUNTS, ["INDEX"]),
        (notifications._OLDEST, ["INDEX"]), (notifications._TROUBLES, ["INDEX", "INTEGER PRIMARY KEY"]),
    ]  # fmt: skip
    async with outbox(sqlite, clock):
        for statement, wanted in hot:
            text = statement.text(dialect)
            plan = sqlite.sql("EXPLAIN QUERY PLAN " + text, *[1] * text.count("?"))
            steps = [row[3] for row in plan if row[3].startswith(("SEARCH", "SCAN t1", "SCAN t2", "SCAN notif"))]
            assert len(steps) == len(wanted), (text, plan)
            for step in wanted:
                assert any(step in each for each in steps), (text, plan)
            if statement not in (outlook_verbs._STUCK, outbox_verbs._TAKE_OUT_MEMBERS):
                assert not [row for row in plan if "TEMP B-TREE FOR ORDER" in row[3]], (text, plan)
