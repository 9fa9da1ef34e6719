"""The tables as SQLite has them since its migration 0004, and what several machines need beside them.

Texts are compared byte by byte, as SQLite does: what comes first must not depend on where a database was made.
"""

from typing import Any

_STATEMENTS = """
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    type text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    topic text COLLATE "C",
    data text NOT NULL,
    tags text COLLATE "C" NOT NULL,
    description text NOT NULL,
    occurred_at bigint NOT NULL,
    recorded_at bigint NOT NULL,
    idempotency_key text COLLATE "C",
    cause_id bigint
);
CREATE UNIQUE INDEX events_idempotency_key ON events (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE cursors (
    processor text COLLATE "C" PRIMARY KEY,
    last_consumed_id bigint NOT NULL,
    updated_at bigint NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    generation bigint NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    failed_id bigint,
    retry_at bigint,
    error text
) WITH (fillfactor = 50);

CREATE TABLE jobs (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    args text NOT NULL,
    priority integer NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN
        ('scheduled', 'available', 'executing', 'retryable', 'completed', 'cancelled', 'dead')),
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    run_at bigint NOT NULL,
    lease_owner text COLLATE "C",
    lease_token bigint,
    lease_expires_at bigint,
    unique_key text COLLATE "C",
    progress text,
    result text,
    error text,
    cause_id bigint,
    created_at bigint NOT NULL,
    finished_at bigint,
    blocked_by text COLLATE "C",
    limit_key text COLLATE "C",
    needs text COLLATE "C",
    expires_at bigint,
    options text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX jobs_ready ON jobs (queue, (run_at - priority * 6000000::bigint), id)
    WHERE state = 'available' AND blocked_by IS NULL;
CREATE INDEX jobs_blocked ON jobs (queue) WHERE state = 'available' AND blocked_by IS NOT NULL;
CREATE INDEX jobs_waiting ON jobs (state, queue, run_at) WHERE state IN ('scheduled', 'retryable');
CREATE INDEX jobs_executing ON jobs (queue, lease_expires_at) WHERE state = 'executing';
CREATE INDEX jobs_finished ON jobs (state, queue, finished_at) WHERE state BETWEEN 'cancelled' AND 'dead';
CREATE INDEX jobs_unique ON jobs (unique_key, kind, state, created_at) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_limited ON jobs (limit_key, state, blocked_by, (run_at - priority * 6000000::bigint), id)
    WHERE limit_key IS NOT NULL AND state IN ('available', 'executing');
CREATE INDEX jobs_turns ON jobs (limit_key, queue, (run_at - priority * 6000000::bigint), id)
    WHERE state = 'available' AND blocked_by = 'limit';
CREATE INDEX jobs_needing ON jobs (needs, blocked_by, queue, (run_at - priority * 6000000::bigint), id)
    WHERE needs IS NOT NULL AND state = 'available';

CREATE TABLE queues (
    name text COLLATE "C" PRIMARY KEY,
    paused boolean NOT NULL DEFAULT false,
    rate_at bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE limits (
    key text COLLATE "C" PRIMARY KEY,
    rate_at bigint NOT NULL,
    admit_at bigint,
    waits_since bigint
);
CREATE INDEX limits_rate ON limits (rate_at);
CREATE INDEX limits_admit ON limits (admit_at) WHERE admit_at IS NOT NULL;
CREATE INDEX limits_waiting ON limits (waits_since) WHERE admit_at IS NOT NULL;
CREATE TABLE breakers (
    name text COLLATE "C" PRIMARY KEY,
    state text COLLATE "C" NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failures integer NOT NULL DEFAULT 0,
    failed_at bigint,
    opened_at bigint,
    probe_at bigint,
    probe_id bigint,
    error text
);
CREATE INDEX breakers_probe ON breakers (probe_at) WHERE probe_at IS NOT NULL;
CREATE TABLE schedules (
    name text COLLATE "C" PRIMARY KEY,
    last_run_at bigint,
    next_run_at bigint,
    spec text NOT NULL DEFAULT ''
);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    source text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    error text NOT NULL,
    topic text COLLATE "C",
    payload bytea,
    event_id bigint,
    job_id bigint,
    created_at bigint NOT NULL,
    redriven_at bigint,
    redrive_requested_at bigint,
    detail text NOT NULL DEFAULT '{}'
);
CREATE INDEX dead_letters_open ON dead_letters (source, reason) WHERE redriven_at IS NULL;
CREATE INDEX dead_letters_redrive ON dead_letters (id)
    WHERE redrive_requested_at IS NOT NULL AND redriven_at IS NULL;
CREATE INDEX dead_letters_job ON dead_letters (job_id) WHERE job_id IS NOT NULL AND redriven_at IS NULL;

CREATE TABLE notifications (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    event_id bigint,
    channel text COLLATE "C" NOT NULL,
    severity text COLLATE "C" NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('queued', 'sent', 'dead', 'silenced', 'grouped')),
    attempt integer NOT NULL DEFAULT 0,
    next_attempt_at bigint NOT NULL,
    sent_at bigint,
    error text,
    created_at bigint NOT NULL,
    kind text COLLATE "C" NOT NULL DEFAULT 'alert',
    detail text NOT NULL DEFAULT '{}',
    group_key text COLLATE "C",
    digest_id bigint,
    expires_at bigint,
    failover text,
    read_at bigint,
    tried_at bigint,
    route text COLLATE "C"
);
CREATE INDEX notifications_state ON notifications (state, channel);
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
    fingerprint text COLLATE "C" NOT NULL,
    route text COLLATE "C" NOT NULL,
    event_id bigint NOT NULL,
    severity text COLLATE "C" NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    detail text NOT NULL,
    channels text NOT NULL,
    opened_at bigint NOT NULL,
    reminder integer NOT NULL DEFAULT 0,
    escalation integer NOT NULL DEFAULT 0,
    next_at bigint,
    escalate_at bigint,
    silenced boolean NOT NULL DEFAULT false,
    endless boolean NOT NULL DEFAULT false,
    acknowledged_at bigint,
    acknowledged_by text,
    comment text,
    PRIMARY KEY (fingerprint, route)
);
CREATE INDEX threads_acknowledged ON threads (acknowledged_at, event_id) WHERE acknowledged_at IS NOT NULL;
CREATE TABLE silences (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    match text NOT NULL,
    starts_at bigint NOT NULL,
    ends_at bigint NOT NULL,
    comment text NOT NULL DEFAULT '',
    created_by text NOT NULL DEFAULT '',
    created_at bigint NOT NULL
);

CREATE TABLE contract_states (
    contract text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('ok', 'pending', 'violated', 'unknown', 'suppressed')),
    since bigint NOT NULL,
    deadline_at bigint,
    episode bigint NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (contract, subject)
);
CREATE TABLE meta (
    key text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE writers (
    name text COLLATE "C" PRIMARY KEY,
    batch bigint NOT NULL,
    used_at timestamptz NOT NULL
) WITH (fillfactor = 10);

CREATE FUNCTION events_in_commit_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(TG_RELID::bigint);
    RETURN NULL;
END $$;
CREATE TRIGGER events_in_commit_order BEFORE INSERT ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_in_commit_order();
"""


def up(migrator: Any, db: Any) -> None:
    """Create everything, in one transaction."""
    db.connection().execute(_STATEMENTS)
