"""An hour of trouble is a handful of lines in the log, whatever the trouble is.

Time passes so many times as fast for edgeq; the broker and the disk are real.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.benches import BENCHES
from support.mosquitto import Mosquitto, Peer, free_port
from support.power import Disk, NoDiskError

HURRY = 120
HOUR = 3600
STEP = 30  # seconds of edgeq's time between two looks
CONFIGURATION = """\
gateway: calm
mqtt: {{url: "{url}"}}
store: {{url: {database}}}
routes: [{{topic: "sensors/{{device}}", emit: reading, subject: "{{device}}"}}]
contracts: [{{name: reports, kind: absence, of: reading, every: 10m}}]
notifications: {{routes: [{{channels: [back]}}]}}
channels: {{back: {{kind: mqtt, topic: told}}}}
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Callable[..., Appliance]]:
    """Makes an appliance with this broker, and the database in this folder."""
    with ExitStack() as stack:

        def make(url: str, folder: Path) -> Appliance:
            database = folder / "edgeq.db"
            edgeq = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=url, database=database))
            edgeq.database = database
            edgeq.command = (sys.executable, str(BENCHES / "hurried"), str(HURRY), "run")
            stack.callback(edgeq.kill)
            return edgeq

        yield make


class Hours:
    """How many have passed for edgeq since this was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __mul__(self, lines: int) -> float:
        """How many lines may be logged meanwhile, of so many in an hour: on a busy machine an hour takes longer."""
        return lines * max(1.0, (time.monotonic() - self._began) * HURRY / HOUR)


def an_hour(each_step: Callable[[int], object] = lambda step: None) -> None:
    """Let an hour pass for edgeq; something may happen every so often."""
    began = time.monotonic()
    for step in range(HOUR // STEP):
        each_step(step)
        time.sleep(max(0.0, began + (step + 1) * STEP / HURRY - time.monotonic()))


def lines(edgeq: Appliance) -> int:
    """How many it has logged."""
    return len(edgeq.log.splitlines())


def test_an_hour_without_a_broker(hurried: Callable[..., Appliance], tmp_path: Path) -> None:
    edgeq = hurried(f"mqtt://127.0.0.1:{free_port()}", tmp_path)
    edgeq.spawn()
    edgeq.until(lambda: "nothing listens" in edgeq.log, "the first attempt")
    before, hours = lines(edgeq), Hours()
    an_hour()
    tried = edgeq.status()["counters"]["edgeq_mqtt_connects_total"]
    assert sum(tried.values()) > 20
    assert lines(edgeq) - before <= hours * 16, edgeq.log


def test_an_hour_of_poison(hurried: Callable[..., Appliance], broker: Mosquitto, tmp_path: Path) -> None:
    edgeq = hurried(broker.url, tmp_path)
    edgeq.start()
    before, hours = lines(edgeq), Hours()
    with Peer(broker.port) as peer:
        an_hour(lambda step: peer.publish_many([(f"sensors/{n}", f"poison {step} {n}") for n in range(STEP)]))
    edgeq.until(lambda: edgeq.sql("SELECT count(*) FROM dead_letters") == [(HOUR,)], "all dead letters")
    assert 1 < lines(edgeq) - before <= hours * 75, edgeq.log  # once a minute


def test_an_hour_with_a_full_disk(hurried: Callable[..., Appliance], broker: Mosquitto, tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(tmp_path))
        except NoDiskError as error:
            pytest.skip(str(error))
        edgeq = hurried(broker.url, disk.folder)
        stack.callback(edgeq.kill)  # before the disk goes
        edgeq.start()
        with Peer(broker.port) as peer:
            peer.publish("sensors/1", '{"value": 0}')
            edgeq.until(lambda: edgeq.sql("SELECT count(*) FROM events WHERE type = 'reading'") == [(1,)], "the first")
            fill(disk.folder / "theirs")
            before, hours = lines(edgeq), Hours()
            an_hour(lambda step: peer.publish("sensors/1", f'{{"value": {step}, "pad": "{"x" * 100_000}"}}'))
            assert edgeq.status()["store"]["ok"] is False
            said, most = lines(edgeq) - before, hours * 20
            (disk.folder / "theirs").unlink()
            count = "SELECT count(*) FROM events WHERE type = 'reading'"
            edgeq.until(lambda: edgeq.sql(count) == [(1 + HOUR // STEP,)], "all that came meanwhile", seconds=60)
        assert 1 <= said <= most, edgeq.log


def fill(path: Path) -> None:
    """Fill the disk to its last block."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue
