"""Everything that `web` of the configuration asks for, made together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from ..clock import Clock
from ..mqtt.session import Session
from ..plan import Plan
from ..service import Service
from ..store.store import TOPICS, Store
from ..telemetry.metrics import Metrics
from .access import Access
from .acknowledge import AcknowledgePage
from .api.contracts import ContractOperations
from .api.dead_letters import DeadLetterOperations
from .api.events import EventOperations
from .api.health import HealthOperations
from .api.jobs import JobOperations
from .api.notifications import NotificationOperations
from .api.now import Now
from .api.openapi import described
from .api.processors import ProcessorOperations
from .api.session import Sessions
from .history import History
from .ingest import Ingest
from .live import Live
from .operation import Group, pages_of
from .page import status_page
from .server import WebServer


class Running(NamedTuple):
    """What runs, as far as the interface says how it is."""

    plan: Plan
    store: Store
    metrics: Metrics
    clock: Clock
    session: Session
    status: Callable[[], Awaitable[dict[str, Any]]]
    gets_on: Callable[[], bool]
    positions: Callable[[], Mapping[str, int]]


def make_web(listen: str, running: Running) -> list[Service]:
    """What serves the interface and the pages on `listen`, in the order in which it is started."""
    config = running.plan.loaded.config
    store, metrics, clock = running.store, running.metrics, running.clock
    access = Access(listen, config.web.token, config.notifications.public_url, clock)
    history = History(store, metrics, clock, running.positions)
    live = Live(running.status, lambda: _version(running), clock)
    now = Now(live, history, access, clock)
    groups: list[Group] = [
        now,
        Sessions(access),
        EventOperations(store, clock),
        Ingest(access, store, metrics, clock),
        ContractOperations(running.plan.contracts, store, clock),
        NotificationOperations(store, metrics, clock),
        JobOperations(config.jobs.queues, store, clock),
        ProcessorOperations(live, store),
        DeadLetterOperations(store, clock),
        HealthOperations(now, running.session, store, metrics, running.gets_on),
    ]
    operations = [operation for group in groups for operation in group.operations()]
    operations.append(described(operations))
    pages = [
        AcknowledgePage(config.gateway, store, metrics, clock).page(),
        *pages_of(operations, access),
        *status_page(),
    ]
    return [history, WebServer(listen, clock, pages)]


def _version(running: Running) -> object:
    """Another one when something has happened that the status tells of."""
    store, session = running.store, running.session
    return (
        [store.signal.version(topic) for topic in TOPICS],
        [counter.total() for counter in running.metrics.all()],
        session.state, session.reason, store.health,
    )  # fmt: skip
