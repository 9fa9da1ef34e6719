"""Times as a person takes them in at a glance: how far from now. `--json` has them exactly."""

from __future__ import annotations

from ...clock import MICROSECONDS
from ...units import spoken


def ago(moment: int | None, now: int) -> str:
    """How long ago `moment` was (microseconds since 1970 UTC); empty for None."""
    return "" if moment is None else f"{spoken(max(0, now - moment) // MICROSECONDS)} ago"


def ahead(moment: int | None, now: int) -> str:
    """In how long `moment` is; `now` when it has come, empty for None."""
    if moment is None:
        return ""
    return f"in {spoken(-((now - moment) // MICROSECONDS))}" if moment > now else "now"
