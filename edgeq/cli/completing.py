"""Names that a shell completes: those in the configuration. The store isn't asked. Without a configuration that can be
read there are none; that nothing is said of it, `main` sees to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import click

from ..config.load import load_to_plan
from ..config.relations import processors_of
from ..config.schema import Config

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _names(find: Callable[[Config], Iterable[str]]) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        config = load_to_plan(_config_path(ctx)).config
        return sorted(name for name in find(config) if name.startswith(incomplete))

    return complete


def _config_path(ctx: click.Context) -> str | None:
    at: click.Context | None = ctx
    while at is not None:
        if path := at.params.get("config_path"):
            return str(path)
        at = at.parent
    return None


def _contracts(config: Config) -> Iterator[str]:
    yield from (str(section.data["name"]) for section in config.contracts if section.data.get("name"))


def _sources(config: Config) -> Iterator[str]:
    """What dead letters say that they are from."""
    yield "intake"
    yield from (f"processor:{name}" for name in processors_of(config))
    yield from (f"job:{name}" for name in config.jobs.queues)
    yield from (f"channel:{name}" for name in config.channels)


queues = _names(lambda config: config.jobs.queues)
processors = _names(processors_of)
channels = _names(lambda config: config.channels)
contracts = _names(_contracts)
sources = _names(_sources)
