"""`edgeq demo`: everything at once, with nothing to set up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
from pathlib import Path

import click

from ..app import App
from ..clock import Clock
from ..config.load import load
from ..demo.scenario import CONFIGURATION, Sensors
from ..demo.view import Screen, Watch, summary
from ..telemetry.log import configure
from .common import configured, verbose
from .printing import say

_REFRESH_SECONDS = 0.25
_SETTLE_SECONDS = 10.0


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=None, help="End by itself, with a summary.")
@click.option("--plain", is_flag=True, help="One line for each thing that happens, as in a pipe.")
@configured
def demo(seconds: float | None, plain: bool) -> None:
    """Show edgeq at work on made-up sensors.

    A cold store: see what arrives, is violated, resolved, notified, dead-lettered, here and on the status page, whose
    address it says. The MQTT broker runs in this process, the database lies in a scratch folder that is removed at the
    end. The demo has a configuration of its own.
    """
    listen, token = f"127.0.0.1:{_free_port()}", secrets.token_urlsafe(12)
    page = f"status page: http://{listen}/ (token {token})"
    with tempfile.TemporaryDirectory(prefix="edgeq-demo-") as folder:
        path = Path(folder) / "edgeq.yaml"
        configuration = CONFIGURATION.replace("edgeq.db", f"sqlite:///{folder}/edgeq.db")
        path.write_text(f'{configuration}web: {{listen: "{listen}", token: "{token}"}}\n')
        lines = asyncio.run(_demo(str(path), page, seconds, plain))
    for line in lines:
        say(line)


async def _demo(path: str, page: str, seconds: float | None, plain: bool) -> list[str]:
    from rich.console import Console
    from rich.live import Live

    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
    configure("info" if verbose() else "error", "auto")
    logging.getLogger("edgeq.notification").disabled = True  # the view shows them
    clock = Clock()
    app = App(lambda: load(path, environ=environ), clock=clock)
    running = asyncio.create_task(app.run())
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    broker_url = await _ready(app, running)
    sensors = Sensors(broker_url, clock)
    await sensors.start()
    watch = Watch(app.store, clock.now())
    console = Console()
    screen = Screen(watch, console, page)
    began = clock.monotonic()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not plain else None
    if live is None:
        say(page)
        say("what arrives, is violated, resolved, notified, dead-lettered (Ctrl-C ends it)")
    with live or contextlib.nullcontext():
        while not stopped.is_set() and not running.done():
            elapsed = clock.monotonic() - began
            if seconds is not None and elapsed >= seconds:
                break
            news = await watch.news()
            if live is not None:
                screen.add(news)
                live.update(screen.draw(elapsed), refresh=True)
            else:
                for happening in news:
                    console.print(happening.text(), soft_wrap=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _REFRESH_SECONDS)
    await sensors.stop()
    await _settled(watch, sensors.sent, running)
    lines = summary(watch, clock.monotonic() - began, sensors.sent)
    app.stop()
    await running
    return lines


async def _settled(watch: Watch, sent: int, running: asyncio.Task[None]) -> None:
    """What was sent is stored, or no more of it comes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            await watch.news()
            while watch.counts["messages"] + watch.counts["dead letters"] < sent and not running.done():
                await asyncio.sleep(_REFRESH_SECONDS)
                await watch.news()


async def _ready(app: App, running: asyncio.Task[None]) -> str:
    """The broker's URL, once the appliance is connected to it. Raises what the appliance ended with."""
    ready = asyncio.create_task(app.ready())
    await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        ready.cancel()
        await running
    await ready
    return app.broker_url()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
