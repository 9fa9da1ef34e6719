"""Health, readiness, metrics and the samples of the last quarter of an hour."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.interface import Interface
from support.stores import Database, SqliteDatabase

from edgeq.events import NewEvent
from edgeq.mqtt.session import State
from edgeq.status import places
from edgeq.store import cursors, events, jobs
from edgeq.store.jobs import NewJob
from edgeq.store.store import Health
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock
from edgeq.testing.clock import NOON
from edgeq.web.history import SAMPLES, SECONDS, History

CONFIGURATION = "contracts: [{name: cold, kind: threshold, of: reading, field: value, above: 10}]\n"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Interface]:
    async with SqliteDatabase(tmp_path).opened() as store, Interface(tmp_path, store, CONFIGURATION) as made:
        yield made


async def test_health_is_that_the_process_gets_on(web: Interface) -> None:
    assert await web.get("/health") == {"ok": True}
    web.session.state = State.DISCONNECTED
    assert await web.get("/health") == {"ok": True}
    web.gets_on = False
    assert "none gets on" in (await web.get("/health", 503))["error"]


async def test_ready_says_what_is_missing(web: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await web.get("/ready") == {"ready": True}
    web.session.state, web.session.reason = State.DISCONNECTED, "nothing listens there"
    assert (await web.get("/ready", 503))["error"] == "session: disconnected (nothing listens there)"
    monkeypatch.setattr(type(web.store), "health", Health(False, "the disk is full"))
    assert (await web.get("/ready", 503))["error"].endswith("; store: the disk is full")


async def test_metrics_are_named_by_the_rules(web: Interface) -> None:
    answer = await web.ask("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.said))
    assert len({family.name for family in families}) == len(families) > 40
    for family in families:
        assert re.fullmatch(r"(edgeq|process)_[a-z][a-z0-9_]*", family.name)
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not re.search(r"milli|micro|_ms|minutes|hours|kilo|mega|percent|_count$|_sum$", family.name), family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample
    typed = re.findall(r"^# TYPE (\S+) (\S+)$", answer.said, re.MULTILINE)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in typed)


async def test_metrics_say_how_it_stands(web: Interface) -> None:
    web.metrics.received.add(7)
    web.metrics.routed.add(3, "sensors/{device}/#")
    web.metrics.latency.observe_since([NOON, NOON + 20_000], NOON + 22_000)
    await web.store.write(lambda tx: cursors.take(tx, "sentinel", "latest", NOON))
    await web.store.write(lambda tx: events.append(tx, [NewEvent("a", NOON, NOON)]))
    await web.store.write(lambda tx: jobs.add(tx, [NewJob(queue="default", kind="m:Job", args="{}")]))
    text = (await web.ask("GET", "/metrics")).said
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found[("edgeq_messages_received_total",)] == 7
    assert found[("edgeq_messages_routed_total", "sensors/{device}/#")] == 3
    assert found[("edgeq_ack_latency_seconds_count",)] == 2
    assert found[("edgeq_ack_latency_seconds_bucket", "0.0025")] == 1
    assert found[("edgeq_ack_latency_seconds_bucket", "0.025")] == 2
    assert found[("edgeq_ack_latency_seconds_sum",)] == pytest.approx(0.024)
    assert found[("edgeq_session_up",)] == found[("edgeq_store_up",)] == 1
    assert found[("edgeq_processor_lag_events", "sentinel")] == 1
    assert found[("edgeq_queue_jobs", "default", "ready")] == 1
    assert found[("process_resident_memory_bytes",)] > 10_000_000
    for name in ("edgeq_store_wal_bytes", "edgeq_disk_free_bytes"):
        assert found[(name,)] > 0


# Samples


async def test_samples_tell_of_the_last_quarter_of_an_hour(tmp_path: Path) -> None:
    clock, metrics = FakeClock(), Metrics()
    async with SqliteDatabase(tmp_path).opened() as store:
        history = History(store, metrics, clock)
        await store.write(lambda tx: cursors.take(tx, "courier", "latest", NOON))
        for number in range(3):
            clock.advance(SECONDS)
            metrics.received.add(50 * number)
            metrics.latency.observe_since([clock.now() - 1000 * number] * number or [clock.now()], clock.now())
            await store.write(lambda tx: events.append(tx, [NewEvent("a", NOON, NOON)]))
            await history.sample()
        clock.advance(SECONDS)
        await history.sample()
        found = history.columns()
        assert found["at"] == [NOON + SECONDS * 1_000_000 * n for n in (1, 2, 3, 4)]
        assert found["messages_per_second"] == [0, 10, 20, 0]
        assert found["latency_ms"] == [0, 1, 2, None]
        assert found["lag"] == {"courier": [1, 2, 3, 3]}
        for _ in range(SAMPLES):
            clock.advance(SECONDS)
            await history.sample()
        assert {len(found) for found in (history.columns()["at"], history.columns()["lag"]["courier"])} == {SAMPLES}


async def test_health_looks_at_no_token_however_wrong(web: Interface) -> None:
    for _ in range(20):
        assert (await web.ask("GET", "/health", Authorization="Bearer wrong")).status == 200
    assert (await web.ask("GET", "/ready", Authorization="Bearer wrong")).status in (401, 403)


async def test_a_processor_that_runs_here_lags_behind_from_where_it_is(database: Database) -> None:
    positions = {"courier": 2, "of an older history": 9}
    async with database.opened() as store:
        for name in ("courier", "elsewhere"):
            await store.write(lambda tx, name=name: cursors.take(tx, name, "latest", NOON))  # type: ignore[misc]
        await store.write(lambda tx: events.append(tx, [NewEvent("a", NOON, NOON)] * 3))
        history = History(store, Metrics(), FakeClock(), lambda: positions)
        await history.sample()
        assert history.columns()["lag"] == {"courier": [1], "elsewhere": [3]}
        told = await places(store, NOON + 1_000_000, ["courier", "elsewhere"], positions)
    assert [(each["name"], each["last_consumed_id"], each["lag_events"], each["lag_seconds"]) for each in told] == [
        ("courier", 0, 1, 1.0),
        ("elsewhere", 0, 3, 1.0),
    ]


async def test_idle_samples_look_at_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SqliteDatabase(tmp_path).opened() as store:
        history = History(store, Metrics(), FakeClock())
        await history.sample()
        monkeypatch.setattr(store, "read", None)
        await history.sample()
        assert len(history.columns()["at"]) == 2
