"""`edgeq db migrate`: the tables of this version, without starting edgeq."""

from __future__ import annotations

import os

import click

from ...clock import Clock
from ...config.checks import is_postgres, sqlite_path
from ...config.schema import Config
from ...store.opening import place
from ..common import configured, load_config
from ..printing import say
from ..program import arm_failpoints
from .files import watched


@click.command("migrate")
@click.option("--no-backup", is_flag=True, help="Don't copy the file of SQLite before.")
@configured
def migrate(no_backup: bool) -> None:
    """Bring the tables up to date.

    edgeq run does so at its start, too; here it must not run. The file of SQLite is copied before, to where edgeq db
    backup puts it. Make a dump of a database on a server before.
    """
    arm_failpoints()
    config = load_config().config
    where = place(config.store.url)  # says what to install
    if is_postgres(config.store.url):
        from ...store.postgres.schema import upgrade as upgrade_server

        before, after = upgrade_server(config.store.url)
    else:
        from ...store.sqlite.upgrade import upgrade

        before, after = upgrade(where, lambda: None if no_backup else _back_up(config))
    if before == after:
        say(f"{where} is up to date, at {after}")
    else:
        say(f"{where} was brought from {before or 'no tables'} to {after}")


def _back_up(config: Config) -> None:
    from ...store.sqlite.backup import back_up

    path, kept = sqlite_path(config.store.url), config.store.backup
    folder = kept.to if kept else os.path.dirname(path)
    with watched() as watch:
        made = back_up(path, folder, gateway=config.gateway, now=Clock().now(), watch=watch)
    say(f"as it was: {made.path}")
