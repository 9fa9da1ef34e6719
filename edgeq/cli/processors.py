"""`edgeq processors`: how far each is, and pausing, resuming and moving them, also while the appliance runs."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from ..clock import Clock, rfc3339
from ..config.relations import processors_of
from ..config.schema import LoadedConfig
from ..config.suggest import did_you_mean
from ..control import ask_appliance
from ..errors import EdgeqError
from ..status import add_owners, places
from ..store import cursors
from ..store.store import Store, Tx, Unit
from . import completing
from .common import WRITE_SECONDS, as_json, configured, load_config, open_store
from .printing import last_line, say, say_json, say_table


@click.group()
def processors() -> None:
    """Who reads the events, and how far each is."""


@processors.command("list")
@as_json
@configured
def list_processors(json_lines: bool) -> None:
    """Each processor's cursor and lag."""

    async def main() -> list[dict[str, Any]]:
        loaded = load_config()
        async with open_store(loaded) as store:
            found = await places(store, Clock().now(), processors_of(loaded.config))
            await add_owners(store, {"processors": found, "notifications": {}})
        running = await _running(loaded)
        return [{**each, **running.get(each["name"], {})} if each["state"] == "idle" else each for each in found]

    found = asyncio.run(main())
    if json_lines:
        for place in found:
            say_json(place)
        return
    shared = any("owner" in each for each in found)
    say_table(
        ("processor", "state", *["owner"] * shared, "last_consumed_id", "lag", "oldest", "moved", "error"),
        [
            (
                each["name"], each["state"], *[each.get("owner") or ""] * shared, each["last_consumed_id"],
                *_lag(each), rfc3339(each["updated_at"]), last_line(each["error"]),
            )
            for each in found
        ],
        empty="no processor has run yet",
    )  # fmt: skip


async def _running(loaded: LoadedConfig) -> dict[str, dict[str, Any]]:
    """What only the running appliance knows: which processors run, and which wait for something that is away, and
    why."""
    try:
        answer = await ask_appliance(loaded.config) or {}
    except EdgeqError:  # another user's: the tables do
        return {}
    return {each["name"]: {"state": each["state"], "error": each["error"]} for each in answer.get("processors", [])}


def _lag(place: dict[str, Any]) -> tuple[Any, str]:
    if place["state"] == "not configured":  # nobody reads, so nobody lags behind
        return "", ""
    return place["lag_events"], f"{place['lag_seconds']:.0f}s" if place["lag_events"] else ""


@processors.command()
@click.argument("name", shell_complete=completing.processors)
@configured
def pause(name: str) -> None:
    """Hold a processor where it is. It stays paused over restarts."""
    _change(name, lambda tx: cursors.pause(tx, name, True))
    say(f"{name} is paused")


@processors.command()
@click.argument("name", shell_complete=completing.processors)
@configured
def resume(name: str) -> None:
    """Let a paused or halted processor go on."""
    _change(name, lambda tx: cursors.pause(tx, name, False))
    say(f"{name} goes on")


@processors.command()
@click.argument("name", shell_complete=completing.processors)
@click.option("--to", "target", required=True, metavar="ID|start|latest", help="The event id to stand at.")
@configured
def seek(name: str, target: str) -> None:
    """Move a processor: it goes on with the event after --to.

    One that was halted because it stood ahead of all events, as after a restored backup, is resumed.
    """
    if target not in ("start", "latest") and not target.isdecimal():
        raise click.UsageError("--to takes an event id, start or latest")
    to = int(target) if target.isdecimal() else target

    def unit(tx: Tx) -> tuple[int, bool] | None:
        was_ahead = cursors.is_ahead(tx, name)
        place = cursors.seek(tx, name, to, Clock().now())
        return None if place is None else (place, was_ahead)

    place, was_ahead = _change(name, unit)
    say(f"{name} stands at {place}" + (", no longer ahead of the events, and goes on" if was_ahead else ""))


def _change(name: str, unit: Unit[Any]) -> Any:
    async def main() -> Any:
        async with open_store(load_config()) as store:
            done = await store.write(unit, timeout_seconds=WRITE_SECONDS)
            if done is None or done is False:
                raise await _no_processor(store, name)
            return done

    return asyncio.run(main())


async def _no_processor(store: Store, name: str) -> EdgeqError:
    known = [cursor.processor for cursor in await cursors.every(store)]
    return EdgeqError(f"there is no processor {name!r}", hint=did_you_mean(name, known) or "none has run yet")
