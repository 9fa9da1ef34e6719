"""`edgeq jobs`: what is queued, being done, done, and dead."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import click

from ..clock import rfc3339
from ..errors import EdgeqError
from ..events import from_json
from ..store import jobs as table
from ..store.jobs import STATES, StoredJob
from .common import ID, ROWS, as_json, configured, load_config, open_store
from .printing import say_fields, say_json, say_table


@click.group()
def jobs() -> None:
    """Work that was dispatched."""


@jobs.command("list")
@click.option("--queue", default="", help="Only of this queue.")
@click.option("--state", type=click.Choice(STATES), default=None, help="Only in this state.")
@click.option("--kind", default="", metavar="MODULE:CLASS", help="Only of this kind.")
@click.option("--limit", default=50, show_default=True, type=ROWS, help="How many, the latest.")
@as_json
@configured
def list_jobs(queue: str, state: str | None, kind: str, limit: int, json_lines: bool) -> None:
    """The latest jobs, newest first."""

    async def main() -> list[StoredJob]:
        async with open_store(load_config()) as store:
            return await table.find(store, limit=limit, queue=queue, state=state or "", kind=kind)

    found = asyncio.run(main())
    if json_lines:
        for job in found:
            say_json(_as_dict(job))
        return
    say_table(
        ("id", "queue", "kind", "state", "attempt", "run at", "args", "error"),
        [
            (
                job.id, job.queue, job.kind, job.state, f"{job.attempt}/{job.max_attempts}", rfc3339(job.run_at),
                job.args, (job.error or "").partition("\n")[0],
            )
            for job in found
        ],
        empty="no jobs",
    )  # fmt: skip


@jobs.command()
@click.argument("job_id", metavar="ID", type=ID)
@as_json
@configured
def show(job_id: int, json_lines: bool) -> None:
    """One job, whole."""

    async def main() -> StoredJob | None:
        async with open_store(load_config()) as store:
            return await table.one(store, job_id)

    job = asyncio.run(main())
    if job is None:
        raise EdgeqError(f"there is no job {job_id}")
    if json_lines:
        say_json(_as_dict(job))
        return
    say_fields(_as_dict(job))


def _as_dict(job: StoredJob) -> dict[str, Any]:
    fields = {name: getattr(job, name) for name in job.__struct_fields__}
    for name in ("args", "result", "progress"):
        with contextlib.suppress(ValueError):  # shown as it stands in the table
            fields[name] = None if fields[name] is None else from_json(fields[name])
    return fields
