"""What a worker asks of PostgreSQL again and again, it finds by an index, whatever the server believes of the table."""

from __future__ import annotations

from collections.abc import Iterator

import peewee as pw
import pytest
from support.postgres import Postgres
from support.stores import PostgresDatabase

from edgeq.store.claims import CLAIM
from edgeq.store.job_outlook import LOOK
from edgeq.store.postgres.transaction import DIALECT
from edgeq.store.store import Statement, Tx

_FILL = """
INSERT INTO jobs (queue, kind, args, priority, state, max_attempts, run_at, created_at, finished_at)
SELECT 'default', 'some:Job', '{}', 0, 'available', 1, n, n, n FROM generate_series(1, 20000) AS n
"""


@pytest.fixture(name="database")
def _database(postgres: Postgres) -> Iterator[PostgresDatabase]:
    """One whose jobs are finished, all of which waited when the server last looked."""
    database = PostgresDatabase.on(postgres)
    for text in (_FILL, "VACUUM ANALYZE jobs", "UPDATE jobs SET state = 'completed' WHERE id < 20000"):
        postgres.sql(database.url, text)
    yield database
    database.drop()


@pytest.mark.parametrize("statement", [LOOK, CLAIM], ids=["look", "claim"])
async def test_a_worker_reads_no_finished_jobs(database: PostgresDatabase, statement: Statement) -> None:
    text = statement.text(DIALECT)
    count = text.count("%s")
    for number in range(count):
        text = text.replace("%s", f"${number + 1}", 1)

    def explain(tx: Tx) -> list[str]:
        tx.run(pw.SQL(f"PREPARE asked AS {text}"))
        return [row[0] for row in tx.rows(pw.SQL(f"EXPLAIN EXECUTE asked ({','.join(['NULL'] * count)})"))]

    async with database.opened() as store:
        plan = await store.write(explain)
    assert [line for line in plan if "jobs_ready" in line]
    assert not [line for line in plan if "Seq Scan on jobs" in line]
