"""When a device says that something happened."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..errors import RejectedMessage

_SECONDS_BELOW = 1e11  # the year 5138 in seconds, March 1973 in milliseconds
_MILLISECONDS_BELOW = 1e14
_MICROSECONDS_BELOW = 1e17
_LATEST = 253_402_300_800_000_000  # the end of the year 9999


def parse_time(value: Any) -> int:
    """Microseconds since 1970 UTC for seconds, milliseconds, microseconds or nanoseconds (told apart by their size), as
    a number or a text, or for an RFC 3339 time (without an offset it is taken as UTC).

    Raises RejectedMessage (`bad_time`) for anything else.
    """
    if isinstance(value, str):
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return _rfc3339(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedMessage("bad_time", f"{value!r} is no time")
    size = abs(value)
    if size < _SECONDS_BELOW:
        microseconds = value * 1_000_000
    elif size < _MILLISECONDS_BELOW:
        microseconds = value * 1000
    elif size < _MICROSECONDS_BELOW:
        microseconds = value
    else:
        microseconds = value // 1000
    if not -_LATEST < microseconds < _LATEST:
        raise RejectedMessage("bad_time", f"{value!r} is no time")
    return round(microseconds)


def _rfc3339(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise RejectedMessage("bad_time", f"{text[:80]!r} is no time") from None
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds
