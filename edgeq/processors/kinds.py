"""Which processors there are, and how the configuration's become ready to run.

A kind is a word of `KINDS`, a class of one's own as `package.module:Class`, or the name of an entry point in the group
`edgeq.processors`, by which other packages bring theirs.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ..clock import Clock
from ..config.relations import added_processors
from ..config.schema import LoadedConfig, Record
from ..config.section import Section
from ..errors import Problem
from ..imports import load_class, plugged_in
from ..telemetry.metrics import Metrics
from .courier import Courier
from .processor import QueueProcessor
from .sentinel import Sentinel
from .settings import ProcessorSettings

if TYPE_CHECKING:
    from ..contracts import Contract, Link
    from ..notifications.policy import Policy

ENTRY_POINTS = "edgeq.processors"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the built-in processors are made of."""

    contracts: Sequence[Contract]
    policy: Policy
    metrics: Metrics
    clock: Clock
    publish: Callable[..., Awaitable[object]]


KINDS: dict[str, Callable[[Parts, Link | None], QueueProcessor]] = {
    "courier": lambda parts, link: Courier(parts.policy, parts.metrics, parts.clock),
    "sentinel": lambda parts, link: Sentinel(parts.contracts, parts.metrics, parts.clock, link),
}
FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class PlannedProcessor:
    """A processor that can run: `make` gives a fresh one, told whether the sensors can be heard. `outward`: what it
    does is to take events elsewhere."""

    make: Callable[[Link | None], QueueProcessor]
    settings: ProcessorSettings = field(default_factory=ProcessorSettings)
    outward: bool = False


def plan_processors(
    loaded: LoadedConfig, parts: Parts, channels: Collection[str], problems: list[Problem]
) -> dict[str, PlannedProcessor]:
    """The processors of the configuration by name, with those that are added; mistakes are added to `problems`."""
    planned: dict[str, PlannedProcessor] = {}
    sections = loaded.config.processors
    for name, section in sections.items():
        forwards = section.data.get("kind") == FORWARD
        processor = _forward(name, section, loaded, parts, problems) if forwards else _plan(section, parts, problems)
        if processor is not None:
            planned[name] = processor
    for kind, twice in (("sentinel", "two would judge alike"), ("courier", "two would tell everything twice")):
        same = [section for section in sections.values() if section.data.get("kind") == kind]
        problems += [section.problem("kind", f"there is a {kind} already; {twice}") for section in same[1:]]
    for kind in added_processors(sections, parts.contracts, channels):
        planned[kind] = PlannedProcessor(_built_in(kind, parts))
    return planned


def _plan(section: Section, parts: Parts, problems: list[Problem]) -> PlannedProcessor | None:
    kind = section.data.get("kind")
    if not isinstance(kind, str):
        message = "is missing" if kind is None else "must be text"
        there_is = f"there is: {', '.join([*KINDS, FORWARD])}, or package.module:Class"
        problems.append(section.problem("kind", message, there_is))
        return None
    if kind in KINDS:
        settings = section.read(ProcessorSettings, problems)
        return None if settings is None else PlannedProcessor(_built_in(kind, parts), settings)
    try:
        own = _own(kind)
    except ValueError as error:
        problems.append(section.problem("kind", str(error)))
        return None
    keys: type[Record] | None = own.settings
    fields = set() if keys is None else {entry.encode_name for entry in msgspec.structs.fields(keys)}
    names = fields | {f"{name}_file" for name in fields}
    settings = section.read(ProcessorSettings, problems, ignore={"kind", *names})
    values = None if keys is None else section.read(keys, problems, ignore=section.data.keys() - names)
    if settings is None or (keys is not None and values is None):
        return None
    return PlannedProcessor(lambda link: _make_own(own, values), settings)


def _forward(
    name: str, section: Section, loaded: LoadedConfig, parts: Parts, problems: list[Problem]
) -> PlannedProcessor | None:
    from ..forward.making import plan  # who forwards nothing doesn't pay for it
    from ..forward.settings import ForwardSettings

    settings = section.read(ForwardSettings, problems)
    if settings is None:
        return None
    try:
        make, settings = plan(
            name, settings, loaded.folder, loaded.config.gateway, parts.publish, parts.metrics, parts.clock
        )
    except ValueError as error:
        problems.append(section.problem("to", str(error)))
        return None
    return PlannedProcessor(lambda link: make(), settings, outward=True)


def _built_in(kind: str, parts: Parts) -> Callable[[Link | None], QueueProcessor]:
    return lambda link: KINDS[kind](parts, link)


def _make_own(own: type[QueueProcessor], values: Any) -> QueueProcessor:
    processor = own.__new__(own)
    if values is not None:
        vars(processor)["settings"] = values
    processor.__init__()  # type: ignore[misc]
    return processor


def _own(kind: str) -> type[QueueProcessor]:
    """A processor of the user's or of an installed package. Raises ValueError."""
    if ":" in kind:
        own = load_class(kind, QueueProcessor)
    else:
        own = plugged_in(kind, QueueProcessor, ENTRY_POINTS, [*KINDS, FORWARD, "package.module:Class"])
    _check(own, kind)
    return own


def _check(own: type[QueueProcessor], name: str) -> None:
    """Raise ValueError for what would fail at every event, or at the start."""
    for method in ("process_item", "process_batch", "opened", "on_time", "closed"):
        if not inspect.iscoroutinefunction(getattr(own, method)):
            raise ValueError(f"{name}.{method} must be written async def")
    for method in ("filter_item", "due_at", "says"):
        if inspect.iscoroutinefunction(getattr(own, method)):
            raise ValueError(f"{name}.{method} must be written def, not async def")
    if own.process_item is QueueProcessor.process_item and own.process_batch is QueueProcessor.process_batch:
        raise ValueError(f"{name} has neither process_item nor process_batch")
    if isinstance(own.types, str) or isinstance(own.tags, str):
        raise ValueError(f"types and tags of {name} must be lists, such as ['pump.*']")
    if own.settings is not None and not (isinstance(own.settings, type) and issubclass(own.settings, Record)):
        raise ValueError(f"{name}.settings must be a record class, made from edgeq.config.schema.Record")
    try:
        inspect.signature(own).bind()
    except TypeError as error:
        raise ValueError(f"{name}() must need no arguments: {error}") from None
