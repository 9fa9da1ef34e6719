"""Verbs of the table `meta`: facts about the store itself."""

from __future__ import annotations

from ..errors import StoreError
from .store import Statement, Store, Tx
from .tables import Meta

COPY_OF = "copy_of"
"""In a store that is copied from another one, until it is complete: the id of that one."""
RECOVERY = "recovery"
"""In a store that took the place of a damaged one, while there is more to be had from that: what, as JSON."""

_STARTING = Statement(
    lambda p: Meta.select(Meta.key, Meta.value).where((Meta.key >= p) & (Meta.key < p)).order_by(Meta.key)
)
_VALUE = Statement(lambda p: Meta.select(Meta.value).where(Meta.key == p))


def incomplete(place: str) -> StoreError:
    """What to raise for a store of which `COPY_OF` is set."""
    return StoreError(
        f"{place} is the incomplete copy of another store",
        hint="call edgeq db copy again, with the same two names: it goes on where it was interrupted",
    )


async def get(store: Store, key: str) -> str | None:
    """The value of `key`, or None."""
    rows = await store.read(_VALUE, (key,))
    return str(rows[0][0]) if rows else None


async def starting(store: Store, prefix: str) -> list[tuple[str, str]]:
    """All keys that begin with `prefix`, in order, with their values."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return [(str(key), str(text)) for key, text in await store.read(_STARTING, (prefix, end))]


def value(tx: Tx, key: str) -> str | None:
    """The value of `key` as the transaction sees it, or None."""
    rows = tx.rows(_VALUE, (key,))
    return str(rows[0][0]) if rows else None


def put(tx: Tx, key: str, value: str) -> None:
    """Set `key` to `value`."""
    tx.run(Meta.insert(key=key, value=value).on_conflict(conflict_target=[Meta.key], preserve=[Meta.value]))


def remove(tx: Tx, key: str) -> None:
    """Forget `key`."""
    tx.run(Meta.delete().where(Meta.key == key))


def keep(tx: Tx, key: str, value: str) -> str:
    """Set `key` to `value` unless it has one; the value that it has."""
    tx.run(Meta.insert(key=key, value=value).on_conflict_ignore())
    return str(tx.rows(_VALUE, (key,))[0][0])
