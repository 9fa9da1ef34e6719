"""What a running appliance tells systemd, and when systemd would kill it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import DEADLINE_SECONDS, Appliance
from support.manager import WATCHDOG_SECONDS, Manager
from support.mosquitto import Mosquitto, Peer

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db}}
app: {{path: ., modules: [app]}}
routes:
  - {{topic: "a/{{n}}", emit: a}}
  - {{topic: "slow/{{n}}", controller: app:slow, timeout: 1m}}
  - {{topic: "hangs/{{n}}", controller: app:hangs, timeout: 1m}}
"""

APP = """\
import asyncio, time
from pathlib import Path

async def slow(ctx, n):
    Path("began").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    ctx.emit("done", subject=n)

async def hangs(ctx, n):
    Path("began").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    ctx.emit("done", subject=n)
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url))
    (made.folder / "app.py").write_text(APP)
    yield made
    made.kill()


def test_systemd_is_told_of_every_turn(edgeq: Appliance, manager: Manager) -> None:
    edgeq.spawn(**manager.environment)
    assert "STATUS=broker: connected; 0 messages received" in manager.until("READY=1")
    edgeq.send(signal.SIGHUP)
    (*_, reloading) = manager.until("RELOADING=1")
    stamp = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
    assert stamp is not None
    assert 0 <= time.monotonic_ns() // 1000 - int(stamp[1]) < DEADLINE_SECONDS * 1e6, (
        "by the clock that systemd goes by"
    )
    manager.until("READY=1")
    manager.drain()
    manager.until("WATCHDOG=1")
    edgeq.send(signal.SIGTERM)
    manager.until("STOPPING=1")
    assert edgeq.ended() == 0


def test_a_configuration_that_is_not_taken_is_no_reload(edgeq: Appliance, manager: Manager) -> None:
    edgeq.spawn(**manager.environment)
    manager.until("STATUS=broker: connected; ")
    edgeq.configure("gatewy: x\n")
    edgeq.send(signal.SIGHUP)
    edgeq.until(lambda: "the one in use stays" in edgeq.log, "the refusal")
    edgeq.send(signal.SIGTERM)
    assert not [message for message in manager.until("STOPPING=1") if message.startswith("RELOADING")]
    assert edgeq.ended() == 0


def test_a_hung_event_loop_is_not_alive(edgeq: Appliance, broker: Mosquitto, manager: Manager) -> None:
    edgeq.spawn(**manager.environment)
    manager.until("STATUS=broker: connected; ")
    with Peer(broker.port) as peer:
        peer.publish("hangs/1", "{}")
        edgeq.until((edgeq.folder / "began").exists, "the controller to hang")
        manager.drain()
        assert manager.hear(1.5 * WATCHDOG_SECONDS) == "", "systemd must see that nothing moves"
        (edgeq.folder / "go").touch()
        manager.until("WATCHDOG=1")
    assert edgeq.stop() == 0


def test_a_controller_that_takes_its_time_is_no_reason_to_kill_it(
    edgeq: Appliance, broker: Mosquitto, manager: Manager
) -> None:
    edgeq.spawn(**manager.environment)
    manager.until("STATUS=broker: connected; ")
    with Peer(broker.port) as peer:
        peer.publish("slow/1", "{}")
        edgeq.until((edgeq.folder / "began").exists, "the controller to begin")
        manager.drain()
        manager.until("WATCHDOG=1")
        manager.listen(1.5 * WATCHDOG_SECONDS)
        assert manager.gap < WATCHDOG_SECONDS, "systemd would have killed it"
        (edgeq.folder / "go").touch()
        edgeq.until(lambda: edgeq.sql("SELECT count(*) FROM events") == [(1,)], "the event")
    assert edgeq.stop() == 0


def test_a_store_that_waits_is_no_reason_to_kill_it(edgeq: Appliance, broker: Mosquitto, manager: Manager) -> None:
    edgeq.spawn(**manager.environment)
    manager.until("STATUS=broker: connected; ")
    with contextlib.closing(sqlite3.connect(edgeq.database, isolation_level=None)) as other, Peer(broker.port) as peer:
        other.execute("BEGIN EXCLUSIVE")
        peer.publish("a/1", "{}")
        edgeq.until(lambda: edgeq.status()["session"]["in_flight"] == 1, "the message")
        manager.drain()
        manager.until("WATCHDOG=1")
        manager.until("STATUS=store: the database is locked by another program")
        assert manager.gap < WATCHDOG_SECONDS, "systemd would have killed it"
        other.execute("ROLLBACK")
        manager.until("STATUS=broker: connected; ")
    assert edgeq.stop() == 0


def test_while_it_waits_for_its_store_the_boot_goes_on(edgeq: Appliance, manager: Manager) -> None:
    """systemd holds up whatever comes after a service until it is ready."""
    with contextlib.closing(sqlite3.connect(edgeq.database, isolation_level=None)) as other:
        other.execute("CREATE TABLE somebody_elses (x)")
        other.execute("BEGIN EXCLUSIVE")
        edgeq.spawn(**manager.environment)
        told = [message for message in manager.until("READY=1") if message.startswith("STATUS")]
        assert told[-1].startswith("STATUS=store: the database is locked"), "it says first what is missing"
        manager.drain()
        manager.until("WATCHDOG=1")
        other.execute("ROLLBACK")
        manager.until("STATUS=broker: connected; ")
    assert edgeq.stop() == 0


def test_a_boot_is_not_held_up_by_a_broker_that_is_away(
    edgeq: Appliance, mosquitto: Callable[..., Mosquitto], manager: Manager
) -> None:
    gone = mosquitto()
    gone.kill()
    edgeq.configure(CONFIGURATION.format(url=gone.url))
    edgeq.spawn(**manager.environment)
    told = [message for message in manager.until("READY=1") if message.startswith("STATUS")]
    assert told[-1].startswith("STATUS=broker: disconnected ("), "it says first what is missing"
    assert "not connected yet" not in told[-1]
    manager.drain()
    manager.until("WATCHDOG=1")
    manager.listen(1.5 * WATCHDOG_SECONDS)
    assert manager.gap < WATCHDOG_SECONDS, "systemd would have killed it"
    gone.start()
    manager.until("STATUS=broker: connected; ")
    assert edgeq.stop() == 0


def test_without_systemd_nothing_is_told(edgeq: Appliance) -> None:
    assert "NOTIFY_SOCKET" not in os.environ
    edgeq.start()
    assert edgeq.stop() == 0
    assert "systemd" not in edgeq.log
