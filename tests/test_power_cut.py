"""The power is cut, for real as far as the disk knows: nothing that was acknowledged is missing (G1).

After each cut the disk has only what was synced. What the broker keeps for the session it sends again; so what it has
acknowledged to the sender, and is not an event once edgeq has caught up, was acknowledged by edgeq and is lost.
`POWER_CUTS=200` in the environment cuts more often than the suite does.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.load import ECHO, ROUTE, WINDOW, Load, audit, echoed, stored
from support.mosquitto import Mosquitto
from support.power import UNTIL_THE_TEST_ENDS, Disk, NoDiskError

CUTS = int(os.environ.get("POWER_CUTS", "20"))

CONFIGURATION = """\
gateway: power
mqtt: {{url: "{url}", receive_maximum: {window}}}
store: {{url: {database}, durability: {durability}}}
app: {{path: ., modules: [echo]}}
routes:
{route}
processors:
  echo: {{kind: "echo:Echo", start: beginning}}
"""

pytestmark = pytest.mark.timeout(60 + 5 * CUTS)


class Site:
    """An appliance whose database, and nothing else of it, is on a disk; a stream of messages; cuts at random moments.

    `lost` are the numbers of messages, `taken_back` the ids of events that a reader had seen, which a cut has taken.
    """

    def __init__(self, edgeq: Appliance, disk: Disk, load: Load) -> None:
        self.edgeq = edgeq
        self.disk = disk
        self.load = load
        self.cuts = 0
        self.lost: set[int] = set()
        self.taken_back: set[int] = set()
        self._on_earlier_disks: set[int] = set()
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        self._chance = random.Random(seed)

    def cut_under_load(self) -> None:
        """Cut while messages stream in."""
        wanted = self._head() + self._chance.randrange(1, 350)  # of 200 to be received and 200 to be echoed
        sending = threading.Thread(target=self.load.send, args=(200,))
        sending.start()
        self._at_once(lambda: self._head() >= wanted)
        time.sleep(self._chance.uniform(0, 0.003))
        head = self._head()
        event = self._event(head)
        self._cut()
        sending.join()
        if self._event(head) != event:
            self.taken_back.add(head)

    def cut_while_starting(self) -> None:
        """Start, and cut while the database is opened, made or put right, or what waited at the broker comes in."""
        process = self.edgeq.spawn()
        lock = self.disk.folder / "edgeq.db-lock"
        self._at_once(lambda: lock.exists() and lock.read_text() == str(process.pid))
        time.sleep(self._chance.uniform(0, 0.1))
        self._cut()

    def catch_up(self) -> None:
        """Start, wait until the broker has nothing left for edgeq, and look at what is there."""
        self.edgeq.start()
        self.load.send(1)
        last = f"load/{self.load.sender}/{max(self.load.acknowledged)}"
        count = "SELECT count(*) FROM events WHERE type = 'load.received' AND topic = ?"
        self.edgeq.until(lambda: self.edgeq.sql(count, last)[0][0], "the last message")
        self.edgeq.until(lambda: echoed(self.edgeq), "the processor")
        audit(self.edgeq, self.load, self.cuts)
        assert list(self.disk.folder.glob("*damaged*")) == [], "a whole database was put aside"
        self.lost = self.load.acknowledged - self._on_earlier_disks - set(stored(self.edgeq, self.load))

    def change_disk(self) -> None:
        """Stop, and put an empty disk in the place of this one."""
        assert self.edgeq.stop() == 0
        self._on_earlier_disks |= self.load.acknowledged
        self.disk.unmount()
        self.disk.format()
        self.disk.mount()

    def flip(self, share: float) -> bool:
        """True in this share of cases."""
        return self._chance.random() < share

    def figures(self) -> str:
        """What there is to say."""
        taken = f"{len(self.lost)} lost, {len(self.taken_back)} times a reader had seen what was gone"
        return f"{self.cuts} cuts, {len(self.load.acknowledged)} messages, {taken}"

    def _cut(self) -> None:
        assert self.edgeq.process is not None
        assert self.edgeq.process.poll() is None, f"edgeq ended before the cut:\n{self.edgeq.log[-4000:]}"
        self.disk.cut(self.edgeq.process.pid)
        self.edgeq.kill()
        self.disk.unmount()
        self.disk.mount()
        self.cuts += 1

    def _head(self) -> int:
        return int(self.edgeq.sql("SELECT coalesce(max(id), 0) FROM events")[0][0])

    def _event(self, event_id: int) -> list[Any]:
        return self.edgeq.sql("SELECT recorded_at, topic FROM events WHERE id = ?", event_id)

    def _at_once(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"the moment of the cut didn't come:\n{self.edgeq.log[-4000:]}"


@pytest.fixture
def site(tmp_path: Path, broker: Mosquitto) -> Iterator[Callable[[str], Site]]:
    """Makes a site with the given durability, whose session the broker knows."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(tmp_path))
        except NoDiskError as error:
            pytest.skip(str(error))

        def make(durability: str) -> Site:
            database = disk.folder / "edgeq.db"
            configuration = CONFIGURATION.format(
                url=broker.url, window=WINDOW, database=database, durability=durability, route=ROUTE
            )
            edgeq = Appliance(tmp_path / "edgeq", configuration)
            (edgeq.folder / "echo.py").write_text(ECHO)
            edgeq.database = database
            edgeq.command = (*UNTIL_THE_TEST_ENDS, *edgeq.command)
            stack.callback(edgeq.kill)
            edgeq.start()
            edgeq.until(lambda: "Sending SUBACK to edgeq-power" in broker.log, "the subscription")
            load = Load(broker.port, durability)
            stack.callback(load.close)
            return Site(edgeq, disk, load)

        yield make


def test_after_power_cuts_nothing_that_was_acknowledged_is_missing(site: Callable[[str], Site]) -> None:
    here = site("full")
    for _ in range(CUTS):
        here.cut_under_load()
        while here.flip(0.25):
            here.cut_while_starting()
        here.catch_up()
    print(here.figures())
    assert here.lost == set(), "acknowledged messages are missing"
    assert here.taken_back == set(), "events that a reader had seen are gone"


def test_power_cuts_while_the_database_is_made(site: Callable[[str], Site]) -> None:
    here = site("full")
    lost: set[int] = set()
    for _ in range(CUTS // 2):
        here.change_disk()
        here.load.send(50)
        here.cut_while_starting()
        here.catch_up()
        lost |= here.lost
        named = {key for (key,) in here.edgeq.sql("SELECT key FROM meta")}
        assert named >= {"store_id", "schema_version"}, "the store is half made"
    print(here.figures())
    assert lost == set(), "acknowledged messages are missing"


def test_with_durability_normal_a_power_cut_takes_acknowledged_messages(site: Callable[[str], Site]) -> None:
    """If it doesn't, the tests above prove nothing."""
    here = site("normal")
    while here.cuts < CUTS and not here.lost:
        here.cut_under_load()
        here.catch_up()
    print(here.figures())
    assert here.lost, "this disk keeps what was not synced"
    assert here.taken_back, "this disk keeps what was not synced"
