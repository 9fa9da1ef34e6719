"""Stores that are worth something, and the harm that comes to their files."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from edgeq.store.copying.tables import TABLES
from edgeq.store.schema import migrate
from edgeq.store.store import Row

PAGE = 4096
HEAD = 900
Damages = list[tuple[str, float, int]]
DAMAGES = st.lists(
    st.tuples(st.sampled_from(["page", "zero", "cut", "log"]), st.floats(0, 1, exclude_max=True), st.integers(1, 40)),
    min_size=1,
    max_size=6,
)
"""What happens to a file and its log: other bytes, or none, in the place of so many pages from there on, or its end."""


def valuable(path: Path, *, log: bool = False, seed: int = 1) -> dict[str, set[Row]]:
    """Make a store with rows in every table, many of them in those that have many; what is in it. With `log`, the last
    of it is in the log only, as after a kill."""
    migrate(str(path), may_change=True)
    some = random.Random(seed)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    columns = {row[0]: [each[1] for each in connection.execute(f"PRAGMA table_info({row[0]})")] for row in _tables()}

    def add(table: str, **values: Any) -> None:
        names = [name for name in values if name in columns[table]]
        connection.execute(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            [values[name] for name in names],
        )

    def word(length: int) -> str:
        return f"{some.getrandbits(4 * length):x}"

    def fill(first: int, last: int) -> None:
        connection.execute("BEGIN")
        for n in range(first, last + 1):
            data = f'{{"n": {n}, "x": "{word(9000 if n % 97 == 0 else 60)}"}}'
            add("events", id=n, type="a", subject=f"s-{n % 7}", topic=f"a/{n}", data=data,
                tags="[]", description=word(80), occurred_at=n, recorded_at=n, idempotency_key=word(16))  # fmt: skip
            state = ("available", "completed", "dead", "scheduled", "retryable")[n % 5]
            add("jobs", id=n, queue="default", kind="k:K", args=f'["{word(50)}"]', priority=0, state=state, attempt=0,
                max_attempts=3, run_at=n, created_at=n, finished_at=n if n % 5 in (1, 2) else None)  # fmt: skip
            add("notifications", id=n, channel="c", severity="info", title=word(20), body=word(60), fingerprint=word(8),
                state="queued" if n % 3 else "sent", attempt=0, next_attempt_at=n, created_at=n, kind="alert",
                detail="{}")  # fmt: skip
            add("dead_letters", id=n, source="intake", reason="r", error="e", payload=word(90).encode(), created_at=n,
                detail='{"route": "a/#"}')  # fmt: skip
            add("contract_states", contract="c", subject=f"s-{n}", state="violated", since=n, episode=n,
                detail=f'{{"x": "{word(30)}"}}')  # fmt: skip
            add("threads", fingerprint=f"f-{n}", route="r", event_id=n, severity="info", title=word(20), body="b",
                detail="{}", channels='["c"]', opened_at=n, reminder=0, escalation=0, silenced=0,
                endless=0)  # fmt: skip
        connection.execute("COMMIT")

    fill(1, HEAD - 100)
    for n, name in enumerate(("early", "late")):
        add("cursors", processor=name, last_consumed_id=HEAD - 200 + 150 * n, updated_at=1, paused=0, generation=1,
            attempt=0)  # fmt: skip
    add("silences", match='{"tags": ["x"]}', starts_at=1, ends_at=2, comment="", created_by="", created_at=1)
    add("schedules", name="nightly", last_run_at=1, next_run_at=2, spec="s")
    add("queues", name="default", paused=1, rate_at=0)
    add("breakers", name="printer", state="open", failures=5, failed_at=1)
    add("limits", key="k", rate_at=1)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    fill(HEAD - 99, HEAD)
    if not log:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        kept = None
    else:
        kept = Path(f"{path}-wal").read_bytes()
    found = rows(path)
    connection.close()
    if kept is not None:
        Path(f"{path}-wal").write_bytes(kept)
    return found


def rows(path: Path) -> dict[str, set[Row]]:
    """All rows of every table of a whole store."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found = {}
        for name, names in _tables():
            found[name] = set(connection.execute(f"SELECT {names} FROM {name}").fetchall())
        return found


def pages(path: Path, name: str) -> list[int]:
    """The pages of a table or an index of a whole store, by number from 1, its root last."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        root = 1 if name == "sqlite_master" else connection.execute(query, (name,)).fetchone()[0]
    whole = path.read_bytes()
    found: list[int] = []

    def walk(number: int) -> None:
        page = whole[(number - 1) * PAGE : number * PAGE]
        start = 100 if number == 1 else 0
        if page[start] in (2, 5):
            for n in range(int.from_bytes(page[start + 3 : start + 5], "big")):
                cell = int.from_bytes(page[start + 12 + 2 * n : start + 14 + 2 * n], "big")
                walk(int.from_bytes(page[cell : cell + 4], "big"))
            walk(int.from_bytes(page[start + 8 : start + 12], "big"))
        found.append(number)

    walk(root)
    return found


def overwrite(path: Path, numbers: list[int], *, zero: bool = False) -> None:
    """Put other bytes in the place of these pages, numbered from 1."""
    with path.open("r+b") as file:
        for number in numbers:
            file.seek((number - 1) * PAGE)
            file.write(bytes(PAGE) if zero else os.urandom(PAGE))


def damage(path: Path, damages: Damages, seed: int) -> None:
    """Have that happen to a store whose last commits are in the log."""
    some = random.Random(seed)
    for kind, where, count in damages:
        target = Path(f"{path}-wal") if kind == "log" else path
        size = target.stat().st_size
        if kind == "cut":
            os.truncate(target, int(where * size))
            continue
        with target.open("r+b") as file:
            file.seek(int(where * (size // PAGE)) * PAGE)
            file.write(bytes(PAGE * count) if kind == "zero" else some.randbytes(PAGE * count))


def _tables() -> list[tuple[str, str]]:
    return [(table.name, ", ".join(f'"{name}"' for name in table.columns)) for table in TABLES]
