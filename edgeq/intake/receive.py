"""The built-in controller `receive: events`: a site takes in what its gateways forward.

A message is a batch of events as JSON (see `forward.wire`), packed by gzip or not. One that can't be read becomes a
dead letter whole; what is there already is left out. Where the topic has a parameter `gateway`, only that gateway may
send there: so the access list of the broker says who may speak for whom.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec.structs import replace

from ..config.schema import Route
from ..errors import RejectedMessage
from ..events import NewEvent, to_json
from ..forward import wire
from ..store import dead_letters, events, forwarded
from ..store.store import Tx
from . import rejection
from .context import MessageContext
from .template import check_constant

_GZIP = b"\x1f\x8b"


def receive(route: Route, names: Collection[str]) -> Callable[[MessageContext], None]:
    """The controller of `route`, whose topic has the parameters `names`; the route's tags are added to each event.

    Raises ValueError for what doesn't go with it.
    """
    tags = tuple(check_constant(tag) for tag in route.tags)

    def run(ctx: MessageContext) -> None:
        content = ctx.payload
        try:
            found = wire.read(wire.unpacked(content) if content.startswith(_GZIP) else content, ctx.now)
        except wire.TooMuch as error:
            raise RejectedMessage("too_large", str(error)) from None
        except wire.Unreadable as error:
            raise RejectedMessage("undecodable", str(error)) from None
        if not isinstance(found, forwarded.Batch):
            raise RejectedMessage("undecodable", "events must come in a gateway's batch, with gateway, store and head")
        if "gateway" in names and ctx.params["gateway"] != found.gateway:
            raise RejectedMessage("not_its_own", f"{found.gateway!r} may not send to {ctx.topic}")
        if tags:
            found = found.tagged(tags)
        ctx.decisions.also.append(lambda tx: _check(tx, found, ctx))
        ctx.decisions.events += [replace(event, keep=ctx.keep) for event in found.events] if ctx.keep else found.events

    return run


def _check(tx: Tx, batch: forwarded.Batch, ctx: MessageContext) -> None:
    """What the site must not take for known goes aside whole, too: nobody waits for an answer who could act on it."""
    try:
        forwarded.check(tx, batch)
    except forwarded.Restored as error:
        refusal = RejectedMessage("restored", f"{error} ({error.hint})")
        dead_letters.add(tx, [rejection.dead_letter(ctx.delivery, ctx.route, refusal)])
        events.append(tx, [_alarm(batch, refusal, ctx.now)])


def _alarm(batch: forwarded.Batch, refusal: RejectedMessage, now: int) -> NewEvent:
    """Told once."""
    return NewEvent(
        "edgeq.gateway_restored",
        subject=batch.gateway,
        data_json=to_json({"severity": "critical", "gateway": batch.gateway, "store": batch.series}),
        tags=("notification",),
        description=str(refusal),
        occurred_at=now,
        recorded_at=now,
        idempotency_key=f"gateway_restored/{batch.series}",
    )
