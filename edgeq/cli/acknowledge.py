"""`edgeq notifications ack`: say that somebody has seen to it."""

from __future__ import annotations

import asyncio

import click

from ..clock import Clock, rfc3339
from ..errors import EdgeqError
from ..notifications.acknowledge import (
    BY_CHARACTERS_MAX,
    COMMENT_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    Note,
    Standing,
    acknowledge,
    fault,
    of_contract,
    of_notification,
)
from ..store.store import Tx
from .common import ID, WRITE_SECONDS, as_json, bounded, configured, load_config, open_store, user
from .printing import cell, say, say_json


@click.command()
@click.argument("notification_id", metavar="[ID]", type=ID, required=False)
@click.option(
    "--contract", metavar="NAME", callback=bounded(NAME_CHARACTERS_MAX), help="What is open of a contract, instead."
)
@click.option(
    "--subject", metavar="TEXT", callback=bounded(NAME_CHARACTERS_MAX), help="Only of this subject of the contract."
)
@click.option("--comment", default="", callback=bounded(COMMENT_CHARACTERS_MAX), help="What there is to say about it.")
@click.option("--by", callback=bounded(BY_CHARACTERS_MAX), help="Who; by default you, as this machine knows you.")
@as_json
@configured
def ack(
    notification_id: int | None,
    contract: str | None,
    subject: str | None,
    comment: str,
    by: str | None,
    json_lines: bool,
) -> None:
    """Acknowledge what a notification is about, or what is open of a contract.

    There are no more reminders of it, and nobody else is called. That it is resolved is still told.
    """
    if (notification_id is None) == (contract is None):
        raise click.UsageError("say which: a notification's ID or --contract")
    if subject is not None and contract is None:
        raise click.UsageError("--subject goes with --contract")
    note = Note(by=user() if by is None else by, how="command", comment=comment)
    now = Clock().now()

    def unit(tx: Tx) -> list[Standing]:
        if contract is not None:
            told = of_contract(tx, contract, subject)
        else:
            told = of_notification(tx, notification_id or 0)
            if not told:
                raise EdgeqError(f"there is no notification {notification_id}")
        return acknowledge(tx, told, note, now)

    async def main() -> list[Standing]:
        async with open_store(load_config()) as store:
            return await store.write(unit, timeout_seconds=WRITE_SECONDS)

    found = asyncio.run(main())
    if why := fault(found):
        raise EdgeqError(f"nothing to acknowledge: {why}")
    for each in found:
        if each.state == "acknowledged":
            say_json(_as_dict(each)) if json_lines else say(_as_line(each))


def _as_dict(found: Standing) -> dict[str, object]:
    assert found.thread is not None
    return {
        "acknowledged": found.news, "contract": found.facts.contract or None, "subject": found.facts.subject,
        "title": found.thread.text.title, "fingerprint": found.thread.thread.fingerprint,
        "acknowledged_at": found.acknowledged_at, "acknowledged_by": found.by, "comment": found.thread.comment or "",
    }  # fmt: skip


def _as_line(found: Standing) -> str:
    assert found.thread is not None
    title = cell(found.thread.text.title)
    if found.news:
        return f"acknowledged: {title}"
    by = f" by {found.by}" if found.by else ""
    when = "" if found.acknowledged_at is None else f" at {rfc3339(found.acknowledged_at)}"
    return f"acknowledged before{by}{when}: {title}"
