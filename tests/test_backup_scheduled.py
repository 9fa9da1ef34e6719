"""`store.backup`: made when it is time, said when it can't be."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto

from edgeq.config.load import load
from edgeq.config.schema import Backup
from edgeq.errors import ConfigError
from edgeq.events import Event
from edgeq.store import events
from edgeq.store.sqlite import SqliteStore
from edgeq.store.sqlite.backup import backups, file_name
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock
from edgeq.units import Duration
from edgeq.upkeep.backup import BackupMaker

DAY = 86_400
HOUR = 3600.0


class Bench:
    """A store, a folder for backups, and the service, of which each look is called for."""

    def __init__(self, folder: Path, store: SqliteStore, clock: FakeClock) -> None:
        self.folder, self.store, self.clock = folder / "backups", store, clock
        self.folder.mkdir()
        self.metrics = Metrics()
        self.service = self.make()

    def make(self, keep: int = 2) -> BackupMaker:
        """The service as after another start."""
        settings = Backup(str(self.folder), every=Duration(DAY), keep=keep)
        return BackupMaker(settings, self.store, "g", self.metrics, self.clock)

    def made(self) -> list[int]:
        """When backups were made."""
        return [moment for moment, _ in backups(str(self.folder), "g")]

    async def told(self) -> list[Event]:
        """The events of failures."""
        return [event for event in await events.after(self.store, 0, 100) if event.type == "edgeq.backup_failed"]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = FakeClock()
    store = SqliteStore(str(tmp_path / "edgeq.db"), metrics=Metrics(), clock=clock)
    await store.open()
    yield Bench(tmp_path, store, clock)
    await store.close()


async def test_one_is_made_at_once_and_the_next_when_it_is_time(bench: Bench) -> None:
    assert await bench.service.look() == DAY
    first = bench.clock.now()
    bench.clock.advance(HOUR)
    assert await bench.service.look() == pytest.approx(DAY - HOUR)
    assert bench.made() == [first]
    bench.clock.advance(DAY - HOUR)
    await bench.service.look()
    assert bench.made() == [first, bench.clock.now()]
    assert bench.service.last_success_at == bench.clock.now()
    assert bench.metrics.backups.values == {"made": 2}


async def test_another_start_makes_none_before_it_is_time(bench: Bench) -> None:
    await bench.service.look()
    bench.clock.advance(HOUR)
    again = bench.make()
    assert await again.look() == pytest.approx(DAY - HOUR)
    assert again.last_success_at == bench.made()[0]


async def test_only_so_many_are_kept(bench: Bench) -> None:
    for _ in range(4):
        await bench.service.look()
        bench.clock.advance(DAY)
    assert len(bench.made()) == 2
    assert bench.made()[-1] == bench.clock.now() - DAY * 10**6


async def test_a_failure_is_told_of_once_until_one_is_made_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.service.look()
    made = bench.made()
    bench.clock.advance(DAY)
    bench.folder.rename(bench.folder.with_name("away"))
    waits = [await bench.service.look() for _ in range(4)]
    assert max(waits) <= HOUR
    assert bench.service.last_error is not None
    assert "can't be written" in bench.service.last_error
    assert bench.service.last_success_at == made[0]
    (event,) = await bench.told()
    assert (event.tags, event.subject) == (("notification",), "g")
    assert event.data["severity"] == "warning"
    assert event.data["last_success_at"] == made[0]
    assert caplog.text.count("trying again") == 1
    bench.folder.with_name("away").rename(bench.folder)
    await bench.service.look()
    assert bench.service.last_error is None, "it was made"
    assert len(bench.made()) == 2
    bench.folder.rename(bench.folder.with_name("away"))
    bench.clock.advance(DAY)
    await bench.service.look()
    assert len(await bench.told()) == 2
    assert bench.metrics.backups.values == {"made": 2, "failed": 5}


async def test_a_machine_without_a_clock_makes_none(bench: Bench) -> None:
    bench.clock.step(-bench.clock.now() / 10**6)
    assert await bench.service.look() > 0
    assert bench.made() == []


async def test_one_from_the_future_keeps_none_from_being_made_and_goes_first(bench: Bench) -> None:
    wrong = bench.folder / file_name("g", bench.clock.now() + 10**15)
    wrong.touch()
    await bench.service.look()
    assert len(bench.made()) == 2
    bench.clock.advance(DAY)
    await bench.service.look()
    assert wrong.name not in await asyncio.to_thread(os.listdir, bench.folder)
    assert len(bench.made()) == 2


async def test_stopped_in_the_midst_of_one_it_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch(doing: str, done: int, total: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        while not service.stopping.is_set():
            pass
        BackupMaker._unless_stopping(service, doing, done, total)

    service = bench.service
    monkeypatch.setattr(service, "_unless_stopping", watch)
    await service.start()
    await begun.wait()
    await service.stop(60.0)
    assert await asyncio.to_thread(os.listdir, bench.folder) == []
    assert (service.last_error, await bench.told()) == (None, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store: {backup: {}}", "to"),
        ("store: {backup: {to: x, every: 10s}}", "every"),
        ("store: {backup: {to: x, keep: 0}}", "keep"),
        (
            "store: {url: 'postgresql://h/d', backup: {to: x}}",
            "is for SQLite; a database on a server is backed up there",
        ),
    ],
)
def test_what_the_configuration_refuses(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "edgeq.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "edgeq.yaml"), environ={})
    assert said in str(caught.value)


def test_the_folder_is_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text("store: {backup: {to: kept}}")
    assert load(str(tmp_path / "edgeq.yaml"), environ={}).config.store.backup == Backup(str(tmp_path / "kept"))


def test_a_running_appliance_makes_one_and_says_so(tmp_path: Path, broker: Mosquitto) -> None:
    edgeq = Appliance(
        tmp_path, f"gateway: gw\nmqtt: {{url: '{broker.url}'}}\nstore: {{backup: {{to: kept}}}}\nroutes: []\n"
    )
    (tmp_path / "kept").mkdir()
    edgeq.start()
    try:
        edgeq.until(lambda: backups(str(tmp_path / "kept"), "gw"), "a backup")
        edgeq.until(lambda: edgeq.status()["backup"]["last_success_at"], "the status to say so")
        assert "backup        made " in edgeq.cli("status").stdout
        assert json.loads(edgeq.cli("status", "--json").stdout)["backup"]["last_error"] is None
    finally:
        assert edgeq.stop() == 0
