"""`edgeq reload`: have the running appliance read its configuration again."""

from __future__ import annotations

import asyncio
import os
import signal

import click

from ..control import ask_appliance
from ..errors import EdgeqError
from .common import configured, load_plan
from .printing import say


@click.command()
@configured
def reload() -> None:
    """Have the running appliance read its configuration again.

    It isn't asked when the configuration is wrong: that is said here, with 78, as `edgeq check` does. Its log says what
    came of it. With systemd, `systemctl reload edgeq` does the same.
    """
    loaded = load_plan().loaded
    answer = asyncio.run(ask_appliance(loaded.config))
    if answer is None:
        raise EdgeqError("no edgeq runs for this configuration", hint="start it with: edgeq run")
    process = answer["pid"]
    os.kill(process, signal.SIGHUP)
    say(f"process {process} reads its configuration again")
