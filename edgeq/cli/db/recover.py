"""`edgeq db recover`: rows from a damaged database, or one that was replaced."""

from __future__ import annotations

import asyncio

import click

from ...config.schema import LoadedConfig
from ...errors import EdgeqError
from ..common import configured, load_config, open_store
from ..printing import say
from .files import database_file, watched


@click.command("recover")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path())
@configured
def recover(file: str | None) -> None:
    """Take over what can be read of FILE and is missing here, while edgeq runs or not.

    FILE is a database that was put aside as damaged or replaced, or a backup, of this store: events that all processors
    have passed, jobs that have ended, notifications that were told, dead letters. Nothing is processed again. Without
    FILE: what is still to be had of the database that was put aside last.
    """
    loaded = load_config()
    database_file(loaded, instead="this is for files of SQLite")
    for line in asyncio.run(_recover(loaded, file)):
        say(line)


async def _recover(loaded: LoadedConfig, file: str | None) -> list[str]:
    from ...store.sqlite.later import finish, of_file, pending, take_over

    async with open_store(loaded) as store:
        found = await pending(store) if file is None else await of_file(store, file)
        if found is None:
            raise EdgeqError("there is nothing to be recovered", hint="name the file")
        found.rows.clear()
        with watched() as watch:
            async for step in take_over(store, found):
                watch(step.table, step.done, step.total)
        if file is None:
            await store.write(lambda tx: finish(tx, found))
    return [f"recovered: {found.summary()}"]
