"""When a device says that something happened, and how times are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.clock import EARLIEST, LATEST, rfc3339
from edgeq.errors import RejectedMessage
from edgeq.intake.times import parse_time

SECOND = 1_767_268_800  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("value", "microseconds"),
    [
        (SECOND, SECOND * 10**6),
        (SECOND + 0.25, SECOND * 10**6 + 250_000),
        (SECOND * 10**3 + 7, SECOND * 10**6 + 7_000),
        (SECOND * 10**6 + 7, SECOND * 10**6 + 7),
        (SECOND * 10**9 + 7_999, SECOND * 10**6 + 7),
        (f"{SECOND}", SECOND * 10**6),
        (f"{SECOND}.5", SECOND * 10**6 + 500_000),
        (f"{SECOND}123", SECOND * 10**6 + 123_000),
        ("2026-01-01T12:00:00Z", SECOND * 10**6),
        ("2026-01-01t12:00:00.250z", SECOND * 10**6 + 250_000),
        ("2026-01-01T14:30:00+02:30", SECOND * 10**6),
        ("2026-01-01 12:00:00", SECOND * 10**6),
        ("9999-12-31T23:59:59.999999Z", LATEST),
        ("0001-01-01T00:00:00Z", EARLIEST),
        (0, 0),
        (-1, -1_000_000),
    ],
)
def test_seconds_and_their_parts_and_rfc_3339(value: Any, microseconds: int) -> None:
    assert parse_time(value) == microseconds


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, {}, [SECOND], b"1", "", "yesterday", "12:00", "1e9", "nan", ".nan", "1.e999", "9" * 5000,
        "2026-02-30T00:00:00Z", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00",
        float("nan"), float("inf"), -float("inf"), 1e308, 10**21, -(10**21), 10**400,
    ],
)  # fmt: skip
def test_what_is_no_time_is_said_to_be_none(value: Any) -> None:
    with pytest.raises(RejectedMessage) as caught:
        parse_time(value)
    assert caught.value.reason == "bad_time"
    assert len(str(caught.value)) < 150


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.datetimes().map(str)))
def test_whatever_comes_is_a_time_that_a_calendar_can_say_or_rejected(value: Any) -> None:
    try:
        microseconds = parse_time(value)
    except RejectedMessage:
        return
    assert type(microseconds) is int
    datetime.fromtimestamp(microseconds // 10**6, UTC)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (SECOND * 10**6 + 250_999, "2026-01-01T12:00:00.250Z"),
        (LATEST, "9999-12-31T23:59:59.999Z"),
        (2**63 - 1, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_any_number_in_a_table_can_be_shown_as_a_time(microseconds: int, text: str) -> None:
    assert rfc3339(microseconds) == text
    assert rfc3339(-(2**63)) == rfc3339(EARLIEST)
