"""Notifications in groups and digests, with an end to their use; threads, silences."""

from typing import Any

_STATEMENTS = """
ALTER TABLE notifications ADD COLUMN kind TEXT NOT NULL DEFAULT 'alert';
ALTER TABLE notifications ADD COLUMN detail TEXT NOT NULL DEFAULT '{}';
ALTER TABLE notifications ADD COLUMN group_key TEXT;
ALTER TABLE notifications ADD COLUMN digest_id INTEGER;
ALTER TABLE notifications ADD COLUMN expires_at INTEGER;
ALTER TABLE notifications ADD COLUMN failover TEXT;
ALTER TABLE notifications ADD COLUMN read_at INTEGER;
ALTER TABLE notifications ADD COLUMN tried_at INTEGER;
ALTER TABLE notifications ADD COLUMN route TEXT;
DROP INDEX notifications_failed;
CREATE INDEX notifications_failed ON notifications (channel, fingerprint, attempt)
    WHERE state = 'queued' AND attempt > 0;
CREATE INDEX notifications_due ON notifications (channel, next_attempt_at, id) WHERE state = 'queued';
CREATE INDEX notifications_severity ON notifications (channel, severity, next_attempt_at, id) WHERE state = 'queued';
CREATE INDEX notifications_retried ON notifications (channel, next_attempt_at, id)
    WHERE state = 'queued' AND attempt > 0;
CREATE INDEX notifications_raised ON notifications (channel, created_at) WHERE state = 'queued';
CREATE INDEX notifications_route ON notifications (channel, route, next_attempt_at, id)
    WHERE state = 'queued' AND route IS NOT NULL;
CREATE INDEX notifications_waiting ON notifications (channel, fingerprint, id) WHERE state = 'queued';
CREATE INDEX notifications_told ON notifications (channel, fingerprint, id)
    WHERE state IN ('queued', 'sent', 'grouped');
CREATE INDEX notifications_group ON notifications (channel, group_key, id)
    WHERE state = 'queued' AND group_key IS NOT NULL;
CREATE INDEX notifications_group_told ON notifications (channel, group_key, sent_at)
    WHERE state = 'sent' AND group_key IS NOT NULL;
CREATE INDEX notifications_members ON notifications (digest_id, fingerprint) WHERE digest_id IS NOT NULL;
CREATE INDEX notifications_digests ON notifications (channel, kind, id) WHERE state = 'queued';
CREATE INDEX notifications_expires ON notifications (channel, expires_at, id)
    WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX notifications_failover ON notifications (channel, next_attempt_at, id)
    WHERE state = 'queued' AND failover IS NOT NULL;
CREATE TABLE threads (
    fingerprint TEXT NOT NULL,
    route TEXT NOT NULL,
    event_id INTEGER NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    detail TEXT NOT NULL,
    channels TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    reminder INTEGER NOT NULL DEFAULT 0,
    escalation INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER,
    escalate_at INTEGER,
    silenced INTEGER NOT NULL DEFAULT 0,
    endless INTEGER NOT NULL DEFAULT 0,
    acknowledged_at INTEGER,
    acknowledged_by TEXT,
    comment TEXT,
    PRIMARY KEY (fingerprint, route)
) WITHOUT ROWID;
CREATE INDEX threads_acknowledged ON threads (acknowledged_at, event_id) WHERE acknowledged_at IS NOT NULL;
CREATE TABLE silences (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    match TEXT NOT NULL,
    starts_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    comment TEXT NOT NULL DEFAULT '',
    created_by TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
);
"""


def up(migrator: Any, db: Any) -> None:
    """Bring everything up to date."""
    for statement in _STATEMENTS.split(";\n"):
        if statement.strip():
            db.execute_sql(statement)
