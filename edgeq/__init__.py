"""edgeq: an MQTT-triggered queue appliance for gateways. This is the map.

The way of one message, and where each station lives:

    mqtt/       the session takes a delivery from the broker and puts it into the inbox
    intake/     the router finds its routes, their controllers decide: events, jobs, dead letters
    store/      one commit makes all of it durable; only then
    intake/     is the delivery acknowledged, in order of arrival
    processors/ read the events after their cursor, in order of id, and move the cursor with what they decided:
                the courier queues notifications (notifications/), the sentinel judges contracts (contracts/)
    forward/    sends events to a site, another edgeq or not, which takes them at its intake, its web/ or in its store
    jobs/       workers claim jobs under a lease and complete them in one commit with what they decided; jobs also come
                from programs (`Queue`), schedules and sources

`app` builds and runs these from a configuration (`config/`, `plan`), `work` only the workers; `cli/` is the command
line, `presence/` what others see of a gateway on the broker, `requests/` what they may ask by a message, `web/` the
pages for people, `testing/` helps authors of controllers, processors and jobs. `service` is the form that every
long-lived part has, `owned` sees to it that what runs on one machine at a time does, `naming` and `members` that the
machines of a site fit together, `ordered` that order is kept.

The guarantees, each kept in one place: acknowledged means on disk (intake.intake); poison goes aside (intake.intake); a
cursor moves with its effects (processors.runner); ids only grow (store.events); a lost lease can't complete
(store.ends); everything in memory is bounded and a full store only waits (store.writer, mqtt.inbox).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backoff import Backoff as Backoff
    from .context import Context as Context
    from .errors import EdgeqError as EdgeqError
    from .errors import RejectedMessage as RejectedMessage
    from .events import Event as Event
    from .intake.context import MessageContext as MessageContext
    from .intake.router import Router as Router
    from .jobs.context import JobContext as JobContext
    from .jobs.function import job as job
    from .jobs.job import Job as Job
    from .jobs.keys import Limit as Limit
    from .jobs.keys import Unique as Unique
    from .jobs.outcome import Dead as Dead
    from .jobs.outcome import RetryAfter as RetryAfter
    from .jobs.queue import Queue as Queue
    from .jobs.sources.source import source as source
    from .processors.processor import NotYet as NotYet
    from .processors.processor import ProcessorContext as ProcessorContext
    from .processors.processor import QueueProcessor as QueueProcessor

_PUBLIC = {
    "Backoff": "backoff",
    "Context": "context",
    "Dead": "jobs.outcome",
    "EdgeqError": "errors",
    "Event": "events",
    "Job": "jobs.job",
    "JobContext": "jobs.context",
    "Limit": "jobs.keys",
    "MessageContext": "intake.context",
    "NotYet": "processors.processor",
    "ProcessorContext": "processors.processor",
    "Queue": "jobs.queue",
    "QueueProcessor": "processors.processor",
    "RejectedMessage": "errors",
    "RetryAfter": "jobs.outcome",
    "Router": "intake.router",
    "Unique": "jobs.keys",
    "job": "jobs.function",
    "source": "jobs.sources.source",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used, so that a command pays only for what it needs."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
