"""What is taken over from a damaged store while the new one is used already: what was done with by then, the newest
first, a little at a time.

Events that a processor has yet to pass are not taken over, unless it is held for them: it would not see them in order.
Rows whose id is there already stay as they are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import peewee as pw

from ...errors import StoreError
from .. import meta
from ..store import Row, Statement, Store, Tx
from ..tables import Cursors, Meta, Table
from .recover import BY_NAME, HISTORY, Recovery, history
from .salvage import Salvage

_MODELS: dict[str, Any] = {model._meta.table_name: model for model in Table.__subclasses__()}
_FREE_OF_FILE = 8  # the disk must have more free than this part of the damaged file's size
_GIVEN = Statement(
    lambda p: pw.SQL(
        "SELECT name, seq FROM sqlite_sequence UNION ALL "
        "SELECT 'jobs', max(last_id, (SELECT coalesce(max(id), 0) FROM jobs)) FROM removed_jobs"
    )
)


class Progress(NamedTuple):
    """Of the first `total` ids of a table, `done` were looked at, the greatest first; `added` rows were taken over."""

    table: str
    done: int
    total: int
    added: int


async def pending(store: Store) -> Recovery | None:
    """What is still to be taken over into this store, if anything is."""
    text = await meta.get(store, meta.RECOVERY)
    try:
        return None if text is None else msgspec.json.decode(text, type=Recovery)
    except msgspec.DecodeError:
        return None


async def of_file(store: Store, path: str) -> Recovery:
    """What there is to be had of a database that once was this store. Raises StoreError when it wasn't, Unreadable."""

    def look() -> tuple[str, dict[str, int]]:
        with Salvage(path) as salvage:
            return salvage.meta().get("store_id", ""), salvage.numbers()[0]

    store_id, numbers = await asyncio.to_thread(look)
    if store_id != store.id:
        raise StoreError(f"{path} is not of the store {store.place}", hint="its own id is another one, or is lost")
    given: dict[str, int] = dict(await store.read(_GIVEN))
    known = {name: min(number, given.get(name, 0)) for name, number in numbers.items()}
    return Recovery(path, numbers=known, above={"events": known.get("events", 0)})


async def take_over(store: Store, found: Recovery) -> AsyncGenerator[Progress, None]:
    """Take over what `found` has not yet, and count it there. Raises Unreadable; StoreError when the disk gets full."""
    await store.write(partial(_hold, found=found))
    salvage = Salvage(found.aside)
    await asyncio.to_thread(salvage.__enter__)
    try:
        size = os.stat(found.aside).st_size
        for name in HISTORY:
            columns = salvage.columns(BY_NAME[name])
            total = found.above.get(name, 0) if name == "events" else found.numbers.get(name, 0)
            chunks = history(salvage, name, found)
            while chunk := await asyncio.to_thread(next, chunks, None):
                free = store.disk()["free_disk_bytes"]
                if free < size // _FREE_OF_FILE:
                    raise StoreError(f"the disk has only {free} bytes left", hint="make room on it")
                added = await store.write(partial(_add, name=name, columns=columns, rows=chunk, held=found.held))
                found.rows[name] = found.rows.get(name, 0) + added
                yield Progress(name, total - chunk[-1][0] + 1, total, added)
        found.note(salvage)
    finally:
        await asyncio.to_thread(salvage.__exit__)


def finish(tx: Tx, found: Recovery) -> None:
    """There is no more to be had: processors that were held go on."""
    if found.held:
        held = Cursors.processor.in_(found.held) & Cursors.paused & Cursors.failed_id.is_null()
        tx.run(Cursors.update({Cursors.paused: False, Cursors.error: None}).where(held))
        tx.touch("cursors")
    tx.run(Meta.delete().where(Meta.key == meta.RECOVERY))


def _hold(tx: Tx, *, found: Recovery) -> None:
    """A processor that was made since, and wants all events, waits for them, too. Not for a file that somebody names:
    that is not in `meta`."""
    if meta.value(tx, meta.RECOVERY) is None:
        return
    late = (Cursors.last_consumed_id < found.above.get("events", 0)) & ~Cursors.paused
    names = [row[0] for row in tx.rows(Cursors.select(Cursors.processor).where(late))]
    if names:
        why = f"held until its next events are recovered from {found.aside}"
        tx.run(Cursors.update({Cursors.paused: True, Cursors.error: why}).where(Cursors.processor.in_(names)))
        tx.touch("cursors")
        found.held += names
        meta.put(tx, meta.RECOVERY, msgspec.json.encode(found).decode())


def _add(tx: Tx, *, name: str, columns: Sequence[str], rows: Sequence[Row], held: Sequence[str]) -> int:
    if name == "events":
        passed = Cursors.select(pw.fn.MIN(Cursors.last_consumed_id)).where(Cursors.processor.not_in(held))
        floor = tx.rows(passed)[0][0]
        rows = [row for row in rows if floor is None or row[0] <= floor]
    model = _MODELS[name]
    fields = [model._meta.columns[column] for column in columns]
    return tx.run(model.insert_many(rows, fields=fields).on_conflict_ignore()) if rows else 0
