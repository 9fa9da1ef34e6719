"""The whole appliance while its disk or its database fails it: nothing is acknowledged, nothing is lost, that is said
once, and it goes on by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer
from support.power import Disk, NoDiskError
from support.stores import Database

from edgeq.errors import StoreUnavailable
from edgeq.store import meta

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: disk/edgeq.db}}
routes:
  - {{topic: "a/{{n}}", emit: a}}
processors:
  courier: {{kind: courier}}
channels:
  screen: {{kind: log}}
"""
SAID = "the store can't take commits"
AGAIN = "the store takes commits again"


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto) -> Iterator[Appliance]:
    """An appliance that isn't started, with its database in the folder `disk`."""
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url))
    made.database = made.folder / "disk" / "edgeq.db"
    made.database.parent.mkdir()
    yield made
    made.kill()


@pytest.fixture
def disk(edgeq: Appliance) -> Iterator[Disk]:
    """A small disk of its own in that folder."""
    try:
        with Disk(edgeq.folder) as made:
            yield made
            edgeq.kill()
    except NoDiskError as error:
        pytest.skip(str(error))


def fill(disk: Disk) -> Path:
    """Have somebody else take all that is left on the disk; the file to delete."""
    filler = disk.folder / "somebody-elses"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return filler


def publish(broker: Mosquitto, first: int, count: int) -> None:
    with Peer(broker.port) as peer:
        peer.publish_many([(f"a/{n}", '{"text": "%s"}' % ("x" * 500)) for n in range(first, first + count)])


def numbers(edgeq: Appliance) -> list[int]:
    """The numbers of the messages that are events, in order."""
    rows = edgeq.sql("SELECT topic FROM events WHERE type = 'a' ORDER BY id")
    return [int(row[0].rpartition("/")[2]) for row in rows]


def reason(edgeq: Appliance) -> str:
    """Why the store takes no commits, as the running appliance says; empty when it does."""
    store = edgeq.status().get("store", {})
    return "" if store.get("ok", True) else str(store["reason"])


def acked(edgeq: Appliance) -> int:
    counters = edgeq.status()["counters"]["edgeq_messages_acked_total"]
    return int(counters.get("", 0))


def holds_back(edgeq: Appliance, broker: Mosquitto, trouble: str) -> None:
    """Fails unless it takes in messages without acknowledging them, and says why wherever one looks."""
    stored, done = numbers(edgeq), acked(edgeq)
    publish(broker, 1000, 200)
    edgeq.until(lambda: edgeq.status()["session"]["in_flight"] >= 200, "the messages to come in")
    edgeq.until(lambda: trouble in reason(edgeq), f"the reason: {trouble}")
    assert acked(edgeq) == done, "something was acknowledged that isn't stored"
    assert numbers(edgeq) == stored
    shown = edgeq.cli("status").stdout
    assert "takes no commits (for " in shown
    assert trouble in shown
    done_by_hand = edgeq.cli("processors", "list")
    assert done_by_hand.returncode == 0, done_by_hand.stderr  # looking goes on
    assert edgeq.log.count(SAID) == 1, edgeq.log
    assert "Traceback" not in edgeq.log


def goes_on(edgeq: Appliance, broker: Mosquitto) -> None:
    """Fails unless it went on by itself, with everything, once."""
    edgeq.until(lambda: len(numbers(edgeq)) >= 210, "what was held back", seconds=60)
    publish(broker, 10, 5)
    edgeq.until(lambda: len(numbers(edgeq)) >= 215, "the first messages of after")
    assert sorted(numbers(edgeq)) == [*range(15), *range(1000, 1200)]
    assert reason(edgeq) == ""
    assert edgeq.log.count(SAID) == edgeq.log.count(AGAIN) == 1, edgeq.log
    edgeq.until(lambda: edgeq.status()["session"]["in_flight"] == 0, "the last acknowledgement")
    assert edgeq.stop() == 0
    assert numbers_after_restart(edgeq) == 215, "all was acknowledged: nothing comes again"
    assert "Traceback" not in edgeq.log


def numbers_after_restart(edgeq: Appliance) -> int:
    edgeq.start()
    assert edgeq.stop() == 0
    return len(numbers(edgeq))


def begin(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    publish(broker, 0, 10)
    edgeq.until(lambda: len(numbers(edgeq)) == acked(edgeq) == 10, "the first messages")
    edgeq.until(lambda: broker.log.count("Received PUBACK from edgeq-gw") == 10, "the broker to know of it")


# While it runs


def test_a_full_disk_holds_everything_back_until_there_is_room(edgeq: Appliance, broker: Mosquitto, disk: Disk) -> None:
    begin(edgeq, broker)
    filler = fill(disk)
    holds_back(edgeq, broker, "the disk is full")
    filler.unlink()
    goes_on(edgeq, broker)


def test_a_database_that_may_not_be_written_holds_everything_back(
    edgeq: Appliance, broker: Mosquitto, disk: Disk
) -> None:
    begin(edgeq, broker)
    files = [f"{edgeq.database}{suffix}" for suffix in ("", "-wal")]
    subprocess.run(["chattr", "+i", *files], check=True)
    try:
        holds_back(edgeq, broker, "read-only")
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)
    goes_on(edgeq, broker)


def test_a_database_that_another_program_locks_holds_everything_back(edgeq: Appliance, broker: Mosquitto) -> None:
    begin(edgeq, broker)
    with contextlib.closing(sqlite3.connect(edgeq.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        holds_back(edgeq, broker, "the database is locked by another program")
        done = edgeq.cli("emit", "by.hand")
        assert done.returncode == 1
        reasons = "the database is locked by another program", "the store did not answer in time"  # on a busy machine
        assert done.stderr.startswith(tuple(f"edgeq: {each}" for each in reasons))
        other.execute("ROLLBACK")
    goes_on(edgeq, broker)
    assert edgeq.sql("SELECT count(*) FROM events WHERE type = 'by.hand'") == [(0,)], "what failed isn't done later"


async def test_what_was_told_to_have_failed_is_not_done_later(database: Database) -> None:
    async with database.opened() as store:
        with database.locked(), pytest.raises(StoreUnavailable):
            await store.write(lambda tx: meta.put(tx, "late", "1"), timeout_seconds=0.2)
        await store.write(lambda tx: meta.put(tx, "in time", "1"))
        assert await meta.get(store, "in time") == "1"
        assert await meta.get(store, "late") is None


def test_it_can_be_stopped_while_the_disk_is_full(edgeq: Appliance, broker: Mosquitto, disk: Disk) -> None:
    begin(edgeq, broker)
    filler = fill(disk)
    holds_back(edgeq, broker, "the disk is full")
    edgeq.send(signal.SIGTERM)
    assert edgeq.ended() == 0
    assert "Traceback" not in edgeq.log
    filler.unlink()
    edgeq.start()
    edgeq.until(lambda: len(numbers(edgeq)) == 210, "what the broker kept")
    assert sorted(numbers(edgeq)) == [*range(10), *range(1000, 1200)]
    assert edgeq.stop() == 0


# At the start


@pytest.mark.parametrize("fresh", [True, False], ids=["without a database", "with a database"])
def test_started_on_a_full_disk_it_waits_for_room(edgeq: Appliance, broker: Mosquitto, disk: Disk, fresh: bool) -> None:
    begin(edgeq, broker)
    edgeq.kill()
    if fresh:
        for path in disk.folder.glob("edgeq.db*"):
            path.unlink()
    filler = fill(disk)
    publish(broker, 10, 10)
    edgeq.spawn()
    edgeq.until(lambda: SAID in edgeq.log, "that it can't begin")
    assert edgeq.process is not None
    assert edgeq.process.poll() is None
    filler.unlink()
    expected = [*range(10, 20)] if fresh else [*range(20)]
    edgeq.until(lambda: numbers(edgeq) == expected, "what the broker kept")
    edgeq.until(lambda: AGAIN in edgeq.log, "that it takes commits")
    assert edgeq.log.count(SAID) == edgeq.log.count(AGAIN) == 1, edgeq.log
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


def test_started_on_a_disk_that_is_read_only_it_waits(edgeq: Appliance, broker: Mosquitto, disk: Disk) -> None:
    begin(edgeq, broker)
    assert edgeq.stop() == 0
    publish(broker, 10, 10)
    remount = ["mount", "-o", "remount,ro", str(disk.folder)]
    subprocess.run(remount, check=True)
    edgeq.spawn()
    edgeq.until(lambda: SAID in edgeq.log, "that it can't begin")
    assert "Read-only file system" in edgeq.log
    shown = edgeq.cli("status")
    assert shown.returncode == 0
    assert "look at the rights of the file and its folder, and at the space left on the disk" in shown.stdout
    remount[2] = "remount,rw"
    subprocess.run(remount, check=True)
    edgeq.until(lambda: numbers(edgeq) == [*range(20)], "what the broker kept")
    assert edgeq.status()["running"], "it can be asked now"
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


def test_while_it_waits_for_its_disk_it_can_be_asked_and_stopped(
    edgeq: Appliance, broker: Mosquitto, disk: Disk
) -> None:
    begin(edgeq, broker)
    assert edgeq.stop() == 0
    fill(disk)
    edgeq.spawn()
    edgeq.until(lambda: SAID in edgeq.log, "that it can't begin")
    edgeq.until(lambda: edgeq.status()["running"], "an answer")
    assert reason(edgeq) != ""
    assert "takes no commits" in edgeq.cli("status").stdout
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


def test_a_folder_that_may_not_be_written_to_ends_it_and_says_so(edgeq: Appliance, disk: Disk) -> None:
    subprocess.run(["chattr", "+i", str(disk.folder)], check=True)
    try:
        done = edgeq.cli("run")
    finally:
        subprocess.run(["chattr", "-i", str(disk.folder)], check=True)
    assert done.returncode == 1
    assert "can't write beside the database: [Errno 1] Operation not permitted" in done.stderr
    assert "look at the rights of the folder" in done.stderr
    assert "Traceback" not in done.stderr


# Damage


def damage(path: Path) -> None:
    """Overwrite everything but the first page."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def test_a_damaged_database_is_put_aside_and_told_loudly(edgeq: Appliance, broker: Mosquitto) -> None:
    begin(edgeq, broker)
    assert edgeq.stop() == 0
    damage(edgeq.database)
    publish(broker, 10, 10)
    edgeq.start()
    edgeq.until(lambda: numbers(edgeq) == [*range(10, 20)], "what the broker kept")
    (aside,) = edgeq.database.parent.glob("edgeq.db.damaged-*Z")
    (line,) = [line for line in edgeq.log.splitlines() if f"{edgeq.database} is damaged (" in line]
    assert "ERROR" in line
    assert str(aside) in line
    ((data, tags),) = edgeq.sql("SELECT data, tags FROM events WHERE type = 'edgeq.store_damaged'")
    assert tags == '["notification"]'
    assert str(aside) in data
    edgeq.until(lambda: edgeq.sql("SELECT state FROM notifications") == [("sent",)], "the notification of it")
    assert "edgeq.notification" in edgeq.log
    assert edgeq.stop() == 0
    edgeq.start()
    assert edgeq.stop() == 0
    assert edgeq.log.count(f"{edgeq.database} is damaged (") == 1, "the fresh one is whole"


def test_damage_that_shows_while_it_runs_ends_it_and_the_next_start_puts_it_right(
    edgeq: Appliance, broker: Mosquitto
) -> None:
    begin(edgeq, broker)
    # What is in the log hides the file. That the courier moves its cursor may take a while on a slow disk.
    with contextlib.closing(sqlite3.connect(edgeq.database, timeout=60)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    damage(edgeq.database)
    with Peer(broker.port) as peer:
        assert edgeq.process is not None
        for n in range(10, 500):
            if edgeq.process.poll() is not None:
                break
            peer.publish(f"a/{n}", "{}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                edgeq.process.wait(0.1)
    assert edgeq.ended() == 1
    assert f"edgeq: {edgeq.database} is damaged; it is put aside at the next start" in edgeq.log
    assert "Traceback" not in edgeq.log
    edgeq.start()
    assert len(list(edgeq.database.parent.glob("edgeq.db.damaged-*Z"))) == 1
    publish(broker, 1000, 1)
    edgeq.until(lambda: 1000 in numbers(edgeq), "a new event")
    assert edgeq.stop() == 0
