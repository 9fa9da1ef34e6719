"""`edgeq schedules`: which jobs are dispatched by the clock, when next, and when last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from ..clock import Clock, rfc3339
from ..config.files import in_order
from ..config.schema import LoadedConfig
from ..errors import ConfigError, Problem, StoreMissing
from ..jobs.schedules.schedule import load_rules
from ..store import schedules as table
from ..store.schedules import StoredSchedule
from .common import as_json, configured, load_config, open_store
from .printing import say_json, say_table

if TYPE_CHECKING:
    from ..jobs.schedules.rule import Rule


@click.group(invoke_without_command=True)
@as_json
@configured
def schedules(json_lines: bool) -> None:
    """Jobs dispatched by the clock; without a command, the list."""
    if click.get_current_context().invoked_subcommand is None:
        _list(json_lines)


@schedules.command("list")
@as_json
@configured
def list_schedules(json_lines: bool) -> None:
    """Each schedule, when it runs next and when it ran last, by the clocks of its time zone."""
    _list(json_lines)


def _list(json_lines: bool) -> None:
    loaded = load_config()
    problems: list[Problem] = []
    rules = [rule for rule in load_rules(loaded, problems) if rule is not None]
    if problems:
        raise ConfigError(in_order(problems, loaded.files))
    try:
        stored = asyncio.run(_stored(loaded))
    except StoreMissing:  # edgeq hasn't run yet
        stored = {}
    now = Clock().now()
    found = []
    for config, rule in zip(loaded.config.schedules, rules, strict=True):
        row = stored.get(config.name)
        # A rule that isn't in use yet begins when the appliance starts.
        next_run_at = row.next_run_at if row and row.spec == rule.spec else rule.first(now)
        found.append((config, rule, next_run_at, row.last_run_at if row else None))
    if json_lines:
        for config, rule, next_run_at, last_run_at in found:
            say_json(
                {
                    "name": config.name, "next_run_at": next_run_at, "last_run_at": last_run_at, "rule": rule.spec,
                    "catch_up": config.catch_up, "job": config.job, "args": config.args,
                }
            )  # fmt: skip
        return
    say_table(
        ("name", "next", "last", "rule", "job"),
        [
            (config.name, _shown(rule, next_run_at), _shown(rule, last_run_at), rule.spec, config.job)
            for config, rule, next_run_at, last_run_at in found
        ],
        empty="no schedules",
    )


async def _stored(loaded: LoadedConfig) -> dict[str, StoredSchedule]:
    async with open_store(loaded) as store:
        return {row.name: row for row in await table.every(store)}


def _shown(rule: Rule, moment: int | None) -> str:
    if moment is None:
        return ""
    try:
        return rule.local(moment).isoformat(" ", "seconds")
    except (OSError, OverflowError, ValueError):  # a calendar doesn't go so far
        return rfc3339(moment)
