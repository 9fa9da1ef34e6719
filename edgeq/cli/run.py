"""`edgeq run`: the appliance."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import click

from ..app import App
from ..config.load import load_to_plan
from ..config.schema import LoadedConfig
from ..failpoints import arm
from ..telemetry.log import configure
from .common import config_path, configured, load_config_to_plan, verbose

log = logging.getLogger("edgeq.app")

_REST_SECONDS = 5.0


@click.command()
@configured
def run() -> None:
    """Run the appliance: intake, processors, notifications, jobs.

    SIGTERM and Ctrl-C finish what is in hand and stop; a second one ends at once. SIGHUP reads the configuration again;
    if it is wrong, the one in use stays. Python that is imported already isn't read again.
    """
    loaded = load_config_to_plan()
    wordy = verbose()

    def log_as_told(told: LoadedConfig) -> None:
        configure("debug" if wordy else told.config.log.level, told.config.log.format)

    log_as_told(loaded)
    try:
        arm(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    path, first = config_path(), [loaded]
    app = App(lambda: first.pop() if first else load_to_plan(path), reloaded=log_as_told)
    asyncio.run(_run(app))


async def _run(app: App) -> None:
    loop = asyncio.get_running_loop()
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            os._exit(1)  # asked twice: what isn't acknowledged comes again
        app.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, app.reload)
    await app.run()
    await _end_the_rest()


async def _end_the_rest() -> None:
    """End what is left of the user's own code. asyncio would wait for ever for a task that swallows cancellation."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    stubborn = (await asyncio.wait(rest, timeout=_REST_SECONDS))[1] if rest else set()
    if stubborn:
        names = ", ".join(sorted(task.get_name() for task in stubborn))
        log.warning("ending without what doesn't let itself be cancelled: %s", names)
        logging.shutdown()
        os._exit(0)
