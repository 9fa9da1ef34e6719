"""`edgeq events` and `edgeq emit`: read, follow and export events; add one by hand."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import click

from ..clock import MICROSECONDS, Clock, rfc3339
from ..context import Context
from ..events import Event, from_json
from ..patterns import pattern
from ..store import events as table
from ..store.decisions import Decisions, record
from ..store.store import Store, Tx
from ..telemetry.log import printable
from ..units import Duration
from .common import ROWS, WRITE_SECONDS, as_json, configured, load_config, open_store
from .printing import cell, say, say_json, say_table
from .progress import progress

_PAGE = 500
_COLUMNS = ("id", "when", "type", "subject", "data", "tags")
_FIELDS = (
    "id", "type", "subject", "topic", "data", "tags", "description", "occurred_at", "recorded_at", "idempotency_key",
    "cause_id",
)  # fmt: skip


@click.group()
def events() -> None:
    """Read, follow and export what happened."""


def _filters(function: Any) -> Any:
    for option in (
        click.option(
            "--type", "type_pattern", default="", metavar="TYPE", help="Only this type; * stands for any text."
        ),
        click.option("--subject", default="", help="Only this subject."),
        click.option("--tag", default="", help="Only events with this tag."),
        click.option("--since", default="", metavar="TIME", help="Only of the last so long, such as 2h or 7d."),
    ):
        function = option(function)
    return function


@events.command("list")
@_filters
@click.option("--limit", default=20, show_default=True, type=ROWS, help="How many, the latest.")
@as_json
@configured
def list_events(type_pattern: str, subject: str, tag: str, since: str, limit: int, json_lines: bool) -> None:
    """The latest events, oldest first."""

    async def main() -> None:
        async with open_store(load_config()) as store:
            found = await table.recent(
                store, limit=limit, type_pattern=type_pattern, subject=subject, tag=tag, since=_since(since)
            )
        if json_lines:
            for event in found:
                say_json(event.as_dict())
        else:
            say_table(_COLUMNS, [_row(event) for event in found], empty="no events")

    asyncio.run(main())


@events.command()
@_filters
@click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(0, ROWS.max), help="How many to begin with."
)
@as_json
@configured
def tail(type_pattern: str, subject: str, tag: str, since: str, limit: int, json_lines: bool) -> None:
    """Follow events as they are committed, until Ctrl-C."""

    async def main() -> None:
        async with open_store(load_config(), listen=True) as store:
            position = await table.head(store)
            first = await table.recent(
                store, limit=max(limit, 1), type_pattern=type_pattern, subject=subject, tag=tag, since=_since(since)
            )
            for event in first[:limit]:
                _print(event, json_lines)
            wanted = _matcher(type_pattern, subject, tag)
            while True:
                seen = store.signal.version("events")
                async for event in _after(store, position):
                    position = event.id
                    if wanted(event):
                        _print(event, json_lines)
                sys.stdout.flush()
                await store.signal.wait("events", seen)

    asyncio.run(main())


@events.command()
@_filters
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@configured
def export(type_pattern: str, subject: str, tag: str, since: str, form: str) -> None:
    """Write all events that fit as JSON Lines or CSV.

    To standard output, oldest first.
    """

    async def main() -> None:
        wanted = _matcher(type_pattern, subject, tag)
        earliest = _since(since)
        sheet = csv.DictWriter(_Output(), _FIELDS, lineterminator="\n")
        if form == "csv":
            sheet.writeheader()
        async with open_store(load_config()) as store:
            async for event in _every(store):
                if event.recorded_at < earliest or not wanted(event):
                    continue
                if form == "csv":
                    sheet.writerow({**event.as_dict(), "data": event.data_json, "tags": event.tags_json})
                else:
                    say_json(event.as_dict())

    asyncio.run(main())


@click.command()
@click.argument("event_type", metavar="TYPE")
@click.option("--subject", default="", help="What it is about.")
@click.option("--data", default="{}", metavar="JSON", help="Its data.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given more than once.")
@click.option("--description", default="", help="A sentence for people.")
@click.option("--idempotency-key", default=None, help="Store it only if no event has this key yet.")
@as_json
@configured
def emit(
    event_type: str,
    subject: str,
    data: str,
    tags: tuple[str, ...],
    description: str,
    idempotency_key: str | None,
    json_lines: bool,
) -> None:
    """Add an event by hand. A running appliance takes it up at once."""

    if not event_type:
        raise click.UsageError("TYPE must not be empty")
    try:
        value = from_json(data)
    except ValueError as error:
        raise click.UsageError(f"--data is not JSON: {error}") from None
    ctx = Context(Clock())
    ctx.emit(
        event_type,
        subject=subject,
        data=value,
        tags=tags,
        description=description,
        idempotency_key=idempotency_key,
    )

    async def main() -> int | None:
        async with open_store(load_config()) as store:
            return await store.write(lambda tx: _stored_as(tx, ctx.decisions), timeout_seconds=WRITE_SECONDS)

    event_id = asyncio.run(main())
    if json_lines:
        say_json({"stored": event_id is not None, "id": event_id})
    elif event_id is None:
        say(f"not stored: there is an event with the key {idempotency_key!r}")
    else:
        say(f"stored {event_type} as event {event_id}")


def _stored_as(tx: Tx, decisions: Decisions) -> int | None:
    """The id of the one event; None when there was one with its key already."""
    return None if record(tx, decisions) else table.newest_id(tx)


class _Output:
    """Standard output, to which a sheet goes as it is; a terminal must not take any of it as a command."""

    def write(self, text: str) -> None:
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)


async def _every(store: Store) -> AsyncIterator[Event]:
    """All that are stored; a terminal to which they don't go has a bar."""
    first = await table.after(store, 0, 1)
    at = first[0].id - 1 if first else 0
    if sys.stdout.isatty():
        async for event in _after(store, at):
            yield event
        return
    with progress("events", await table.head(store) - at) as advance:
        async for event in _after(store, at):
            advance(event.id - at)
            at = event.id
            yield event


async def _after(store: Store, event_id: int) -> AsyncIterator[Event]:
    while page := await table.after(store, event_id, _PAGE):
        for event in page:
            yield event
        event_id = page[-1].id
        await asyncio.sleep(0)


def _matcher(type_pattern: str, subject: str, tag: str) -> Callable[[Event], bool]:
    of_type = pattern(type_pattern or "*")

    def fits(event: Event) -> bool:
        return of_type(event.type) and (not subject or event.subject == subject) and (not tag or tag in event.tags)

    return fits


def _since(text: str) -> int:
    if not text:
        return 0
    try:
        return Clock().now() - round(Duration.parse(text) * MICROSECONDS)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from None


def _row(event: Event) -> tuple[Any, ...]:
    data = " ".join(line.strip() for line in event.data_json.split("\n"))
    return event.id, rfc3339(event.recorded_at), event.type, event.subject, data, " ".join(event.tags)


def _print(event: Event, json_lines: bool) -> None:
    if json_lines:
        say_json(event.as_dict())
    else:
        say("  ".join(map(cell, _row(event))))
