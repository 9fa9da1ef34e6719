"""Verbs of the table `dead_letters`: what could not be handled, kept whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from peewee import fn

from ..events import from_json, to_json
from .dialect import beginning
from .store import NULL, Row, Statement, Store, Tx, storable
from .tables import DeadLetters

_COLUMNS = (
    "source", "reason", "error", "topic", "payload", "event_id", "job_id", "created_at", "detail",
)  # fmt: skip
_ALL = (
    DeadLetters.id, DeadLetters.source, DeadLetters.reason, DeadLetters.error, DeadLetters.topic,
    DeadLetters.payload, DeadLetters.event_id, DeadLetters.job_id, DeadLetters.created_at,
    DeadLetters.redriven_at, DeadLetters.redrive_requested_at, DeadLetters.detail,
)  # fmt: skip
_BRIEF = {"payload": NULL, "error": beginning(DeadLetters.error)}
_ONE = Statement(lambda p: DeadLetters.select(*_ALL).where(DeadLetters.id == p))
_OF_JOB = Statement(
    lambda p: DeadLetters.select(*_ALL).where((DeadLetters.job_id == p) & DeadLetters.redriven_at.is_null())
)
_REQUESTED = Statement(
    lambda p: (
        DeadLetters.select(*_ALL)
        .where(
            DeadLetters.redrive_requested_at.is_null(False) & DeadLetters.redriven_at.is_null() & (DeadLetters.id > p)
        )
        .order_by(DeadLetters.id)
        .limit(p)
    )
)
_REDRIVEN = Statement(
    lambda p: DeadLetters.update({DeadLetters.redriven_at: p}).where(
        (DeadLetters.id == p) & DeadLetters.redriven_at.is_null()
    )
)

_COUNTS = Statement(
    lambda p: (
        DeadLetters.select(
            DeadLetters.source, DeadLetters.reason, fn.COUNT(DeadLetters.id), fn.MIN(DeadLetters.created_at)
        )
        .where(DeadLetters.redriven_at.is_null())
        .group_by(DeadLetters.source, DeadLetters.reason)
        .order_by(DeadLetters.source, DeadLetters.reason)
    )
)


class NewDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter that isn't stored yet. `source` is `intake`, `processor:<name>`, `job:<queue>` or `channel:<name>`,
    `reason` one short word, `error` a sentence or traceback, `created_at` microseconds since 1970 UTC."""

    source: str
    reason: str
    error: str
    created_at: int
    topic: str | None = None
    payload: bytes | None = None
    event_id: int | None = None
    job_id: int | None = None
    detail: dict[str, Any] = {}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A stored dead letter."""

    id: int
    source: str
    reason: str
    error: str
    topic: str | None
    payload: bytes | None
    event_id: int | None
    job_id: int | None
    created_at: int
    redriven_at: int | None
    redrive_requested_at: int | None
    detail: dict[str, Any]


def add(tx: Tx, letters: Sequence[NewDeadLetter]) -> None:
    """Store dead letters. Text that isn't valid Unicode is kept in escaped form."""
    tx.insert(
        DeadLetters,
        _COLUMNS,
        [
            (
                letter.source, letter.reason, storable(letter.error), letter.topic, letter.payload, letter.event_id,
                letter.job_id, letter.created_at, to_json(letter.detail),
            )
            for letter in letters
        ],
    )  # fmt: skip
    if letters:
        tx.touch("dead_letters")


async def one(store: Store, letter_id: int) -> DeadLetter | None:
    """The dead letter of that id, or None."""
    rows = await store.read(_ONE, (letter_id,))
    return _letter(rows[0]) if rows else None


async def of_job(store: Store, job_id: int) -> DeadLetter | None:
    """The open dead letter of a dead job, which says for what reason it died; None when there is none (any more)."""
    rows = await store.read(_OF_JOB, (job_id,))
    return _letter(rows[-1]) if rows else None


async def find(
    store: Store,
    *,
    limit: int,
    source: str = "",
    reason: str = "",
    redriven: bool | None = False,
    before_id: int = 0,
    brief: bool = False,
) -> list[DeadLetter]:
    """The latest `limit` dead letters that fit, newest first. `redriven` None: either way. `brief`: without their
    payloads, which may be large, and with the beginning of their errors."""
    columns = [_BRIEF.get(column.name, column) for column in _ALL] if brief else _ALL
    query = DeadLetters.select(*columns).order_by(DeadLetters.id.desc()).limit(limit)
    for condition in _conditions(source, reason, redriven):
        query = query.where(condition)
    if before_id:
        query = query.where(DeadLetters.id < before_id)
    return [_letter(row) for row in await store.read(query)]


async def counts(store: Store) -> list[dict[str, Any]]:
    """How many open dead letters there are by source and reason, and since when."""
    rows = await store.read(_COUNTS)
    return [{"source": row[0], "reason": row[1], "count": row[2], "oldest_at": row[3]} for row in rows]


def request_redrive(tx: Tx, now: int, *, ids: Sequence[int] = (), source: str = "", reason: str = "") -> int:
    """Ask the appliance to redrive the dead letters of `ids`, or all open ones that fit; how many."""
    query = DeadLetters.update({DeadLetters.redrive_requested_at: now}).where(DeadLetters.redriven_at.is_null())
    if ids:
        query = query.where(DeadLetters.id.in_(list(ids)))
    for condition in _conditions(source, reason, None):
        query = query.where(condition)
    tx.touch("dead_letters")
    return tx.run(query)


def oldest(tx: Tx, *, source: str = "", reason: str = "", limit: int) -> list[int]:
    """The ids of the oldest `limit` open dead letters that fit, and whose redrive nobody has asked for."""
    query = DeadLetters.select(DeadLetters.id).where(DeadLetters.redrive_requested_at.is_null())
    for condition in _conditions(source, reason, False):
        query = query.where(condition)
    return [row[0] for row in tx.rows(query.order_by(DeadLetters.id).limit(limit))]


def discard(tx: Tx, *, ids: Sequence[int] = (), source: str = "", reason: str = "") -> int:
    """Delete the dead letters of `ids`, or all open ones that fit; how many."""
    query = DeadLetters.delete()
    query = query.where(DeadLetters.id.in_(list(ids))) if ids else query.where(DeadLetters.redriven_at.is_null())
    for condition in _conditions(source, reason, None):
        query = query.where(condition)
    return tx.run(query)


async def redrive_requests(store: Store, after_id: int, limit: int) -> list[DeadLetter]:
    """Dead letters whose redrive was asked for and not done, by id."""
    return [_letter(row) for row in await store.read(_REQUESTED, (after_id, limit))]


def mark_redriven(tx: Tx, letter_id: int, now: int) -> bool:
    """Say that a dead letter was redriven, in the commit that redrives it; False when it already was."""
    return tx.run(_REDRIVEN, (now, letter_id)) > 0


def refuse_redrive(tx: Tx, letter_id: int, error: str) -> None:
    """Take back the request for a redrive that failed, and keep why."""
    query = DeadLetters.update({DeadLetters.redrive_requested_at: None, DeadLetters.error: storable(error)})
    tx.run(query.where(DeadLetters.id == letter_id))


def _conditions(source: str, reason: str, redriven: bool | None) -> list[Any]:
    conditions = []
    if source:
        conditions.append(DeadLetters.source == source)
    if reason:
        conditions.append(DeadLetters.reason == reason)
    if redriven is not None:
        conditions.append(DeadLetters.redriven_at.is_null(not redriven))
    return conditions


def _letter(row: Row) -> DeadLetter:
    fields = dict(zip(DeadLetter.__struct_fields__, row, strict=True))
    fields["detail"] = from_json(fields["detail"])
    return DeadLetter(**fields)
