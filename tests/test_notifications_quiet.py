"""Quiet hours, on the clocks of their zone."""

from __future__ import annotations

from datetime import datetime

import pytest

from edgeq.config.schema import Quiet
from edgeq.notifications.quiet import QuietHours, quiet_faults


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


NIGHT = "22:00-06:30"
BERLIN, YORK, HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("zone", "at", "until"),
    [
        (BERLIN, "2026-06-01T21:59:59+02:00", None),
        (BERLIN, "2026-06-01T22:00+02:00", "2026-06-02T06:30+02:00"),
        (BERLIN, "2026-06-02T06:29:59+02:00", "2026-06-02T06:30+02:00"),
        (BERLIN, "2026-06-02T06:30+02:00", None),
        (BERLIN, "2026-03-28T22:00+01:00", "2026-03-29T06:30+02:00"),  # 7.5 hours
        (BERLIN, "2026-03-29T03:00+02:00", "2026-03-29T06:30+02:00"),
        (BERLIN, "2026-10-24T22:00+02:00", "2026-10-25T06:30+01:00"),  # 9.5 hours
        (BERLIN, "2026-10-25T02:30+01:00", "2026-10-25T06:30+01:00"),
        (YORK, "2026-03-07T23:00-05:00", "2026-03-08T06:30-04:00"),
        (YORK, "2026-11-01T01:30-04:00", "2026-11-01T06:30-05:00"),
        (HOWE, "2026-04-04T22:00+11:00", "2026-04-05T06:30+10:30"),
        (HOWE, "2026-10-03T22:00+10:30", "2026-10-04T06:30+11:00"),
    ],
)
def test_until_the_clocks_there_show_their_end(zone: str, at: str, until: str | None) -> None:
    assert QuietHours(Quiet(NIGHT, timezone=zone)).until(moment(at)) == (until and moment(until))


@pytest.mark.parametrize(
    ("times", "zone", "at", "until"),
    [
        # An end that the clocks leave out, and one that they show twice: then it is the last.
        ("01:00-02:30", BERLIN, "2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00"),
        ("01:00-02:30", BERLIN, "2026-10-25T02:10+02:00", "2026-10-25T02:30+01:00"),
        ("01:00-02:15", HOWE, "2026-10-04T01:59+10:30", "2026-10-04T02:30+11:00"),
        # All of it is left out.
        ("02:10-02:50", BERLIN, "2026-03-29T03:00+02:00", None),
    ],
)
def test_ends_that_the_clocks_dont_show_once(times: str, zone: str, at: str, until: str | None) -> None:
    assert QuietHours(Quiet(times, timezone=zone)).until(moment(at)) == (until and moment(until))


def test_on_some_days_and_several_times() -> None:
    quiet = QuietHours(Quiet(["22:00-06:00", "13:00-15:00"], ["fri-sat"], "UTC"))
    assert quiet.until(moment("2026-01-01T23:00Z")) is None  # a Thursday
    assert quiet.until(moment("2026-01-02T14:00Z")) == moment("2026-01-02T15:00Z")
    assert quiet.until(moment("2026-01-04T05:00Z")) == moment("2026-01-04T06:00Z")  # that of Saturday
    assert quiet.until(moment("2026-01-04T23:00Z")) is None
    weekend = QuietHours(Quiet("00:00-24:00", ["sat-sun"], "UTC"))
    assert weekend.until(moment("2026-01-03T00:00Z")) == moment("2026-01-05T00:00Z")


def test_without_a_zone_it_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", YORK)
    assert QuietHours(NIGHT).until(moment("2026-06-01T22:00-04:00")) == moment("2026-06-02T06:30-04:00")


@pytest.mark.parametrize(
    "quiet", ["00:00-24:00", Quiet(["00:00-12:00", "12:00-24:00"]), Quiet(["06:00-05:00", "04:00-07:00"])]
)
def test_what_never_ends_is_a_mistake(quiet: str | Quiet) -> None:
    assert ["must end at some time" in message for _, message in quiet_faults(quiet)] == [True]
