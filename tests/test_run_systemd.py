"""What a running appliance tells systemd, and when systemd would kill it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import DEADLINE_SECONDS, Appliance
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

WATCHDOG_SECONDS = 4.0


class Manager:
    """Listens in systemd's place. `gap` is the longest time that passed without a sign of life, in seconds."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1e6))}
        self.gap = 0.0
        self._alive_at: float | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hear(self, seconds: float = DEADLINE_SECONDS) -> str:
        """The next message; empty when none comes in that time."""
        self._socket.settimeout(seconds)
        try:
            message = self._socket.recv(65536).decode()
        except TimeoutError:
            message = ""
        now = time.monotonic()
        if self._alive_at is not None:
            self.gap = max(self.gap, now - self._alive_at)
        if message == "WATCHDOG=1":
            self._alive_at = now
        return message

    def until(self, beginning: str) -> list[str]:
        """All messages up to the first that begins so."""
        heard = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not heard or not heard[-1].startswith(beginning):
            assert time.monotonic() < deadline, f"no {beginning} in {heard}"
            heard.append(self.hear())
        return heard

    def listen(self, seconds: float) -> None:
        """Hear whatever comes in that time."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            self.hear(rest)

    def drain(self) -> None:
        """Forget what has been said up to now."""
        while self.hear(0.001):
            pass
        self.gap, self._alive_at = 0.0, None

    def close(self) -> None:
        self._socket.close()


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
    manager.until("READY=1")
    manager.until("STATUS=broker: connected; ")
    edgeq.send(signal.SIGHUP)
    (*_, reloading) = manager.until("RELOADING=1")
    stamp = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
    assert stamp is not None
    assert 0 <= time.monotonic_ns() // 1000 - int(stamp[1]) < DEADLINE_SECONDS * 1e6, (
        "by the clock that systemd goes by"
    )
    manager.until("READY=1")
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
        manager.until("READY=1")
        manager.until("STATUS=store: the database is locked")
        manager.until("WATCHDOG=1")
        other.execute("ROLLBACK")
        manager.until("STATUS=broker: connected; ")
    assert edgeq.stop() == 0


def test_without_systemd_nothing_is_told(edgeq: Appliance) -> None:
    assert "NOTIFY_SOCKET" not in os.environ
    edgeq.start()
    assert edgeq.stop() == 0
    assert "systemd" not in edgeq.log
