"""`edgeq db`: what is done to a store as a whole."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing

import click

from ..config.checks import store_url
from ..store.copying.copy import Step, copy, make_side
from ..telemetry.log import configure
from .printing import say, say_error
from .program import arm_failpoints


def _store_url(ctx: click.Context, param: click.Parameter, text: str) -> str:
    try:
        store_url(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


@click.group()
def db() -> None:
    """A store as a whole."""


@db.command("copy")
@click.argument("source", metavar="FROM", callback=_store_url)
@click.argument("target", metavar="TO", callback=_store_url)
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
    """Say how far it is: a bar on a terminal, a line for each table elsewhere and at its end."""
    if not sys.stderr.isatty():
        for step in steps:
            _say_end(step)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console, same = Console(stderr=True), sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, auto_refresh=False, redirect_stdout=same) as bar:
        shown = bar.add_task("", total=None)
        for step in steps:
            doing = f"{step.table} {step.phase}"
            if bar.tasks[0].description != doing:
                bar.reset(shown)  # the time that is left is that of this one
            bar.update(shown, description=doing, completed=step.done, total=step.total, refresh=True)
            _say_end(step)


def _say_end(step: Step) -> None:
    if step.checksum and step.total:
        say(f"{step.table}: {step.done} rows, the same on both sides, sha256 {step.checksum}")
    elif step.phase == "copied" and step.total and step.done == step.total:
        say(f"{step.table}: {step.done} rows copied")
