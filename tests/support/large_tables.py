"""A table of jobs as large as one likes, and what a unit of work costs on it, in steps of SQLite's machine."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TypeVar

from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Tx, Unit

T = TypeVar("T")

_GRAIN = 10

# The n-th of many jobs that have ended: of four queues and three states, some with a key, a limit, a need.
_FINISHED = """
WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < :count),
finished AS (
    SELECT n, CASE n % 20 WHEN 0 THEN 'dead' WHEN 1 THEN 'cancelled' ELSE 'completed' END AS state FROM numbers
)
INSERT INTO jobs (queue, kind, args, priority, state, attempt, max_attempts, run_at, lease_token, created_at,
                  finished_at, unique_key, limit_key, needs, result, error)
SELECT substr('abcq', 1 + n % 4, 1), 'm:Kind' || n % 5, '{"n":' || n || '}', 0, state, 1, 5, :now - n * 501000, 1,
       :now - n * 501000, :now - n * 500000, CASE n % 3 WHEN 0 THEN 'unique-' || n % 50000 END,
       CASE n % 3 WHEN 1 THEN 'limit-' || n % 10 END, CASE n % 3 WHEN 2 THEN 'crm' END,
       CASE state WHEN 'completed' THEN '{"ok":true}' END, CASE state WHEN 'dead' THEN 'ValueError: no' END
FROM finished
"""
_LETTERS = """
INSERT INTO dead_letters (source, reason, error, job_id, created_at)
SELECT 'job:' || queue, CASE id % 100 WHEN 0 THEN 'timeout' ELSE 'failed' END, error, id, finished_at
FROM jobs WHERE state = 'dead'
"""


def fill(path: str, count: int, now: int) -> None:
    """Add `count` jobs that had ended by `now`, with the dead letters that they would have left."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.execute(_FINISHED, {"count": count, "now": now})
        connection.execute(_LETTERS)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def analyze(path: str) -> None:
    """Have SQLite look at the tables, as an operator might, so that it plans otherwise."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ANALYZE")


class Meter:
    """Runs units on a store that is open, and remembers their statements, with their parameters filled in.

    `steps` is what the last unit took.
    """

    def __init__(self, store: SqliteStore) -> None:
        self.steps = 0
        self.statements: list[str] = []
        self._store = store

    async def write(self, unit: Unit[T]) -> T:
        """Run one unit, and commit it."""
        self.steps = 0

        def measured(tx: Tx) -> T:
            connection = self._store._engine._connection
            assert connection is not None
            connection.set_progress_handler(self._count, _GRAIN)
            connection.set_trace_callback(self.statements.append)
            try:
                return unit(tx)
            finally:
                connection.set_progress_handler(None, 0)
                connection.set_trace_callback(None)

        return await self._store.write(measured)

    def _count(self) -> None:
        self.steps += _GRAIN
