"""`edgeq db backup`: a copy of the database, made while it is used."""

from __future__ import annotations

import os

import click

from ...clock import Clock
from ..common import as_json, configured, load_config
from ..printing import say, say_json
from ..program import arm_failpoints
from .files import database_file, watched

_INSTEAD = (
    "back it up there: pg_dump --format=custom --file=edgeq.dump with the same host and database, which pg_restore "
    "brings back, or for every moment a base backup with WAL archiving (PITR); see the documentation of PostgreSQL"
)


@click.command("backup")
@click.argument("to", metavar="[FILE|FOLDER]", required=False, type=click.Path())
@click.option("--keep", type=click.IntRange(1, 10_000), metavar="N", help="Delete all but the newest N in FOLDER.")
@as_json
@configured
def backup(to: str | None, keep: int | None, json_lines: bool) -> None:
    """Copy the database, while edgeq runs or not.

    Into FOLDER, which must be there, under a name of the gateway and the moment, or to FILE, which must not. Without
    either: to the folder of store.backup, or that of the database. The copy is checked before it gets its name: what
    ends with .part was never finished, and goes with the next backup.
    """
    arm_failpoints()
    loaded = load_config()
    path = database_file(loaded, instead=_INSTEAD)
    from ...store.sqlite.backup import back_up

    configured_one = loaded.config.store.backup
    to = to or (configured_one.to if configured_one else os.path.dirname(path))
    if keep is not None and not os.path.isdir(to):
        raise click.UsageError(f"--keep is for a folder, and {to} is none")
    clock = Clock()
    began = clock.monotonic()
    with watched() as watch:
        made = back_up(path, to, gateway=loaded.config.gateway, now=clock.now(), keep=keep, watch=watch)
    seconds = round(clock.monotonic() - began, 1)
    if json_lines:
        found = made.contents
        say_json(
            {
                "path": os.path.abspath(made.path),
                "bytes": made.size,
                "seconds": seconds,
                "store_id": found.store_id,
                "schema": found.schema,
                "head": found.head,
                "rows": found.rows,
                "removed": made.removed,
            }
        )
        return
    for old in made.removed:
        say(f"deleted {old}")
    say(f"{made.path}: {made.contents.head} is its last event; {made.size} bytes, checked, in {seconds}s")
