"""`edgeq check`: is the configuration right, and what would run?"""

from __future__ import annotations

from typing import Any

import click

from ..config.load import sqlite_path
from ..plan import Plan
from .common import as_json, configured, load_plan
from .printing import say, say_error, say_json


@click.command()
@as_json
@configured
def check(json_lines: bool) -> None:
    """Validate the configuration and say what would run.

    Imports the app, too. Ends with 0, or with 78 and every mistake.
    """
    plan = load_plan()
    if json_lines:
        say_json(_summary(plan))
        return
    for warning in plan.warnings:
        say_error(f"warning: {warning}")
    config = plan.loaded.config
    say(f"{', '.join(plan.loaded.files) or 'no file: all defaults'}: fine")
    say(f"gateway     {config.gateway}")
    say(f"broker      {config.mqtt.url} (MQTT {config.mqtt.version})")
    say(f"store       {sqlite_path(config.store.url)} (durability {config.store.durability})")
    _list("routes", [route.label for route in plan.table.routes])
    _list("processors", list(plan.processors))
    _list("contracts", [contract.name for contract in plan.contracts])
    _list("channels", list(plan.channels))
    _list("queues", list(config.jobs.queues))
    _list("schedules", [schedule.name for schedule in config.schedules])
    _list("sources", [source.name for source in plan.sources])


def _list(name: str, items: list[str]) -> None:
    say(f"{name:<12}{len(items)}{': ' if items else ''}{', '.join(items)}")


def _summary(plan: Plan) -> dict[str, Any]:
    config = plan.loaded.config
    return {
        "files": plan.loaded.files,
        "gateway": config.gateway,
        "routes": [route.label for route in plan.table.routes],
        "processors": list(plan.processors),
        "contracts": [contract.name for contract in plan.contracts],
        "channels": list(plan.channels),
        "queues": list(config.jobs.queues),
        "schedules": [schedule.name for schedule in config.schedules],
        "sources": [source.name for source in plan.sources],
        "warnings": plan.warnings,
    }
