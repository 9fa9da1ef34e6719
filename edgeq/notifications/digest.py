"""Several notifications in one: what waits of one fingerprint as one message or one line, and many such lines as one
message. Pure: the same rows make the same text.

A line is never broken and nothing in it is escaped: titles hold no line breaks (see `text`). Times are in the
gateway's own time zone, with the date when it isn't today's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..clock import MICROSECONDS
from ..events import from_json, to_json
from ..store.notifications import QUIET, StoredNotification
from .functions import Place, clock_time, length
from .notification import SEVERITIES

LINES_MAX = 500
TITLE_CHARACTERS_MAX = 250

# For what `delivered_now` adds to a message that is late.
_NOTE_BYTES = 128


class Merged(msgspec.Struct, frozen=True):
    """What was put together: `count` notifications, so many of them alerts and reminders; when the first was raised,
    and the last alert; when it was opened and when resolved, as far as that is among them (microseconds since 1970
    UTC). `own` is how many characters of the body are its own, before those that say all this; None: all are."""

    count: int
    alerts: int
    reminders: int
    first_at: int
    last_at: int
    opened_at: int | None
    resolved_at: int | None
    own: int | None = None


class Story(msgspec.Struct, frozen=True):
    """What the rows of one fingerprint come to: `newest` is the last one, `severity` the highest, `expires_at` when the
    last of them does (None: one never does); `several` whether there is more than one row."""

    newest: StoredNotification
    severity: str
    expires_at: int | None
    failover: tuple[str, ...]
    group_key: str | None
    merged: Merged
    several: bool = False

    @classmethod
    def of(cls, row: StoredNotification) -> Story:
        """The story of one row, which may be one that was put together before."""
        return cls(row, row.severity, row.expires_at, row.failover, row.group_key, _merged(row))

    def then(self, row: StoredNotification) -> Story:
        """The story with `row`, which comes after all of it."""
        before, new = self.merged, _merged(row)
        opened = before.opened_at if before.resolved_at is None else None
        return Story(
            newest=row,
            severity=highest(self.severity, row.severity),
            expires_at=_later(self.expires_at, row.expires_at),
            failover=self.failover or row.failover,
            group_key=self.group_key if self.group_key == row.group_key else None,
            merged=Merged(
                before.count + new.count,
                before.alerts + new.alerts,
                before.reminders + new.reminders,
                before.first_at,
                new.last_at if new.alerts else before.last_at,
                new.opened_at if opened is None else opened,
                new.resolved_at,
                new.own,
            ),
            several=True,
        )

    def told(self, now: int, place: Place) -> str:
        """`opened 02:10, resolved 02:40 (30m), 2 reminders`."""
        merged = self.merged
        parts = []
        if merged.resolved_at is not None and merged.opened_at is not None:
            seconds = (merged.resolved_at - merged.opened_at) / MICROSECONDS
            parts.append(f"opened {_said(merged.opened_at, now, place)}")
            parts.append(f"resolved {_said(merged.resolved_at, now, place, merged.opened_at)} ({length(seconds)})")
        elif merged.resolved_at is not None:
            parts.append(f"resolved {_said(merged.resolved_at, now, place)}")
        else:
            parts.append(_said(merged.first_at, now, place))
        if merged.alerts > 1:
            parts.append(f"{merged.alerts} times, the last {_said(merged.last_at, now, place, merged.first_at)}")
        if merged.reminders:
            parts.append("1 reminder" if merged.reminders == 1 else f"{merged.reminders} reminders")
        return ", ".join(parts)

    def body(self, now: int, place: Place) -> str:
        """The newest body, and what was told with it."""
        return "\n\n".join(filter(None, (self._own_body, self.told(now, place))))

    @property
    def detail(self) -> str:
        """The newest detail, with what was put together."""
        merged = msgspec.structs.replace(self.merged, own=len(self._own_body))
        return to_json({**_detail(self.newest), "merged": msgspec.to_builtins(merged)})

    @property
    def _own_body(self) -> str:
        return self.newest.body[: self.merged.own]


class Digest:
    """Lines of one message, as many as fit into `body_bytes_max` bytes; at least one. `group_key` says of what, None
    for what has waited for its target."""

    def __init__(self, group_key: str | None, body_bytes_max: int, now: int, place: Place) -> None:
        self.group_key = group_key
        self.severity = SEVERITIES[0]
        self.expires_at: int | None = 0
        self.count = 0
        self.resolved = 0
        self._bytes = max(0, body_bytes_max - _NOTE_BYTES)
        self._now = now
        self._place = place
        self._lines: list[str] = []
        self._ids: list[int] = []
        self._first = ""

    def add(self, story: Story) -> bool:
        """A line for `story`; False when there is no room for it."""
        severity = f"{story.severity}: " if _rank(story.severity) >= _rank("warning") else ""
        line = f"- {severity}{story.newest.title} ({story.told(self._now, self._place)})"
        size = len(line.encode()) + 1
        if self._lines and (size > self._bytes or len(self._lines) == LINES_MAX):
            return False
        if size > self._bytes:
            line = line.encode()[: max(0, self._bytes - 4)].decode(errors="ignore") + "…"
        self._bytes -= size
        self._lines.append(line)
        self._ids.append(story.newest.id)
        self._first = self._first or story.newest.title
        self.severity = highest(self.severity, story.severity)
        self.expires_at = story.expires_at if self.expires_at == 0 else _later(self.expires_at, story.expires_at)
        self.count += 1
        self.resolved += story.merged.resolved_at is not None
        return True

    @property
    def title(self) -> str:
        """How many, and how many of them are resolved."""
        late = "late " if self.group_key is None else ""
        told = f"{self.count} {late}notification{'s' if self.count > 1 else ''}"
        if self.resolved:
            told += f", {self.resolved} resolved"
        if self.group_key is None:
            return told
        if self.group_key.startswith(QUIET):
            return f"Quiet hours: {told}"
        title = f"{told}: {self._first}" + (", …" if self.count > 1 else "")
        return title if len(title) <= TITLE_CHARACTERS_MAX else title[: TITLE_CHARACTERS_MAX - 1] + "…"

    @property
    def body(self) -> str:
        """A line for each."""
        return "\n".join(self._lines)

    @property
    def detail(self) -> str:
        """JSON, for channels that are programs. `ids` are the newest notifications told, one for each line."""
        return to_json({"type": "digest", "count": self.count, "resolved": self.resolved, "ids": self._ids})


def _said(at: int, now: int, place: Place, besides: int | None = None) -> str:
    """The time of day, with the date unless it is today's or that of `besides`, which was said before."""
    return min((clock_time(at, each, place) for each in (now, besides) if each is not None), key=len)


def highest(one: str, other: str) -> str:
    """The higher of two severities."""
    return max(one, other, key=_rank)


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def _later(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _detail(row: StoredNotification) -> dict[str, Any]:
    try:
        detail = from_json(row.detail)
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}


def _merged(row: StoredNotification) -> Merged:
    if '"merged"' in row.detail:
        try:
            return msgspec.convert(_detail(row).get("merged"), Merged)
        except msgspec.ValidationError:
            pass  # somebody's own data
    at = row.created_at
    alert, resolved = row.kind == "alert", row.kind == "resolved"
    return Merged(
        count=1,
        alerts=int(alert),
        reminders=int(row.kind == "reminder"),
        first_at=at,
        last_at=at,
        opened_at=at if alert else None,
        resolved_at=at if resolved else None,
    )
