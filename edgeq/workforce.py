"""The workers of one process, made the same way for the appliance and for `edgeq work`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .clock import Clock
from .config.schema import Queue
from .jobs.slots import Slots
from .jobs.worker import Overrides, Worker
from .plan import Plan
from .store.store import Store
from .telemetry.metrics import Metrics

if TYPE_CHECKING:
    from .jobs.isolation.pool import ProcessPool

NO_OVERRIDES = Overrides()


def make_workers(
    plan: Plan,
    queues: Mapping[str, Queue],
    store: Store,
    metrics: Metrics,
    clock: Clock,
    *,
    slots: Slots,
    overrides: Overrides = NO_OVERRIDES,
) -> dict[str, Worker]:
    """A worker for each of `queues`, by name. They share `slots`, and run every job that the plan has imported."""
    config = plan.loaded.config
    return {
        name: Worker(
            name,
            settings,
            store,
            metrics=metrics,
            clock=clock,
            owner=f"{config.gateway}:{os.getpid()}",
            breakers=config.jobs.breakers,
            slots=slots,
            overrides=overrides,
            processes=_processes(plan, name, settings, clock),
        )
        for name, settings in queues.items()
    }


def _processes(plan: Plan, name: str, settings: Queue, clock: Clock) -> Callable[[], ProcessPool]:
    def make() -> ProcessPool:
        from .jobs.isolation.pool import ProcessPool  # who isolates nothing doesn't pay for it

        return ProcessPool(
            settings.processes,
            modules=plan.modules,
            path=plan.loaded.config.app.path,
            context=settings.context,
            recycle_after=settings.recycle_after,
            memory_max=None if settings.memory_max is None else int(settings.memory_max),
            clock=clock,
            log=logging.getLogger(f"edgeq.worker.{name}"),
        )

    return make
