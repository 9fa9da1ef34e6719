"""`edgeq db prune`: retention by hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import click
from msgspec.structs import replace

from ...clock import Clock
from ...config.checks import is_postgres
from ...config.relations import processors_of
from ...store.space import measure
from ...store.store import Store
from ...telemetry.metrics import Metrics
from ...units import Duration, Size
from ...upkeep.retention import Retention
from ..common import as_json, configured, duration, load_config, open_store
from ..printing import say, say_json
from ..program import arm_failpoints
from ..progress import progress

_AGE_SECONDS_MIN = 60.0


@click.command()
@click.option("--events", "events_age", metavar="AGE", callback=duration(_AGE_SECONDS_MIN),
              help="Delete events older than this, such as 7d, instead of what store.retention says.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--vacuum", is_flag=True, help="Give what is free in the file back to the disk.")
@as_json
@configured
def prune(events_age: Duration | None, dry_run: bool, vacuum: bool, json_lines: bool) -> None:
    """Delete what store.retention doesn't want to keep, now.

    Works beside a running edgeq, which does the same by itself once an hour. Events that a processor hasn't seen stay,
    unless there is no room for them. The clock is believed as it is.

    With --vacuum, a SQLite file also becomes smaller. One that was made by a version before that was possible is
    written anew for it: stop edgeq first, and have twice its size free on the disk.
    """
    loaded = load_config()
    arm_failpoints()
    config = loaded.config
    ages = config.store.retention if events_age is None else replace(config.store.retention, events=events_age)
    if vacuum and is_postgres(config.store.url):
        raise click.UsageError("--vacuum is for a SQLite file; PostgreSQL uses what is free by itself")
    if vacuum and dry_run:
        raise click.UsageError("--vacuum and --dry-run exclude each other")
    counts: Counter[str] = Counter()

    async def run() -> dict[str, Any]:
        async with open_store(loaded) as store:
            with progress("deleted" if not dry_run else "found") as advance:

                def done(table: str, rows: int) -> None:
                    counts[table] += rows
                    advance(rows)

                upkeep = Retention(
                    ages, store, Clock(), Metrics(), processors=processors_of(config), gateway=config.gateway,
                    by_hand=True, dry=dry_run, rest=asyncio.sleep, progress=done,
                )  # fmt: skip
                await upkeep.look()
                given = await upkeep.shrink() if vacuum else 0
            return {"trouble": upkeep.room.trouble, "given_back": given, **await _room(store)}

    found = asyncio.run(run())
    if vacuum and not found.pop("shrinks"):
        found["given_back"] = _write_anew(config.store.url, json_lines)
    found.pop("shrinks", None)
    if json_lines:
        say_json({"deleted": {} if dry_run else counts, "would_delete": counts if dry_run else {}, **found})
        return
    for table, count in sorted(counts.items()):
        say(f"{table.replace('_', ' ')}: {count} {'would be ' if dry_run else ''}deleted")
    if not counts:
        say(f"nothing {'would be' if dry_run else 'was'} deleted")
    if vacuum:
        say(f"{Size(found['given_back'])} given back to the disk")
    say(f"the store takes {Size(found['used_bytes'])}, and {Size(found['free_bytes'])} of it are free for rows to come")
    if found["trouble"]:
        say(found["trouble"])


async def _room(store: Store) -> dict[str, Any]:
    room = await measure(store)
    return {"used_bytes": room.used, "free_bytes": room.free, "shrinks": room.shrinks}


def _write_anew(url: str, quiet: bool) -> int:
    from ...config.checks import sqlite_path
    from ...store.sqlite.vacuum import vacuum

    if not quiet:
        say("the file is written anew, which may take a while")
    before, after = vacuum(sqlite_path(url))
    return max(0, before - after)
