"""`edgeq db restore`: a backup in the place of the database."""

from __future__ import annotations

import click

from ...clock import Clock
from ..common import configured, load_config
from ..printing import say
from ..program import arm_failpoints
from .files import database_file, watched


@click.command("restore")
@click.argument("file", metavar="FILE", type=click.Path())
@configured
def restore(file: str) -> None:
    """Put a backup into the place of the database.

    Stop edgeq first: nobody may use the database meanwhile. FILE is checked, copied and checked again; the database
    that is there stays beside it, as edgeq.db.replaced-MOMENT. Ids go on above those that it has given.
    """
    arm_failpoints()
    loaded = load_config()
    path = database_file(loaded, instead="restore it there: pg_restore brings back what pg_dump has made")
    from ...store.sqlite.restore import restore as put_back

    with watched() as watch:
        done = put_back(path, file, now=Clock().now(), watch=watch)
    say(f"{path} is what {file} holds: {done.contents.head} is its last event")
    if done.aside:
        say(f"what was there: {done.aside}; once edgeq has run on, edgeq db recover has the events that came since")
    if not done.numbers:
        say(
            "which ids were given since the backup isn't known: if a site says so, give the processors that forward "
            "to it another `series`"
        )
