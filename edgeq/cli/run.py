"""`edgeq run`: the appliance."""

from __future__ import annotations

import asyncio

import click

from ..app import App
from ..config.load import load_to_plan
from ..config.schema import LoadedConfig
from ..telemetry.log import configure
from .common import config_path, configured, load_config_to_plan, verbose
from .program import arm_failpoints, run_program


@click.command()
@click.option("--once", is_flag=True, help="Do what there is to do now, then end: for cron.")
@configured
def run(once: bool) -> None:
    """Run the appliance: intake, processors, jobs, notifications.

    With --once, what the broker has is taken in, and what comes of it is done; jobs and notifications for later stay.
    It ends with 1 when the broker can't be reached within 30s; the rest is done all the same.

    SIGTERM and Ctrl-C finish what is in hand and stop; a second one gives back what isn't finished, a third one ends
    without that. SIGHUP reads the configuration again; if it is wrong, the one in use stays. Python that is imported
    already isn't read again.
    """
    loaded = load_config_to_plan()
    wordy = verbose()

    def log_as_told(told: LoadedConfig) -> None:
        configure("debug" if wordy else told.config.log.level, told.config.log.format)

    log_as_told(loaded)
    arm_failpoints()
    path, first = config_path(), [loaded]
    app = App(lambda: first.pop() if first else load_to_plan(path), reloaded=log_as_told)
    hang_up = app.stop if once else app.reload
    asyncio.run(run_program(lambda: app.run(once=once), app.stop, hang_up))
