"""`edgeq db`: what is done to a store as a whole. A file for each verb."""

from __future__ import annotations

import click

from .copying import copy_store


@click.group()
def db() -> None:
    """A store as a whole."""


db.add_command(copy_store)
