"""What time does: reminders, escalation, quiet hours; over restarts, outages, changes of the clocks and steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from support.couriers import HOUR, MINUTE, SECOND, Desk, contract, desk, routes
from support.stores import Database

from edgeq.notifications.policy import Policy
from edgeq.processors import courier
from edgeq.testing.clock import NOON, FakeClock

PHONE = {"channels": ["phone"]}
REPEAT = {**PHONE, "repeat": ["15m", "1h"]}
ESCALATE = {
    **PHONE,
    "escalate": [{"after": "1h", "channels": ["siren", "phone"]}, {"after": "15m", "channels": ["mail"]}],
}


@pytest.fixture
async def box(database: Database) -> AsyncIterator[Desk]:
    async with desk(database, REPEAT) as box:
        yield box


async def minutes(box: Desk, kind: str, channel: str = "phone") -> list[int]:
    return [(row.created_at - NOON) // MINUTE for row in await box.rows() if (row.kind, row.channel) == (kind, channel)]


class TestRepeat:
    async def test_after_each_length_and_then_the_last_again_and_again(self, box: Desk) -> None:
        await box.happens("violated")
        await box.live(4 * 3600)
        assert await minutes(box, "reminder") == [15, 75, 135, 195]
        titles = [row.title for row in await box.rows()][1:3]
        assert titles == ["f1 violated (reminder 1, for 15m)", "f1 violated (reminder 2, for 1h 15m)"]
        assert '"number":2' in (await box.rows())[2].detail

    async def test_until_resolved(self, box: Desk) -> None:
        await box.happens("violated")
        await box.live(1800)
        await box.happens("resolved")
        await box.live(7200)
        assert await minutes(box, "reminder") == [15]

    async def test_by_the_first_of_several_routes_to_a_channel(self, box: Desk) -> None:
        await box.open(
            {"channels": ["phone"], "continue": True, "repeat": ["1h"]},
            {"channels": ["phone"], "repeat": ["15m"], "escalate": [{"after": "40m", "channels": ["mail"]}]},
        )
        await box.happens("violated")
        await box.live(3700)
        assert await minutes(box, "reminder", "phone") == [60]
        assert await minutes(box, "alert", "mail") == [40]

    async def test_after_one_that_was_held_the_next_keeps_its_distance(self, box: Desk) -> None:
        await box.open({"channels": ["phone"], "repeat": ["10m", "20m"]})
        await box.happens("violated")
        await box.silence(seconds=26 * 60)
        await box.live(3000)
        assert await minutes(box, "reminder") == [26, 46]

    async def test_those_of_the_contract_make_no_heap_and_none_overtakes_an_acknowledgement(self, box: Desk) -> None:
        await box.open({"channels": ["phone"]})
        await box.happens("violated")
        await box.happens("violated", reminder=1)
        assert [row.kind for row in await box.rows()] == ["alert"]
        await box.sent()
        ctx = box.context(9)
        await box.courier.process_item(contract("violated", reminder=2), ctx)
        await box.acknowledge()
        await box.commit(ctx)
        assert [row.kind for row in await box.rows()] == ["alert"]

    async def test_what_has_no_end_as_often_as_the_list_is_long(self, box: Desk) -> None:
        await box.occurs()
        await box.live(8 * 3600)
        assert await minutes(box, "reminder") == [15, 75]
        assert await box.threads() == []

    async def test_a_reminder_of_the_contract_is_one_of_the_thread(self, box: Desk) -> None:
        await box.happens("violated")
        await box.live(600)
        await box.happens("violated", reminder=1)
        assert (await box.rows())[-1].title == "f1 violated"
        await box.live(2 * 3600 - 60)
        assert await minutes(box, "reminder") == [10, 70]
        assert (await box.rows())[-1].title == "f1 violated (reminder 2, for 1h 10m)"

    async def test_the_duration_is_that_of_the_violation(self, box: Desk) -> None:
        await box.happens("violated", since=NOON - 2 * HOUR)
        await box.live(960)
        assert (await box.rows())[-1].title == "f1 violated (reminder 1, for 2h 15m)"

    async def test_while_something_waits_there_no_heap_is_made(self, box: Desk) -> None:
        await box.happens("violated")
        await box.pass_time(86400 * 15)
        assert await minutes(box, "reminder") == []
        assert box.metrics.skipped.values == {"reminder_waiting": 360}
        await box.live(7200)
        assert len(await minutes(box, "reminder")) == 2

    async def test_a_title_stays_within_its_bound(self, box: Desk) -> None:
        await box.happens("violated", title="x" * 300)
        await box.live(960)
        title = (await box.rows())[-1].title
        assert len(title) == 250
        assert title.endswith("… (reminder 1, for 15m)")

    async def test_after_downtime_there_is_one_and_the_rest_keep_their_distance(self, box: Desk) -> None:
        await box.happens("violated")
        await box.sent()
        box.clock.advance(86400)
        await box.restart()
        await box.live(2 * 3600 - 60)
        assert await minutes(box, "reminder") == [1440, 1500]

    async def test_an_old_event_isnt_reminded_of_at_once(self, box: Desk) -> None:
        """It was stored yesterday, and the courier was paused."""
        box.clock.advance(86400)
        await box.tell(contract("violated", at=NOON))
        await box.live(20 * 60)
        assert await minutes(box, "alert") == [0]
        assert await minutes(box, "reminder") == [1440 + 15]


class TestEscalate:
    async def test_each_step_once_in_order_and_then_they_belong_to_it(self, box: Desk) -> None:
        await box.open(ESCALATE)
        await box.happens("violated")
        await box.live(86400)
        assert await minutes(box, "alert", "mail") == [15]
        assert await minutes(box, "alert", "siren") == [60]
        assert await minutes(box, "alert", "phone") == [0, 60]
        assert [row.title for row in await box.rows() if row.channel == "mail"] == [
            "f1 violated (not acknowledged for 15m)"
        ]
        await box.happens("resolved")
        resolved = [row.channel for row in await box.rows() if row.kind == "resolved"]
        assert sorted(resolved) == ["mail", "phone", "siren"]

    async def test_resolved_in_time(self, box: Desk) -> None:
        await box.open(ESCALATE)
        await box.happens("violated")
        await box.live(1200)
        await box.happens("resolved")
        await box.live(7200)
        assert await minutes(box, "alert", "siren") == []

    async def test_steps_that_were_missed_dont_come_at_once(self, box: Desk) -> None:
        await box.open(ESCALATE)
        await box.happens("violated")
        box.clock.advance(86400)
        await box.restart()
        await box.live(7200)
        assert (await minutes(box, "alert", "mail"), await minutes(box, "alert", "siren")) == ([1440], [1485])

    async def test_who_is_told_by_it_gets_no_reminder_beside(self, box: Desk) -> None:
        await box.open({**ESCALATE, "repeat": ["1h"]})
        await box.happens("violated")
        await box.live(3700)
        assert [(row.channel, row.kind) for row in await box.rows() if row.created_at == NOON + HOUR] == [
            ("siren", "alert"), ("phone", "alert"), ("mail", "reminder"),
        ]  # fmt: skip


QUIET = {**REPEAT, "quiet": {"times": "22:00-06:30", "timezone": "UTC"}}


class TestQuiet:
    async def test_held_until_the_end_in_one_group(self, box: Desk) -> None:
        await box.open(QUIET)
        box.clock.advance(11 * 3600)  # 23:00
        await box.occurs()
        await box.occurs("door.closed")
        end = NOON + 18 * HOUR + 30 * MINUTE
        assert {row.next_attempt_at for row in await box.rows()} == {end}
        (key,) = {row.group_key for row in await box.rows()}
        assert (key or "").startswith("quiet:")

    async def test_what_is_raised_before_them_is_known_by_them_when_they_begin(self, box: Desk) -> None:
        await box.open(QUIET)
        await box.occurs()
        (row,) = await box.rows()
        policy = Policy(routes(QUIET), ["phone"])
        assert policy.quiet(row.created_at) == {}
        assert policy.quiet(NOON + 11 * HOUR) == {row.route: NOON + 18 * HOUR + 30 * MINUTE}

    async def test_critical_passes_with_its_reminders(self, box: Desk) -> None:
        await box.open(QUIET)
        box.clock.advance(11 * 3600)
        await box.happens("violated", severity="critical")
        await box.live(1800)
        assert [(row.kind, row.next_attempt_at == row.created_at) for row in await box.rows()] == [
            ("alert", True), ("reminder", True),
        ]  # fmt: skip

    async def test_what_was_held_is_reminded_of_after_it_was_told(self, box: Desk) -> None:
        await box.open(QUIET)
        box.clock.advance(11 * 3600)
        await box.happens("violated")
        await box.live(9 * 3600)
        assert await minutes(box, "reminder") == [18 * 60 + 45, 19 * 60 + 45]

    async def test_no_reminders_at_night_but_one_at_its_end(self, box: Desk) -> None:
        await box.open(QUIET)
        box.clock.advance(9 * 3600)  # 21:00
        await box.happens("violated")
        await box.live(11 * 3600)
        assert await minutes(box, "reminder") == [9 * 60 + 15, 18 * 60 + 30, 19 * 60 + 30]

    async def test_escalation_waits_too(self, box: Desk) -> None:
        await box.open({**ESCALATE, "quiet": QUIET["quiet"]})
        box.clock.advance(9.9 * 3600)  # 21:54
        await box.happens("violated")
        await box.live(10 * 3600)
        assert await minutes(box, "alert", "mail") == [18 * 60 + 30]

    async def test_time_to_live_begins_with_their_end(self, box: Desk) -> None:
        await box.open({**QUIET, "ttl": "1h"})
        box.clock.advance(11 * 3600)
        await box.occurs()
        assert [row.expires_at for row in await box.rows()] == [NOON + 19 * HOUR + 30 * MINUTE]

    async def test_resolved_is_held_like_the_alert(self, box: Desk) -> None:
        await box.open(QUIET)
        box.clock.advance(11 * 3600)
        await box.happens("violated")
        box.clock.advance(3600)
        await box.happens("resolved")
        assert [(row.kind, row.state) for row in await box.rows()] == [("alert", "queued"), ("resolved", "queued")]
        assert len({(row.group_key, row.next_attempt_at) for row in await box.rows()}) == 1


# The night of the change; when the alert comes, and until when it is held, as the clocks there show it.
NIGHTS = [
    ("Europe/Berlin", "2026-03-28T23:00+01:00", "2026-03-29T06:30+02:00"),
    ("Europe/Berlin", "2026-03-29T01:59+01:00", "2026-03-29T06:30+02:00"),
    ("Europe/Berlin", "2026-10-24T22:00+02:00", "2026-10-25T06:30+01:00"),
    ("Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-25T06:30+01:00"),
    ("America/New_York", "2026-03-07T22:30-05:00", "2026-03-08T06:30-04:00"),
    ("America/New_York", "2026-10-31T23:00-04:00", "2026-11-01T06:30-05:00"),
    ("Australia/Lord_Howe", "2026-04-04T22:00+11:00", "2026-04-05T06:30+10:30"),
    ("Australia/Lord_Howe", "2026-10-03T22:00+10:30", "2026-10-04T06:30+11:00"),
]


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * SECOND


@pytest.mark.parametrize(("zone", "begin", "end"), NIGHTS)
async def test_over_a_change_of_the_clocks(database: Database, zone: str, begin: str, end: str) -> None:
    """Held until the clocks show 06:30; reminders by the time that has passed, none at night, in the same rhythm."""
    route = {**PHONE, "repeat": ["1h"], "quiet": {"times": "22:00-06:30", "timezone": zone}}
    async with desk(database, route, clock=FakeClock(moment(begin))) as box:
        await box.happens("violated")
        await box.happens("violated", subject="f2", severity="critical")
        await box.live((moment(end) - moment(begin)) / SECOND + 86400)
        rows = await box.rows()
    held = next(row for row in rows if row.title == "f1 violated")
    assert held.next_attempt_at == moment(end)
    there = ZoneInfo(zone)
    shown = [
        datetime.fromtimestamp(row.created_at / SECOND, there).strftime("%d %H:%M")
        for row in rows
        if row.title.startswith("f1") and row.kind == "reminder"
    ]
    day = end[8:10]
    assert shown[:15] == [f"{day} {hour:02}:30" for hour in range(7, 22)]
    assert not [each for each in shown if each[3:] >= "22:00" or each[3:] < "06:30"]
    critical = [row.created_at for row in rows if row.title.startswith("f2")]
    assert {later - earlier for earlier, later in pairwise(critical)} == {HOUR}


class TestClock:
    @pytest.mark.parametrize("years", [-56.0, -0.003, 0.003, 56.0])
    async def test_a_step_is_no_time_that_passed(self, box: Desk, years: float) -> None:
        await box.happens("violated")
        await box.live(600)
        box.clock.step(years * 365.25 * 86400)
        stepped = box.clock.now()
        await box.live(20 * 60 - 60)
        reminders = [row for row in await box.rows() if row.kind == "reminder"]
        assert [row.created_at - stepped for row in reminders] == [5 * MINUTE]
        assert reminders[0].title == "f1 violated (reminder 1, for 15m)"
        assert (await box.thread()).thread.next_at == stepped + 65 * MINUTE

    @pytest.mark.parametrize("years", [-56.0, -1.0])
    async def test_after_a_boot_with_a_clock_behind_nothing_is_put_off_for_years(self, box: Desk, years: float) -> None:
        await box.open({**REPEAT, "escalate": [{"after": "20m", "channels": ["mail"]}]})
        await box.happens("violated")
        await box.sent()
        box.clock.step(years * 365.25 * 86400)
        await box.restart()
        start = box.clock.now()
        await box.pass_time(1800)
        late = (await box.rows())[1:]
        assert [(row.kind, (row.created_at - start) // MINUTE) for row in late] == [("reminder", 15), ("alert", 20)]

    async def test_after_a_boot_with_a_clock_ahead_each_thread_speaks_once(self, box: Desk) -> None:
        for number in range(5):
            await box.happens("violated", subject=f"f{number}")
        await box.sent()
        box.clock.step(56 * 365.25 * 86400)
        await box.restart()
        await box.pass_time(1800)
        assert [row.kind for row in await box.rows()][5:] == ["reminder"] * 5

    async def test_due_together_they_go_in_pages(self, box: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(courier, "DUE_MAX", 2)
        for number in range(5):
            await box.happens("violated", subject=f"f{number}")
        await box.sent()
        box.clock.advance(1000)
        ctx = box.context(None)
        await box.courier.on_time(ctx)
        await box.commit(ctx)
        assert len(await minutes(box, "reminder")) == 2
        await box.tick()
        assert len(await minutes(box, "reminder")) == 5
