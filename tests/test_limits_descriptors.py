"""`edgeq run` with 64 descriptors does all its work, and holds on to none that it doesn't need."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.held import descriptors, threads
from support.mosquitto import Mosquitto, Peer, free_port

LIMITED = ("/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
GUESTS = 120
REQUESTS = 1000
RELOADS = 100  # each with a new connection to the broker
RESTARTS = 3
CONFIGURATION = """\
gateway: small
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db}}
web: {{listen: "127.0.0.1:{web}"}}
app: {{path: ., modules: [app]}}
routes:
  - {{topic: "work/{{number:int}}", emit: work.ordered, subject: "{{number}}", tags: [notification],
     dispatch: "app:Note"}}
processors:
  courier: {{kind: courier}}
  sentinel: {{kind: sentinel}}
  first: {{kind: "app:Follow"}}
  second: {{kind: "app:Follow"}}
  third: {{kind: "app:Follow"}}
jobs: {{queues: {{default: {{isolation: process, recycle_after: 1, processes: 2}}}}}}
channels:
  journal: {{kind: log}}
  back: {{kind: mqtt, topic: told}}
  shell: {{kind: exec, command: [{true}]}}
notifications: {{routes: [{{channels: [journal, back, shell]}}]}}
contracts:
  - {{name: calm, kind: rate, of: work.ordered, more_than: 1000, within: 1m}}
"""
APP = """\
from edgeq import Job, QueueProcessor

class Note(Job):
    number: int = 0

    def handle(self, ctx):
        ctx.emit("work.done", data={"by": __import__("os").getpid()})

class Follow(QueueProcessor):
    types = ("work.done",)

    async def process_item(self, event, ctx):
        ctx.emit("work.seen")
"""
SETTLE_SECONDS = 60.0
# At most so many are made by asyncio.to_thread(), and kept. Which call finds none that rests is a matter of chance.
HELPERS_MAX = min(32, (os.cpu_count() or 1) + 4)


class Site:
    """An appliance with everything that a small one has, and its broker."""

    def __init__(self, edgeq: Appliance, broker: Mosquitto, web: int) -> None:
        self.edgeq = edgeq
        self.broker = broker
        self.web = web
        self._works = 0

    @property
    def pid(self) -> int:
        """The process."""
        assert self.edgeq.process is not None
        return self.edgeq.process.pid

    def work(self) -> None:
        """Have a message go all its ways: event, job in a process of its own, processors, channels."""
        self._works += 1
        with Peer(self.broker.port) as peer:
            peer.publish(f"work/{self._works}", b"{}")
        counted = "SELECT count(*) FROM events WHERE type = ?"
        self.edgeq.until(
            lambda: self.edgeq.sql(counted, "work.seen")[0][0] == 3 * self._works, "the work to be done", seconds=60
        )
        sent = "SELECT count(*) FROM notifications WHERE state = 'sent'"
        self.edgeq.until(lambda: self.edgeq.sql(sent)[0][0] == 3 * self._works, "the notifications", seconds=60)

    def ask(self, path: str = "/api/status") -> int:
        """The status of an answer of the web interface; 0 when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def settled(self, before: list[str]) -> None:
        """Return when it has no more descriptors than before. Fails with those that are left."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while len(now := descriptors(self.pid)) > len(before):
            assert time.monotonic() < deadline, f"before: {before}\nnow: {now}"
            time.sleep(0.05)


@pytest.fixture
def site(broker: Mosquitto, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts one, with these words before its command."""
    with contextlib.ExitStack() as stack:

        def start(*before: str) -> Site:
            web = free_port()
            configuration = CONFIGURATION.format(url=broker.url, web=web, true=shutil.which("true"))
            edgeq = Appliance(tmp_path, configuration)
            (tmp_path / "app.py").write_text(APP)
            edgeq.command = (*before, *edgeq.command)
            stack.callback(edgeq.kill)
            edgeq.start()
            made = Site(edgeq, broker, web)
            edgeq.until(lambda: made.ask() == 200, "the web interface")
            return made

        yield start


def test_with_64_descriptors_and_a_crowd_at_the_web_port_all_work_is_done(site: Callable[..., Site]) -> None:
    here = site(*LIMITED)
    here.work()
    before = descriptors(here.pid)
    with contextlib.ExitStack() as crowd:
        for _ in range(GUESTS):
            guest = crowd.enter_context(socket.socket())
            guest.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                guest.connect(("127.0.0.1", here.web))
        here.edgeq.until(lambda: len(descriptors(here.pid)) > len(before), "the crowd")
        here.work()
        assert here.edgeq.cli("status").returncode == 0
        statuses = {here.ask() for _ in range(5)}
        assert statuses <= {0, 200, 503}, "whoever is refused is told so, or sent away"
        here.work()
    here.edgeq.until(lambda: here.ask() == 200, "the web interface to have room again", seconds=60)
    here.work()
    here.settled(before)
    assert "Too many open files" not in here.edgeq.log
    assert "out of system resource" not in here.edgeq.log
    assert here.edgeq.stop() == 0


@pytest.mark.timeout(600)
def test_requests_reconnects_and_reloads_leave_nothing_behind(site: Callable[..., Site]) -> None:
    here = site()
    configuration = (here.edgeq.folder / "edgeq.yaml").read_text()
    here.work()
    here.edgeq.reload(configuration)
    here.work()
    before, threads_before = descriptors(here.pid), threads(here.pid)
    assert all(here.ask(("/", "/api/status", "/nothing")[number % 3]) for number in range(REQUESTS))
    here.settled(before)
    for _ in range(RELOADS):
        here.edgeq.reload(configuration)
    here.work()
    here.settled(before)
    for _ in range(RESTARTS):
        here.broker.stop()
        here.edgeq.until(lambda: not here.edgeq.connected(), "the loss of the connection")
        here.broker.start()
        here.edgeq.until(here.edgeq.connected, "a new connection")
    here.work()
    here.settled(before)
    assert threads(here.pid) < threads_before + HELPERS_MAX
    assert here.edgeq.stop() == 0
