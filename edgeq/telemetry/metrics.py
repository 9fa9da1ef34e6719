"""Counters and gauges, each named once. G10: every drop, skip, duplicate and dead letter has one.

Plain integers in memory, by label value; a name is what Prometheus would call it. A label's values come from the
configuration (a route's filter, a processor's name) or from a fixed set (`reason`), never from a message, so their
number is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from ..clock import MICROSECONDS

LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""In seconds."""


class Counter:
    """A number that only grows, one for each value of `label` (or one in all)."""

    def __init__(self, name: str, help: str, label: str = "") -> None:  # noqa: A002 - Prometheus' word
        self.name = name
        self.help = help
        self.label = label
        self.values: dict[str, int] = {}

    def add(self, count: int = 1, label: str = "") -> None:
        """Add `count` for the label value `label`."""
        self.values[label] = self.values.get(label, 0) + count

    def total(self) -> int:
        """The sum over all label values."""
        return sum(self.values.values())


class Gauge:
    """A number that goes up and down, one for each value of `label`."""

    def __init__(self, name: str, help: str, label: str) -> None:  # noqa: A002 - Prometheus' word
        self.name = name
        self.help = help
        self.label = label
        self.values: dict[str, float] = {}

    def set(self, values: Mapping[str, float]) -> None:
        """All of it as it is now."""
        self.values = dict(values)


class Histogram:
    """How many of what was measured, in seconds, came up to each of `bounds`, and the sum of all. Never negative: what
    a clock that was set back makes so counts as nothing."""

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:  # noqa: A002 - Prometheus' word
        self.name = name
        self.help = help
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe_since(self, moments: Sequence[int], now: int) -> None:
        """Count how long ago each was (microseconds since 1970 UTC), the first of them longest."""
        first, last = (self._place(now - moment) for moment in (moments[0], moments[-1]))
        if first == last:  # as it nearly always is: all are between the two
            self.counts[first] += len(moments)
        else:
            for moment in moments:
                self.counts[self._place(now - moment)] += 1
        self.count += len(moments)
        self.sum += max(0, now * len(moments) - sum(moments)) / MICROSECONDS

    def _place(self, microseconds: int) -> int:
        return bisect_left(self.bounds, microseconds / MICROSECONDS)


class Metrics:
    """All counters and gauges of one running edgeq. Gauges are as they were when the status was last asked for."""

    def __init__(self) -> None:
        self.received = Counter("edgeq_messages_received_total", "Messages taken in from the broker.")
        self.acked = Counter("edgeq_messages_acked_total", "QoS 1 messages acknowledged after their commit.")
        self.latency = Histogram(
            "edgeq_ack_latency_seconds", "From the arrival of a message to its acknowledgement.", LATENCY_BOUNDS
        )
        self.routed = Counter("edgeq_messages_routed_total", "Messages handled, by route.", "route")
        self.dropped = Counter("edgeq_messages_dropped_total", "Messages dropped on purpose, by reason.", "reason")
        self.rejected = Counter("edgeq_messages_rejected_total", "Messages made dead letters, by reason.", "reason")
        self.dead_letters = Counter("edgeq_dead_letters_total", "Dead letters written, by source.", "source")
        self.duplicates = Counter("edgeq_events_duplicate_total", "Events not stored again: the key was there.")
        self.events = Counter("edgeq_events_total", "Events committed.")
        self.commits = Counter("edgeq_commits_total", "Transactions committed.")
        self.connects = Counter("edgeq_mqtt_connects_total", "MQTT sessions opened, by result.", "result")
        self.jobs = Counter("edgeq_jobs_total", "Job attempts ended, by outcome.", "outcome")
        self.purged = Counter("edgeq_jobs_purged_total", "Finished jobs deleted for their age, by state.", "state")
        self.deleted = Counter("edgeq_rows_deleted_total", "Rows deleted by retention, by table.", "table")
        self.events_dropped = Counter(
            "edgeq_events_dropped_total", "Events deleted before all processors had seen them, by limit.", "reason"
        )
        self.schedule_runs = Counter("edgeq_schedule_runs_total", "Runs of schedules, and gaps (missed).", "result")
        self.source_items = Counter("edgeq_source_items_total", "Items of sources, and failed asks.", "result")
        self.notifications = Counter("edgeq_notifications_total", "Notifications, by result.", "result")
        self.template_gaps = Counter("edgeq_template_gaps_total", "Gaps in notifications: what an event lacked.")
        self.heartbeats = Counter("edgeq_heartbeats_total", "Dead-man pings, by result.", "result")
        self.backups = Counter("edgeq_backups_total", "Backups by store.backup, by result.", "result")
        self.processed = Counter("edgeq_processed_total", "Events processed, by processor.", "processor")
        self.failures = Counter("edgeq_processor_failures_total", "Failed attempts, by processor.", "processor")
        self.forwarded = Counter("edgeq_forwarded_total", "Events that a site has confirmed.", "processor")
        self.forwarded_bytes = Counter("edgeq_forwarded_bytes_total", "Bytes of them on the way.", "processor")
        self.skipped = Counter("edgeq_skipped_total", "Events or values skipped, by reason.", "reason")
        self.contract_skipped = Counter("edgeq_contract_skipped_total", "The same, by contract.", "contract")
        self.channels = {
            name: Gauge(f"edgeq_channel_{name}", text, "channel")
            for name, text in (
                ("queued", "Notifications that wait, by channel."),
                ("sent", "Notifications in the store that were sent, by channel."),
                ("grouped", "Notifications in the store that were told together with others, by channel."),
                ("dead", "Notifications in the store that were given up, by channel."),
                ("oldest_seconds", "For how long the oldest that waits was raised, by channel."),
                ("failing", "1 when the last attempt failed, by channel."),
                ("waiting_seconds", "For how long the channel as a whole waits still, by channel."),
            )
        }

    def all(self) -> list[Counter]:
        """Every counter, in the order above."""
        return [value for value in vars(self).values() if isinstance(value, Counter)]

    def gauges(self) -> list[Gauge]:
        """Every gauge."""
        return list(self.channels.values())
