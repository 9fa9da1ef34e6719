"""`edgeq notifications`: what was told to whom, what waits and why, and whether a channel works at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any, get_args

import click

from ..clock import Clock, rfc3339
from ..config.schema import Severity
from ..errors import EdgeqError
from ..events import from_json
from ..store import history, threads
from ..store import notifications as table
from ..store.notifications import StoredNotification
from ..store.store import Tx, Unit
from ..store.threads import OpenThread
from ..units import Duration
from . import completing
from .acknowledge import ack
from .common import ID, ROWS, WRITE_SECONDS, as_json, configured, duration, load_config, open_store
from .printing import last_line, say, say_fields, say_json, say_table
from .progress import progress
from .trying import test

SEVERITIES = get_args(Severity)
STATES = ("queued", "sent", "dead", "silenced", "grouped")

_PAGE = 1000
_MEMBERS_MAX = 500
_THREADS_MAX = 20


@click.group()
def notifications() -> None:
    """What was told, and what is to be told."""


notifications.add_command(ack)
notifications.add_command(test)


# Looking


@notifications.command("list")
@click.option("--channel", default="", shell_complete=completing.channels, metavar="NAME", help="Only of this channel.")
@click.option("--state", type=click.Choice(STATES), default=None, help="Only in this state.")
@click.option("--severity", type=click.Choice(SEVERITIES), default=None, help="Only of this severity.")
@click.option("--since", metavar="TIME", callback=duration(0), help="Only if raised so long ago at most, such as 2h.")
@click.option("--unread", is_flag=True, help="Only those that nobody has marked as read.")
@click.option("-n", "--limit", default=50, show_default=True, type=ROWS, help="How many, the latest.")
@as_json
@configured
def list_notifications(
    channel: str,
    state: str | None,
    severity: str | None,
    since: Duration | None,
    unread: bool,
    limit: int,
    json_lines: bool,
) -> None:
    """The latest notifications, newest first, one for each channel that it goes to."""
    now = Clock().now()

    async def main() -> list[StoredNotification]:
        async with open_store(load_config()) as store:
            return await table.find(
                store,
                limit=limit,
                channel=channel,
                state=state or "",
                severity=severity or "",
                since=0 if since is None else now - since.microseconds,
                unread=unread,
            )

    found = asyncio.run(main())
    if json_lines:
        for each in found:
            say_json(_as_dict(each))
        return
    say_table(
        ("id", "raised", "channel", "severity", "kind", "state", "title", "error"),
        [
            (
                each.id, rfc3339(each.created_at), each.channel, each.severity, each.kind, _state(each, now),
                each.title, last_line(each.error),
            )
            for each in found
        ],
        empty="no notifications",
    )  # fmt: skip


@notifications.command()
@click.argument("notification_id", metavar="ID", type=ID)
@as_json
@configured
def show(notification_id: int, json_lines: bool) -> None:
    """One notification, whole: its text, what it was told together with, and the thread that it belongs to."""
    now = Clock().now()

    async def main() -> tuple[StoredNotification | None, list[StoredNotification], list[OpenThread]]:
        async with open_store(load_config()) as store:
            row = await table.one(store, notification_id)
            if row is None:
                return None, [], []
            return (
                row,
                await history.members(store, row.id, _MEMBERS_MAX),
                await threads.latest(store, _THREADS_MAX, fingerprints=[row.fingerprint]),
            )

    row, members, open_threads = asyncio.run(main())
    if row is None:
        raise EdgeqError(f"there is no notification {notification_id}")
    if json_lines:
        told = [{"id": each.id, "title": each.title} for each in members]
        say_json(_as_dict(row) | {"members": told, "threads": [_thread_as_dict(each) for each in open_threads]})
        return
    fields = _as_dict(row)
    fields["state"] = _state(row, now)
    more = {
        "told together": "\n".join(f"{each.id} {each.title}" for each in members),
        "thread": "\n".join(_thread(each) for each in open_threads),
    }
    body, error = fields.pop("body"), fields.pop("error")
    say_fields({**fields, "failover": list(row.failover), **more, "body": body, "error": error})


def _as_dict(row: StoredNotification) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    with contextlib.suppress(ValueError):  # shown as it stands in the table
        fields["detail"] = from_json(row.detail)
    return fields


def _state(row: StoredNotification, now: int) -> str:
    """The state, and until when a queued one is held, or in what it was told."""
    if row.state == "queued" and row.next_attempt_at > now:
        return f"queued (until {rfc3339(row.next_attempt_at)})"
    return f"grouped (in {row.digest_id})" if row.state == "grouped" and row.digest_id else row.state


def _thread_as_dict(each: OpenThread) -> dict[str, Any]:
    thread = each.thread
    fields = {name: getattr(thread, name) for name in thread.__struct_fields__}
    return {**fields, "acknowledged_by": each.acknowledged_by, "comment": each.comment}


def _thread(each: OpenThread) -> str:
    """What is open, in one line."""
    thread = each.thread
    text = f"open since {rfc3339(thread.opened_at)}, told to {', '.join(thread.channels) or 'nobody'}"
    if thread.reminder:
        text += f", {thread.reminder} reminder{'s' if thread.reminder > 1 else ''}"
    if thread.acknowledged_at is not None:
        by = f" by {each.acknowledged_by}" if each.acknowledged_by else ""
        comment = f": {each.comment}" if each.comment else ""
        return f"{text}, acknowledged {rfc3339(thread.acknowledged_at)}{by}{comment}"
    if thread.silenced:
        text += ", silenced"
    for what, at in (("reminder", thread.next_at), ("escalation", thread.escalate_at)):
        if at is not None:
            text += f", the next {what} at {rfc3339(at)}"
    return text


# Changing


def _choice(what: str, every: str) -> Callable[[Any], Any]:
    def options(function: Any) -> Any:
        for option in (
            click.argument("ids", metavar="[ID]...", type=ID, nargs=-1),
            click.option(every, "everything", is_flag=True, help=f"All {what}."),
            click.option(
                "--channel",
                default="",
                shell_complete=completing.channels,
                metavar="NAME",
                help=f"All {what} of this channel.",
            ),
        ):
            function = option(function)
        return function

    return options


@notifications.command()
@_choice("dead ones", "--dead")
@configured
def retry(ids: tuple[int, ...], everything: bool, channel: str) -> None:
    """Queue dead ones again, with all their attempts, and let those named that wait be tried now.

    A running appliance does it at once, otherwise the next one that runs.
    """
    _check_choice(ids, everything, channel, "--dead")
    now = Clock().now()
    _change(
        ids,
        lambda tx, some: history.retry(tx, some, now),
        lambda tx: history.retry_dead(tx, channel=channel, now=now, limit=_PAGE),
        "to be sent again",
        "no dead notification fits",
        "not there, or were sent",
    )


@notifications.command()
@_choice("unread ones", "--all")
@configured
def read(ids: tuple[int, ...], everything: bool, channel: str) -> None:
    """Mark notifications as read."""
    _check_choice(ids, everything, channel, "--all")
    now = Clock().now()
    _change(
        ids,
        lambda tx, some: history.mark_read(tx, some, now),
        lambda tx: history.mark_all_read(tx, channel=channel, now=now, limit=_PAGE),
        "marked as read",
        "no unread notification fits",
        "not there",
    )


def _check_choice(ids: Iterable[int], everything: bool, channel: str, every: str) -> None:
    if not (ids or everything or channel):
        raise click.UsageError(f"say which: by id, --channel, or {every}")
    if ids and (everything or channel):
        raise click.UsageError(f"ids don't go together with --channel or {every}")


def _change(
    ids: tuple[int, ...],
    those: Callable[[Tx, list[int]], int],
    page: Unit[int],
    done: str,
    nothing: str,
    others: str,
) -> None:
    """Change those named, in one commit; or a page after another, while there are full ones, in a commit each."""
    loaded = load_config()
    named = list(dict.fromkeys(ids))

    async def main() -> int:
        async with open_store(loaded) as store:
            if named:
                return await store.write(lambda tx: those(tx, named), timeout_seconds=WRITE_SECONDS)
            count = 0
            with progress(done) as advance:
                while True:
                    changed = await store.write(page, timeout_seconds=WRITE_SECONDS)
                    count += changed
                    advance(changed)
                    if changed < _PAGE:
                        return count

    count = asyncio.run(main())
    if count == 0:
        raise EdgeqError(nothing)
    rest = len(named) - count
    say(f"{count} {done}" + (f"; {rest} are {others}" if rest > 0 else ""))
