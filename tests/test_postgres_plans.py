"""What is asked of PostgreSQL is found by an index, whatever the server believes of the table."""

from __future__ import annotations

from collections.abc import Iterator

import peewee as pw
import pytest
from support.postgres import Postgres
from support.statements import WHOLE_TABLE, statements
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


def plan(tx: Tx, statement: Statement) -> list[str]:
    """What a server does for a statement, whatever its parameters are."""
    text = statement.text(DIALECT)
    count = text.count("%s")
    for number in range(count):
        text = text.replace("%s", f"${number + 1}", 1)
    tx.run(pw.SQL(f"PREPARE asked AS {text}"))
    lines = [
        row[0] for row in tx.rows(pw.SQL(f"EXPLAIN EXECUTE asked ({','.join(['NULL'] * count)})".replace("()", "")))
    ]
    tx.run(pw.SQL("DEALLOCATE asked"))
    return lines


@pytest.mark.parametrize("statement", [LOOK, CLAIM], ids=["look", "claim"])
async def test_a_worker_reads_no_finished_jobs(database: PostgresDatabase, statement: Statement) -> None:
    async with database.opened() as store:
        lines = await store.write(lambda tx: plan(tx, statement))
    assert [line for line in lines if "jobs_ready" in line]
    assert not [line for line in lines if "Seq Scan on jobs" in line]


async def test_every_statement_goes_by_an_index(database: PostgresDatabase) -> None:
    async with database.opened() as store:
        plans = await store.write(lambda tx: {name: plan(tx, statement) for name, statement in statements()})
    assert len(plans) > 100
    scans = {name for name, lines in plans.items() if any("Seq Scan" in line for line in lines)}
    assert scans <= WHOLE_TABLE
