"""From publishing a message to `process_item` being entered, at 100 messages a second: median and 99 %.

Both moments are read from the machine's monotonic clock. Beside it, the time of one bare commit of the same event into
the same database at the same pace: what is above it, edgeq and the broker took. Ends with status 1 when that is more
than SPEC section 12 allows.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path

from support import (
    Appliance,
    Wire,
    arguments,
    file_system,
    mosquitto,
    note,
    pace,
    percentile,
    publish_packet,
    results,
    scratch,
)

ALLOWED_MS = {0.5: 2.0, 0.99: 10.0}  # above one commit
WARM_UP_SECONDS = 2
CONFIG = """\
gateway: bench
mqtt: {{url: "mqtt://127.0.0.1:{port}", version: {version}}}
app: {{path: .}}
routes: [{{topic: "sensors/{{device}}", emit: reading, subject: "{{device}}"}}]
processors: {{probe: {{kind: "bench_probe:Probe", start: beginning}}}}
"""
PROBE = """\
import json, time
from edgeq import QueueProcessor

class Probe(QueueProcessor):
    def __init__(self):
        self.nanoseconds = []

    async def process_item(self, event, ctx):
        self.nanoseconds.append(time.monotonic_ns() - event.data["sent"])
        if event.data["last"]:
            with open({result!r}, "w") as file:
                json.dump(self.nanoseconds, file)
"""


def main() -> int:
    """Measure, print, say whether it is quick enough."""
    parser = arguments(__doc__)
    parser.add_argument("--version", choices=["5", "3.1.1"], default="5", help="of MQTT (default: 5)")
    parser.add_argument("--rate", type=int, default=100, help="messages a second (default: 100)")
    parser.add_argument("--seconds", type=int, default=30, help="to publish (default: 30)")
    options = parser.parse_args()
    slow = False
    with results(options), scratch(options.folder) as folder, mosquitto(folder) as port:
        latencies = measure_edgeq(folder, port, options.version, options.rate, options.seconds)
        commits = measure_commits(folder / "edgeq.db", options.rate, options.seconds)
        print(f"MQTT {options.version}, {options.rate} messages a second, {folder} is on {file_system(folder)}")
        print(f"{'':8} {'to process_item':>16} {'one commit':>12} {'above it':>10} {'allowed':>9}")
        for share, allowed in ALLOWED_MS.items():
            latency, commit = percentile(latencies, share), percentile(commits, share)
            slow = slow or latency - commit > allowed
            name = "median" if share == 0.5 else f"{share:.0%}"
            note({f"ms_{name}": latency, f"above_ms_{name}": latency - commit})
            print(f"{name:8} {latency:13.2f} ms {commit:9.2f} ms {latency - commit:7.2f} ms {allowed:6.1f} ms")
    return 1 if slow else 0


def measure_edgeq(folder: Path, port: int, version: str, rate: int, seconds: int) -> list[float]:
    """Milliseconds from each message's publishing to its processing, without those of a warm-up."""
    result = folder / "result.json"
    (folder / "bench_probe.py").write_text(PROBE.format(result=str(result)))
    with Appliance(folder, CONFIG.format(port=port, version=version)) as edgeq:
        edgeq.wait_connected()
        publisher = Wire(port, "edgeq-bench-publisher")
        count = rate * (seconds + WARM_UP_SECONDS)
        for number in pace(count, rate):
            payload = json.dumps({"value": 21.5, "last": number == count - 1, "sent": time.monotonic_ns()}).encode()
            publisher.publish([publish_packet(f"sensors/device-{number % 20}", payload, number)])
        publisher.close()
        edgeq.wait(result.exists, "to process the last event")
        edgeq.wait(lambda: result.read_text().endswith("]"), "to write down what it saw")
    nanoseconds = json.loads(result.read_text())
    assert len(nanoseconds) == count
    return [each / 1e6 for each in nanoseconds[rate * WARM_UP_SECONDS :]]


def measure_commits(database: Path, rate: int, seconds: int) -> list[float]:
    """Milliseconds that one event and its commit take, in the database that edgeq has left."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    columns = "type, subject, topic, data, tags, description, occurred_at, recorded_at"
    copy = f"INSERT INTO events ({columns}) SELECT {columns} FROM events WHERE id = 1"
    taken = []
    for _ in pace(rate * min(seconds, 10), rate):
        began = time.monotonic_ns()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(copy)
        connection.execute("COMMIT")
        taken.append((time.monotonic_ns() - began) / 1e6)
    connection.close()
    return taken


if __name__ == "__main__":
    sys.exit(main())
