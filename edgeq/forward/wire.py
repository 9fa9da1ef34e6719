"""A batch of events as JSON.

    {"gateway": "greenhouse-1", "store": "9f0c…", "head": 1200, "events": [{"id": 17, "idempotency_key": "9f0c…:17",
     "type": "door.opened", "subject": "barn", "data": {…}, "tags": ["from:greenhouse-1"], "occurred_at": …, …}, …]}

`head` is the highest id that the gateway has given to an event, `store` names what gave it; times are microseconds
since 1970 UTC. Data is taken over as it stands, numbers to the last digit. A reader passes over keys that it doesn't
know, so that gateways and sites need not be of one version.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from ..events import NESTING_MAX, Event, NewEvent, deeper_than, from_json, to_json
from ..moments import moment
from ..store.forwarded import Batch
from ..store.store import storable

EVENTS_MAX = 10_000
KEY_CHARACTERS_MAX = 500  # an index of PostgreSQL has room for some more bytes than that may be
UNPACKED_BYTES_MAX = 8 * 2**20


class Unreadable(ValueError):
    """What was sent is no batch of events; the text says why, for whoever sent it."""


class TooMuch(Unreadable):
    """It is larger than anybody should send at once."""


class _Sent(msgspec.Struct, omit_defaults=True):
    id: int
    idempotency_key: str
    type: str
    occurred_at: int
    recorded_at: int
    subject: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")
    tags: tuple[str, ...] = ()
    description: str = ""
    topic: str | None = None


class PlainEvent(msgspec.Struct):
    """An event of anybody. `data` is any JSON, an object as a rule; `occurred_at` is a time in any form that edgeq
    reads, now by default. One whose `idempotency_key` is known already is not stored again. `id` is only for a
    gateway's own."""

    type: str
    id: int | None = None
    idempotency_key: str | None = None
    subject: str = ""
    data: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    tags: tuple[str, ...] = ()
    description: str = ""
    topic: str | None = None
    occurred_at: str | int | float | None = None


class _Parcel(msgspec.Struct):
    events: list[msgspec.Raw]
    gateway: str
    store: str
    head: int


_encode = msgspec.json.Encoder().encode
_event = msgspec.json.Decoder(PlainEvent)
_parcel = msgspec.json.Decoder(_Parcel)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


def written(event: Event, new: NewEvent) -> bytes:
    """An event of ours, as it is to be at the site. Raises ValueError for data that isn't JSON."""
    from_json(event.data_json)
    sent = _Sent(
        event.id, new.idempotency_key or "", new.type, new.occurred_at, event.recorded_at, new.subject,
        msgspec.Raw(event.data_json.encode()), new.tags, new.description, new.topic,
    )  # fmt: skip
    return _encode(sent)


def body(gateway: str, series: str, head: int, events: list[bytes]) -> bytes:
    """The batch, of events that are `written`."""
    start = f'{{"gateway":{to_json(gateway)},"store":{to_json(series)},"head":{head},"events":['
    return start.encode() + b",".join(events) + b"]}"


def unpacked(content: bytes) -> bytes:
    """What gzip has packed. Raises Unreadable, and TooMuch for what grows beyond UNPACKED_BYTES_MAX."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        found = inflate.decompress(content, UNPACKED_BYTES_MAX + 1)
    except zlib.error as error:
        raise Unreadable(f"it can't be unpacked: {error}") from None
    if len(found) > UNPACKED_BYTES_MAX:
        raise TooMuch(f"it grows beyond {UNPACKED_BYTES_MAX // 2**20} MiB when it is unpacked")
    if not inflate.eof or inflate.unused_data:
        raise Unreadable("it can't be unpacked: it isn't one whole gzip")
    return found


def read(content: bytes, now: int) -> Batch | list[NewEvent]:
    """What was sent: a gateway's batch as above, or plain events of anybody: one, an array, or one on each line.

    Events are as `PlainEvent` has them, with `occurred_at` in any form that `moment` knows (default: `now`, in
    microseconds since 1970 UTC). Raises Unreadable, which names the event that is wrong.
    """
    try:
        content.decode()
    except UnicodeDecodeError:
        raise Unreadable("it isn't UTF-8") from None
    try:
        parcel, raws = _opened(content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable(f"it is no event, array of events, or JSON lines: {error}") from None
    if len(raws) > EVENTS_MAX:
        raise TooMuch(f"it has more than {EVENTS_MAX} events")
    found = []
    for number, raw in enumerate(raws):
        try:
            found.append(_new(_event.decode(raw), now))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Unreadable(f"event {number}: {error}") from None
    if parcel is None:
        return [event for event, _ in found]
    ids = tuple(number for _, number in found if number is not None)
    if len(ids) < len(found) or not parcel.store:
        raise Unreadable("a gateway's batch needs its store, and of each event the id")
    try:
        _check(parcel.gateway, parcel.store)
        _check_key(parcel.store)
        return Batch.of(parcel.gateway, parcel.store, parcel.head, ids, [event for event, _ in found])
    except ValueError as error:
        raise Unreadable(str(error)) from None


def _opened(content: bytes) -> tuple[_Parcel | None, list[msgspec.Raw]]:
    text = content.strip()
    if text.startswith(b"["):
        return None, _raws.decode(text)
    lines = [line for line in text.split(b"\n") if line.strip()]
    if len(lines) > 1 and _is_json(lines[0]):
        return None, [msgspec.Raw(line) for line in lines]
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if "events" not in fields:
        return None, [msgspec.Raw(text)]
    parcel = _parcel.decode(text)
    return parcel, parcel.events


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.MsgspecError:
        return False
    return True


def _new(event: PlainEvent, now: int) -> tuple[NewEvent, int | None]:
    """Raises ValueError for what must not be stored."""
    if not event.type:
        raise ValueError("it has no type")
    _check(event.type, event.subject, event.description, event.topic, event.idempotency_key, *event.tags)
    _check_key(event.idempotency_key)
    data = bytes(event.data)
    value: Any = from_json(data)
    if deeper_than(NESTING_MAX, data, value):
        raise ValueError(f"its data is nested more than {NESTING_MAX} deep")
    new = NewEvent(
        event.type,
        subject=event.subject,
        topic=event.topic,
        data_json=data.decode(),
        tags=event.tags,
        description=event.description,
        occurred_at=now if event.occurred_at is None else moment(event.occurred_at),
        recorded_at=now,
        idempotency_key=event.idempotency_key,
    )
    return new, event.id


def _check(*texts: str | None) -> None:
    for text in texts:
        if text is not None and storable(text) != text:
            raise ValueError(f"{text!a:.80} has a null character or a lone surrogate")


def _check_key(text: str | None) -> None:
    if text is not None and len(text) > KEY_CHARACTERS_MAX:
        raise ValueError(f"the key {text!a:.80}… has more than {KEY_CHARACTERS_MAX} characters")
