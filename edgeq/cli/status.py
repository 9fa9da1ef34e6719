"""`edgeq status`: one screen that says how the appliance is."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import click

from ..clock import Clock
from ..config.relations import processors_of
from ..config.schema import LoadedConfig
from ..control import ask_appliance
from ..errors import EdgeqError, StoreError
from ..status import limits, stored
from ..store.opening import place
from ..telemetry.log import printable
from ..units import Duration
from .common import as_json, configured, duration, load_config, open_store
from .printing import say, say_json
from .screen import lines

_INTERVAL_SECONDS_MIN = 0.2


@click.command()
@click.option("--watch", is_flag=True, help="Show it again and again: on a terminal until q, elsewhere until Ctrl-C.")
@click.option(
    "--interval",
    metavar="TIME",
    callback=duration(_INTERVAL_SECONDS_MIN),
    default="2s",
    show_default=True,
    help="How often, with --watch.",
)
@as_json
@configured
def status(watch: bool, interval: Duration, json_lines: bool) -> None:
    """Say on one screen how the appliance is.

    Session, rates, routes, processors, jobs, contracts, notifications, dead letters, disk, crashes.
    """
    loaded = load_config()
    if not watch:
        _show(asyncio.run(_ask(loaded)), json_lines)
        return
    if sys.stdout.isatty() and not json_lines:
        from .watch import Watch  # most don't

        Watch(lambda: _answer(loaded), interval).run()
        return
    while True:
        _show(_answer(loaded), json_lines)
        if not json_lines:
            say()
        sys.stdout.flush()
        time.sleep(interval)


def _show(answer: dict[str, Any], json_lines: bool) -> None:
    if json_lines:
        say_json(answer)
    else:
        say("\n".join(printable(line, keep="") for line in lines(answer, Clock().now())))


def _answer(loaded: LoadedConfig) -> dict[str, Any]:
    """How it is; why that can't be told is an answer, too."""
    try:
        return asyncio.run(_ask(loaded))
    except EdgeqError as error:
        return {"running": True, "gateway": loaded.config.gateway, "error": str(error)}


async def _ask(loaded: LoadedConfig) -> dict[str, Any]:
    answer = await ask_appliance(loaded.config)
    if answer is not None:
        return answer
    answer = {"running": False, "gateway": loaded.config.gateway}
    try:
        async with open_store(loaded) as store:
            found = await stored(store, Clock().now(), processors_of(loaded.config))
            return {**answer, **found, "retention": limits(loaded.config)}
    except StoreError as error:
        reason = f"{error} ({error.hint})" if error.hint else str(error)
        return {**answer, "store": {"place": place(loaded.config.store.url), "ok": False, "reason": reason}}
