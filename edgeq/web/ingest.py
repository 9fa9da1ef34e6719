"""`POST /api/events`: programs and gateways hand events over by HTTP.

The body is JSON: one event, an array of them, one on each line, or the batch of a gateway (see `forward.wire`), packed
by gzip if `Content-Encoding` says so. The answer, JSON too, comes when they are on disk: `{"stored": 2, "duplicates":
0}`. Events without a key of their own get one from the header `Idempotency-Key`, so that a request which is made again
stores nothing twice, whenever the first one was cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypedDict

from msgspec.structs import replace

from ..clock import Clock
from ..events import NewEvent
from ..failpoints import failpoint
from ..forward import wire
from ..store import events, forwarded
from ..store.events import Appended
from ..store.store import Store, Tx, storable
from ..telemetry.metrics import Metrics
from .access import Access, Asked
from .operation import Call, Operation
from .reading import BODY_BYTES_MAX
from .replies import JSON, Refusal

BYTES_MAX = 2**20
STORE_SECONDS = 10.0

_AT_ONCE_BYTES = 16 * 1024
_TYPES = (JSON, "application/x-ndjson", "application/jsonl", "")


class Taken(TypedDict):
    """How many events were stored, and how many not because they were there."""

    stored: int
    duplicates: int


class Ingest:
    """Takes events from whoever has the token; without one, from nobody."""

    def __init__(self, access: Access, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._access = access
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._reading = asyncio.Semaphore()

    def operations(self) -> list[Operation]:
        """See api."""
        return [
            Operation(
                "POST", "/api/events",
                "Store events: one, an array, one on each line, or a gateway's batch. With a header Idempotency-Key, a "
                "request that is made again stores nothing twice.",
                self._take, Taken, body=bytes, need="change", refusals=(409, 413), body_media=_TYPES,
                holds=wire.PlainEvent | list[wire.PlainEvent], room=self._room,
            )
        ]  # fmt: skip

    async def _take(self, call: Call) -> Taken:
        headers = call.about.headers
        packed = headers.get("content-encoding", "identity").strip().lower()
        if packed not in ("identity", "gzip"):
            raise Refusal(415, "the body may be packed by gzip only: Content-Encoding: gzip")
        key = headers.get("idempotency-key", "")
        if len(key) > wire.KEY_CHARACTERS_MAX or storable(key) != key:
            raise Refusal(400, f"Idempotency-Key must be a text of {wire.KEY_CHARACTERS_MAX} characters at most")
        try:
            found = await self._read(call.body, packed=packed == "gzip")
        except wire.TooMuch as error:
            raise Refusal(413, str(error)) from None
        except wire.Unreadable as error:
            raise Refusal(400, str(error)) from None
        if not isinstance(found, forwarded.Batch):
            found = _keyed(found, key)
        done = await self._store.write(lambda tx: _put(tx, found), timeout_seconds=STORE_SECONDS)
        failpoint("web.stored")
        self._metrics.events.add(done.stored)
        self._metrics.duplicates.add(done.duplicates)
        return {"stored": done.stored, "duplicates": done.duplicates}

    async def _read(self, body: bytes, *, packed: bool) -> forwarded.Batch | list[NewEvent]:
        """What is large is read beside the loop, and one at a time: it may be eight times as large when unpacked."""
        now = self._clock.now()
        if not packed and len(body) <= _AT_ONCE_BYTES:
            return wire.read(body, now)
        async with self._reading:
            return await asyncio.to_thread(_read, body, packed, now)

    def _room(self, headers: Mapping[str, str], client: str) -> int:
        """Strangers get no memory of ours."""
        try:
            known = self._access.shows_token(Asked(headers, {}, client))
        except Refusal:  # said again when the request is looked at
            known = False
        return BYTES_MAX if known else BODY_BYTES_MAX


def _read(body: bytes, packed: bool, now: int) -> forwarded.Batch | list[NewEvent]:
    return wire.read(wire.unpacked(body) if packed else body, now)


def _put(tx: Tx, found: forwarded.Batch | list[NewEvent]) -> Appended:
    return forwarded.receive(tx, found) if isinstance(found, forwarded.Batch) else events.append(tx, found)


def _keyed(found: list[NewEvent], key: str) -> list[NewEvent]:
    if not key:
        return found
    return [
        event if event.idempotency_key is not None else replace(event, idempotency_key=f"api/{key}/{number}")
        for number, event in enumerate(found)
    ]
