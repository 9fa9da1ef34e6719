"""What the commands share: their options, where the configuration comes from, and the store beside an appliance."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..clock import Clock
from ..config.load import load, load_to_plan
from ..config.schema import LoadedConfig
from ..errors import EdgeqError
from ..store.opening import make_store
from ..store.store import Store
from ..telemetry.log import configure
from ..telemetry.metrics import Metrics
from ..units import Duration

if TYPE_CHECKING:
    from ..plan import Plan

F = TypeVar("F", bound=Callable[..., Any])

WRITE_SECONDS = 10.0
ROWS = click.IntRange(1, 1_000_000)
ID = click.IntRange(1, 2**63 - 1)


def configured(function: F) -> F:
    """Give a command `-c` and `-v` of its own; what was said before the command's name counts unless said again."""

    @click.option("-c", "--config", "config_path", type=click.Path(), metavar="FILE", help="The configuration file.")
    @click.option("-v", "--verbose", is_flag=True, help="Log more.")
    @click.pass_context
    @functools.wraps(function)
    def command(ctx: click.Context, /, config_path: str | None, verbose: bool, **options: Any) -> Any:
        said = ctx.find_root().obj
        said["config_path"] = config_path or said["config_path"]
        said["verbose"] = verbose or said["verbose"]
        # What a command has to say it says itself.
        configure("debug" if said["verbose"] else "critical", "text")
        return function(**options)

    return command  # type: ignore[return-value]


def as_json(function: F) -> F:
    """Give a command `--json`."""
    return click.option("--json", "json_lines", is_flag=True, help="One JSON object a line.")(function)


def duration(low: float) -> Callable[[click.Context, click.Parameter, str | None], Duration | None]:
    """For an option whose value is a duration of at least `low` seconds."""

    def parse(ctx: click.Context, param: click.Parameter, text: str | None) -> Duration | None:
        if text is None:
            return None
        try:
            value = Duration.parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        if value < low:
            raise click.BadParameter(f"{text} is less than {Duration(low)}")
        return value

    return parse


def bounded(characters: int) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """For an option whose value is a text of so many characters at most."""

    def parse(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
        if text is not None and len(text) > characters:
            raise click.BadParameter(f"is {len(text)} characters long, and may be {characters}")
        return text

    return parse


def user() -> str:
    """Who calls the command, as this machine knows them; nothing for one without a name."""
    import getpass  # not for edgeq run

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


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


def load_config_to_plan() -> LoadedConfig:
    """The configuration for `make_plan`, which tells all of its mistakes. Raises ConfigError."""
    return load_to_plan(config_path())


def load_plan() -> Plan:
    """What the configuration comes to, with the app imported, for a command that runs nothing of it. Raises
    ConfigError."""
    from ..plan import make_plan

    return make_plan(load_config_to_plan(), publish=_nowhere, clock=Clock(), metrics=Metrics())


async def _nowhere(*args: Any, **options: Any) -> None:
    raise EdgeqError("this command publishes nothing")


@asynccontextmanager
async def open_store(loaded: LoadedConfig, *, make: bool = False, listen: bool = False) -> AsyncIterator[Store]:
    """The store, beside whoever else uses it; with `make`, it is made if it isn't there, which is StoreMissing without.
    `listen` is for commands that wait for what others commit. Raises StoreError."""
    store = make_store(loaded.config, "command", metrics=Metrics(), clock=Clock(), make=make, session=listen)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
