"""Dead letters: what could not be handled, another chance for it, or its end."""

from __future__ import annotations

import base64
from typing import Any, Literal, TypedDict

import msgspec

from ...clock import Clock
from ...store import dead_letters
from ...store.dead_letters import DeadLetter
from ...store.store import Store
from ..operation import Call, Listing, One, Operation, Text
from ..replies import Refusal
from .common import Done, fields_of, missing, page_of, saved

PAYLOAD_BYTES_MAX = 256 * 1024


class BriefDeadLetter(TypedDict):
    """A dead letter in a list. `error` is the beginning of it."""

    id: int
    source: str
    reason: str
    error: str
    topic: str | None
    event_id: int | None
    job_id: int | None
    created_at: int
    redriven_at: int | None
    redrive_requested_at: int | None
    detail: dict[str, Any]


class DeadLetterPage(TypedDict):
    """Open dead letters, the newest first."""

    items: list[BriefDeadLetter]
    next: int | None


class WholeDeadLetter(BriefDeadLetter):
    """A dead letter. `payload` is the beginning of the message, `payload_bytes` how many are kept of it."""

    payload: str | None
    payload_encoding: Literal["text", "base64"] | None
    payload_bytes: int | None


class Search(Listing, frozen=True, kw_only=True):
    """Which of those that are open."""

    source: Text = ""
    reason: Text = ""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of those that are open; with neither, all of them."""

    source: Text = ""
    reason: Text = ""


class Changed(TypedDict):
    """How many it was done with."""

    letters: int


class DeadLetterOperations:
    """Looks at the table `dead_letters`, and changes it by the verbs of the commands."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def operations(self) -> list[Operation]:
        """See api."""
        changes: dict[str, Any] = {"asks": One, "gives": Done, "need": "change", "refusals": (404, 409)}
        all_changes: dict[str, Any] = {"gives": Changed, "body": Choice, "need": "change"}
        path = "/api/dead-letters"
        return [
            Operation("GET", path, "The latest open dead letters that fit.", self._find, DeadLetterPage, Search),
            Operation("GET", f"{path}/<id>", "A dead letter, whole.", self._one, WholeDeadLetter, One, refusals=(404,)),
            Operation("POST", f"{path}/redrive", "Give all that fit another chance.", self._redrive_all, **all_changes),
            Operation("POST", f"{path}/discard", "Delete all that fit for good.", self._discard_all, **all_changes),
            Operation("POST", f"{path}/<id>/redrive", "Give it another chance.", self._redrive, **changes),
            Operation("POST", f"{path}/<id>/discard", "Delete it for good.", self._discard, **changes),
        ]

    async def _find(self, call: Call) -> dict[str, Any]:
        asked: Search = call.asked
        return await page_of(
            lambda limit: dead_letters.find(
                self._store, limit=limit, source=asked.source, reason=asked.reason, before_id=asked.before, brief=True
            ),
            asked.limit,
            _brief,
        )

    async def _one(self, call: Call) -> dict[str, Any]:
        letter = await self._letter(call.asked.id)
        return _brief(letter) | _payload(letter.payload)

    async def _redrive(self, call: Call) -> Done:
        now, letter_id = self._clock.now(), call.asked.id
        if not await saved(self._store, lambda tx: dead_letters.request_redrive(tx, now, ids=[letter_id])):
            await self._letter(letter_id)
            raise Refusal(409, f"dead letter {letter_id} was redriven already")
        return {"done": True}

    async def _discard(self, call: Call) -> Done:
        letter_id = call.asked.id
        if not await saved(self._store, lambda tx: dead_letters.discard(tx, ids=[letter_id])):
            raise _missing(letter_id)
        return {"done": True}

    async def _redrive_all(self, call: Call) -> Changed:
        now, which = self._clock.now(), msgspec.structs.asdict(call.body)
        return {"letters": await saved(self._store, lambda tx: dead_letters.request_redrive(tx, now, **which))}

    async def _discard_all(self, call: Call) -> Changed:
        which = msgspec.structs.asdict(call.body)
        return {"letters": await saved(self._store, lambda tx: dead_letters.discard(tx, **which))}

    async def _letter(self, letter_id: int) -> DeadLetter:
        letter = await dead_letters.one(self._store, letter_id)
        if letter is None:
            raise _missing(letter_id)
        return letter


def _missing(letter_id: int) -> Refusal:
    return missing(f"dead letter {letter_id}", "it was never there, was discarded, or is gone for its age")


def _brief(letter: DeadLetter) -> dict[str, Any]:
    fields = fields_of(letter)
    del fields["payload"]
    return fields


def _payload(kept: bytes | None) -> dict[str, Any]:
    if kept is None:
        return {"payload": None, "payload_encoding": None, "payload_bytes": None}
    octets = bytes(kept[:PAYLOAD_BYTES_MAX])
    try:
        text, encoding = octets.decode(), "text"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(octets).decode(), "base64"
    return {"payload": text, "payload_encoding": encoding, "payload_bytes": len(kept)}
