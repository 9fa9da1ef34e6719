"""What an app has told people by `ctx.notify`, as its tests want to see it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..events import Event, NewEvent, from_json


class Notified(msgspec.Struct, frozen=True):
    """One call of `ctx.notify`. `channels` is empty when the call left it to the routes."""

    title: str
    body: str = ""
    severity: str = "info"
    subject: str = ""
    tags: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


def notified(events: Iterable[Event | NewEvent]) -> list[Notified]:
    """The calls of `ctx.notify` that `events` come from, in their order; other events are passed over."""
    return [_read(event) for event in events if event.type == "notification"]


def _read(event: Event | NewEvent) -> Notified:
    data = from_json(event.data_json)
    data = data if isinstance(data, dict) else {}
    tags = list(event.tags)
    if "notification" in tags:
        tags.remove("notification")  # which `notify` adds
    return Notified(
        title=data.get("title", event.description),
        body=data.get("body", ""),
        severity=data.get("severity", "info"),
        subject=event.subject,
        tags=tuple(tags),
        channels=tuple(data.get("channels", ())),
    )
