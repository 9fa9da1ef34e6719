"""Times as devices, programs and people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from .clock import EPOCH, MICROSECONDS, is_time

_SECONDS_BELOW = 10**11  # the year 5138 in seconds, March 1973 in milliseconds
_MILLISECONDS_BELOW = 10**14
_MICROSECONDS_BELOW = 10**17


def moment(value: Any) -> int:
    """Microseconds since 1970 UTC for seconds, milliseconds, microseconds or nanoseconds (told apart by their size), as
    a number or a text, or for an RFC 3339 time (without an offset it is taken as UTC).

    Raises ValueError for anything else, and for what lies outside of the years 1 to 9999.
    """
    try:
        microseconds = _from_text(value) if isinstance(value, str) else _from_number(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{repr(value)[:80]} is no time") from None
    if not is_time(microseconds):
        raise ValueError(f"{repr(value)[:80]} is not within the years 1 to 9999")
    return microseconds


def _from_text(text: str) -> int:
    try:
        number = float(text) if "." in text else int(text)
    except ValueError:
        read = datetime.fromisoformat(text.upper())
        return (read.replace(tzinfo=read.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)
    return _from_number(number)


def _from_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    size = abs(value)
    if size < _SECONDS_BELOW:
        return round(value * MICROSECONDS)
    if size < _MILLISECONDS_BELOW:
        return round(value * 1000)
    return round(value if size < _MICROSECONDS_BELOW else value // 1000)
