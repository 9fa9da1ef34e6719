"""The dead-man ping: asked while all is well, and only then."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto
from support.stores import Database
from support.targets import Answer, HttpTarget, closing, until

from edgeq.config.load import load
from edgeq.config.schema import Heartbeat as Settings
from edgeq.errors import ConfigError
from edgeq.notifications import heartbeat as module
from edgeq.notifications.heartbeat import Heartbeat
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON, FakeClock
from edgeq.units import Duration


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with database.opened(clock=FakeClock()) as store:
        yield store


def heart(store: Store, settings: Settings | str, metrics: Metrics | None = None) -> Heartbeat:
    return Heartbeat(settings, store, metrics or Metrics(), FakeClock())


async def test_the_address_is_asked_for_every_so_often(store: Store, target: HttpTarget) -> None:
    metrics = Metrics()
    beating = heart(store, Settings(target.url, Duration(60)), metrics)
    assert await beating.beat() == 60
    assert (target.requests[0].method, target.requests[0].path, target.requests[0].body) == ("GET", "/hook", b"")
    assert beating.last_success_at == NOON
    assert beating.last_error is None
    assert metrics.heartbeats.values == {"sent": 1}
    assert await heart(store, target.url).beat() == 300


async def test_an_outage_is_logged_once_and_so_is_its_end(
    store: Store, target: HttpTarget, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edgeq.heartbeat")
    metrics = Metrics()
    beating = heart(store, Settings(target.url, Duration(10)), metrics)
    target.answers.extend([Answer(500, body=b""), Answer(404, body=b""), Answer(way="cut"), Answer(302)])
    for _ in range(4):
        assert 0 < await beating.beat() <= 10, "it is asked for sooner, so that one lost packet isn't taken for death"
    assert beating.last_error == "302 Found: redirects aren't followed"
    assert beating.last_success_at is None
    await beating.beat()
    await beating.beat()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "was not answered: 500 Internal Server Error; trying again"),
        ("INFO", "was answered again, after 4 failures"),
    ]
    assert beating.last_error is None
    assert metrics.heartbeats.values == {"failed": 4, "sent": 2}


async def test_a_redirect_is_not_followed(store: Store, target: HttpTarget) -> None:
    target.answers.append(Answer(307, (("Location", "/portal"),)))
    beating = heart(store, target.url)
    await beating.beat()
    assert len(target.requests) == 1
    assert beating.last_success_at is None


async def test_nothing_is_asked_while_the_store_takes_no_commits(
    database: Database, store: Store, target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    metrics = Metrics()
    beating = heart(store, target.url, metrics)
    with database.locked():
        assert await beating.beat() <= 60
    assert not target.requests
    assert "the store takes no commits" in (beating.last_error or "")
    assert metrics.heartbeats.values == {"withheld": 1}
    monkeypatch.undo()
    await beating.beat()
    assert len(target.requests) == 1


async def test_it_writes_nothing(database: Database, store: Store, target: HttpTarget) -> None:
    beating = heart(store, target.url)
    await beating.beat()
    before = database.written()
    await beating.beat()
    assert database.written() == before


async def test_it_ends_at_once_though_the_target_hangs(store: Store, target: HttpTarget) -> None:
    target.answers.append(Answer(way="hang"))
    beating = heart(store, target.url)
    await beating.start()
    await until(lambda: target.requests)
    await beating.stop(grace_seconds=5)
    assert beating.crashes == 0
    assert beating.last_success_at is None


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("ftp://example.net/", "notifications.heartbeat"),
        ("{url: example.net}", "notifications.heartbeat.url"),
        ("{url: 'https://example.net/', every: 1s}", "notifications.heartbeat.every"),
        ("{every: 5m}", "notifications.heartbeat.url"),
    ],
)
def test_a_wrong_address_is_an_error_of_the_configuration(tmp_path: Path, words: str, path: str) -> None:
    file = tmp_path / "edgeq.yaml"
    file.write_text(f"notifications:\n  heartbeat: {words}\n")
    with pytest.raises(ConfigError) as caught:
        load(str(file), environ={})
    assert [problem.path for problem in caught.value.problems] == [path]


def test_an_appliance_beats_and_says_so(
    tmp_path: Path, target: HttpTarget, mosquitto: Callable[..., Mosquitto]
) -> None:
    lines = f'mqtt: {{url: "{mosquitto().url}"}}\nnotifications: {{heartbeat: "{target.url}/s3cret-path"}}\n'
    edgeq = Appliance(tmp_path / "a", lines)
    try:
        edgeq.start()
        edgeq.until(lambda: edgeq.status().get("heartbeat", {}).get("last_success_at"), "a ping that was answered")
        assert target.requests[0].path == "/hook/s3cret-path"
        assert edgeq.status()["counters"]["edgeq_heartbeats_total"] == {"sent": 1}
        assert "heartbeat     answered " in edgeq.cli("status").stdout
        assert edgeq.stop() == 0
        assert "s3cret-path" not in edgeq.log
    finally:
        edgeq.kill()
