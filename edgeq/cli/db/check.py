"""`edgeq db check`: whether the store is whole, and makes sense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import click

from ...config.checks import is_postgres, sqlite_path
from ...config.schema import LoadedConfig
from ...errors import EdgeqError, StoreMissing
from ...store.opening import place
from ..common import as_json, configured, load_config, open_store
from ..printing import say, say_json
from .files import Watch, watched


@click.command("check")
@click.option("--quick", is_flag=True, help="Only whether the pages of the file belong together, and cursors and jobs.")
@as_json
@configured
def check(quick: bool, json_lines: bool) -> int:
    """Look whether the store is whole, while edgeq runs or not.

    The pages, rows and indexes of the SQLite file, and that its tables are as edgeq makes them; on PostgreSQL what
    keeps the order of events; every row, whether it can be read and is one; cursors that stand ahead of all events;
    jobs in states that can't be. Ends with 1 if anything is wrong.
    """
    loaded = load_config()
    found = asyncio.run(_check(loaded, quick))
    where = place(loaded.config.store.url)
    if json_lines:
        say_json({"place": where, "ok": not found, "problems": found})
    else:
        for problem in found:
            say(problem)
        say(f"{where}: {f'{len(found)} things are wrong' if found else 'nothing is wrong'}")
    return 1 if found else 0


async def _check(loaded: LoadedConfig, quick: bool) -> list[str]:
    with watched() as watch:
        return [problem async for problem in _problems(loaded, quick, watch)]


async def _problems(loaded: LoadedConfig, quick: bool, watch: Watch) -> AsyncIterator[str]:
    from ...store.checking import rows, senseless

    url = loaded.config.store.url
    if not is_postgres(url):
        from ...store.sqlite.check import wrong

        for problem in wrong(sqlite_path(url), quick=quick, watch=watch):
            yield problem
    try:
        async with open_store(loaded) as store:
            async for problem in senseless(store):
                yield problem
            if not quick:
                async for problem in rows(store, watch):
                    yield problem
    except StoreMissing:
        raise
    except EdgeqError as error:
        yield f"{error}"
