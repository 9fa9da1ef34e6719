"""The table `jobs` as one may look at it: a job, the latest jobs that fit, and how many there are of what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import peewee as pw
from peewee import fn

from . import queues
from .dialect import beginning
from .job_records import COLUMNS, FINISHED, ID_MAX, IS_FINISHED, STATES, WAITING, StoredJob, possible
from .store import NULL, Statement, Store, literal, storable
from .tables import Jobs

_WAITING = pw.SQL("('scheduled', 'retryable')")
_found = Jobs.alias("found")
_BRIEF = {"args": literal(""), "result": NULL, "options": NULL, "error": beginning(_found.error)}

ONE = Statement(lambda p: Jobs.select(*COLUMNS).where(Jobs.id == p))
READY = Statement(
    lambda p: (
        Jobs.select(Jobs.queue, fn.COUNT(Jobs.id), fn.MIN(Jobs.run_at))
        .where((Jobs.state == literal("available")) & Jobs.blocked_by.is_null())
        .group_by(Jobs.queue)
    )
)
BLOCKED = Statement(
    lambda p: (
        Jobs.select(Jobs.queue, fn.COUNT(Jobs.id))
        .where((Jobs.state == literal("available")) & Jobs.blocked_by.is_null(False))
        .group_by(Jobs.queue)
    )
)
DELAYED = Statement(
    lambda p: (
        Jobs.select(Jobs.state, Jobs.queue, fn.COUNT(Jobs.id), fn.MIN(Jobs.run_at))
        .where(Jobs.state.in_(_WAITING))
        .group_by(Jobs.state, Jobs.queue)
    )
)
EXECUTING = Statement(
    lambda p: Jobs.select(Jobs.queue, fn.COUNT(Jobs.id)).where(Jobs.state == literal("executing")).group_by(Jobs.queue)
)
ENDED = Statement(
    lambda p: Jobs.select(Jobs.state, Jobs.queue, fn.COUNT(Jobs.id)).where(IS_FINISHED).group_by(Jobs.state, Jobs.queue)
)


async def one(store: Store, job_id: int) -> StoredJob | None:
    """The job of that id, or None."""
    rows = await store.read(ONE, (job_id,)) if possible(job_id) else []
    return StoredJob(*rows[0]) if rows else None


async def find(
    store: Store,
    *,
    limit: int,
    queue: str = "",
    state: str = "",
    kind: str = "",
    before_id: int = 0,
    brief: bool = False,
) -> list[StoredJob]:
    """The latest `limit` jobs that fit all given, newest first; `before_id` for the next page. `brief`: without their
    arguments, results and options, which may be large, and with the beginning of their errors."""
    # A state's jobs are found by its index, however many others there are: "+" says so. Only their ids are sorted.
    newest = pw.SQL("+id DESC") if state else Jobs.id.desc()
    fitting = Jobs.select(Jobs.id).order_by(newest).limit(limit)
    for condition in conditions(state, queue, kind):
        fitting = fitting.where(condition)
    if before_id:
        fitting = fitting.where(Jobs.id < min(before_id, ID_MAX))
    instead = _BRIEF if brief else {}
    columns = (instead.get(column.name, getattr(_found, column.name)) for column in COLUMNS)
    found = _found.select(*columns).where(_found.id.in_(fitting))
    return [StoredJob(*row) for row in await store.read(found.order_by(_found.id.desc()))]


async def counts(store: Store, now: int) -> list[dict[str, Any]]:
    """For each queue that any job names, configured or not, or that is paused: how many jobs are in each state; of
    those available, how many are `ready` and how many `blocked`; how many are `delayed` (scheduled or to be tried
    again); for how many seconds the oldest one that is due has been waiting for a worker; and whether it is `paused`.
    `now` is in microseconds since 1970 UTC."""
    empty = {**dict.fromkeys(STATES, 0), "ready": 0, "blocked": 0, "delayed": 0, "oldest_ready_seconds": 0.0}
    rows: dict[str, dict[str, Any]] = {}

    def row(queue: str) -> dict[str, Any]:
        return rows.setdefault(queue, {"queue": queue, **empty, "paused": False})

    def waited(queue: str, since: int) -> None:
        row(queue)["oldest_ready_seconds"] = max(row(queue)["oldest_ready_seconds"], (now - since) / 1e6)

    for queue, count, since in await store.read(READY):
        row(queue)["ready"] = count
        waited(queue, since)
    for queue, count in await store.read(BLOCKED):
        row(queue)["blocked"] = count
    for state, queue, count, since in await store.read(DELAYED):
        row(queue)[state] = count
        row(queue)["delayed"] += count
        waited(queue, since)
    for queue, count in await store.read(EXECUTING):
        row(queue)["executing"] = count
    for state, queue, count in await store.read(ENDED):
        row(queue)[state] = count
    for queue in await queues.paused(store):
        row(queue)["paused"] = True
    for counted in rows.values():
        counted["available"] = counted["ready"] + counted["blocked"]
    return [rows[name] for name in sorted(rows)]


def conditions(state: str, queue: str, kind: str) -> Iterator[pw.Node]:
    """What jobs must fit, said so that SQLite sees which index is for it: each has its states written out, and is in
    the order of queues."""
    if state in (*WAITING, *FINISHED):
        yield (Jobs.state.in_(_WAITING) if state in WAITING else IS_FINISHED) & (Jobs.state == literal(state))
    elif state in ("available", "executing"):
        standing = (Jobs.state == literal(state)) & (Jobs.queue >= literal(""))
        if state == "executing":
            yield standing
        else:
            yield (standing & Jobs.blocked_by.is_null()) | (standing & Jobs.blocked_by.is_null(False))
    elif state:
        yield Jobs.state == storable(state)
    for column, word in ((Jobs.queue, queue), (Jobs.kind, kind)):
        if word:
            yield column == storable(word)
