"""Which processors there are, and how the configuration's become ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from ..clock import Clock
from ..config.schema import LoadedConfig
from ..config.section import Section
from ..config.suggest import did_you_mean
from ..contracts import Contract, Link
from ..errors import Problem
from ..notifications.channels import Channel
from ..notifications.policy import Policy
from ..telemetry.metrics import Metrics
from .courier import Courier
from .processor import QueueProcessor
from .sentinel import Sentinel
from .settings import ProcessorSettings

ENTRY_POINTS = "edgeq.processors"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the built-in processors are made of."""

    contracts: Sequence[Contract]
    policy: Policy
    metrics: Metrics
    clock: Clock


Make = Callable[[Link | None], QueueProcessor]

KINDS: dict[str, Callable[[Parts, Link | None], QueueProcessor]] = {
    "courier": lambda parts, link: Courier(parts.policy, parts.metrics),
    "sentinel": lambda parts, link: Sentinel(parts.contracts, parts.metrics, parts.clock, link),
}


@dataclass(frozen=True, slots=True)
class PlannedProcessor:
    """A processor that can run: `make` gives a fresh one, told whether the sensors can be heard."""

    make: Make
    settings: ProcessorSettings = field(default_factory=ProcessorSettings)


def plan_processors(
    loaded: LoadedConfig, parts: Parts, channels: Mapping[str, Channel], problems: list[Problem]
) -> dict[str, PlannedProcessor]:
    """The processors of the configuration by name; mistakes are added to `problems`.

    Contracts need a sentinel and channels a courier: they are added under these names when no processor is one.
    """
    planned: dict[str, PlannedProcessor] = {}
    kinds = set()
    for name, section in loaded.config.processors.items():
        kind = section.data.get("kind")
        kinds.add(kind)
        processor = _plan(section, kind, parts, problems)
        if processor is not None:
            planned[name] = processor
    for kind, needed in (("sentinel", bool(parts.contracts)), ("courier", bool(channels))):
        if needed and kind not in kinds and kind not in planned:
            planned[kind] = PlannedProcessor(_built_in(kind, parts))
    return planned


def _plan(section: Section, kind: Any, parts: Parts, problems: list[Problem]) -> PlannedProcessor | None:
    if not isinstance(kind, str):
        problems.append(section.problem("kind", "is missing", f"there is: {', '.join(KINDS)}, or package.module:Class"))
        return None
    settings = section.read(ProcessorSettings, problems)
    if kind in KINDS:
        return None if settings is None else PlannedProcessor(_built_in(kind, parts), settings)
    try:
        own = _own(kind)
    except ValueError as error:
        problems.append(section.problem("kind", str(error)))
        return None
    return None if settings is None else PlannedProcessor(lambda link: own(), settings)


def _built_in(kind: str, parts: Parts) -> Make:
    return lambda link: KINDS[kind](parts, link)


def _own(kind: str) -> type[QueueProcessor]:
    """The class that `package.module:Class`, or the name of an installed plug-in, stands for. Raises ValueError."""
    target = kind
    if ":" not in kind:
        plugged_in = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}
        if kind not in plugged_in:
            raise ValueError(f"there is no processor kind {kind!r}; {did_you_mean(kind, [*KINDS, *plugged_in])}")
        target = plugged_in[kind]
    try:
        found = resolve_name(target)
    except Exception as error:  # noqa: BLE001 - somebody else's module may raise anything
        raise ValueError(f"{target} can't be loaded: {type(error).__name__}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, QueueProcessor)):
        raise ValueError(f"{target} is not a QueueProcessor")
    return found
