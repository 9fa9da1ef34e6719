"""The courier: events tagged `notification` become notifications in the outbox, in the commit that moves its cursor."""

from __future__ import annotations

import logging

from ..events import Event
from ..notifications.policy import Policy
from ..notifications.text import render
from ..store import notifications
from ..store.notifications import NewNotification
from ..telemetry.metrics import Metrics
from .processor import ProcessorContext, QueueProcessor

log = logging.getLogger("edgeq.courier")


class Courier(QueueProcessor):
    """Queues each event's notification, its text made once, for every channel that the policy says. The senders do the
    rest. An event for which there is no channel is counted (`unrouted_notification`) and passed over."""

    tags = ("notification",)

    def __init__(self, policy: Policy, metrics: Metrics) -> None:
        self._policy = policy
        self._metrics = metrics

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """See QueueProcessor.process_item."""
        text = render(event)
        channels = self._policy.channels_for(event, text.severity)
        if not channels:
            ctx.decisions.tallies.append(lambda: self._metrics.skipped.add(1, "unrouted_notification"))
            log.info("event %d (%s) is routed to no channel: %s", event.id, text.severity, text.title)
            return
        rows = [
            NewNotification(
                event_id=event.id,
                channel=channel,
                severity=text.severity,
                title=text.title,
                body=text.body,
                fingerprint=text.fingerprint,
                created_at=event.recorded_at,
            )
            for channel in channels
        ]
        ctx.decisions.also.append(lambda tx: notifications.add(tx, rows))
        ctx.decisions.tallies.append(lambda: self._metrics.notifications.add(len(rows), "queued"))
