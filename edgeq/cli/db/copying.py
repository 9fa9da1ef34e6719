"""`edgeq db copy`: a store in another database."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import chain, groupby

import click

from ...config.checks import store_url
from ...store.copying.copy import Step, copy, make_side
from ...telemetry.log import configure
from ..printing import say, say_error
from ..program import arm_failpoints
from ..progress import progress


def _store_url(ctx: click.Context, param: click.Parameter, text: str) -> str:
    try:
        store_url(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


@click.command("copy")
@click.argument("source", metavar="FROM", type=click.Path(), callback=_store_url)
@click.argument("target", metavar="TO", type=click.Path(), callback=_store_url)
def copy_store(source: str, target: str) -> None:
    """Copy a store to another database, between SQLite and PostgreSQL or on the same.

    FROM and TO are what store.url says: a path, or postgresql://HOST/DATABASE. A password is better not given here,
    where others see it, but by $PGPASSWORD or ~/.pgpass.

    Stop edgeq first: nobody may use either of them meanwhile. TO must be empty. Everything is copied, read again and
    compared. Interrupted, it goes on where it was when it is called again; until it is complete, nothing else opens TO.
    """
    configure("critical", "text")
    arm_failpoints()
    with closing(make_side(source)) as ours, closing(make_side(target)) as theirs:
        if ours.place == theirs.place:
            raise click.UsageError("FROM and TO are the same")
        ours.open(target=False)
        theirs.open(target=True)
        try:
            _show(copy(ours, theirs))
        except KeyboardInterrupt:
            say_error("interrupted; call it again, and it goes on from here")
            raise
        say(f"complete: {theirs.place} has all of {ours.place}; change store.url, and start edgeq")


def _show(steps: Iterable[Step]) -> None:
    """Say how far it is, and a line for each table at its end."""
    for (table, phase), group in groupby(steps, key=lambda step: (step.table, step.phase)):
        first = next(group)
        with progress(f"{table} {phase}", first.total) as advance:
            done = 0
            for step in chain([first], group):
                advance(step.done - done)
                done = step.done
                _say_end(step)


def _say_end(step: Step) -> None:
    if step.checksum and step.total:
        say(f"{step.table}: {step.done} rows, the same on both sides, sha256 {step.checksum}")
    elif step.phase == "copied" and step.total and step.done == step.total:
        say(f"{step.table}: {step.done} rows copied")
