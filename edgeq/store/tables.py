"""The tables (SPEC section 7) as peewee models, for building queries. The schema itself is made by `migrations/`.

Times are integers, microseconds since 1970 UTC. The models are bound to no database: an engine renders the queries.
"""

from __future__ import annotations

import peewee as pw


class Table(pw.Model):
    """Base of all models."""

    class Meta:
        """Names in the database are those of the columns below."""

        legacy_table_names = False


class Events(Table):
    """What happened. Ids only grow and are never used twice (G6). `keep` is the priority of its route, -1 (low), 0 or 1
    (high): when there is no room, what is low goes first."""

    id = pw.BigAutoField()
    type = pw.TextField()
    subject = pw.TextField()
    topic = pw.TextField(null=True)
    data = pw.TextField()
    tags = pw.TextField()
    description = pw.TextField()
    occurred_at = pw.BigIntegerField()
    recorded_at = pw.BigIntegerField()
    idempotency_key = pw.TextField(null=True)
    cause_id = pw.BigIntegerField(null=True)
    keep = pw.IntegerField()


class Cursors(Table):
    """How far each processor has come.

    `generation` changes whenever somebody else moves or takes the cursor; a commit under an old one is refused.
    `attempt`, `failed_id`, `retry_at` and `error` tell of the event at which the processor is stuck.
    """

    processor = pw.TextField(primary_key=True)
    last_consumed_id = pw.BigIntegerField()
    updated_at = pw.BigIntegerField()
    paused = pw.BooleanField()
    generation = pw.BigIntegerField()
    attempt = pw.IntegerField()
    failed_id = pw.BigIntegerField(null=True)
    retry_at = pw.BigIntegerField(null=True)
    error = pw.TextField(null=True)


class Jobs(Table):
    """Work to do, being done, and done. Ids only grow and are never used twice: `removed_jobs`, a table of one row, has
    the id of a last job that was removed (see job_adding).

    `args`, `result` and `progress` are JSON. `lease_token` is the fence: a worker completes only the claim that it was
    given. `blocked_by` says why a job that is available can't be claimed all the same: `limit` (others with its
    `limit_key` run, or ran just now) or `breaker` (what it `needs` doesn't work). `options` is JSON that `jobs` owns.
    """

    id = pw.BigAutoField()
    queue = pw.TextField()
    kind = pw.TextField()
    args = pw.TextField()
    priority = pw.IntegerField()
    state = pw.TextField()
    attempt = pw.IntegerField()
    max_attempts = pw.IntegerField()
    run_at = pw.BigIntegerField()
    lease_owner = pw.TextField(null=True)
    lease_token = pw.BigIntegerField(null=True)
    lease_expires_at = pw.BigIntegerField(null=True)
    unique_key = pw.TextField(null=True)
    progress = pw.TextField(null=True)
    result = pw.TextField(null=True)
    error = pw.TextField(null=True)
    cause_id = pw.BigIntegerField(null=True)
    created_at = pw.BigIntegerField()
    finished_at = pw.BigIntegerField(null=True)
    blocked_by = pw.TextField(null=True)
    limit_key = pw.TextField(null=True)
    needs = pw.TextField(null=True)
    expires_at = pw.BigIntegerField(null=True)
    options = pw.TextField(null=True)


class Queues(Table):
    """What is remembered of a queue: whether it is paused, and `rate_at`, when its rate next lets a job begin."""

    name = pw.TextField(primary_key=True)
    paused = pw.BooleanField()
    rate_at = pw.BigIntegerField()


class Limits(Table):
    """Rate limits of single keys. `rate_at`: when the rate is all there again, if none begins until then; `admit_at`:
    when the next job of those that wait for it may go on, NULL when none waits; reckoned at `waits_since`."""

    key = pw.TextField(primary_key=True)
    rate_at = pw.BigIntegerField()
    admit_at = pw.BigIntegerField(null=True)
    waits_since = pw.BigIntegerField(null=True)


class Breakers(Table):
    """What is known of a dependency of jobs. `failures` in a row, the first of them at `failed_at`, and the `error` of
    the last. `probe_at`: when it is next looked at: open, a job is let through to try it, `probe_id`; half open, it is
    seen whether that job is still there; closed, more of the jobs that waited for it go on. NULL: no need to."""

    name = pw.TextField(primary_key=True)
    state = pw.TextField()
    failures = pw.IntegerField()
    failed_at = pw.BigIntegerField(null=True)
    opened_at = pw.BigIntegerField(null=True)
    probe_at = pw.BigIntegerField(null=True)
    probe_id = pw.BigIntegerField(null=True)
    error = pw.TextField(null=True)


class Schedules(Table):
    """When each schedule ran and runs next. `spec` is the rule that `next_run_at` was reckoned from."""

    name = pw.TextField(primary_key=True)
    last_run_at = pw.BigIntegerField(null=True)
    next_run_at = pw.BigIntegerField(null=True)
    spec = pw.TextField()


class DeadLetters(Table):
    """What could not be handled, kept whole until somebody redrives or discards it.

    `detail` is JSON: the route's topic filter, the queue or channel, the message's flags. A redrive is asked for by
    `redrive_requested_at` and done by the running appliance, which sets `redriven_at`.
    """

    id = pw.BigAutoField()
    source = pw.TextField()
    reason = pw.TextField()
    error = pw.TextField()
    topic = pw.TextField(null=True)
    payload = pw.BlobField(null=True)
    event_id = pw.BigIntegerField(null=True)
    job_id = pw.BigIntegerField(null=True)
    created_at = pw.BigIntegerField()
    redriven_at = pw.BigIntegerField(null=True)
    redrive_requested_at = pw.BigIntegerField(null=True)
    detail = pw.TextField()


class Notifications(Table):
    """The outbox and history of notifications: one row for each channel, its text rendered once.

    `kind` is what it is in its thread: alert, update, reminder, resolved; or digest. `detail` is JSON: what it is
    about, for channels that are programs. A queued one isn't sent before `next_attempt_at`; those with one `group_key`
    that are due together are told in one digest, and are `grouped` then, with its id in `digest_id`. After `expires_at`
    it is not sent any more. `failover` is JSON: the channels to try when this one fails. `read_at` is for the inbox.
    `tried_at` is when it was first handed to its target: from then on it is sent as it is, and put into no digest.
    `route` is the id of the route that it goes by, whose quiet hours hold it.
    """

    id = pw.BigAutoField()
    event_id = pw.BigIntegerField(null=True)
    channel = pw.TextField()
    severity = pw.TextField()
    title = pw.TextField()
    body = pw.TextField()
    fingerprint = pw.TextField()
    state = pw.TextField()
    attempt = pw.IntegerField()
    next_attempt_at = pw.BigIntegerField()
    sent_at = pw.BigIntegerField(null=True)
    error = pw.TextField(null=True)
    created_at = pw.BigIntegerField()
    kind = pw.TextField()
    detail = pw.TextField()
    group_key = pw.TextField(null=True)
    digest_id = pw.BigIntegerField(null=True)
    expires_at = pw.BigIntegerField(null=True)
    failover = pw.TextField(null=True)
    read_at = pw.BigIntegerField(null=True)
    tried_at = pw.BigIntegerField(null=True)
    route = pw.TextField(null=True)


class Threads(Table):
    """What is open and was told by a route, so that it can be repeated, escalated, acknowledged and resolved: one row
    for each fingerprint and route, until it is over.

    `title`, `body`, `severity` and `detail` are those of the alert, `channels` is JSON: the names of those that were
    told. `reminder` counts the repetitions, `escalation` the steps of `escalate` that were taken; `next_at` and
    `escalate_at` are when the next of each is due. One that is `silenced` hasn't been told at all yet; one that is
    `endless` stands until it is resolved.
    """

    fingerprint = pw.TextField()
    route = pw.TextField()
    event_id = pw.BigIntegerField()
    severity = pw.TextField()
    title = pw.TextField()
    body = pw.TextField()
    detail = pw.TextField()
    channels = pw.TextField()
    opened_at = pw.BigIntegerField()
    reminder = pw.IntegerField()
    escalation = pw.IntegerField()
    next_at = pw.BigIntegerField(null=True)
    escalate_at = pw.BigIntegerField(null=True)
    silenced = pw.BooleanField()
    endless = pw.BooleanField()
    acknowledged_at = pw.BigIntegerField(null=True)
    acknowledged_by = pw.TextField(null=True)
    comment = pw.TextField(null=True)

    class Meta:
        """One row for each fingerprint and route."""

        primary_key = pw.CompositeKey("fingerprint", "route")


class Silences(Table):
    """What nobody is to be told of for a while. `match` is JSON, as the `match` of a route."""

    id = pw.BigAutoField()
    match = pw.TextField()
    starts_at = pw.BigIntegerField()
    ends_at = pw.BigIntegerField()
    comment = pw.TextField()
    created_by = pw.TextField()
    created_at = pw.BigIntegerField()


class ContractStates(Table):
    """Where each contract stands for each subject. `detail` is JSON that the contract's kind owns."""

    contract = pw.TextField()
    subject = pw.TextField()
    state = pw.TextField()
    since = pw.BigIntegerField()
    deadline_at = pw.BigIntegerField(null=True)
    episode = pw.BigIntegerField()
    detail = pw.TextField()

    class Meta:
        """One row for each contract and subject."""

        primary_key = pw.CompositeKey("contract", "subject")


class Meta(Table):
    """Facts about the store itself: its id, its schema version, the MQTT filters the broker holds for us, the clock by
    which the times of the contract states are told."""

    key = pw.TextField(primary_key=True)
    value = pw.TextField()
