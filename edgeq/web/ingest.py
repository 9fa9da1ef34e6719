"""`POST /api/events`: programs and gateways hand events over by HTTP.

The body is JSON: one event, an array of them, one on each line, or the batch of a gateway (see `forward.wire`), packed
by gzip if `Content-Encoding` says so. The answer, JSON too, comes when they are on disk: `{"stored": 2, "duplicates":
0}`. Events without a key of their own get one from the header `Idempotency-Key`, so that a request which is made again
stores nothing twice.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http import HTTPStatus

from microdot import Request, Response
from msgspec.structs import replace

from ..clock import Clock
from ..events import NewEvent, to_json
from ..forward import wire
from ..store import events, forwarded
from ..store.events import Appended
from ..store.store import Store, Tx, storable
from ..telemetry.metrics import Metrics
from .server import BODY_BYTES_MAX, Page

BYTES_MAX = 2**20
STORE_SECONDS = 10.0

_TYPES = ("application/json", "application/x-ndjson", "application/jsonl", "")
_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


class Ingest:
    """Takes events from whoever has `token`; without one, from nobody."""

    def __init__(self, token: str | None, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._token = token
        self._store = store
        self._metrics = metrics
        self._clock = clock

    def page(self) -> Page:
        """Where it stands on the server."""
        return Page("/api/events", ("POST",), self.answer, self._room)

    async def answer(self, request: Request) -> Response:
        """Store what was sent. Raises StoreError."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        if self._token is None:
            return _error(403, "nobody may send events here", "set web.token_file")
        if not self._knows(headers):
            return _error(401, "the token is missing or wrong", "send it as: Authorization: Bearer TOKEN")
        if headers.get("content-type", "").partition(";")[0].strip().lower() not in _TYPES:
            return _error(415, "events are sent as JSON", "Content-Type: application/json or application/x-ndjson")
        packed = headers.get("content-encoding", "identity").strip().lower()
        if packed not in ("identity", "gzip"):
            return _error(415, "the body may be packed by gzip only")
        key = headers.get("idempotency-key", "")
        if len(key) > wire.KEY_CHARACTERS_MAX or storable(key) != key:
            return _error(400, f"Idempotency-Key must be a text of {wire.KEY_CHARACTERS_MAX} characters at most")
        now = self._clock.now()
        try:
            body = request.body or b""
            found = wire.read(wire.unpacked(body) if packed == "gzip" else body, now)
        except wire.TooMuch as error:
            return _error(413, str(error))
        except wire.Unreadable as error:
            return _error(400, str(error))
        if not isinstance(found, forwarded.Batch):
            found = _keyed(found, key)
        try:
            done = await self._store.write(lambda tx: _put(tx, found), timeout_seconds=STORE_SECONDS)
        except forwarded.Restored as error:
            return _error(409, str(error), error.hint)
        self._metrics.events.add(done.stored)
        self._metrics.duplicates.add(done.duplicates)
        return _json(200, {"stored": done.stored, "duplicates": done.duplicates})

    def _knows(self, headers: Mapping[str, str]) -> bool:
        way, _, token = headers.get("authorization", "").partition(" ")
        known = self._token is not None and hmac.compare_digest(token.strip().encode(), self._token.encode())
        return known and way.lower() == "bearer"

    def _room(self, headers: Mapping[str, str]) -> int:
        """Strangers get no memory of ours."""
        return BYTES_MAX if self._knows(headers) else BODY_BYTES_MAX


def _put(tx: Tx, found: forwarded.Batch | list[NewEvent]) -> Appended:
    return forwarded.receive(tx, found) if isinstance(found, forwarded.Batch) else events.append(tx, found)


def _keyed(found: list[NewEvent], key: str) -> list[NewEvent]:
    if not key:
        return found
    return [
        event if event.idempotency_key is not None else replace(event, idempotency_key=f"api/{key}/{number}")
        for number, event in enumerate(found)
    ]


def _error(status: int, text: str, hint: str = "") -> Response:
    response = _json(status, {"error": text} | ({"hint": hint} if hint else {}))
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _json(status: int, value: Mapping[str, object]) -> Response:
    return Response(to_json(value) + "\n", status, dict(_HEADERS), HTTPStatus(status).phrase)
