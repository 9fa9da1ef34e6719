"""The rows that tell of something: one for each channel, all alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..clock import MICROSECONDS
from ..events import from_json, to_json
from ..store.notifications import NewNotification
from .functions import length
from .match import Facts
from .policy import Route
from .text import TITLE_CHARACTERS_MAX

DETAIL_BYTES_MAX = 8 * 1024

_WORD_CHARACTERS_MAX = 250
_PLAIN_CHARACTERS_MAX = 200


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to tell. `detail` is JSON: what it is about. `created_at` is when it was raised."""

    kind: str
    severity: str
    title: str
    body: str
    detail: str
    fingerprint: str
    event_id: int
    created_at: int

    def rows(
        self, route: Route | None, channels: Iterable[str], facts: Facts, now: int, *, silenced: str | None = None
    ) -> list[NewNotification]:
        """A row for each channel, held as the route says; or for the history alone, with the reason in `silenced`."""
        channels = tuple(channels)
        not_before = expires_at = group = None
        failover: tuple[str, ...] = ()
        if route is not None:
            not_before = route.quiet_until(self.severity, now)
            group = route.group(facts, quiet=not_before is not None)
            failover = tuple(name for name in route.failover if name not in channels)
            if route.ttl is not None:
                expires_at = max(self.created_at, not_before or 0) + route.ttl
        return [
            NewNotification(
                channel=channel,
                severity=self.severity,
                title=self.title,
                body=self.body,
                fingerprint=self.fingerprint,
                created_at=self.created_at,
                event_id=self.event_id,
                kind=self.kind,
                detail=self.detail,
                state="queued" if silenced is None else "silenced",
                error=silenced,
                not_before=not_before,
                group=group,
                expires_at=expires_at,
                failover=failover,
                route=None if route is None else route.id,
            )
            for channel in channels
        ]


def detail_of(facts: Facts, occurred_at: int) -> str:
    """What an event is about, as JSON of at most `DETAIL_BYTES_MAX` bytes. What is too long for that is left out, and
    `left_out` names it; of the data, plain values are kept as far as they fit."""
    data = facts.data
    detail: dict[str, Any] = {
        "type": facts.type, "subject": facts.subject, "contract": facts.contract or None,
        "episode": facts.episode or None, "tags": facts.tags, "occurred_at": occurred_at,
        "since": data.get("since") if facts.contract and isinstance(data, dict) else None, "data": data,
    }  # fmt: skip
    left_out: list[str] = []
    for name in ("data", "tags", "since"):
        text = to_json(detail)
        if len(text.encode()) <= DETAIL_BYTES_MAX:
            return _with_plain(detail, data) if left_out else text
        del detail[name]
        left_out.append(name)
        detail["left_out"] = left_out
    words = {name: value[:_WORD_CHARACTERS_MAX] if isinstance(value, str) else value for name, value in detail.items()}
    return _with_plain(words, data)


def _with_plain(detail: dict[str, Any], data: Any) -> str:
    """`detail`, whose data was too long, with what a route or a silence may ask for: the short plain values at its
    top."""
    room = DETAIL_BYTES_MAX - len(to_json({**detail, "data": {}}).encode())
    kept: dict[str, Any] = {}
    for name, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, dict | list) or (isinstance(value, str) and len(value) >= _PLAIN_CHARACTERS_MAX):
            continue
        size = len(to_json({name: value}).encode()) - 1  # a comma for two braces
        if size <= room:
            room -= size
            kept[name] = value
    return to_json({**detail, "data": kept} if kept else detail)


def facts_of(detail: str, severity: str) -> Facts:
    """The facts of which `detail_of` made `detail`. Odd ones, as anybody may write them into the table, are empty."""
    try:
        read = from_json(detail)
    except ValueError:
        read = {}
    read = read if isinstance(read, dict) else {}
    words = {name: read.get(name) for name in ("type", "subject", "contract", "episode")}
    tags = read.get("tags")
    return Facts(
        severity=severity,
        tags=tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        data=read.get("data"),
        **{name: word if isinstance(word, str) else "" for name, word in words.items()},
    )


def numbered(detail: str, number: int) -> str:
    """`detail` of a reminder, with its number."""
    return _with(detail, number=number)


def of_step(detail: str, step: int) -> str:
    """`detail` of what escalates, with the number of the step."""
    return _with(detail, escalation=step)


def linked(detail: str, ack_url: str) -> str:
    """`detail` with the link to acknowledge what it is about."""
    return _with(detail, ack_url=ack_url)


def _with(detail: str, **more: Any) -> str:
    try:
        read = from_json(detail)
    except ValueError:
        return detail
    return to_json({**read, **more}) if isinstance(read, dict) else detail


def with_note(title: str, note: str) -> str:
    """`title (note)`, with no more characters than a title may have."""
    room = TITLE_CHARACTERS_MAX - len(note) - 3
    return f"{title if len(title) <= room else title[: room - 1] + '…'} ({note})"


def lasting(opened_at: int, now: int) -> str:
    """`for 1h 15m`."""
    return f"for {length(max(0, now - opened_at) / MICROSECONDS)}"
