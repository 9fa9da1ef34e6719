"""Jobs that are added in a commit of two pages: their ids no longer come from AUTOINCREMENT, which keeps a page of its
own, and yet no id is ever used twice; and what a row must fulfil is compared, not looked up in a table of its own."""

from typing import Any

# A job that is removed while it is the last one leaves its id in removed_jobs: see job_adding. SQLite makes a table in
# memory of more than two values after IN, anew for each statement; of comparisons it makes none.
_STATEMENTS = """
CREATE TABLE removed_jobs (last_id INTEGER NOT NULL);
INSERT INTO removed_jobs (last_id) SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs';
CREATE TABLE new_jobs (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    kind TEXT NOT NULL,
    args TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state = 'available' OR state = 'executing' OR state = 'completed' OR state = 'scheduled'
        OR state = 'retryable' OR state = 'cancelled' OR state = 'dead'),
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    lease_owner TEXT,
    lease_token INTEGER,
    lease_expires_at INTEGER,
    unique_key TEXT,
    progress TEXT,
    result TEXT,
    error TEXT,
    cause_id INTEGER,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    blocked_by TEXT,
    limit_key TEXT,
    needs TEXT,
    expires_at INTEGER,
    options TEXT
);
INSERT INTO new_jobs SELECT
    id, queue, kind, args, priority, state, attempt, max_attempts, run_at, lease_owner, lease_token, lease_expires_at,
    unique_key, progress, result, error, cause_id, created_at, finished_at, blocked_by, limit_key, needs, expires_at,
    options FROM jobs;
DROP TABLE jobs;
ALTER TABLE new_jobs RENAME TO jobs;
CREATE INDEX jobs_ready ON jobs (queue, run_at - priority * 6000000, id)
    WHERE state = 'available' AND blocked_by IS NULL;
CREATE INDEX jobs_blocked ON jobs (queue) WHERE state = 'available' AND blocked_by IS NOT NULL;
CREATE INDEX jobs_waiting ON jobs (state, queue, run_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX jobs_executing ON jobs (queue, lease_expires_at) WHERE state = 'executing';
CREATE INDEX jobs_finished ON jobs (state, queue, finished_at) WHERE state BETWEEN 'cancelled' AND 'dead';
CREATE INDEX jobs_unique ON jobs (unique_key, kind, state, created_at) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_limited ON jobs (limit_key, state, blocked_by, run_at - priority * 6000000, id)
    WHERE limit_key IS NOT NULL AND state IN ('available', 'executing');
CREATE INDEX jobs_turns ON jobs (limit_key, queue, run_at - priority * 6000000, id)
    WHERE state = 'available' AND blocked_by = 'limit';
CREATE INDEX jobs_needing ON jobs (needs, blocked_by, queue, run_at - priority * 6000000, id)
    WHERE needs IS NOT NULL AND state = 'available';
CREATE TRIGGER jobs_removed AFTER DELETE ON jobs WHEN NOT EXISTS (SELECT 1 FROM jobs WHERE id > OLD.id)
    BEGIN UPDATE removed_jobs SET last_id = OLD.id WHERE last_id < OLD.id; END;
"""


def up(migrator: Any, db: Any) -> None:
    """Bring everything up to date."""
    for statement in _STATEMENTS.split(";\n"):
        if statement.strip():
            db.execute_sql(statement)
