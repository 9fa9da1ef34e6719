"""A site whose power fails: an appliance with its database on a disk that forgets what was not synced."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from .appliance import DEADLINE_SECONDS, Appliance
from .load import Load, audit, echoed, stored
from .power import Disk


class Site:
    """An appliance whose database, and nothing else of it, is on a disk; a stream of messages; cuts at random moments.

    `with_it` are processes beside the appliance that the next cut ends. `lost` are the numbers of messages,
    `taken_back` the ids of events that a reader had seen, which a cut has taken.
    """

    def __init__(self, edgeq: Appliance, disk: Disk, load: Load) -> None:
        self.edgeq = edgeq
        self.disk = disk
        self.load = load
        self.cuts = 0
        self.lost: set[int] = set()
        self.taken_back: set[int] = set()
        self.with_it: list[subprocess.Popen[bytes]] = []
        self._on_earlier_disks: set[int] = set()
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        self.chance = random.Random(seed)

    def cut_under_load(self) -> None:
        """Cut while messages stream in."""
        wanted = self.head() + self.chance.randrange(1, 350)  # of 200 to be received and 200 to be echoed
        sending = threading.Thread(target=self.load.send, args=(200,))
        sending.start()
        self.at_once(lambda: self.head() >= wanted)
        time.sleep(self.chance.uniform(0, 0.003))
        head = self.head()
        event = self.event(head)
        self.cut()
        sending.join()
        if self.event(head) != event:
            self.taken_back.add(head)

    def cut_while_starting(self) -> None:
        """Start, and cut while the database is opened, made or put right, or what waited at the broker comes in."""
        process = self.edgeq.spawn()
        lock = self.disk.folder / "edgeq.db-lock"
        self.at_once(lambda: lock.exists() and lock.read_text() == str(process.pid))
        time.sleep(self.chance.uniform(0, 0.1))
        self.cut()

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
        return self.chance.random() < share

    def figures(self) -> str:
        """What there is to say."""
        taken = f"{len(self.lost)} lost, {len(self.taken_back)} times a reader had seen what was gone"
        return f"{self.cuts} cuts, {len(self.load.acknowledged)} messages, {taken}"

    def cut(self) -> None:
        """Cut the power now, and mount the disk again."""
        assert self.edgeq.process is not None
        assert self.edgeq.process.poll() is None, f"edgeq ended before the cut:\n{self.edgeq.log[-4000:]}"
        self.disk.cut(self.edgeq.process.pid, *(process.pid for process in self.with_it if process.poll() is None))
        self.edgeq.kill()
        for process in self.with_it:
            process.communicate()
        self.with_it.clear()
        self.disk.unmount()
        self.disk.mount()
        self.cuts += 1

    def head(self) -> int:
        """The id of the newest event."""
        return int(self.edgeq.sql("SELECT coalesce(max(id), 0) FROM events")[0][0])

    def event(self, event_id: int) -> list[Any]:
        """What a reader sees of an event."""
        return self.edgeq.sql("SELECT recorded_at, topic FROM events WHERE id = ?", event_id)

    def at_once(self, condition: Callable[[], bool]) -> None:
        """Return the moment that `condition` holds."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"the moment of the cut didn't come:\n{self.edgeq.log[-4000:]}"
