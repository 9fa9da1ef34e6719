"""`edgeq queues`: how full each is, pausing and resuming them while workers run, and the dependencies of their jobs."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from ..clock import Clock, rfc3339
from ..config.suggest import did_you_mean
from ..errors import EdgeqError
from ..status import every_queue
from ..store import breakers as breakers_table
from ..store import queues as table
from ..store.breakers import StoredBreaker
from . import completing
from .common import WRITE_SECONDS, as_json, configured, load_config, open_store
from .printing import last_line, say, say_json, say_table


@click.group(invoke_without_command=True)
@as_json
@configured
def queues(json_lines: bool) -> None:
    """How full the queues are; without a command, the list."""
    if click.get_current_context().invoked_subcommand is None:
        _list(json_lines)


@queues.command("list")
@as_json
@configured
def list_queues(json_lines: bool) -> None:
    """Each queue, and how many of its jobs are in which state.

    Ready ones could run now, delayed ones have a later time, blocked ones wait for a limit or a dependency. The oldest
    of the ready ones has waited so long.
    """
    _list(json_lines)


def _list(json_lines: bool) -> None:
    loaded = load_config()

    async def main() -> list[dict[str, Any]]:
        async with open_store(loaded) as store:
            return await every_queue(store, loaded.config.jobs.queues, Clock().now())

    found = asyncio.run(main())
    if json_lines:
        for queue in found:
            say_json(queue)
        return
    say_table(
        (
            "queue", "size", "ready", "delayed", "blocked", "executing", "dead", "completed", "oldest", "concurrency",
            "state",
        ),
        [
            (
                each["queue"], each["size"], each["ready"], each["delayed"], each["blocked"], each["executing"],
                each["dead"], each["completed"],
                f"{each['oldest_ready_seconds']:.0f}s" if each["oldest_ready_seconds"] else "",
                each["concurrency"] or "not configured", "paused" if each["paused"] else "",
            )
            for each in found
        ],
        empty="no queues",
    )  # fmt: skip


@queues.command()
@click.argument("name", shell_complete=completing.queues)
@configured
def pause(name: str) -> None:
    """Claim no more jobs of a queue. Those that run go on.

    It stays paused over restarts.
    """
    _change(name, paused=True)
    say(f"{name} is paused")


@queues.command()
@click.argument("name", shell_complete=completing.queues)
@configured
def resume(name: str) -> None:
    """Let a paused queue go on."""
    _change(name, paused=False)
    say(f"{name} goes on")


def _change(name: str, *, paused: bool) -> None:
    loaded = load_config()

    async def main() -> None:
        async with open_store(loaded) as store:
            known = [each["queue"] for each in await every_queue(store, loaded.config.jobs.queues, Clock().now())]
            if name not in known:
                raise EdgeqError(f"there is no queue {name!r}", hint=did_you_mean(name, known))
            change = table.pause if paused else table.resume
            await store.write(lambda tx: change(tx, name), timeout_seconds=WRITE_SECONDS)

    asyncio.run(main())


@queues.command()
@as_json
@configured
def breakers(json_lines: bool) -> None:
    """The dependencies that jobs need, as far as one has failed: while it is open, they wait."""

    async def main() -> list[StoredBreaker]:
        async with open_store(load_config()) as store:
            return await breakers_table.all(store)

    found = asyncio.run(main())
    if json_lines:
        for breaker in found:
            say_json({name: getattr(breaker, name) for name in breaker.__struct_fields__})
        return
    say_table(
        ("dependency", "state", "failures", "since", "tried next", "error"),
        [
            (
                each.name, each.state.replace("_", " "), each.failures, _when(each.opened_at), _when(each.probe_at),
                last_line(each.error),
            )
            for each in found
        ],
        empty="no dependency has failed yet",
    )  # fmt: skip


def _when(moment: int | None) -> str:
    return "" if moment is None else rfc3339(moment)
