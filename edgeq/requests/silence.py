"""`silence`: nobody is told of something for a while. `{"match": {"contract": "freezer-*"}, "for": "2h", "comment":
"defrosting"}`, with a `match` as notification routes have it, and if one likes `by`; or `{"expire": 3}`, which ends a
silence before its time."""

from __future__ import annotations

from typing import Any

import msgspec

from ..clock import rfc3339
from ..errors import Problem
from ..events import to_json
from ..intake.context import MessageContext
from ..notifications.match import given, read_match
from ..notifications.silences import LONGEST, SILENCES_MAX, begin_silence
from ..store import silences
from ..store.silences import NewSilence
from ..store.store import Tx
from ..units import Duration
from .kind import Answer, By, Comment, Id, Kind, Means, Refused, Request, one_of


class SilenceRequest(Request, frozen=True, kw_only=True):
    """A new silence, or the end of one."""

    match: dict[str, Any] | None = None
    for_: str | None = msgspec.field(name="for", default=None)
    comment: Comment = ""
    by: By = ""
    expire: Id | None = None


def change(request: SilenceRequest, ctx: MessageContext, means: Means) -> Answer:
    """Begin a silence, or end one."""
    if one_of(request, "match", "expire") == "expire":
        return _expire(request.expire or 0, ctx)
    if not request.for_ or not request.comment:
        raise Refused("a silence needs for, such as 2h, and a comment that says why")
    length = Duration.parse(request.for_)
    if not 1 <= length <= LONGEST:
        raise Refused(f"for must be between 1s and {LONGEST}")
    problems: list[Problem] = []
    match = read_match(request.match, problems)
    if match is None:
        raise Refused("; ".join(f"{each.path}: {each.message}" for each in problems[:3]))
    now = ctx.clock.now()
    comment, by = (" ".join(text.split()) for text in (request.comment, request.by))
    new = NewSilence(to_json(given(match)), now, now + length.microseconds, now, comment=comment, created_by=by)
    found: list[int | None] = []

    def unit(tx: Tx) -> None:
        found[:] = [begin_silence(tx, new)]

    def answer() -> dict[str, Any]:
        if found[0] is None:
            raise Refused(f"there are {SILENCES_MAX} silences, which is the most: let some of them expire")
        return {"id": found[0], "ends_at": rfc3339(new.ends_at)}

    ctx.decisions.also.append(unit)
    return answer


def _expire(silence_id: int, ctx: MessageContext) -> Answer:
    now = ctx.clock.now()
    found: list[bool] = []

    def unit(tx: Tx) -> None:
        found[:] = [silences.end(tx, silence_id, now)]

    def answer() -> dict[str, Any]:
        if not found[0]:
            raise Refused(f"there is no silence {silence_id} that isn't over")
        return {"expired": silence_id}

    ctx.decisions.also.append(unit)
    return answer


KIND = Kind(SilenceRequest, change)
