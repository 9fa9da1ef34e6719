"""`edgeq db`: what is done to a store as a whole. A file for each verb."""

from __future__ import annotations

import click

from .backup import backup
from .check import check
from .copying import copy_store
from .migrate import migrate
from .prune import prune
from .recover import recover
from .restore import restore


@click.group()
def db() -> None:
    """A store as a whole."""


db.add_command(backup)
db.add_command(check)
db.add_command(copy_store)
db.add_command(migrate)
db.add_command(recover)
db.add_command(restore)
db.add_command(prune)
