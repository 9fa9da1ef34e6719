"""`ack`: somebody has seen it. `{"contract": "freezer-cold", "subject": "freezer-1"}` or `{"notification": 17}`, if one
likes with `by` and `comment`. Of what is acknowledged, LISTED_MAX are listed in the answer."""

from __future__ import annotations

from typing import Any

from ..clock import rfc3339
from ..intake.context import MessageContext
from ..notifications.acknowledge import Note, Standing, acknowledge, fault, of_contract, of_notification
from ..store.store import Tx
from .kind import Answer, By, Comment, Id, Kind, Means, Name, Refused, Request, Text, one_of

LISTED_MAX = 50


class AckRequest(Request, frozen=True, kw_only=True):
    """A contract, if one likes with one subject of it alone, or a notification by its id."""

    contract: Name | None = None
    subject: Text | None = None
    notification: Id | None = None
    by: By = ""
    comment: Comment = ""


def change(request: AckRequest, ctx: MessageContext, means: Means) -> Answer:
    """Acknowledge. Asked again, it answers who was first."""
    if one_of(request, "contract", "notification") == "notification" and request.subject is not None:
        raise Refused("subject goes with contract")
    note = Note(by=request.by, how="mqtt", comment=request.comment)
    now = ctx.clock.now()
    found: list[Standing] = []

    def unit(tx: Tx) -> None:
        if request.contract is not None:
            told = of_contract(tx, request.contract, request.subject)
        else:
            told = of_notification(tx, request.notification or 0)
        found[:] = acknowledge(tx, told, note, now)

    def answer() -> dict[str, Any]:
        if why := fault(found):
            raise Refused(why)
        news = sum(each.news for each in found)
        means.metrics.events.add(news)
        acknowledged = [each for each in found if each.state == "acknowledged"]
        listed = [_as_dict(each) for each in acknowledged[:LISTED_MAX]]
        return {"acknowledged": news, "before": len(acknowledged) - news, "what": listed}

    ctx.decisions.also.append(unit)
    return answer


def _as_dict(found: Standing) -> dict[str, Any]:
    assert found.thread is not None
    at = found.acknowledged_at
    return {
        "contract": found.facts.contract or None, "subject": found.facts.subject, "title": found.thread.text.title,
        "by": found.by, "at": None if at is None else rfc3339(at),
    }  # fmt: skip


KIND = Kind(AckRequest, change)
