"""What is wrong with a database's file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator

from ...errors import StoreMissing
from ..files import mark_suspect
from ..schema import applied, known, migrate
from . import faults, patience
from .whole import Watch, asking, problems, unwatched, uri


def wrong(path: str, *, quick: bool, watch: Watch = unwatched) -> Iterator[str]:
    """What is wrong, each in a sentence: pages, rows and indexes (`quick`: whether pages belong together), and tables
    that aren't as this version makes them. Others may use the file meanwhile. One that is damaged is looked at as a
    whole by the next start of edgeq run. Raises StoreMissing; StoreError when it can't be opened."""
    if not os.path.exists(path):
        raise StoreMissing(f"there is no database at {path}", hint="start edgeq once, or give its configuration, -c")
    try:
        connection = sqlite3.connect(
            uri(path, mode="ro"), uri=True, timeout=patience.BUSY_SECONDS, isolation_level=None
        )
    except sqlite3.Error as error:
        raise faults.refusal(error, path) from error
    damaged = False
    try:
        with asking(connection, watch):
            done = applied(connection)
            if strange := sorted({*done} - {*known()}):
                yield f"the tables are of a newer version of edgeq (it has {strange[-1]})"
            elif done != known():
                yield "the tables are of an older version of edgeq: edgeq db migrate, or the next start, changes them"
            else:
                yield from _other_tables(connection)
            for problem in problems(connection, quick=quick, watch=watch):
                damaged = True
                yield problem
    except sqlite3.Error as error:
        damaged = faults.code(error) in faults.DAMAGED
        yield faults.reason(error, path) or f"{path}: {error}"
    finally:
        connection.close()
        if damaged:
            mark_suspect(path)


def _other_tables(connection: sqlite3.Connection) -> Iterator[str]:
    """Tables, indexes and triggers that are missing, or not as the migrations make them."""
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = os.path.join(folder, "new.db")
        migrate(path, may_change=True)
        with contextlib.closing(sqlite3.connect(path)) as made:
            expected = _tables(made)
    there = _tables(connection)
    for (kind, name), text in expected.items():
        if (kind, name) not in there:
            yield f"the {kind} {name} is missing"
        elif there[kind, name] != text:
            yield f"the {kind} {name} is not as edgeq makes it: {there[kind, name]}"


def _tables(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'"
    return {(kind, name): " ".join(text.split()) for kind, name, text in connection.execute(query)}
