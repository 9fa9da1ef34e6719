"""`edgeq check`: is the configuration right, and what would run?"""

from __future__ import annotations

import asyncio
from typing import Any

import click

from ..clock import MICROSECONDS, Clock
from ..config.schema import Retention
from ..contracts.lint import EVENTS_MAX, Seen, Written, emitted_by, warnings
from ..errors import StoreError, StoreMissing
from ..plan import Plan
from ..processors.kinds import KINDS
from ..store import contract_states, events
from ..store.opening import place
from ..store.space import measure
from ..store.store import Store
from ..units import Size, spoken
from ..upkeep.room import DISK_PART
from .common import as_json, configured, load_plan, open_store
from .printing import say, say_error, say_json


@click.command()
@as_json
@configured
def check(json_lines: bool) -> None:
    """Validate the configuration and say what would run.

    Imports the app, too, and compares contracts with the events that were stored last. Ends with 0, also when there
    are warnings, or with 78 and every mistake.
    """
    plan = load_plan()
    warned = [*plan.warnings, *_store_warnings(plan)]
    if json_lines:
        say_json(_summary(plan, warned))
        return
    for warning in warned:
        say_error(f"warning: {warning}")
    config = plan.loaded.config
    say(f"{', '.join(plan.loaded.files) or 'no file: all defaults'}: fine")
    say(f"gateway     {config.gateway}")
    say(f"broker      {config.mqtt.url} (MQTT {config.mqtt.version})")
    say(f"store       {place(config.store.url)} (durability {config.store.durability})")
    kept = config.store.retention
    say(
        f"retention   events {kept.events}, dead letters {kept.dead_letters}, notifications {kept.notifications}"
        f"{f', at most {kept.max_size}' if kept.max_size else ''}"
        f"{f', at most {kept.max_rows} events' if kept.max_rows else ''}"
    )
    _list("routes", [route.label for route in plan.table.routes])
    _list("processors", list(plan.processors))
    _list("contracts", [contract.name for contract in plan.contracts])
    _list("channels", list(plan.channels))
    _list("queues", list(config.jobs.queues))
    _list("schedules", [schedule.name for schedule in config.schedules])
    _list("sources", [source.name for source in plan.sources])


def _list(name: str, items: list[str]) -> None:
    say(f"{name:<12}{len(items)}{': ' if items else ''}{', '.join(items)}")


def _store_warnings(plan: Plan) -> list[str]:
    """What to warn of in the store, and in contracts. Without a store there is nothing to compare them with."""
    written = [Written(*each) for each in zip(plan.contracts, plan.loaded.config.contracts, strict=True)]
    seen = Seen()
    found: list[str] = []
    try:
        seen, found = asyncio.run(_look(plan))
    except StoreMissing:
        pass  # edgeq hasn't run yet
    except StoreError as error:
        found = [f"the store could not be looked at: {error}"]
    return found + [str(problem) for problem in warnings(written, _emitted(plan), seen)]


async def _look(plan: Plan) -> tuple[Seen, list[str]]:
    """What is stored that contracts are about, and what the store itself warns of."""
    async with open_store(plan.loaded) as store:
        subjects: dict[str, set[str]] = {}
        for row in await contract_states.every(store):
            subjects.setdefault(row.contract, set()).add(row.subject)
        latest = [event async for event in events.latest(store, EVENTS_MAX)] if plan.contracts else []
        warned = [*await store.warnings(), *await _retention_warnings(plan.loaded.config.store.retention, store)]
        return Seen(latest, subjects), warned


async def _retention_warnings(kept: Retention, store: Store) -> list[str]:
    """What retention means for a store as it is."""
    found = []
    first, now = await events.first_recorded_at(store), Clock().now()
    if first is not None and first < now - kept.events.microseconds:
        found.append(
            f"the oldest event is {spoken((now - first) / MICROSECONDS)} old: those older than {kept.events} "
            "(store.retention.events) that all processors have seen are deleted"
        )
    taken = (await measure(store)).used
    if kept.max_size is not None and taken > kept.max_size:
        found.append(
            f"the store takes {Size(taken)}: the oldest is deleted until it takes {kept.max_size} "
            "(store.retention.max_size)"
        )
    disk = store.disk()
    if disk and disk["free_disk_bytes"] < min(kept.min_free_disk, disk["disk_bytes"] // DISK_PART):
        found.append(
            f"{Size(disk['free_disk_bytes'])} are free on the disk: the oldest is deleted where that brings it to "
            f"{kept.min_free_disk} (store.retention.min_free_disk)"
        )
    return found


def _emitted(plan: Plan) -> list[str] | None:
    """Patterns of the types of events that something emits; None when one's own code may emit any."""
    config = plan.loaded.config
    own = any(section.data.get("kind") not in KINDS for section in config.processors.values())
    jobs = config.schedules or any(route.dispatch or route.controller for route in config.routes)
    if own or jobs or config.app.modules:
        return None
    return [each for route in config.routes for each in emitted_by(route)]


def _summary(plan: Plan, warned: list[str]) -> dict[str, Any]:
    config = plan.loaded.config
    return {
        "files": plan.loaded.files,
        "gateway": config.gateway,
        "store": place(config.store.url),
        "routes": [route.label for route in plan.table.routes],
        "processors": list(plan.processors),
        "contracts": [contract.name for contract in plan.contracts],
        "channels": list(plan.channels),
        "queues": list(config.jobs.queues),
        "schedules": [schedule.name for schedule in config.schedules],
        "sources": [source.name for source in plan.sources],
        "warnings": warned,
    }
