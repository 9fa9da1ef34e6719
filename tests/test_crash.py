"""Kill -9 at every named place on the way of a message, and at random under load; then one audit.

What was published at QoS 1 and acknowledged by the broker must be an event; ids only grow; twice comes only what was in
flight at a kill; and what a processor made of the events is there once for each.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.load import ECHO, ROUTE, WINDOW, Load, audit, echoed, stored
from support.mosquitto import Mosquitto, Peer

from edgeq.failpoints import NAMES

CONFIGURATION = """\
gateway: crash
mqtt: {{url: "{url}", receive_maximum: {window}}}
store: {{url: edgeq.db}}
app: {{path: ., modules: [echo]}}
routes:
{route}  - topic: jobs/{{number:int}}
    dispatch: echo:Note
processors:
  echo: {{kind: "echo:Echo", start: beginning}}
  courier: {{kind: courier, start: beginning}}
channels:
  out: {{kind: webhook, url: "http://127.0.0.1:{port}/", timeout: 60s}}
jobs:
  queues: {{default: {{concurrency: 4, lease: 2s}}}}
log: {{level: info}}
"""

NOTE = """

from edgeq import Job


class Note(Job):
    number: int

    async def handle(self, ctx: Context) -> int:
        ctx.emit("job.done", data={"number": self.number})
        return self.number
"""


@pytest.fixture
def appliance(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> Iterator[tuple[Appliance, Mosquitto]]:
    broker = mosquitto("max_queued_messages 0", "max_inflight_messages 0")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "echo.py").write_text(ECHO + NOTE)
    made = Appliance(tmp_path / "a", CONFIGURATION.format(url=broker.url, window=WINDOW, route=ROUTE, port=1))
    yield made, broker
    made.kill()


def catch_up(appliance: Appliance, load: Load) -> None:
    """Return when every message is stored and echoed, also those that the broker sends twice. They come before what is
    published now."""
    load.send(1)
    appliance.until(lambda: len(stored(appliance, load)) == len(load.acknowledged), "all messages")
    appliance.until(lambda: echoed(appliance), "the processor")


MESSAGE_FAILPOINTS = [name for name in NAMES if name.startswith(("intake.", "processor."))]


@pytest.mark.parametrize("name", MESSAGE_FAILPOINTS)
def test_killed_at_a_failpoint_nothing_is_lost(appliance: tuple[Appliance, Mosquitto], name: str) -> None:
    edgeq, broker = appliance
    edgeq.start()
    assert edgeq.stop() == 0  # the session exists from now on: the broker keeps what comes
    load = Load(broker.port, "failpoint")
    kills = 0
    for count in (1, 2, 3):
        load.send(400)
        process = edgeq.spawn(EDGEQ_FAILPOINT=f"{name}:{count}")
        assert process.wait(120) == -9, f"the failpoint {name}:{count} was not reached:\n{edgeq.log}"
        kills += 1
    edgeq.start()
    catch_up(edgeq, load)
    load.close()
    audit(edgeq, load, kills)
    assert edgeq.stop() == 0


@pytest.mark.timeout(400)  # thirty starts
def test_killed_at_random_under_load_nothing_is_lost(appliance: tuple[Appliance, Mosquitto]) -> None:
    edgeq, broker = appliance
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    edgeq.start()
    load = Load(broker.port, "random")
    rounds = 30
    for _ in range(rounds):
        sending = threading.Thread(target=load.send, args=(200,))
        sending.start()
        stored = edgeq.sql("SELECT count(*) FROM events")[0][0]
        wanted = chance.randrange(1, 300)
        limit = time.monotonic() + 2
        while edgeq.sql("SELECT count(*) FROM events")[0][0] < stored + wanted and time.monotonic() < limit:
            pass
        edgeq.kill()
        sending.join()
        edgeq.start()
    catch_up(edgeq, load)
    load.close()
    audit(edgeq, load, rounds)
    assert edgeq.stop() == 0


@pytest.mark.parametrize("name", ["job.claimed", "job.handled"])
def test_a_job_whose_worker_is_killed_runs_again(appliance: tuple[Appliance, Mosquitto], name: str) -> None:
    edgeq, broker = appliance
    edgeq.start()
    edgeq.stop()
    with Peer(broker.port) as peer:
        peer.publish_many([(f"jobs/{number}", b"{}") for number in range(20)])
    process = edgeq.spawn(EDGEQ_FAILPOINT=f"{name}:2")
    assert process.wait(120) == -9, edgeq.log
    edgeq.start()
    with Peer(broker.port) as peer:  # what the broker sends twice comes before it
        peer.publish("jobs/20", b"{}")
    found = "SELECT count(DISTINCT json_extract(args, '$.number')), sum(state != 'completed') FROM jobs"
    edgeq.until(lambda: edgeq.sql(found) == [(21, 0)], "all jobs")
    done = Counter(
        row[0] for row in edgeq.sql("SELECT json_extract(data, '$.number') FROM events WHERE type = 'job.done'")
    )
    jobs = edgeq.sql("SELECT count(*) FROM jobs")[0][0]
    assert sum(done.values()) == jobs, "what a job decided is committed with its completion, once"
    assert set(done) == set(range(21))
    assert edgeq.stop() == 0


def test_killed_between_sent_and_marked_a_notification_comes_again_with_its_key(
    appliance: tuple[Appliance, Mosquitto], tmp_path: Path
) -> None:
    edgeq, broker = appliance
    target = subprocess.Popen([sys.executable, "-c", TARGET, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert target.stdout is not None
        port = int(target.stdout.readline())
        edgeq.configure(CONFIGURATION.format(url=broker.url, window=WINDOW, route=ROUTE, port=port))
        edgeq.start()
        edgeq.stop()
        emit = [sys.executable, "-m", "edgeq.cli.main", "emit", "alarm", "--tag", "notification"]
        subprocess.run(emit, cwd=edgeq.folder, check=True, capture_output=True)
        process = edgeq.spawn(EDGEQ_FAILPOINT="notification.sent:1")
        assert process.wait(120) == -9, edgeq.log
        edgeq.start()
        edgeq.until(lambda: edgeq.sql("SELECT state FROM notifications") == [("sent",)], "the notification")
        keys = (tmp_path / "keys").read_text().split()
        assert len(keys) == 2
        assert len(set(keys)) == 1, "both deliveries must carry the same key"
        assert edgeq.stop() == 0
    finally:
        target.kill()
        target.wait()
        if target.stdout is not None:
            target.stdout.close()


TARGET = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[1] + "/keys", "a") as file:
            file.write(self.headers["Idempotency-Key"] + "\\n")
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
