"""The tables of the first release."""

from typing import Any

# Written out rather than made from the models: a migration never changes once released, and peewee's own key
# field doesn't say AUTOINCREMENT, without which SQLite hands out the highest id again after a prune.
_STATEMENTS = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    topic TEXT,
    data TEXT NOT NULL,
    tags TEXT NOT NULL,
    description TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    idempotency_key TEXT,
    cause_id INTEGER
);
CREATE UNIQUE INDEX events_idempotency_key ON events (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE TABLE cursors (
    processor TEXT PRIMARY KEY NOT NULL,
    last_consumed_id INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    failed_id INTEGER,
    retry_at INTEGER,
    error TEXT
) WITHOUT ROWID;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    kind TEXT NOT NULL,
    args TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('scheduled', 'available', 'executing', 'retryable', 'completed', 'cancelled', 'dead')),
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
    finished_at INTEGER
);
CREATE INDEX jobs_available ON jobs (queue, priority DESC, id) WHERE state = 'available';
CREATE INDEX jobs_waiting ON jobs (state, run_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX jobs_executing ON jobs (queue, lease_expires_at) WHERE state = 'executing';
CREATE INDEX jobs_state ON jobs (state, queue);
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    topic TEXT,
    payload BLOB,
    event_id INTEGER,
    job_id INTEGER,
    created_at INTEGER NOT NULL,
    redriven_at INTEGER,
    redrive_requested_at INTEGER,
    detail TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX dead_letters_open ON dead_letters (source, reason) WHERE redriven_at IS NULL;
CREATE INDEX dead_letters_redrive ON dead_letters (id)
    WHERE redrive_requested_at IS NOT NULL AND redriven_at IS NULL;
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id INTEGER,
    channel TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'dead', 'silenced', 'grouped')),
    attempt INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    sent_at INTEGER,
    error TEXT,
    created_at INTEGER NOT NULL
);
CREATE INDEX notifications_state ON notifications (state, channel);
CREATE INDEX notifications_failed ON notifications (channel, fingerprint, id) WHERE state = 'queued' AND attempt > 0;
CREATE TABLE contract_states (
    contract TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ok', 'pending', 'violated', 'unknown', 'suppressed')),
    since INTEGER NOT NULL,
    deadline_at INTEGER,
    episode INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (contract, subject)
) WITHOUT ROWID;
CREATE TABLE schedules (
    name TEXT PRIMARY KEY NOT NULL,
    last_run_at INTEGER,
    next_run_at INTEGER
) WITHOUT ROWID;
CREATE TABLE meta (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID;
"""


def up(migrator: Any, db: Any) -> None:
    """Create everything."""
    for statement in _STATEMENTS.split(";\n"):
        if statement.strip():
            db.execute_sql(statement)
