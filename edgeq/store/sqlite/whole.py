"""Whether a file of SQLite is a whole store, and what it holds."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import StoreError
from ..meta import COPY_OF, incomplete
from ..schema import applied
from . import faults

Watch = Callable[[str, int, int], None]
"""Called again and again with what is being done, how much of it is, and of how much. What it raises ends the work."""

_OPERATIONS = 20_000  # of SQLite's machine, between two times of asking whether to go on


class Contents(NamedTuple):
    """What a store holds: its own id, its last migration, the rows of each table, and the greatest id of an event."""

    store_id: str
    schema: str
    rows: dict[str, int]
    head: int


def unwatched(doing: str, done: int, total: int) -> None:
    """Work that nobody watches."""


def uri(path: str, **options: str) -> str:
    """The name of a file with SQLite's options."""
    return f"{Path(path).absolute().as_uri()}?{'&'.join(f'{name}={value}' for name, value in options.items())}"


def contents(connection: sqlite3.Connection, place: str) -> Contents:
    """What a connection sees. Raises StoreError when it isn't a store, or an incomplete copy of one; sqlite3.Error."""
    done = applied(connection)
    if not done:
        raise StoreError(f"{place} is not a store of edgeq: it has none of its tables")
    meta = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('store_id', ?)", (COPY_OF,)).fetchall())
    if COPY_OF in meta:
        raise incomplete(place)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    rows = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables}  # noqa: S608
    head = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
    return Contents(str(meta.get("store_id", "")), done[-1], rows, int(head))


def problems(connection: sqlite3.Connection, *, quick: bool, watch: Watch = unwatched) -> Iterator[str]:
    """What SQLite finds wrong, table by table; `quick` without whether each row is in its indexes. Nothing is locked
    for longer than one table takes."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    steps = [f'{"quick" if quick else "integrity"}_check("{name}")' for name in tables]
    if not quick:
        steps.append("quick_check")  # pages that belong to nothing, or to two
    for number, step in enumerate(steps):
        watch("checked", number, len(steps))
        for (answer,) in connection.execute(f"PRAGMA {step}").fetchall():
            if answer != "ok":
                yield str(answer).splitlines()[-1]
    watch("checked", len(steps), len(steps))


def verify(path: str, watch: Watch = unwatched) -> Contents:
    """What a file holds that nobody writes to. Raises StoreError when it isn't a whole store."""
    connection = sqlite3.connect(uri(path, mode="ro", immutable="1"), uri=True, isolation_level=None)
    try:
        with asking(connection, watch):
            connection.execute("PRAGMA cell_size_check=ON")
            found = contents(connection, path)
            for problem in problems(connection, quick=False, watch=watch):
                raise StoreError(f"{path} is damaged: {problem}")
            return found
    except sqlite3.Error as error:
        raise StoreError(faults.reason(error, path) or f"{path}: {error}") from error
    finally:
        connection.close()


@contextlib.contextmanager
def asking(connection: sqlite3.Connection, watch: Watch) -> Iterator[None]:
    """End a long statement when `watch` raises, which is asked now and then."""
    raised: list[BaseException] = []

    def ask() -> int:
        try:
            watch("", 0, 0)
        except BaseException as error:  # noqa: BLE001 - SQLite passes none on
            raised.append(error)
        return len(raised)

    connection.set_progress_handler(ask, _OPERATIONS)
    try:
        yield
    except sqlite3.OperationalError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        connection.set_progress_handler(None, 0)
