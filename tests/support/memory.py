"""A store without a file, for models that begin anew hundreds of times."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import peewee as pw

from edgeq.store.schema import migrate
from edgeq.store.sqlite import SqliteTx
from edgeq.store.store import Health, Signal, Statement, Store, Unit, render


@cache
def _empty() -> bytes:
    """A database with the tables as the migrations make them."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "edgeq.db")
        migrate(path, may_change=True)
        made = sqlite3.connect(path)
        try:
            made.execute("PRAGMA journal_mode=DELETE")  # the other one needs a file
            return made.serialize()
        finally:
            made.close()


class MemoryStore(Store):
    """Tables in memory, commits at once."""

    def __init__(self) -> None:
        self.signal = Signal()
        self._database = pw.SqliteDatabase(None)
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.deserialize(_empty())

    health = Health(ok=True)
    id = "memory"
    busy = False

    async def open(self) -> None: ...

    async def close(self) -> None:
        self._connection.close()

    def submit(self, unit: Unit[Any], *, shared: bool = False) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        tx = SqliteTx(self._connection, self._database)
        self._connection.execute("BEGIN")
        future.set_result(unit(tx))
        self._connection.execute("COMMIT")
        self.signal.fire(tx.touched)
        return future

    def submit_lazily(self, unit: Unit[object], within_seconds: float) -> None:
        raise NotImplementedError

    async def read(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if isinstance(query, Statement):
            return self._connection.execute(query.text(self._database), params).fetchall()
        return self._connection.execute(*render(self._database, query)).fetchall()
