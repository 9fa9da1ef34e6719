"""When a rule says that a schedule runs: cron lines, time zones, daylight saving, periods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.clock import LATEST, rfc3339
from edgeq.jobs.schedules.rule import Cron, Every
from edgeq.units import Duration
from edgeq.zones import machine_zone, zone

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def cron(line: str, zone_name: str = "UTC") -> Cron:
    return Cron(line, zone(zone_name), zone_name)


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * SECOND


def times(rule: Cron, begin: str, end: str) -> list[str]:
    """The run times after `begin` and before `end`, as clocks in the rule's zone show them, with the offset."""
    found, at = [], rule.after(moment(begin), 0)
    while at < moment(end):
        found.append(rule.local(at).isoformat(" ", "minutes"))
        at = rule.after(at, 0)
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("*/15 * * * *", "2026-01-05T12:15"),
        ("0 2 * * *", "2026-01-06T02:00"),
        ("30 9-17/4 * * MON-FRI", "2026-01-05T13:30"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 12 1 * SUN", "2026-01-11T12:00"),  # the 1st, or a Sunday
        ("0 12 */2 * SUN", "2026-01-11T12:00"),  # an odd day that is a Sunday, as one of the two begins with a star
        ("0 0 * * 7", "2026-01-11T00:00"),
        ("0 0 L * *", "2026-01-31T00:00"),
        ("@hourly", "2026-01-05T13:00"),
        ("@daily", "2026-01-06T00:00"),
        ("@Weekly", "2026-01-11T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("  0   2 * *  * ", "2026-01-06T02:00"),
    ],
)
def test_the_next_time_of_a_cron_line(line: str, expected: str) -> None:
    now = moment("2026-01-05T12:00:30+00:00")
    assert rfc3339(cron(line).after(now, 0)) == f"{expected}:00.000Z"
    assert cron(line).first(now) == cron(line).after(now, 0)


def test_a_run_time_is_after_the_moment_and_not_at_it() -> None:
    noon = moment("2026-01-05T12:00:00+00:00")
    assert cron("* * * * *").after(noon - 1, 0) == noon
    assert cron("* * * * *").after(noon, 0) == noon + MINUTE
    assert cron("0 12 * * *").after(noon, 0) == noon + DAY


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "five fields"),
        ("0 2 * *", "five fields"),
        ("0 0 2 * * *", "five fields"),
        ("* * * * " + "1," * 200 + "1", "five fields"),
        ("61 * * * *", "minute"),
        ("x * * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 0 0 * *", "day of month"),
        ("0 0 * 13 *", "month"),
        ("0 0 * * 8", "day of week"),
        ("5-1 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 */31 2 MON#5", "never comes"),
        ("@reboot", "there is @yearly"),
        ("@", "there is @yearly"),
        ("² * * * *", "five fields"),
    ],
)
def test_a_cron_line_that_is_none_or_never_comes(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cron(line)


def test_where_the_calendar_ends_nothing_comes() -> None:
    assert cron("0 0 1 1 *").after(LATEST - DAY, 0) == LATEST
    assert cron("* * * * *", "Europe/Berlin").after(LATEST, 0) == LATEST


# Daylight saving, as with Debian's cron

BERLIN_SPRING = ("2026-03-28T23:59:00+01:00", "2026-03-29T05:00:00+02:00")
BERLIN_AUTUMN = ("2026-10-24T23:59:00+02:00", "2026-10-25T05:00:00+01:00")
LORD_HOWE_SPRING = ("2026-10-03T23:59:00+10:30", "2026-10-04T04:00:00+11:00")  # 2:00 becomes 2:30
LORD_HOWE_AUTUMN = ("2026-04-04T23:59:00+11:00", "2026-04-05T04:00:00+10:30")  # 2:00 becomes 1:30


@pytest.mark.parametrize(
    ("line", "window", "expected"),
    [
        # A time of day that is left out comes when the clock is set.
        ("30 2 * * *", BERLIN_SPRING, ["03:00+02:00"]),
        ("10,50 2 * * *", BERLIN_SPRING, ["03:00+02:00"]),
        ("0 3 * * *", BERLIN_SPRING, ["03:00+02:00"]),
        ("30 1-3 * * *", BERLIN_SPRING, ["01:30+01:00", "03:00+02:00", "03:30+02:00"]),
        # How often is counted by what clocks show.
        ("30 * * * *", BERLIN_SPRING, ["00:30+01:00", "01:30+01:00", "03:30+02:00", "04:30+02:00"]),
        ("*/20 2 * * *", BERLIN_SPRING, []),
        # A time of day that comes twice counts the first time.
        ("30 2 * * *", BERLIN_AUTUMN, ["02:30+02:00"]),
        ("0 3 * * *", BERLIN_AUTUMN, ["03:00+01:00"]),
        ("30 2-3 * * *", BERLIN_AUTUMN, ["02:30+02:00", "03:30+01:00"]),
        (
            "30 * * * *",
            BERLIN_AUTUMN,
            ["00:30+02:00", "01:30+02:00", "02:30+02:00", "02:30+01:00", "03:30+01:00", "04:30+01:00"],
        ),
        ("*/30 2 * * *", BERLIN_AUTUMN, ["02:00+02:00", "02:30+02:00", "02:00+01:00", "02:30+01:00"]),
        # Half an hour.
        ("15 2 * * *", LORD_HOWE_SPRING, ["02:30+11:00"]),
        ("45 2 * * *", LORD_HOWE_SPRING, ["02:45+11:00"]),
        ("15 * * * *", LORD_HOWE_SPRING, ["00:15+10:30", "01:15+10:30", "03:15+11:00"]),
        ("45 1 * * *", LORD_HOWE_AUTUMN, ["01:45+11:00"]),
        ("15 1 * * *", LORD_HOWE_AUTUMN, ["01:15+11:00"]),
        (
            "*/30 * * * *",
            ("2026-04-05T00:59:00+11:00", "2026-04-05T02:31:00+10:30"),
            ["01:00+11:00", "01:30+11:00", "01:30+10:30", "02:00+10:30", "02:30+10:30"],
        ),
    ],
)
def test_daylight_saving(line: str, window: tuple[str, str], expected: list[str]) -> None:
    zone_name = "Australia/Lord_Howe" if window[0][-5:] in ("10:30", "11:00") else "Europe/Berlin"
    found = times(cron(line, zone_name), *window)
    assert [each.partition(" ")[2] for each in found] == expected


def test_a_time_of_day_is_kept_over_the_year() -> None:
    rule = cron("0 2 * * *", "Asia/Kolkata")
    assert times(rule, "2026-06-01T00:00:00+00:00", "2026-06-02T00:00:00+00:00") == ["2026-06-02 02:00+05:30"]
    rule = cron("0 2 * * *", "Australia/Adelaide")
    summer = times(rule, "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
    winter = times(rule, "2026-06-01T00:00:00+00:00", "2026-06-02T00:00:00+00:00")
    assert (summer, winter) == (["2026-01-02 02:00+10:30"], ["2026-06-02 02:00+09:30"])


# Against a look at every minute

FIELDS = {
    "minute": [("*", range(60)), ("0", {0}), ("*/7", range(0, 60, 7)), ("15,45", {15, 45}), ("1-59/29", {1, 30, 59})],
    "hour": [("*", range(24)), ("2", {2}), ("0", {0}), ("*/5", range(0, 24, 5)), ("1-3", {1, 2, 3}), ("23", {23})],
}
CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Santiago", "2026-04-05"),  # at midnight
    ("America/Santiago", "2026-09-06"),
    ("America/St_Johns", "2026-11-01"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Pacific/Apia", "2011-12-30"),  # a day that never was
]


def by_every_minute(
    line: tuple[str, str], minutes: set[int], hours: set[int], zone_name: str, day: datetime
) -> list[int]:
    """The run times from two days before `day` to two days after it."""
    tz = ZoneInfo(zone_name)
    begin = day.replace(tzinfo=UTC) - timedelta(days=2)
    every = [begin + timedelta(minutes=number) for number in range(4 * 1440)]
    shown = [each.astimezone(tz).replace(tzinfo=None) for each in every]

    def fits(reading: datetime) -> bool:
        return reading.minute in minutes and reading.hour in hours

    if line[0].startswith("*") or line[1].startswith("*"):
        found = {at for at, reading in zip(every, shown, strict=True) if fits(reading)}
    else:
        found, seen = set(), set()
        for number, (at, reading) in enumerate(zip(every, shown, strict=True)):
            before = shown[number - 1] if number else reading - timedelta(minutes=1)
            passed = before + timedelta(minutes=1)
            while passed <= reading:
                if fits(passed) and passed not in seen:
                    found.add(at)
                seen.add(passed)
                passed += timedelta(minutes=1)
    return [round(at.timestamp()) * SECOND for at in sorted(found)]


@given(
    st.sampled_from(FIELDS["minute"]), st.sampled_from(FIELDS["hour"]), st.sampled_from(CHANGES), st.integers(0, 5759)
)
@settings(max_examples=150)
def test_a_rule_agrees_with_a_look_at_every_minute(minute, hour, change, start):  # type: ignore[no-untyped-def]
    zone_name, day = change[0], datetime.fromisoformat(change[1])
    expected = by_every_minute((minute[0], hour[0]), set(minute[1]), set(hour[1]), zone_name, day)
    rule = cron(f"{minute[0]} {hour[0]} * * *", zone_name)
    at = round((day.replace(tzinfo=UTC) - timedelta(days=2)).timestamp()) * SECOND
    end = at + 4 * DAY
    at += start * MINUTE - 1
    found = []
    while (next_at := rule.after(at, 0)) < end:
        found.append(next_at)
        at = next_at
    assert found == [each for each in expected if each >= end - 4 * DAY + start * MINUTE]


# Zones


def test_zones() -> None:
    assert zone("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    for name in ("Europe/Berln", "Europe", "../etc/passwd", "a\0b", "\udcff", "nowhere"):
        with pytest.raises(ValueError, match="there is no time zone"):
            zone(name)
    with pytest.raises(ValueError, match="did you mean 'Europe/Berlin'"):
        zone("Europe/Berln")


def test_a_machine_without_time_zones_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(ValueError, match="install the package tzdata"):
        zone("Europe/Nowhere")
    assert zone("utc") is UTC


def test_the_zone_of_the_machine(tmp_path: Path) -> None:
    link, copied = tmp_path / "localtime", tmp_path / "copied"
    link.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    copied.write_bytes(Path("/usr/share/zoneinfo/Europe/Berlin").read_bytes())
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    for environ, path, name, hours in [
        ({}, link, "Europe/Berlin", 2),
        ({}, copied, str(copied), 2),
        ({}, tmp_path / "none", "UTC", 0),
        ({"TZ": ""}, link, "UTC", 0),
        ({"TZ": ":Asia/Tokyo"}, link, "Asia/Tokyo", 9),
        ({"TZ": "Asia/Tokyo"}, link, "Asia/Tokyo", 9),
        ({"TZ": str(copied)}, tmp_path / "none", str(copied), 2),
    ]:
        found, found_name = machine_zone(environ, str(path))
        assert (found_name, found.utcoffset(summer.astimezone(found))) == (name, timedelta(hours=hours))
    for tz in ("CET-1CEST,M3.5.0,M10.5.0/3", "/etc/passwd", str(tmp_path)):
        with pytest.raises(ValueError, match=r"there is no time zone|can't be read"):
            machine_zone({"TZ": tz})


# Periods


def test_a_period_counts_from_a_run() -> None:
    rule = Every(Duration(90))
    assert rule.first(1000) == 1000 + 90 * SECOND
    assert rule.after(5 * SECOND, 5 * SECOND) == 95 * SECOND
    assert rule.after(94 * SECOND, 5 * SECOND) == 95 * SECOND
    assert rule.after(95 * SECOND, 5 * SECOND) == 185 * SECOND
    assert rule.spec == "every 90s"
