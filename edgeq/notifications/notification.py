"""A notification as a channel gets it, ready to be delivered."""

from __future__ import annotations

from typing import Any

import msgspec

from ..clock import MICROSECONDS, rfc3339
from ..events import SEVERITIES as SEVERITIES
from ..events import from_json, to_json
from ..store.notifications import StoredNotification
from .functions import Moment, Place, text_of

LATE_SECONDS = 60.0


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What to tell, in one attempt to tell it.

    `title` is one line of at most 250 characters, `body` at most some 16 KiB of text; neither holds control characters
    other than line breaks and tabs in the body. `fingerprint` is the same for all that belongs together (see `text`),
    `idempotency_key` the same for every attempt and after a crash, and never that of another notification.
    `raised_at` and `attempted_at` are microseconds since 1970 UTC. `kind` is alert, update, reminder, resolved, or
    digest for several in one; `detail_json` is a JSON object: what it is about (type, subject, data and so on).
    """

    id: int
    event_id: int | None
    severity: str
    title: str
    body: str
    fingerprint: str
    idempotency_key: str
    raised_at: int
    attempted_at: int
    kind: str = "alert"
    detail_json: str = "{}"

    @property
    def detail(self) -> dict[str, Any]:
        """What it is about, as values; nothing if that is no JSON object."""
        try:
            detail = from_json(self.detail_json)
        except ValueError:
            return {}
        return detail if isinstance(detail, dict) else {}

    def as_dict(self) -> dict[str, Any]:
        """The fields that receiving programs get, times in the form of RFC 3339."""
        return {
            "id": self.id, "event_id": self.event_id, "kind": self.kind, "severity": self.severity,
            "title": self.title, "body": self.body, "fingerprint": self.fingerprint,
            "raised_at": rfc3339(self.raised_at), "idempotency_key": self.idempotency_key,
            "detail": self.detail,
        }  # fmt: skip

    def as_json(self) -> bytes:
        """The same as JSON."""
        return to_json(self.as_dict()).encode()


def delivered_now(row: StoredNotification, *, store_id: str, now: int, place: Place) -> Notification:
    """`row` as it is delivered at `now`. When that is late, the text says when it was raised, by the clocks of `place`;
    it is the same however late that is."""
    late = (now - row.created_at) / MICROSECONDS > LATE_SECONDS
    note = f"raised at {text_of(Moment(row.created_at), place)}" if late else ""
    return Notification(
        id=row.id,
        event_id=row.event_id,
        severity=row.severity,
        title=row.title,
        body="\n\n".join(filter(None, (row.body, note))),
        fingerprint=row.fingerprint,
        idempotency_key=f"{store_id}-{row.id}",
        raised_at=row.created_at,
        attempted_at=now,
        kind=row.kind,
        detail_json=row.detail,
    )
