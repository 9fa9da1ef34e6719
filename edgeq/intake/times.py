"""When a device says that something happened."""

from __future__ import annotations

from typing import Any

from ..errors import RejectedMessage
from ..moments import moment


def parse_time(value: Any) -> int:
    """Microseconds since 1970 UTC for a time in any form that `moment` knows.

    Raises RejectedMessage (`bad_time`) for anything else, and for what lies outside of the years 1 to 9999.
    """
    try:
        return moment(value)
    except ValueError as error:
        raise RejectedMessage("bad_time", str(error)) from None
