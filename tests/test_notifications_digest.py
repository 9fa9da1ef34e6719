"""Several notifications in one message: what people read when much has waited."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.clock import EARLIEST, LATEST, MICROSECONDS
from edgeq.notifications.digest import LINES_MAX, Digest, Story
from edgeq.notifications.functions import Place
from edgeq.notifications.notification import SEVERITIES
from edgeq.store.notifications import StoredNotification
from edgeq.testing.clock import NOON

BERLIN = Place(zone=timezone(timedelta(hours=1)))
MINUTE = 60 * MICROSECONDS
MIDNIGHT = NOON - 13 * 60 * MINUTE  # in Berlin


def row(kind: str = "alert", at: int = NOON, **more: Any) -> StoredNotification:
    blank = StoredNotification(1, None, "phone", "info", "Freezer 3", "", "f", "queued", 0, at, None, None, at, kind)
    return msgspec.structs.replace(blank, **more)


def story(*rows: StoredNotification) -> Story:
    whole = Story.of(rows[0])
    for each in rows[1:]:
        whole = whole.then(each)
    return whole


def told(*rows: StoredNotification, now: int = NOON) -> str:
    return story(*rows).told(now, BERLIN)


def test_one_is_told_with_its_time() -> None:
    assert told(row(at=MIDNIGHT + 130 * MINUTE)) == "02:10"


def test_opened_and_resolved_says_how_long_it_was() -> None:
    opened, resolved = row(at=MIDNIGHT + 130 * MINUTE), row("resolved", MIDNIGHT + 160 * MINUTE)
    assert told(opened, resolved) == "opened 02:10, resolved 02:40 (30m)"
    assert told(resolved) == "resolved 02:40"


def test_reminders_are_counted() -> None:
    alert, reminder = row(at=MIDNIGHT), row("reminder", MIDNIGHT + MINUTE)
    assert told(alert, reminder) == "00:00, 1 reminder"
    assert told(alert, reminder, reminder, row("resolved", MIDNIGHT + 65 * MINUTE)) == (
        "opened 00:00, resolved 01:05 (1h 5m), 2 reminders"
    )


def test_the_date_is_said_unless_it_is_today() -> None:
    opened, resolved = row(at=MIDNIGHT - MINUTE), row("resolved", MIDNIGHT + MINUTE)
    assert told(opened) == "2025-12-31 23:59"
    assert told(opened, resolved) == "opened 2025-12-31 23:59, resolved 00:01 (2m)"
    assert told(row(at=MIDNIGHT - 9 * MINUTE), row("resolved", MIDNIGHT - MINUTE)) == (
        "opened 2025-12-31 23:51, resolved 23:59 (8m)"
    )
    assert told(row(at=MIDNIGHT - 1)) == "2025-12-31 23:59"
    assert told(row(at=MIDNIGHT)) == "00:00"


def test_the_same_again_and_again_is_one_line() -> None:
    again = [row(at=MIDNIGHT + n * MINUTE) for n in range(5)]
    assert told(*again) == "00:00, 5 times, the last 00:04"
    assert told(row(at=MIDNIGHT), row("resolved", MIDNIGHT + MINUTE), row(at=MIDNIGHT + 2 * MINUTE)) == (
        "00:00, 2 times, the last 00:02"
    )


def test_the_newest_text_wins_and_the_highest_severity() -> None:
    whole = story(
        row(severity="critical", title="open", body="since noon"),
        row("update", severity="info", title="still open", body="for an hour", expires_at=5),
    )
    assert (whole.newest.title, whole.severity, whole.expires_at) == ("still open", "critical", None)
    assert whole.body(NOON, BERLIN) == "for an hour\n\n13:00"


def test_what_was_put_together_is_put_together_again() -> None:
    alert, reminder = row(at=MIDNIGHT), row("reminder", MIDNIGHT + MINUTE)
    once = row("reminder", at=MIDNIGHT, detail=story(alert, reminder).detail)
    assert told(once, reminder, row("resolved", MIDNIGHT + 3 * MINUTE)) == (
        "opened 00:00, resolved 00:03 (3m), 2 reminders"
    )


def test_what_was_told_with_a_body_is_not_told_again() -> None:
    alert, reminder = row(at=MIDNIGHT, body="-10 degrees"), row("reminder", MIDNIGHT + MINUTE, body="-9 degrees")
    twice = story(alert, reminder)
    once = row("reminder", at=MIDNIGHT, body=twice.body(NOON, BERLIN), detail=twice.detail)
    assert once.body == "-9 degrees\n\n00:00, 1 reminder"
    for before in ([], [alert]):
        more = story(*before, once)
        again = row("reminder", at=MIDNIGHT, body=more.body(NOON, BERLIN), detail=more.detail)
        times = "00:00, 2 times, the last 00:00" if before else "00:00"
        assert again.body == f"-9 degrees\n\n{times}, 1 reminder"
        assert story(again).body(NOON, BERLIN) == again.body


@pytest.mark.parametrize("detail", ['{"merged": 5}', '{"merged": {"count": "x"}}', "[]", "not json", '"merged"'])
def test_odd_detail_is_no_obstacle(detail: str) -> None:
    whole = story(row(detail=detail), row("resolved", detail=detail))
    assert whole.merged.count == 2
    assert '"merged"' in whole.detail


def test_a_digest_says_how_many_and_has_a_line_for_each() -> None:
    digest = Digest(None, 4096, NOON, BERLIN)
    assert digest.add(story(row(at=MIDNIGHT, title="Freezer 3", severity="warning")))
    assert digest.add(story(row(at=MIDNIGHT + MINUTE, title="Door"), row("resolved", MIDNIGHT + 2 * MINUTE, id=9)))
    assert digest.title == "2 late notifications, 1 resolved"
    assert digest.body == "- warning: Freezer 3 (00:00)\n- Freezer 3 (opened 00:01, resolved 00:02 (1m))"
    assert (digest.severity, digest.count, digest.resolved) == ("warning", 2, 1)
    assert digest.detail == '{"type":"digest","count":2,"resolved":1,"ids":[1,9]}'


def test_the_title_says_of_what() -> None:
    titles = []
    for key in (None, "quiet:7", "room"):
        digest = Digest(key, 4096, NOON, BERLIN)
        digest.add(story(row(title="t" * 250)))
        titles.append(digest.title)
        digest.add(story(row()))
        titles.append(digest.title)
    assert titles[:4] == [
        "1 late notification", "2 late notifications", "Quiet hours: 1 notification", "Quiet hours: 2 notifications",
    ]  # fmt: skip
    assert titles[5].startswith("2 notifications: ttt")
    assert all(len(title) <= 250 for title in titles)


def test_what_does_not_fit_is_for_the_next() -> None:
    digest = Digest(None, 128 + 30, NOON, BERLIN)
    assert digest.add(story(row(title="é" * 9)))  # 29 bytes, and the end of its line
    assert not digest.add(story(row(title="")))
    assert digest.count == 1
    assert len(digest.body.encode()) == 28


def test_a_line_that_is_too_long_for_any_message_is_cut() -> None:
    digest = Digest(None, 160, NOON, BERLIN)
    assert digest.add(story(row(title="é" * 200)))
    assert digest.body.endswith("é…")
    assert len(digest.body.encode()) <= 32


def test_a_message_has_so_many_lines_at_most() -> None:
    digest = Digest(None, 10**9, NOON, BERLIN)
    count = 0
    while digest.add(story(row())):
        count += 1
    assert count == LINES_MAX


times = st.integers(EARLIEST - 10**15, LATEST + 10**15)
rows = st.lists(
    st.builds(
        row,
        st.sampled_from(["alert", "update", "reminder", "resolved", "digest", "odd"]),
        times,
        severity=st.sampled_from([*SEVERITIES, "odd"]),
        title=st.text(max_size=300).map(lambda text: " ".join(text.split())),
        detail=st.sampled_from(["{}", "[]", '{"merged": {}}']),
    ),
    min_size=1,
    max_size=6,
)


@given(st.lists(rows, min_size=1, max_size=20), st.integers(0, 3000), times)
def test_whatever_there_is_the_digest_fits_and_has_one_line_for_each(
    stories: list[list[StoredNotification]], body_bytes_max: int, now: int
) -> None:
    digest = Digest("room", body_bytes_max, now, BERLIN)
    taken = [digest.add(story(*each)) for each in stories]
    assert taken[0]
    assert digest.count == sum(taken) == len(digest.body.split("\n"))
    assert len(digest.body.encode()) <= max(body_bytes_max - 128, 3)
