"""Verbs of the table `threads`: what is open and was told, until it is over.

The courier owns the rows. Anybody may acknowledge one, also from another process; that is never undone by what the
courier had in mind, and the signal `threads` tells of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import peewee as pw

from ..events import from_json, to_json
from .dialect import least
from .store import Row, Statement, Store, Tx, storable
from .tables import Threads

Key = tuple[str, str]

_KEY = (Threads.fingerprint, Threads.route)
_STATE = (
    *_KEY, Threads.event_id, Threads.severity, Threads.channels, Threads.opened_at, Threads.reminder,
    Threads.escalation, Threads.next_at, Threads.escalate_at, Threads.silenced, Threads.endless,
    Threads.acknowledged_at,
)  # fmt: skip
_TEXT = (Threads.title, Threads.body, Threads.detail)
_NOTE = (Threads.acknowledged_by, Threads.comment)
_ALL = (*_STATE, *_TEXT, *_NOTE)
_NEWEST = 2**63 - 1


def _is(p: pw.SQL) -> pw.Node:
    return (Threads.fingerprint == p) & (Threads.route == p)


_EVERY = Statement(lambda p: Threads.select(*_STATE).order_by(*_KEY).limit(p))
_TEXT_OF = Statement(lambda p: Threads.select(*_TEXT).where(_is(p)))
_OPEN = Statement(
    lambda p: Threads.insert_many([(p,) * len(_ALL)], fields=_ALL).on_conflict(
        conflict_target=_KEY, preserve=_ALL[len(_KEY) :]
    )
)
_CHANGE = Statement(
    lambda p: Threads.update(
        {
            Threads.channels: p, Threads.opened_at: p, Threads.reminder: p, Threads.escalation: p, Threads.next_at: p,
            Threads.escalate_at: p, Threads.silenced: p,
        }
    ).where(_is(p) & (Threads.event_id == p) & Threads.acknowledged_at.is_null())
)  # fmt: skip
_CLOSE = Statement(lambda p: Threads.delete().where(_is(p)))
_SET_CLOCK = Statement(
    lambda p: Threads.update(
        {
            Threads.opened_at: least(Threads.opened_at + p, p),
            Threads.next_at: Threads.next_at + p,
            Threads.escalate_at: Threads.escalate_at + p,
        }
    )
)
_ACKNOWLEDGE = Statement(
    lambda p: Threads.update({Threads.acknowledged_at: p, Threads.acknowledged_by: p, Threads.comment: p}).where(
        (Threads.fingerprint == p) & (Threads.event_id <= p) & Threads.acknowledged_at.is_null()
    )
)
_OF = Statement(lambda p: Threads.select(*_ALL).where(Threads.fingerprint == p).order_by(Threads.route))
_ACKNOWLEDGED = Statement(
    lambda p: Threads.select(*_KEY, Threads.event_id, Threads.acknowledged_at).where(
        Threads.acknowledged_at.is_null(False)
    )
)
_COUNTS = Statement(
    lambda p: Threads.select(
        pw.fn.COUNT(Threads.fingerprint),
        pw.fn.COUNT(Threads.acknowledged_at),
        pw.fn.COUNT(Threads.event_id).filter(Threads.silenced),
    )
)


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """What is open, without its text.

    `route` is the route's id (see notifications.policy), `event_id` the event that opened it, `channels` those that
    were told. It was opened at `opened_at`, the next reminder is due at `next_at` and the next step of escalation at
    `escalate_at` (microseconds since 1970 UTC; None: there is none to come); `reminder` and `escalation` count those
    that were. `silenced`: nobody was told yet. `endless`: it stands until it is resolved.
    """

    fingerprint: str
    route: str
    event_id: int
    severity: str
    channels: tuple[str, ...]
    opened_at: int
    reminder: int = 0
    escalation: int = 0
    next_at: int | None = None
    escalate_at: int | None = None
    silenced: bool = False
    endless: bool = False
    acknowledged_at: int | None = None

    @property
    def key(self) -> Key:
        """What the table knows it by."""
        return self.fingerprint, self.route


class ThreadText(msgspec.Struct, frozen=True):
    """What the alert said; `detail` is JSON: what it was about."""

    title: str
    body: str
    detail: str


class OpenThread(msgspec.Struct, frozen=True):
    """A thread with its text, and who has acknowledged it."""

    thread: Thread
    text: ThreadText
    acknowledged_by: str | None
    comment: str | None


class Acknowledged(msgspec.Struct, frozen=True):
    """That what event `event_id` opened is acknowledged."""

    fingerprint: str
    route: str
    event_id: int
    acknowledged_at: int


def begin(tx: Tx, thread: Thread, text: ThreadText) -> None:
    """Store a thread in place of the one of the same fingerprint and route."""
    state = msgspec.structs.astuple(thread)
    values = [to_json(value) if isinstance(value, tuple) else value for value in state]
    tx.run(_OPEN, (*values, storable(text.title), storable(text.body), text.detail, None, None))


def change(tx: Tx, thread: Thread) -> bool:
    """Store how a thread goes on; False, and nothing is changed, when it is acknowledged, over, or another by now."""
    values = (
        to_json(thread.channels), thread.opened_at, thread.reminder, thread.escalation, thread.next_at,
        thread.escalate_at, thread.silenced,
    )  # fmt: skip
    return tx.run(_CHANGE, (*values, *thread.key, thread.event_id)) > 0


def close(tx: Tx, keys: Iterable[Key]) -> None:
    """Forget threads: they are over."""
    for key in keys:
        tx.run(_CLOSE, key)


def set_clock(tx: Tx, now: int, step_microseconds: int) -> None:
    """Move all times: the clock was set by so much, to `now`. What was left is left still."""
    tx.run(_SET_CLOCK, (step_microseconds, now, step_microseconds, step_microseconds))


def acknowledge(tx: Tx, fingerprint: str, *, by: str, comment: str, now: int, event_id: int = _NEWEST) -> int:
    """Say that somebody has seen to what event `event_id`, or an earlier one, has opened: no reminders, no escalation.
    How many threads that was news for."""
    tx.touch("threads")
    return tx.run(_ACKNOWLEDGE, (now, storable(by), storable(comment), fingerprint, event_id))


def of(tx: Tx, fingerprint: str) -> list[OpenThread]:
    """The threads of a fingerprint."""
    return [_open_thread(row) for row in tx.rows(_OF, (fingerprint,))]


def with_words(tx: Tx, words: Iterable[str], limit: int) -> list[OpenThread]:
    """Up to `limit` threads whose detail, as a text, holds each of the words, of at most some 10,000 characters."""
    query = Threads.select(*_ALL).order_by(*_KEY).limit(limit)
    for word in words:
        query = query.where(Threads.detail.contains(word))
    return [_open_thread(row) for row in tx.rows(query)]


async def every(store: Store, limit: int) -> list[Thread]:
    """All threads, by fingerprint and route, `limit` at most."""
    return [_thread(row) for row in await store.read(_EVERY, (limit,))]


async def text(store: Store, key: Key) -> ThreadText | None:
    """The text of a thread; None when it is gone."""
    rows = await store.read(_TEXT_OF, key)
    return ThreadText(*rows[0]) if rows else None


async def acknowledged(store: Store) -> list[Acknowledged]:
    """What is open and acknowledged."""
    return [Acknowledged(*row) for row in await store.read(_ACKNOWLEDGED)]


async def latest(store: Store, limit: int, *, fingerprints: Sequence[str] = ()) -> list[OpenThread]:
    """The threads that were opened last, newest first; of the given `fingerprints` alone, if there are some."""
    query = Threads.select(*_ALL).order_by(Threads.opened_at.desc(), *_KEY).limit(limit)
    if fingerprints:
        query = query.where(Threads.fingerprint.in_(list(fingerprints)))
    return [_open_thread(row) for row in await store.read(query)]


async def counts(store: Store) -> dict[str, int]:
    """How many threads are open; and of these, how many are acknowledged, and how many silenced."""
    return dict(zip(("open", "acknowledged", "silenced"), (await store.read(_COUNTS))[0], strict=True))


def _open_thread(row: Row) -> OpenThread:
    size = len(_STATE)
    return OpenThread(_thread(row[:size]), ThreadText(*row[size : size + 3]), *row[size + 3 :])


def _thread(row: Row) -> Thread:
    fields: dict[str, Any] = dict(zip(Thread.__struct_fields__, row, strict=True))
    try:
        names = from_json(fields["channels"])
    except ValueError:  # not written by edgeq
        names = []
    fields["channels"] = tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
    fields |= {name: bool(fields[name]) for name in ("silenced", "endless")}
    return Thread(**fields)
