"""`edgeq dead-letters`: see what could not be handled, give it another chance, or drop it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import click

from ..clock import Clock, rfc3339
from ..errors import EdgeqError
from ..store import dead_letters as table
from ..store.dead_letters import DeadLetter
from ..store.store import Unit
from . import completing
from .common import ID, ROWS, WRITE_SECONDS, as_json, configured, load_config, open_store
from .printing import last_line, say, say_fields, say_json, say_table


@click.group("dead-letters")
def dead_letters() -> None:
    """What could not be handled, kept whole."""


def _choice(function: Any) -> Any:
    for option in (
        click.argument("ids", metavar="[ID]...", type=ID, nargs=-1),
        click.option(
            "--source",
            default="",
            shell_complete=completing.sources,
            help="All of this source, such as intake or processor:NAME.",
        ),
        click.option("--reason", default="", help="All with this reason, such as undecodable."),
        click.option("--all", "everything", is_flag=True, help="All."),
    ):
        function = option(function)
    return function


@dead_letters.command("list")
@click.option("--source", default="", shell_complete=completing.sources, help="Only of this source.")
@click.option("--reason", default="", help="Only with this reason.")
@click.option("--redriven", is_flag=True, help="Those that were redriven, too.")
@click.option("--limit", default=50, show_default=True, type=ROWS, help="How many, the latest.")
@as_json
@configured
def list_letters(source: str, reason: str, redriven: bool, limit: int, json_lines: bool) -> None:
    """The latest dead letters, newest first."""

    async def main() -> None:
        async with open_store(load_config()) as store:
            found = await table.find(
                store, limit=limit, source=source, reason=reason, redriven=None if redriven else False
            )
        if json_lines:
            for letter in found:
                say_json(_as_dict(letter))
            return
        say_table(
            ("id", "when", "source", "reason", "topic", "error"),
            [
                (each.id, rfc3339(each.created_at), each.source, each.reason, each.topic, _in_short(each))
                for each in found
            ],
            empty="no dead letters",
        )

    asyncio.run(main())


@dead_letters.command()
@click.argument("letter_id", metavar="ID", type=ID)
@as_json
@configured
def show(letter_id: int, json_lines: bool) -> None:
    """One dead letter, whole."""

    async def main() -> None:
        async with open_store(load_config()) as store:
            letter = await table.one(store, letter_id)
        if letter is None:
            raise EdgeqError(f"there is no dead letter {letter_id}")
        if json_lines:
            say_json(_as_dict(letter))
            return
        say_fields(_as_dict(letter))

    asyncio.run(main())


@dead_letters.command()
@_choice
@configured
def redrive(ids: tuple[int, ...], source: str, reason: str, everything: bool) -> None:
    """Give dead letters another chance, where they came from.

    A running appliance does it at once, otherwise the next one that runs.
    """
    _check_choice(ids, source, reason, everything)
    _change(
        lambda tx: table.request_redrive(tx, Clock().now(), ids=ids, source=source, reason=reason), "to be redriven"
    )


@dead_letters.command()
@_choice
@configured
def discard(ids: tuple[int, ...], source: str, reason: str, everything: bool) -> None:
    """Delete dead letters for good."""
    _check_choice(ids, source, reason, everything)
    _change(lambda tx: table.discard(tx, ids=ids, source=source, reason=reason), "discarded")


def _check_choice(ids: tuple[int, ...], source: str, reason: str, everything: bool) -> None:
    if not (ids or source or reason or everything):
        raise click.UsageError("say which: by id, --source, --reason, or --all")
    if ids and (source or reason or everything):
        raise click.UsageError("ids don't go together with --source, --reason or --all")


def _change(unit: Unit[int], done: str) -> None:
    async def main() -> int:
        async with open_store(load_config()) as store:
            return await store.write(unit, timeout_seconds=WRITE_SECONDS)

    count = asyncio.run(main())
    if count == 0:
        raise EdgeqError("no dead letter fits")
    say(f"{count} {done}")


def _in_short(letter: DeadLetter) -> str:
    """The line of the error that sums it up: a job's is the first, that of a bare traceback the last."""
    return letter.error.partition("\n")[0] if letter.job_id is not None else last_line(letter.error)


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    fields = {name: getattr(letter, name) for name in letter.__struct_fields__}
    payload = letter.payload
    if payload is not None:
        try:
            fields["payload"] = payload.decode()
        except UnicodeDecodeError:
            fields["payload"] = None
            fields["payload_base64"] = base64.b64encode(payload).decode()
    return fields
