"""Jobs with limits, dependencies, an end to their use, and callbacks; queues, breakers, and rules of schedules."""

from typing import Any

# 6,000,000 microseconds of waiting are worth one point of priority: see job_records.AGE_SECONDS.
_STATEMENTS = """
ALTER TABLE jobs ADD COLUMN blocked_by TEXT;
ALTER TABLE jobs ADD COLUMN limit_key TEXT;
ALTER TABLE jobs ADD COLUMN needs TEXT;
ALTER TABLE jobs ADD COLUMN expires_at INTEGER;
ALTER TABLE jobs ADD COLUMN options TEXT;
DROP INDEX jobs_available;
DROP INDEX jobs_waiting;
DROP INDEX jobs_state;
CREATE INDEX jobs_ready ON jobs (queue, run_at - priority * 6000000, id)
    WHERE state = 'available' AND blocked_by IS NULL;
CREATE INDEX jobs_blocked ON jobs (queue) WHERE state = 'available' AND blocked_by IS NOT NULL;
CREATE INDEX jobs_waiting ON jobs (state, queue, run_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX jobs_finished ON jobs (state, queue, finished_at) WHERE state IN ('completed', 'cancelled', 'dead');
CREATE INDEX jobs_unique ON jobs (unique_key, kind, state, created_at) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_limited ON jobs (limit_key, state, blocked_by, run_at - priority * 6000000, id)
    WHERE limit_key IS NOT NULL AND state IN ('available', 'executing');
CREATE INDEX jobs_turns ON jobs (limit_key, queue, run_at - priority * 6000000, id)
    WHERE state = 'available' AND blocked_by = 'limit';
CREATE INDEX jobs_needing ON jobs (needs, blocked_by, queue, run_at - priority * 6000000, id)
    WHERE needs IS NOT NULL AND state = 'available';
CREATE INDEX dead_letters_job ON dead_letters (job_id) WHERE job_id IS NOT NULL AND redriven_at IS NULL;
CREATE TABLE queues (
    name TEXT PRIMARY KEY NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0,
    rate_at INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE limits (
    key TEXT PRIMARY KEY NOT NULL,
    rate_at INTEGER NOT NULL,
    admit_at INTEGER,
    waits_since INTEGER
) WITHOUT ROWID;
CREATE INDEX limits_rate ON limits (rate_at);
CREATE INDEX limits_admit ON limits (admit_at) WHERE admit_at IS NOT NULL;
CREATE INDEX limits_waiting ON limits (waits_since) WHERE admit_at IS NOT NULL;
CREATE TABLE breakers (
    name TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures INTEGER NOT NULL DEFAULT 0,
    failed_at INTEGER,
    opened_at INTEGER,
    probe_at INTEGER,
    probe_id INTEGER,
    error TEXT
) WITHOUT ROWID;
CREATE INDEX breakers_probe ON breakers (probe_at) WHERE probe_at IS NOT NULL;
ALTER TABLE schedules ADD COLUMN spec TEXT NOT NULL DEFAULT '';
"""


def up(migrator: Any, db: Any) -> None:
    """Bring everything up to date."""
    for statement in _STATEMENTS.split(";\n"):
        if statement.strip():
            db.execute_sql(statement)
