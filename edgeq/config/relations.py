"""What no record can see by itself: names that point to other parts, paths relative to the configuration's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from ..errors import Problem
from .origin import nearest
from .schema import Config, Queue
from .section import Section
from .suggest import did_you_mean


def completed(config: Config, folder: str) -> Config:
    """The configuration with its paths made absolute, and with the queue `default`, which there always is."""

    def rooted(path: str | None) -> str | None:
        return os.path.join(folder, path) if path else None

    tls = config.mqtt.tls
    tls = replace(tls, ca=rooted(tls.ca), cert=rooted(tls.cert), key=rooted(tls.key))
    backup = config.store.backup
    return replace(
        config,
        store=replace(config.store, backup=backup and replace(backup, to=os.path.join(folder, backup.to))),
        mqtt=replace(config.mqtt, tls=tls),
        app=replace(config.app, path=rooted(config.app.path)),
        jobs=replace(config.jobs, queues={"default": Queue(), **config.jobs.queues}),
    )


def added_processors(sections: Mapping[str, Section], contracts: object, channels: object) -> list[str]:
    """Contracts need a sentinel and channels a courier: the names of those that are added when no processor is one."""
    kinds = [section.data.get("kind") for section in sections.values()]
    needed = {"sentinel": contracts, "courier": channels}
    return [kind for kind, by in needed.items() if by and kind not in kinds and kind not in sections]


def processors_of(config: Config) -> set[str]:
    """The names of all processors."""
    return {*config.processors, *added_processors(config.processors, config.contracts, config.channels)}


def check_channels(data: Any, places: dict[str, str], problems: list[Problem]) -> None:
    """Every channel that a notification's route names must be there. Looks at plain values, right or wrong."""
    channels = data.get("channels") or {}
    section = data.get("notifications")
    routes = section.get("routes") if isinstance(section, Mapping) else None
    if not isinstance(channels, Mapping):
        return
    for index, route in _mappings(routes):
        path = f"notifications.routes[{index}]"
        named = [(f"{path}.{key}", route.get(key)) for key in ("channels", "failover")]
        named += [
            (f"{path}.escalate[{step}].channels", each.get("channels"))
            for step, each in _mappings(route.get("escalate"))
        ]
        for key, names in named:
            for position, name in enumerate(names if isinstance(names, list) else []):
                if isinstance(name, str) and name not in channels:
                    at = f"{key}[{position}]"
                    message = f"there is no channel {name!r}"
                    problems.append(Problem(nearest(places, at), at, message, did_you_mean(name, channels)))


def _mappings(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The mappings in what may be a list, each with its place."""
    items = value if isinstance(value, list) else []
    return ((index, item) for index, item in enumerate(items) if isinstance(item, Mapping))
