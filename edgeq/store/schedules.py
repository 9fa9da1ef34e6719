"""Verbs of the table `schedules`: when each schedule ran, and when it runs next.

Several processes may have the same schedules. Whoever changes a row says what it knew of it; only one can be right.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from peewee import fn

from .store import ZERO, Statement, Store, Tx
from .tables import Schedules

_COLUMNS = (Schedules.name, Schedules.last_run_at, Schedules.next_run_at, Schedules.spec)

_EVERY = Statement(lambda p: Schedules.select(*_COLUMNS).order_by(Schedules.name))
_PUT = Statement(
    lambda p: Schedules.insert_many([(p,) * len(_COLUMNS)], fields=_COLUMNS).on_conflict(
        conflict_target=[Schedules.name], preserve=_COLUMNS[1:]
    )
)
_MOVE = Statement(
    lambda p: Schedules.update({Schedules.last_run_at: p, Schedules.next_run_at: p}).where(
        (Schedules.name == p)
        & (fn.COALESCE(Schedules.last_run_at, ZERO) == p)
        & (Schedules.next_run_at == p)
        & (Schedules.spec == p)
    )
)
_DELETE = Statement(lambda p: Schedules.delete().where(Schedules.name == p))


class StoredSchedule(msgspec.Struct, frozen=True):
    """When the schedule `name` ran last, if it has, and runs next, in microseconds since 1970 UTC, by the rule whose
    text is `spec`."""

    name: str
    last_run_at: int | None
    next_run_at: int
    spec: str


def adopt(tx: Tx, wanted: Mapping[str, StoredSchedule]) -> list[StoredSchedule]:
    """Have exactly the schedules `wanted`, by name; how they stand. One that is there with the same rule stays as it
    is; with another rule, it begins anew."""
    there = {row.name: row for row in _rows(tx)}
    for name in there.keys() - wanted.keys():
        tx.run(_DELETE, (name,))
    for name, new in wanted.items():
        old = there.get(name)
        if old is None or old.spec != new.spec or old.next_run_at is None:
            tx.run(_PUT, (name, old.last_run_at if old else None, new.next_run_at, new.spec))
    return _rows(tx)


def move(tx: Tx, known: StoredSchedule, to: StoredSchedule) -> bool:
    """Put `to` in the place of `known`, unless somebody else has changed that."""
    was = (known.name, known.last_run_at or 0, known.next_run_at, known.spec)
    return tx.run(_MOVE, (to.last_run_at, to.next_run_at, *was)) > 0


async def every(store: Store) -> list[StoredSchedule]:
    """All schedules that are remembered, by name."""
    return [StoredSchedule(*row) for row in await store.read(_EVERY)]


def _rows(tx: Tx) -> list[StoredSchedule]:
    return [StoredSchedule(*row) for row in tx.rows(_EVERY)]
