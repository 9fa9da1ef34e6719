"""What a configuration comes to: everything checked, compiled and imported, and nothing running yet.

`edgeq check` makes a plan and says so; `edgeq run` makes one and runs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from .clock import Clock
from .config.checks import is_postgres
from .config.files import in_order
from .config.origin import child
from .config.schema import LoadedConfig
from .contracts import Contract, load_contracts
from .errors import ConfigError, EdgeqError, Problem
from .imports import load_module, load_name
from .intake.router import Router
from .intake.table import CompiledRoute, RouteTable, compile_routes
from .jobs.job import registry, resolve
from .notifications.channels import Channel, build_channels
from .notifications.policy import Policy, load_policy
from .presence.birth import Births
from .processors.kinds import Parts, PlannedProcessor, plan_processors
from .store.opening import place
from .telemetry.metrics import Metrics

if TYPE_CHECKING:
    from .jobs.schedules.schedule import Schedule
    from .jobs.sources.source import Source
    from .requests import Look

Publish = Callable[..., Awaitable[object]]

_NO_LOOKS: Mapping[str, Look] = {}

# What a PUBLISH packet may hold beside its payload: a topic of 64 KiB and its properties.
_PACKET_OVERHEAD_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration that can run. `warnings` are sentences for an operator."""

    loaded: LoadedConfig
    table: RouteTable
    contracts: list[Contract]
    channels: Mapping[str, Channel]
    policy: Policy
    processors: Mapping[str, PlannedProcessor]
    schedules: Sequence[Schedule]
    sources: Sequence[Source]
    births: Births
    warnings: list[str]

    @property
    def modules(self) -> list[str]:
        """What a process must import to know all jobs: app.modules, and those of the jobs that the configuration
        names."""
        config = self.loaded.config
        named = [route.dispatch for route in config.routes if route.dispatch] + [each.job for each in config.schedules]
        return list(dict.fromkeys([*config.app.modules, *(name.partition(":")[0] for name in named)]))

    @property
    def packet_bytes_max(self) -> int:
        """The largest packet that the session takes whole."""
        return self.table.payload_bytes_max() + _PACKET_OVERHEAD_BYTES


def make_plan(
    loaded: LoadedConfig, *, publish: Publish, clock: Clock, metrics: Metrics, looks: Mapping[str, Look] = _NO_LOOKS
) -> Plan:
    """The plan of a configuration. Raises ConfigError with every mistake: those found here, and `loaded.problems`.
    `looks` are for requests that only look.

    Imports the modules of `app.modules`, and those that routes, processors and jobs name.
    """
    problems = list(loaded.problems)
    modules = _import_app(loaded, problems)
    routers = _routers(modules)
    config = loaded.config
    births = Births()
    own: list[CompiledRoute] = []
    if config.mqtt.requests:
        from .requests import Means, request_routes  # who may not be asked anything doesn't pay for it

        own += request_routes(config, Means(config, clock, metrics, looks), publish)
    if config.mqtt.discovery is not None:
        own.append(births.route(config.mqtt.discovery))
    table = RouteTable([*compile_routes(loaded, routers, resolve, clock.monotonic, problems).routes, *own])
    contracts = load_contracts(config.contracts, problems)
    channels = build_channels(config.channels, problems, publish=publish)
    policy = load_policy(loaded, problems)
    processors = plan_processors(loaded, Parts(contracts, policy, metrics, clock, publish), channels, problems)
    schedules: Sequence[Schedule] = ()
    if config.schedules:
        from .jobs.schedules.schedule import load_schedules  # who has none doesn't pay for it

        schedules = load_schedules(loaded, problems)
    _check_contexts(loaded, problems)
    _check_ordered(loaded, table, problems)
    _check_store(loaded, problems)
    if problems:
        raise ConfigError(in_order(problems, loaded.files))
    sources = _sources(modules)
    warnings = _warnings(loaded, sources)
    return Plan(loaded, table, contracts, channels, policy, processors, schedules, sources, births, warnings)


def _import_app(loaded: LoadedConfig, problems: list[Problem]) -> list[ModuleType]:
    app = loaded.config.app
    if app.path is not None:
        if not os.path.isdir(app.path):
            problems.append(Problem(loaded.where("app.path"), "app.path", f"the folder {app.path} doesn't exist"))
        elif app.path not in sys.path:
            sys.path.insert(0, app.path)
    modules = []
    for index, name in enumerate(app.modules):
        key = f"app.modules[{index}]"
        try:
            modules.append(load_module(name))
        except ValueError as error:
            problems.append(Problem(loaded.where(key), key, str(error)))
    return modules


def _routers(modules: list[ModuleType]) -> list[Router]:
    """The routers at the top of the modules, each once: one may be imported into another module, and what `group` gave
    has the routes of its router."""
    found: dict[int, Router] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Router):
                found.setdefault(id(value.routes), value)
    return list(found.values())


def _sources(modules: list[ModuleType]) -> Sequence[Source]:
    """The sources at the top of the modules. Only who has imported the decorator can have some."""
    if "edgeq.jobs.sources.source" not in sys.modules:
        return ()
    from .jobs.sources.source import load_sources

    return load_sources(modules)


def _sources_left_out(sources: Sequence[Source], modules: Sequence[str]) -> list[str]:
    if "edgeq.jobs.sources.source" not in sys.modules:
        return []
    from .jobs.sources.source import left_out

    return left_out(sources, modules)


def _check_store(loaded: LoadedConfig, problems: list[Problem]) -> None:
    """See that the store's driver is there, and understands the URL."""
    try:
        place(loaded.config.store.url)
    except EdgeqError as error:
        problems.append(Problem(loaded.where("store.url"), "store.url", str(error), error.hint))


def _check_contexts(loaded: LoadedConfig, problems: list[Problem]) -> None:
    """See that the functions that make what jobs need are there. They are called by workers."""
    for name, queue in loaded.config.jobs.queues.items():
        if queue.context is not None:
            key = child(child("jobs.queues", name), "context")
            try:
                if not callable(load_name(queue.context)):
                    raise ValueError(f"{queue.context} isn't a function")
            except ValueError as error:
                problems.append(Problem(loaded.where(key), key, str(error)))


def _check_ordered(loaded: LoadedConfig, table: RouteTable, problems: list[Problem]) -> None:
    """See that the members of a group can agree on whose turn it is to take the ordered routes in."""
    config = loaded.config
    if config.mqtt.group and not is_postgres(config.store.url) and table.part(ordered=True).routes:
        why = "a group with ordered routes needs one store for all its members: store.url must be postgresql://…"
        problems.append(Problem(loaded.where("mqtt.group"), "mqtt.group", why))


def _warnings(loaded: LoadedConfig, sources: Sequence[Source]) -> list[str]:
    config = loaded.config
    needed = {job.settings.needs for job in registry.values()}
    found = [
        (f"routes[{index}].qos", "2 is taken as 1: an incoming QoS 2 state is not durable")
        for index, route in enumerate(config.routes)
        if route.qos == 2
    ]
    if config.store.durability == "normal":
        found.append(("store.durability", "normal may lose acknowledged messages at a power cut"))
    found += [
        ("jobs.queues", f"no queue is called {queue!r}: jobs of {kind} would run only under `edgeq work {queue}`")
        for kind, queue in ((kind, job.settings.queue) for kind, job in registry.items())
        if queue not in config.jobs.queues and kind.partition(":")[0] in config.app.modules
    ]
    found += [
        ("jobs.queues", f"no queue is called {each.queue!r}: {each.name} is asked only under `edgeq work {each.queue}`")
        for each in sources
        if each.queue not in config.jobs.queues
    ]
    found += [
        ("app.modules", f"the source {name} is at the top of none of them, and so is not asked")
        for name in _sources_left_out(sources, config.app.modules)
    ]
    found += [
        (child("jobs.breakers", name), f"no job needs {name!r}") for name in config.jobs.breakers if name not in needed
    ]
    warnings = [f"{loaded.where(path)}: {path}: {text}" for path, text in found]
    if config.channels and not config.notifications.routes:
        warnings.append("no notifications.routes: every notification goes to every channel")
    return warnings
