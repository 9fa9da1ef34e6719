"""Verbs of the table `meta`: facts about the store itself."""

from __future__ import annotations

from .store import Statement, Store, Tx
from .tables import Meta

_VALUE = Statement(lambda p: Meta.select(Meta.value).where(Meta.key == p))


async def get(store: Store, key: str) -> str | None:
    """The value of `key`, or None."""
    rows = await store.read(_VALUE, (key,))
    return str(rows[0][0]) if rows else None


def value(tx: Tx, key: str) -> str | None:
    """The value of `key` as the transaction sees it, or None."""
    rows = tx.rows(_VALUE, (key,))
    return str(rows[0][0]) if rows else None


def put(tx: Tx, key: str, value: str) -> None:
    """Set `key` to `value`."""
    tx.run(Meta.insert(key=key, value=value).on_conflict(conflict_target=[Meta.key], preserve=[Meta.value]))


def keep(tx: Tx, key: str, value: str) -> str:
    """Set `key` to `value` unless it has one; the value that it has."""
    tx.run(Meta.insert(key=key, value=value).on_conflict_ignore())
    return str(tx.rows(_VALUE, (key,))[0][0])
