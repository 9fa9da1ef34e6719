"""`/metrics`: everything that is counted and measured, as Prometheus reads it.

The library is imported when this module is: with the first scrape. Labels come from the configuration or from fixed
sets, never from a message: see telemetry.metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..telemetry.metrics import Histogram, Metrics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Facts = Mapping[str, Any]


def exposition(facts: Facts, metrics: Metrics) -> bytes:
    """What `facts`, the status, and `metrics` say. What the status doesn't know now is left out."""
    registry = CollectorRegistry()
    registry.register(_Collected([*_counters(metrics), _histogram(metrics.latency), *_gauges(facts, metrics)]))
    ProcessCollector(registry=registry)
    return bytes(generate_latest(registry))


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        return self._families


def _counters(metrics: Metrics) -> Iterator[Metric]:
    for counter in metrics.all():
        family = CounterMetricFamily(counter.name, counter.help, labels=[counter.label] if counter.label else [])
        values = counter.values if counter.label else {"": counter.total()}
        for label, value in values.items():
            family.add_metric([label] if counter.label else [], value)
        yield family


def _histogram(histogram: Histogram) -> Metric:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    up_to = map(float, accumulate(histogram.counts))  # how many came up to each bound
    buckets = list(zip(bounds, up_to, strict=True))
    return HistogramMetricFamily(histogram.name, histogram.help, buckets=buckets, sum_value=histogram.sum)


def _gauges(facts: Facts, metrics: Metrics) -> Iterator[Metric]:
    yield _gauge("edgeq_build_info", "Always 1; what runs.", {(facts["version"],): 1}, "version")
    yield _gauge("edgeq_start_time_seconds", "When edgeq was started, since 1970 UTC.", {(): facts["started_at"] / 1e6})
    if (synchronised := facts["clock"]["synchronised"]) is not None:
        yield _gauge("edgeq_clock_synchronised", "1 when the clock was set right by NTP.", {(): synchronised})
    for gauge in metrics.gauges():
        yield _gauge(gauge.name, gauge.help, {(label,): value for label, value in gauge.values.items()}, gauge.label)
    yield from _session(facts.get("session"))
    yield from _store(facts["store"])
    yield from _backup(facts.get("backup"))
    yield from _processors(facts.get("processors", ()))
    yield from _jobs(facts.get("jobs", ()), facts.get("workers", ()))
    states = {
        (each["contract"], state): count
        for each in facts.get("contracts", ())
        for state, count in each.items()
        if state in ("ok", "pending", "violated", "unknown", "suppressed")
    }
    yield _gauge("edgeq_contract_subjects", "Subjects of a contract, by state.", states, "contract", "state")
    letters = {(each["source"], each["reason"]): each["count"] for each in facts.get("dead_letters", ())}
    yield _gauge("edgeq_dead_letters_open", "Dead letters that nobody has redriven.", letters, "source", "reason")


def _session(session: Facts | None) -> Iterator[Metric]:
    if session is None:
        return
    up = session["state"] == "connected"
    yield _gauge("edgeq_session_up", "1 with a session to the broker, and subscriptions there.", {(): up})
    yield _gauge("edgeq_inbox_messages", "Messages that were read, and wait to be handled.", {(): session["waiting"]})
    yield _gauge(
        "edgeq_messages_in_flight", "Messages that are handled, and not acknowledged.", {(): session["in_flight"]}
    )
    if session["last_message_at"]:
        at = session["last_message_at"] / 1e6
        yield _gauge("edgeq_last_message_timestamp_seconds", "When the last message came, since 1970 UTC.", {(): at})


def _store(store: Facts) -> Iterator[Metric]:
    yield _gauge("edgeq_store_up", "1 when the store takes commits.", {(): store["ok"]})
    for key, name, text in (
        ("head", "edgeq_store_head_event_id", "The highest id of an event."),
        ("file_bytes", "edgeq_store_file_bytes", "The database file."),
        ("wal_bytes", "edgeq_store_wal_bytes", "The write-ahead log beside the database file."),
        ("free_disk_bytes", "edgeq_disk_free_bytes", "Free on the disk of the database file."),
        ("disk_bytes", "edgeq_disk_size_bytes", "All of the disk of the database file."),
    ):
        if key in store:
            yield _gauge(name, text, {(): store[key]})


def _backup(backup: Facts | None) -> Iterator[Metric]:
    if backup is None:
        return
    yield _gauge("edgeq_backup_failing", "1 when the last backup failed.", {(): backup["last_error"] is not None})
    if backup["last_success_at"] is not None:
        at = backup["last_success_at"] / 1e6
        yield _gauge("edgeq_backup_timestamp_seconds", "When the newest backup was made, since 1970 UTC.", {(): at})


def _processors(processors: Iterable[Facts]) -> Iterator[Metric]:
    configured = [each for each in processors if each["state"] != "not configured"]
    for name, text, value in (
        ("edgeq_processor_lag_events", "Events that it has not read yet.", lambda each: each["lag_events"]),
        ("edgeq_processor_lag_seconds", "How long the first of these waits.", lambda each: each["lag_seconds"]),
        ("edgeq_processor_last_consumed_id", "How far it is.", lambda each: each["last_consumed_id"]),
        (
            "edgeq_processor_paused",
            "1 when it is paused or halted.",
            lambda each: each["state"] in ("paused", "halted"),
        ),
        ("edgeq_processor_failing", "1 when it is stuck at an event.", lambda each: each["attempt"] > 0),
    ):
        yield _gauge(name, text, {(each["name"],): value(each) for each in configured}, "processor")


def _jobs(queues: Iterable[Facts], workers: Iterable[Facts]) -> Iterator[Metric]:
    known = list(queues)
    counts = {
        (each["queue"], state): each[state]
        for each in known
        for state in ("ready", "blocked", "scheduled", "retryable", "executing", "completed", "cancelled", "dead")
    }
    yield _gauge(
        "edgeq_queue_jobs", "Jobs in the store, by what they wait for or how they ended.", counts, "queue", "state"
    )
    oldest = {(each["queue"],): each["oldest_ready_seconds"] for each in known}
    yield _gauge("edgeq_queue_oldest_ready_seconds", "How long the oldest job that is due waits.", oldest, "queue")
    yield _gauge(
        "edgeq_queue_paused", "1 when it is paused.", {(each["queue"],): each["paused"] for each in known}, "queue"
    )
    running = {(each["queue"],): each["running"] for each in workers}
    yield _gauge("edgeq_worker_jobs", "Jobs that this process runs.", running, "queue")


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for given, value in values.items():
        family.add_metric(list(given), float(value))
    return family
