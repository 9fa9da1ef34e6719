"""The power is cut while an appliance does all that it does: intake, jobs, contracts, notifications, and meanwhile old
events are deleted, the file is made smaller, or a backup is made.

After each cut the database is whole, what a cut may not take is there, nothing was decided twice, and whatever has the
name of a backup is one. `POWER_CUTS=200` cuts more often than the suite does.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.load import ECHO, WINDOW, Load
from support.mosquitto import Mosquitto
from support.power import UNTIL_THE_TEST_ENDS, Disk, NoDiskError
from support.power_site import Site

CUTS = max(10, int(os.environ.get("POWER_CUTS", "20")) // 2)
KEPT = 1500  # events; each message makes three or four
SAFE = 300  # the newest so many messages are never deleted
CONFIGURATION = """\
gateway: busy
mqtt: {{url: "{url}", receive_maximum: {window}}}
store:
  url: {database}
  durability: {durability}
  retention: {{max_rows: {kept}, jobs: {{completed: 1s}}}}
  backup: {{to: {backups}, every: 1m, keep: 3}}
app: {{path: ., modules: [echo]}}
routes:
  - {{topic: "load/{{sender}}/{{number:int}}", emit: load.received, subject: "{{sender}}"}}
processors:
  echo: {{kind: "echo:Echo", start: beginning}}
  level: {{kind: "echo:Level", start: beginning}}
  sentinel: {{kind: sentinel, start: beginning}}
  courier: {{kind: courier}}
jobs: {{queues: {{default: {{lease: 1s}}}}}}
channels: {{journal: {{kind: log}}}}
notifications: {{routes: [{{channels: [journal]}}]}}
contracts: [{{name: low, kind: threshold, of: level, field: value, above: 0.5}}]
"""
APP = """
from edgeq import Job

class Note(Job):
    def handle(self, ctx):
        ctx.emit("noted", data={"of": ctx.job.id})

class Level(QueueProcessor):
    types = ("load.received",)

    async def process_item(self, event: Event, ctx: Context) -> None:
        ctx.emit("level", data={"value": event.id // 40 % 2})
        if event.id % 10 == 0:
            ctx.dispatch(Note())
"""

pytestmark = pytest.mark.timeout(300 + 30 * CUTS)


class BusySite(Site):
    """A site that is cut amid upkeep, which another process does as well."""

    def __init__(self, edgeq: Appliance, disk: Disk, load: Load) -> None:
        super().__init__(edgeq, disk, load)
        self.backups = disk.folder / "backups"
        self.cut_amid: Counter[str] = Counter()

    def cut_amid_upkeep(self) -> None:
        """Cut while messages stream in and a command deletes, copies, or nothing does."""
        over = threading.Event()
        sending = threading.Thread(target=self._send_until, args=(over,))
        sending.start()
        try:
            what = self.chance.choice(["backup", "prune --vacuum", "load"])
            if what == "load":
                wanted = self.head() + self.chance.randrange(1, 600)
                self.at_once(lambda: self.head() >= wanted)
            else:
                self._begin(what)
            self.cut_amid[what] += 1
            time.sleep(self.chance.uniform(0, 0.02))
            head = self.head()
            event = self.event(head)
            self.cut()
        finally:
            over.set()
            sending.join()
        if self.event(head) != event:
            self.taken_back.add(head)

    def _begin(self, what: str) -> None:
        """Have a command begin to do that, and end it with the power."""
        command = [sys.executable, "-m", "edgeq.cli.main", "db", *what.split()]
        before = self.edgeq.sql("SELECT min(id) FROM events")
        doer = subprocess.Popen(
            [*UNTIL_THE_TEST_ENDS, *command], cwd=self.edgeq.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.with_it.append(doer)
        self.edgeq.until(
            lambda: (
                doer.poll() is not None
                or any(self.backups.glob("*.part"))
                or (what != "backup" and self.edgeq.sql("SELECT min(id) FROM events") != before)
            ),
            f"{what} to begin",
            seconds=120,
        )
        if doer.poll() not in (None, 0):
            assert doer.stdout is not None
            raise AssertionError(f"{' '.join(command)}: {doer.stdout.read().decode()}")

    def _send_until(self, over: threading.Event) -> None:
        while not over.wait(0.01):
            self.load.send(20)

    def catch_up_and_audit(self) -> None:
        """Start, wait until nothing is left to do, and look at what is there."""
        self.edgeq.start()
        self.load.send(1)
        last = f"load/{self.load.sender}/{max(self.load.acknowledged)}"
        self.edgeq.until(lambda: self._count("type = 'load.received' AND topic = ?", last), "the last message")
        self.edgeq.until(lambda: not self._unprocessed(), "the processors", seconds=120)
        waits = "SELECT count(*) FROM jobs WHERE state NOT IN ('completed', 'cancelled', 'dead')"
        self.edgeq.until(lambda: self.edgeq.sql(waits) == [(0,)], "the jobs", seconds=120)
        self._audit()

    def _audit(self) -> None:
        sql = self.edgeq.sql
        assert sql("PRAGMA integrity_check") == [("ok",)]
        assert list(self.disk.folder.glob("*damaged*")) == [], "a whole database was put aside"
        topics = [topic for (topic,) in sql("SELECT topic FROM events WHERE type = 'load.received'")]
        numbers = {int(topic.rpartition("/")[2]) for topic in topics}
        newest = max(self.load.acknowledged)
        self.lost |= {number for number in self.load.acknowledged if number > newest - SAFE} - numbers
        assert len(topics) - len(numbers) <= self.cuts * 2 * WINDOW
        # In one statement: old events are deleted meanwhile, what was decided of an event after the event itself.
        for_each = (
            "SELECT r.id, count(d.id) FROM events AS r LEFT JOIN events AS d ON d.cause_id = r.id AND d.type = ? "
            "WHERE r.type = 'load.received' GROUP BY r.id"
        )
        for decided in ("load.echoed", "level"):
            times = dict(sql(for_each, decided))
            assert all(times.values()), f"{decided}: an event was passed over"
            assert set(times.values()) <= {1}, f"{decided}: a decision was committed twice"
        done = Counter(of for (of,) in sql("SELECT json_extract(data, '$.of') FROM events WHERE type = 'noted'"))
        assert set(done.values()) <= {1}, "a job was completed twice"
        verdicts = [each for (each,) in sql("SELECT type FROM events WHERE type LIKE 'contract.%' ORDER BY id")]
        assert all(one != next_one for one, next_one in pairwise(verdicts)), "a verdict was told twice, or not"
        assert sql("SELECT event_id FROM notifications GROUP BY event_id, channel HAVING count(*) > 1") == []
        assert sql("SELECT count(*) FROM cursors WHERE last_consumed_id > (SELECT max(id) FROM events)") == [(0,)]
        for path in self.backups.glob("*.db"):
            try:
                copy = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
            except sqlite3.OperationalError:
                assert not path.exists(), path  # the appliance has made a newer one, and deleted this one, meanwhile
                continue
            with closing(copy):
                assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path

    def _unprocessed(self) -> set[int]:
        """The ids of the received events that a processor hasn't come to."""
        caused = "SELECT cause_id FROM events WHERE type = ? INTERSECT SELECT cause_id FROM events WHERE type = ?"
        done = {event_id for (event_id,) in self.edgeq.sql(caused, "load.echoed", "level")}
        received = self.edgeq.sql("SELECT id FROM events WHERE type = 'load.received'")
        return {event_id for (event_id,) in received} - done

    def _count(self, where: str, *params: Any) -> int:
        return int(self.edgeq.sql(f"SELECT count(*) FROM events WHERE {where}", *params)[0][0])


@pytest.fixture
def site(tmp_path: Path, broker: Mosquitto) -> Iterator[Callable[[str], BusySite]]:
    """Makes a site with the given durability, whose session the broker knows."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(tmp_path))
        except NoDiskError as error:
            pytest.skip(str(error))

        def make(durability: str) -> BusySite:
            backups, database = disk.folder / "backups", disk.folder / "edgeq.db"
            backups.mkdir()
            configuration = CONFIGURATION.format(
                url=broker.url, window=WINDOW, database=database, durability=durability, kept=KEPT, backups=backups
            )
            edgeq = Appliance(tmp_path / "edgeq", configuration)
            (edgeq.folder / "echo.py").write_text(ECHO + APP)
            edgeq.database = database
            edgeq.command = (*UNTIL_THE_TEST_ENDS, *edgeq.command)
            stack.callback(edgeq.kill)
            edgeq.start()
            edgeq.until(lambda: "Sending SUBACK to edgeq-busy" in broker.log, "the subscription")
            load = Load(broker.port, "busy")
            stack.callback(load.close)
            return BusySite(edgeq, disk, load)

        yield make


def test_power_cuts_amid_all_that_an_appliance_does(site: Callable[[str], BusySite]) -> None:
    here = site("full")
    for _ in range(CUTS):
        here.cut_amid_upkeep()
        while here.flip(0.2):
            here.cut_while_starting()
        here.catch_up_and_audit()
    deleted = here.edgeq.sql("SELECT min(id) FROM events")[0][0] - 1
    print(f"{here.figures()}, {dict(here.cut_amid)}, {deleted} events deleted meanwhile")
    assert here.lost == set(), "acknowledged messages are missing"
    assert here.taken_back == set(), "events that a reader had seen are gone"
    assert deleted > 0, "nothing was deleted"


def test_with_durability_normal_the_same_cuts_take_what_was_acknowledged(site: Callable[[str], BusySite]) -> None:
    """If they don't, the test above proves nothing."""
    here = site("normal")
    while here.cuts < CUTS and not here.lost:
        here.cut_amid_upkeep()
        here.catch_up_and_audit()
    print(here.figures())
    assert here.lost, "this disk keeps what was not synced"
