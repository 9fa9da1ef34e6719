"""`edgeq jobs`: what is queued, being done, done, and dead; and everything that a person may change about it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any

import click

from ..clock import Clock, rfc3339
from ..config.schema import LoadedConfig
from ..errors import EdgeqError
from ..events import from_json
from ..store import dead_letters
from ..store import jobs as table
from ..store.dead_letters import DeadLetter
from ..store.jobs import FINISHED, STATES, StoredJob
from ..store.store import Tx, Unit
from ..units import Duration
from . import completing
from .common import ID, ROWS, WRITE_SECONDS, as_json, configured, duration, load_config, open_store
from .dispatch import dispatch
from .printing import say, say_error, say_fields, say_json, say_table
from .progress import progress

_PAGE = 1000
_PURGED = tuple(state for state in STATES if state != "executing")
_TEXTS = ("args", "result", "progress", "options")


@click.group()
def jobs() -> None:
    """Work that was dispatched."""


jobs.add_command(dispatch)


# Looking


@jobs.command("list")
@click.option("--queue", default="", shell_complete=completing.queues, help="Only of this queue.")
@click.option("--state", type=click.Choice(STATES), default=None, help="Only in this state.")
@click.option("--kind", default="", metavar="MODULE:NAME", help="Only of this kind.")
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
                job.id, job.queue, job.kind, _state(job), f"{job.attempt}/{job.max_attempts}", rfc3339(job.run_at),
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

    async def main() -> tuple[StoredJob | None, DeadLetter | None]:
        async with open_store(load_config()) as store:
            return await table.one(store, job_id), await dead_letters.of_job(store, job_id)

    job, letter = asyncio.run(main())
    if job is None:
        raise EdgeqError(f"there is no job {job_id}")
    if json_lines:
        say_json(_as_dict(job))
        return
    reason = letter.reason if letter is not None and job.state == "dead" else None
    fields = _as_dict(job) | {"progress": _progress(job)}
    options, error = fields.pop("options") or {}, fields.pop("error")
    say_fields({**fields, **options, "reason": reason, "error": error})


def _as_dict(job: StoredJob) -> dict[str, Any]:
    fields = {name: getattr(job, name) for name in job.__struct_fields__}
    for name in _TEXTS:
        with contextlib.suppress(ValueError):  # shown as it stands in the table
            fields[name] = None if fields[name] is None else from_json(fields[name])
    return fields


def _state(job: StoredJob) -> str:
    """The state, and what an available job waits for, or how far one that runs is."""
    more = {"available": job.blocked_by, "executing": _progress(job)}.get(job.state)
    return f"{job.state} ({more})" if more else job.state


def _progress(job: StoredJob) -> str:
    """`40% step`, or what else stands in the table."""
    if job.progress is None:
        return ""
    try:
        progress = from_json(job.progress)
        return f"{progress['fraction']:.0%} {progress['text']}".rstrip()
    except (ValueError, TypeError, KeyError):
        return job.progress


# Changing


@jobs.command()
@click.argument("ids", metavar="[ID]...", type=ID, nargs=-1)
@click.option("--queue", default="", shell_complete=completing.queues, help="All dead jobs of this queue.")
@click.option("--kind", default="", metavar="MODULE:NAME", help="All dead jobs of this kind.")
@click.option("--reason", default="", help="All that died for this reason, such as timeout.")
@click.option("--all", "everything", is_flag=True, help="All dead jobs.")
@configured
def retry(ids: tuple[int, ...], queue: str, kind: str, reason: str, everything: bool) -> None:
    """Let dead jobs run again, with all their attempts."""
    if not (ids or queue or kind or reason or everything):
        raise click.UsageError("say which: by id, --queue, --kind, --reason, or --all")
    if ids and (queue or kind or reason or everything):
        raise click.UsageError("ids don't go together with --queue, --kind, --reason or --all")
    loaded, now = load_config(), Clock().now()
    if ids:
        count = _write(loaded, lambda tx: table.retry(tx, ids, now))
    else:
        count = _pages(
            loaded,
            lambda tx: table.retry_where(tx, queue=queue, kind=kind, reason=reason, now=now, limit=_PAGE),
            "to run again",
        )
    if count == 0:
        raise EdgeqError("no dead job fits")
    rest = len(set(ids)) - count
    say(f"{count} to run again" + (f"; {rest} are not there, or not dead" if rest > 0 else ""))


@jobs.command()
@click.argument("ids", metavar="ID...", type=ID, nargs=-1, required=True)
@configured
def cancel(ids: tuple[int, ...]) -> None:
    """Cancel jobs that aren't finished.

    One that is running is stopped by its worker, and nothing that it decided is kept.
    """
    now = Clock().now()
    done, rest = _each(ids, lambda tx, some: table.cancel(tx, some, now))
    for job_id, job in rest.items():
        say_error(f"there is no job {job_id}" if job is None else f"job {job_id} is {job.state} already")
    if not done:
        raise EdgeqError("nothing was cancelled")
    say(f"{done} cancelled")


@jobs.command()
@click.argument("ids", metavar="[ID]...", type=ID, nargs=-1)
@click.option("--state", "states", type=click.Choice(_PURGED), multiple=True, help="Jobs in this state.")
@click.option("--queue", default="", shell_complete=completing.queues, help="Only of this queue.")
@click.option("--kind", default="", metavar="MODULE:NAME", help="Only of this kind.")
@click.option("--older-than", metavar="TIME", callback=duration(0), help="Only if they ended so long ago, such as 7d.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@configured
def purge(
    ids: tuple[int, ...], states: tuple[str, ...], queue: str, kind: str, older_than: Duration | None, yes: bool
) -> None:
    """Delete jobs for good: those named, if they have ended, or all that fit.

    --state may be given more than once. Jobs that are executing are left alone; cancel them first.
    """
    if not (ids or states):
        raise click.UsageError("say which: by id, or --state")
    if ids and (states or queue or kind or older_than is not None):
        raise click.UsageError("ids don't go together with --state, --queue, --kind or --older-than")
    if ids:
        _remove(ids)
        return
    finished_before = None
    if older_than is not None:
        if not set(states) <= set(FINISHED):
            raise click.UsageError(f"--older-than is for jobs that ended: {', '.join(FINISHED)}")
        finished_before = Clock().now() - older_than.microseconds
    loaded = load_config()
    if sys.stdin.isatty() and not yes:
        which = f"{', '.join(states)} jobs" + (f" of kind {kind}" if kind else "")
        which += f" in queue {queue}" if queue else " in every queue"
        which += f" that ended {older_than} ago or earlier" if older_than is not None else ""
        click.confirm(f"Delete all {which} for good?", abort=True)
    count = _pages(
        loaded,
        lambda tx: table.purge(tx, states=states, queue=queue, kind=kind, finished_before=finished_before, limit=_PAGE),
        "deleted",
    )
    if count == 0:
        raise EdgeqError("no job fits")
    say(f"{count} deleted")


def _remove(ids: tuple[int, ...]) -> None:
    done, rest = _each(ids, table.remove)
    for job_id, job in rest.items():
        say_error(f"there is no job {job_id}" if job is None else f"job {job_id} is {job.state}: cancel it first")
    if not done:
        raise EdgeqError("nothing was deleted")
    say(f"{done} deleted")


def _each(ids: tuple[int, ...], verb: Callable[[Tx, list[int]], int]) -> tuple[int, dict[int, StoredJob | None]]:
    """Do it to each of the jobs, in one commit; to how many, and what stands in the table for the others."""
    loaded = load_config()

    async def main() -> tuple[int, dict[int, StoredJob | None]]:
        async with open_store(loaded) as store:
            done = await store.write(
                lambda tx: [each for each in dict.fromkeys(ids) if verb(tx, [each])], timeout_seconds=WRITE_SECONDS
            )
            return len(done), {each: await table.one(store, each) for each in dict.fromkeys(ids) if each not in done}

    return asyncio.run(main())


def _write(loaded: LoadedConfig, unit: Unit[Any]) -> Any:
    async def main() -> Any:
        async with open_store(loaded) as store:
            return await store.write(unit, timeout_seconds=WRITE_SECONDS)

    return asyncio.run(main())


def _pages(loaded: LoadedConfig, unit: Unit[int], done: str) -> int:
    """Repeat a unit that changes up to _PAGE jobs until it finds less, and say on a terminal how far it is. Each page
    is a commit of its own: workers get on meanwhile."""

    async def main() -> int:
        count = 0
        async with open_store(loaded) as store:
            with progress(done) as advance:
                while True:
                    page = await store.write(unit, timeout_seconds=WRITE_SECONDS)
                    count += page
                    advance(page)
                    if page < _PAGE:
                        return count

    return asyncio.run(main())
