"""Verbs of the table `silences`: what nobody is to be told of for a while.

They are made and ended by anybody, also from another process; who goes by them reads them again when the signal
`silences` says so. One that is over stays, for the history.
"""

from __future__ import annotations

import msgspec
import peewee as pw

from .store import Row, Statement, Store, Tx, storable
from .tables import Silences

_COLUMNS = ("match", "starts_at", "ends_at", "comment", "created_by", "created_at")
_ALL = (
    Silences.id, Silences.match, Silences.starts_at, Silences.ends_at, Silences.comment, Silences.created_by,
    Silences.created_at,
)  # fmt: skip
_UNTIL = Statement(
    lambda p: Silences.select(*_ALL).where(Silences.ends_at > p).order_by(Silences.ends_at.desc(), Silences.id).limit(p)
)
_COUNT = Statement(lambda p: Silences.select(pw.fn.COUNT(Silences.id)).where(Silences.ends_at > p))
_END_ALL = Statement(lambda p: Silences.update({Silences.ends_at: p}).where(Silences.ends_at > p))
_END = Statement(lambda p: Silences.update({Silences.ends_at: p}).where((Silences.id == p) & (Silences.ends_at > p)))


class NewSilence(msgspec.Struct, frozen=True):
    """A silence from `starts_at` until before `ends_at`, in microseconds since 1970 UTC. `match` is JSON, as the
    `match` of a notification's route."""

    match: str
    starts_at: int
    ends_at: int
    created_at: int
    comment: str = ""
    created_by: str = ""


class Silence(msgspec.Struct, frozen=True):
    """A silence as it stands in the table."""

    id: int
    match: str
    starts_at: int
    ends_at: int
    comment: str
    created_by: str
    created_at: int


def add(tx: Tx, new: NewSilence) -> int:
    """Begin a silence; its id."""
    tx.touch("silences")
    comment, created_by = storable(new.comment), storable(new.created_by)
    row = (new.match, new.starts_at, new.ends_at, comment, created_by, new.created_at)
    return tx.insert_returning(Silences, _COLUMNS, [row])[0]


def end(tx: Tx, silence_id: int, now: int) -> bool:
    """End a silence now, also one that hasn't begun; False when there is none of that id that isn't over."""
    tx.touch("silences")
    return tx.run(_END, (now, silence_id, now)) > 0


def end_all(tx: Tx, now: int) -> int:
    """End all silences now, also those that haven't begun; how many."""
    tx.touch("silences")
    return tx.run(_END_ALL, (now, now))


def count_after(tx: Tx, after: int) -> int:
    """How many silences end after that moment."""
    return int(tx.rows(_COUNT, (after,))[0][0])


async def until_after(store: Store, after: int, limit: int) -> list[Silence]:
    """Up to `limit` silences that end after that moment, the last ones to end first."""
    return [_silence(row) for row in await store.read(_UNTIL, (after, limit))]


async def latest(store: Store, limit: int) -> list[Silence]:
    """The latest silences, newest first."""
    return [_silence(row) for row in await store.read(Silences.select(*_ALL).order_by(Silences.id.desc()).limit(limit))]


def _silence(row: Row) -> Silence:
    return Silence(*row)
