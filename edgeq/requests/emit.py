"""`emit`: an event by hand. `{"type": "door.opened", "subject": "north", "data": {"celsius": 4}}`, and if one likes
`tags`, `description`, `occurred_at` (any time that a route understands) and `idempotency_key`: of events with the same
one the first is stored. Without it, a request that is made again makes another event."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ..context import Context
from ..intake.context import MessageContext
from ..intake.times import parse_time
from ..store import events
from ..store.store import Tx
from .kind import Answer, Comment, Kind, Means, Name, Request, Text

TAGS_MAX = 50


class EmitRequest(Request, frozen=True, kw_only=True):
    """The event."""

    type: Name
    subject: Text = ""
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    tags: Annotated[list[Name], msgspec.Meta(max_length=TAGS_MAX)] = msgspec.field(default_factory=list)
    description: Comment = ""
    occurred_at: str | int | float | None = None
    idempotency_key: Name | None = None


def change(request: EmitRequest, ctx: MessageContext, means: Means) -> Answer:
    """Store the event; the answer has its id, or says that one with its key was there."""
    made = Context(means.clock, now=ctx.now)
    made.emit(
        request.type,
        subject=request.subject,
        data=request.data,
        tags=request.tags,
        description=request.description,
        occurred_at=None if request.occurred_at is None else parse_time(request.occurred_at),
        idempotency_key=request.idempotency_key,
    )
    found: list[int | None] = []

    def unit(tx: Tx) -> None:
        stored = events.append(tx, made.decisions.events).stored
        found[:] = [events.newest_id(tx) if stored else None]

    def answer() -> dict[str, Any]:
        stored = found[0] is not None
        (means.metrics.events if stored else means.metrics.duplicates).add()
        return {"stored": stored, "id": found[0]}

    ctx.decisions.also.append(unit)
    return answer


KIND = Kind(EmitRequest, change)
