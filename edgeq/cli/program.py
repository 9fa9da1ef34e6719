"""How a program that runs for long is run from the command line: its signals, and its end."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import click

from ..failpoints import arm
from . import early

log = logging.getLogger("edgeq.app")

_REST_SECONDS = 5.0
_STOPS_MAX = 2


def arm_failpoints() -> None:
    """See failpoints."""
    try:
        arm(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


async def run_program(
    run: Callable[[], Awaitable[None]], stop: Callable[[], None], hang_up: Callable[[], None]
) -> None:
    """Run it until it ends. SIGTERM and SIGINT call `stop`; so does the second one, and the third ends the process at
    once. SIGHUP calls `hang_up`, also if it came before (see `early`)."""
    faulthandler.enable(2)  # ended by the watchdog of systemd, it says where it hung
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Executor(thread_name_prefix="asyncio"))
    asked = 0

    def asked_to_stop() -> None:
        nonlocal asked
        asked += 1
        if asked > _STOPS_MAX:
            os._exit(1)  # what isn't acknowledged comes again, what isn't completed runs again
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    if early.hung_up():
        hang_up()
    await run()
    await _end_the_rest()


class _Executor(ThreadPoolExecutor):
    """The threads of `asyncio.to_thread`. Those in which the user's code hangs aren't waited for at the end."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=cancel_futures)


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
