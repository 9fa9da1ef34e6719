"""What the commands share: where the configuration comes from, the store beside a running appliance, and printing."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

from ..clock import Clock
from ..config.load import load, sqlite_path
from ..config.schema import LoadedConfig
from ..events import to_json
from ..store.sqlite import SqliteStore
from ..telemetry.metrics import Metrics

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

WRITE_SECONDS = 15.0


def configured(function: F) -> F:
    """Give a command `-c` and `-v` of its own; what was said before the command's name counts unless said again."""

    @click.option("-c", "--config", "config_path", metavar="FILE", help="The configuration file.")
    @click.option("-v", "--verbose", is_flag=True, help="Log more.")
    @click.pass_context
    @functools.wraps(function)
    def command(ctx: click.Context, /, config_path: str | None, verbose: bool, **options: Any) -> Any:
        said = ctx.find_root().obj
        said["config_path"] = config_path or said["config_path"]
        said["verbose"] = verbose or said["verbose"]
        return function(**options)

    return command  # type: ignore[return-value]


def as_json(function: F) -> F:
    """Give a command `--json`."""
    return click.option("--json", "json_lines", is_flag=True, help="One JSON object a line.")(function)


def config_path() -> str | None:
    """The file named with `-c`, if any."""
    path: str | None = click.get_current_context().find_root().obj["config_path"]
    return path


def verbose() -> bool:
    """Whether `-v` was given."""
    return bool(click.get_current_context().find_root().obj["verbose"])


def load_config() -> LoadedConfig:
    """The configuration. Raises ConfigError."""
    return load(config_path())


@asynccontextmanager
async def open_store(loaded: LoadedConfig) -> AsyncIterator[SqliteStore]:
    """The store, beside whoever else uses it. Raises StoreError."""
    config = loaded.config.store
    store = SqliteStore(
        sqlite_path(config.url),
        metrics=Metrics(),
        clock=Clock(),
        durability=config.durability,
        exclusive=False,
    )
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    return asyncio.run(main)


def say(text: str = "", end: str = "\n") -> None:
    """Print a line for a person or a pipe."""
    print(text, end=end)


def say_error(text: str) -> None:
    """Print a line to standard error."""
    print(f"edgeq: {text}", file=sys.stderr)


def say_json(value: Any) -> None:
    """Print one JSON object on a line of its own."""
    print(to_json(value))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table, or the sentence `empty` when it has no rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [[Text("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not listed:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*row)
    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    # A pipe has no width of its own: lines are not broken there.
    console = Console(width=1000, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())
