"""`redrive`: dead letters get another chance, where they came from. `{"ids": [3, 4]}`, or `source` (such as `intake`)
or `reason` or both: of those, the oldest REDRIVEN_MAX that nobody has asked for yet."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..intake.context import MessageContext
from ..store import dead_letters
from ..store.store import Tx
from .kind import Answer, Id, Kind, Means, Name, Refused, Request

REDRIVEN_MAX = 1000


class RedriveRequest(Request, frozen=True, kw_only=True):
    """Which ones."""

    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=REDRIVEN_MAX)] | None = None
    source: Name | None = None
    reason: Name | None = None


def change(request: RedriveRequest, ctx: MessageContext, means: Means) -> Answer:
    """Ask for it; the answer says for how many, and whether there may be more of them."""
    chosen = {"source": request.source or "", "reason": request.reason or ""}
    if (request.ids is None) != any(chosen.values()):
        raise Refused("the request must name either ids, or source or reason or both")
    now = ctx.clock.now()
    found: list[int] = []

    def unit(tx: Tx) -> None:
        ids = request.ids
        if ids is None:
            ids = dead_letters.oldest(tx, **chosen, limit=REDRIVEN_MAX)
        found[:] = [dead_letters.request_redrive(tx, now, ids=ids) if ids else 0]

    def answer() -> dict[str, object]:
        if not found[0]:
            raise Refused("no dead letter fits")
        return {"to_be_redriven": found[0], "more": request.ids is None and found[0] == REDRIVEN_MAX}

    ctx.decisions.also.append(unit)
    return answer


KIND = Kind(RedriveRequest, change)
