"""Verbs of the table `jobs`.

A job's way: `scheduled` (until `run_at`) or `available`, then `executing` under a lease, then `completed`, `retryable`
(until its next `run_at`), `dead` or `cancelled`. The attempt is counted at the claim (G7), so a job that kills its
process runs out of attempts like any other. Only the holder of a claim's `lease_token` can end it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .store import Tx
from .tables import Jobs

_COLUMNS = (
    "queue", "kind", "args", "priority", "state", "attempt", "max_attempts", "run_at", "unique_key", "cause_id",
    "created_at",
)  # fmt: skip
_ALL = (
    Jobs.id, Jobs.queue, Jobs.kind, Jobs.args, Jobs.priority, Jobs.state, Jobs.attempt, Jobs.max_attempts, Jobs.run_at,
    Jobs.lease_owner, Jobs.lease_token, Jobs.lease_expires_at, Jobs.unique_key, Jobs.progress, Jobs.result, Jobs.error,
    Jobs.cause_id, Jobs.created_at, Jobs.finished_at,
)  # fmt: skip


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that isn't stored yet. `args` is JSON text, `run_at` and `created_at` microseconds since 1970 UTC;
    a greater `priority` runs first."""

    queue: str
    kind: str
    args: str
    run_at: int
    created_at: int
    priority: int = 0
    max_attempts: int = 5
    unique_key: str | None = None
    cause_id: int | None = None


class StoredJob(msgspec.Struct, frozen=True):
    """A job as it stands in the table."""

    id: int
    queue: str
    kind: str
    args: str
    priority: int
    state: str
    attempt: int
    max_attempts: int
    run_at: int
    lease_owner: str | None
    lease_token: int | None
    lease_expires_at: int | None
    unique_key: str | None
    progress: str | None
    result: str | None
    error: str | None
    cause_id: int | None
    created_at: int
    finished_at: int | None


def add(tx: Tx, jobs: Sequence[NewJob]) -> None:
    """Store jobs, to be claimed from their `run_at` on."""
    rows = [
        (
            job.queue, job.kind, job.args, job.priority, "scheduled" if job.run_at > job.created_at else "available", 0,
            job.max_attempts, job.run_at, job.unique_key, job.cause_id, job.created_at,
        )
        for job in jobs
    ]  # fmt: skip
    tx.insert(Jobs, _COLUMNS, rows)
    if rows:
        tx.touch("jobs")
