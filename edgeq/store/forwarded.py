"""Verbs for what a site gets from its gateways: batches of events that may come more than once.

An event's key names the gateway's store and the event's id there, so that one which comes again is left out. That a key
never stands for two events is watched: a gateway whose database was restored from a backup gives out again the ids that
the site knows already, and what it stores anew would be taken for old. Such a batch is refused whole. In `meta`, the
site keeps the highest id that it has of each gateway's store.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from ..errors import EdgeqError
from ..events import NewEvent
from . import events, meta
from .events import Appended
from .store import Tx
from .tables import Events


class Restored(EdgeqError):
    """The gateway's store has gone back behind what the site has of it."""


class Batch(msgspec.Struct, frozen=True):
    """Events of `gateway`, with their `ids` in its store, which is `series`; `head` is the highest id there."""

    gateway: str
    series: str
    head: int
    ids: tuple[int, ...]
    events: list[NewEvent]

    @classmethod
    def of(cls, gateway: str, series: str, head: int, ids: Sequence[int], events: Sequence[NewEvent]) -> Batch:
        """A batch of `events`, which get their idempotency keys and the tag `from:<gateway>` here. Raises ValueError
        for ids that the gateway can't have given."""
        if len(ids) != len(events) or not all(0 < number <= head for number in ids):
            raise ValueError("each event has an id, from 1 to head")
        origin = from_tag(gateway)
        own = [
            replace(
                event,
                idempotency_key=key(series, number),
                tags=event.tags if origin in event.tags else (*event.tags, origin),
            )
            for number, event in zip(ids, events, strict=True)
        ]
        return cls(gateway, series, head, tuple(ids), own)

    def tagged(self, tags: Sequence[str]) -> Batch:
        """It with more tags on each event."""
        own = [replace(event, tags=tuple(dict.fromkeys((*event.tags, *tags)))) for event in self.events]
        return replace(self, events=own)


def key(series: str, event_id: int) -> str:
    """What names an event everywhere."""
    return f"{series}:{event_id}"


def from_tag(gateway: str) -> str:
    """The tag of events that came from `gateway`."""
    return f"from:{gateway}"


def receive(tx: Tx, batch: Batch) -> Appended:
    """Store what isn't there yet. Raises Restored; then nothing may stay."""
    check(tx, batch)
    return events.append(tx, batch.events)


def check(tx: Tx, batch: Batch) -> None:
    """Raise Restored if the ids of the batch were given twice; else remember how far the gateway is."""
    name = f"forwarded:{batch.series}"
    highest = int(meta.value(tx, name) or 0)
    if highest > batch.head:
        raise _restored(batch, f"it ends at event {batch.head}, and the site has event {highest} of it")
    if batch.ids and min(batch.ids) <= highest:
        _compare(tx, batch)
    if batch.ids and max(batch.ids) > highest:
        meta.put(tx, name, str(max(batch.ids)))


def _compare(tx: Tx, batch: Batch) -> None:
    """What is there already must be what is sent again."""
    sent = {event.idempotency_key: event for event in batch.events}
    for known, kind, occurred_at in _known(tx, list(sent)):
        if (sent[known].type, sent[known].occurred_at) != (kind, occurred_at):
            raise _restored(batch, f"the site knows another event as {known}")


def _known(tx: Tx, keys: Sequence[str | None]) -> list[tuple[str, str, int]]:
    query = Events.select(Events.idempotency_key, Events.type, Events.occurred_at)
    return [(row[0], row[1], row[2]) for row in tx.rows(query.where(Events.idempotency_key.in_(keys)))]


def _restored(batch: Batch, why: str) -> Restored:
    return Restored(
        f"the store of {batch.gateway} seems to be an old copy of itself: {why}",
        hint="if its database was restored from a backup, give its forward processor another `series`",
    )
