"""An hour of everything that happens to a gateway: does anything that it holds on to grow?

Readings once a second and bursts of them, a bed that gets too hot and cools down, a door that stays open, messages that
can't be decoded, jobs in the process and in processes of their own, notifications, a web interface that is asked and
listened to, configurations read again, connections lost to another client of the same name. Events, jobs, dead letters
and notifications are kept for ten minutes, backups are made every ten. Memory, descriptors, threads, the log of the
database, the database and the rows of its tables are looked at all the time; the median of the last quarter must not be
above that of the quarter before, but for a little.

With `--hurry 40`, time passes forty times as fast for edgeq, and an hour takes a minute and a half. Ends with status 1
when something grows.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from process import memory_mib
from support import Appliance, Wire, arguments, free_port, mosquitto, note, publish_packet, results, scratch

ALLOWED = {
    "memory MiB": (1.05, 2.0),
    "descriptors": (1.0, 3.0),
    "threads": (1.0, 1.0),
    "log of the database MiB": (1.5, 4.0),
    "database MiB": (1.2, 2.0),
    "rows": (1.2, 300.0),
}
"""By what factor, and how much beyond, the last quarter may be above the one before."""
CONFIG = """\
gateway: soak
mqtt: {{url: "mqtt://127.0.0.1:{port}"}}
store:
  retention: {{events: 10m, dead_letters: 10m, notifications: 10m, jobs: {{completed: 5m, cancelled: 5m, dead: 5m}}}}
  backup: {{to: backups, every: 10m, keep: 2}}
app: {{path: ., modules: [soaked]}}
web: {{listen: "127.0.0.1:{web}"}}
routes:
  - {{topic: "sensors/{{device}}/temperature", emit: temperature.reading, subject: "{{device}}"}}
  - {{topic: "doors/{{door}}", emit: {{map: "{{payload.state}}", to: {{open: door.opened, closed: door.closed}}}},
     subject: "{{door}}", dispatch: "soaked:Look"}}
processors: {{follow: {{kind: "soaked:Follow"}}, sentinel: {{kind: sentinel}}, courier: {{kind: courier}}}}
jobs: {{queues: {{default: {{}}, apart: {{isolation: process, recycle_after: 3}}}}}}
schedules: [{{name: tidy, job: "soaked:Look", every: 1m}}]
channels: {{journal: {{kind: log}}, back: {{kind: mqtt, topic: told}}}}
notifications: {{routes: [{{channels: [journal, back]}}]}}
contracts:
  - {{name: cool, kind: threshold, of: temperature.reading, field: value, above: 40, for: 30s}}
  - {{name: door-closes, kind: deadline, after: door.opened, expect: door.closed, within: 1m}}
  - {{name: reports, kind: absence, of: temperature.reading, every: 5m}}
"""
APP = """\
from edgeq import Job, QueueProcessor

HELD = []

class Look(Job):
    def handle(self, ctx):
        ctx.emit("looked", subject="default")
        ctx.dispatch(Apart(), queue="apart")

class Apart(Job):
    def handle(self, ctx):
        ctx.emit("looked", subject="apart")

class Follow(QueueProcessor):
    types = ("temperature.reading", "looked")

    async def process_item(self, event, ctx):
        {leak}
"""
LEAK = "HELD.append((bytes(40_000), open('/dev/null')))"
PAGES = ("/", "/api/status", "/api/events?limit=50", "/api/contracts", "/metrics", "/api/history", "/nothing")
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


def main() -> int:
    """Run it, print, say whether something grows."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="that pass for edgeq (default: 60)")
    parser.add_argument("--hurry", type=float, default=1.0, help="how many times as fast (default: 1)")
    options = parser.parse_args()
    with results(options), scratch(options.folder) as folder, mosquitto(folder) as port:
        seen = soak(folder, port, options.minutes, options.hurry)
        print(f"{options.minutes:g} minutes, {seen.messages} messages, {seen.answers} answers of the web interface")
        for name, before, after in seen.quarters():
            print(f"{name:36} {before:10.1f} {after:10.1f}")
            note({f"{name}_before": before, f"{name}_after": after})
        grown = seen.grown()
        print("\n".join(grown) or "nothing grows")
    return 1 if grown else 0


@dataclass
class Seen:
    """What was held at each look, by name; how much was done meanwhile."""

    samples: list[dict[str, float]] = field(default_factory=list)
    messages: int = 0
    answers: int = 0
    acknowledged: int = 0

    def quarters(self) -> Iterator[tuple[str, float, float]]:
        """Of each name the median of the third quarter, and of the last."""
        size = len(self.samples) // 4
        third, last = self.samples[2 * size : 3 * size], self.samples[3 * size :]
        for name in sorted({name for sample in self.samples for name in sample}):
            yield name, *(statistics.median(sample.get(name, 0.0) for sample in part) for part in (third, last))

    def grown(self) -> list[str]:
        """What has grown, in words."""
        found = []
        for name, before, after in self.quarters():
            factor, beyond = ALLOWED[name.partition(" of ")[0] if name.startswith("rows") else name]
            if after > before * factor + beyond:
                found.append(f"{name} grew from {before:.1f} to {after:.1f}")
        return found


def soak(folder: Path, port: int, minutes: float, hurry: float, *, leak: bool = False) -> Seen:
    """So many minutes for edgeq; what was seen."""
    web = free_port()
    (folder / "backups").mkdir()
    (folder / "soaked.py").write_text(APP.format(leak=LEAK if leak else "pass"))
    program = () if hurry == 1 else (str(Path(__file__).with_name("hurried")), f"{hurry:g}")
    seen = Seen()
    with (
        Appliance(folder, CONFIG.format(port=port, web=web), program=program) as edgeq,
        contextlib.closing(Wire(port, "publisher")) as publisher,
    ):
        edgeq.wait_connected()
        life = Life(edgeq, publisher, port, web, hurry, seen)
        end = time.monotonic() + minutes * 60 / hurry
        for second in range(round(minutes * 60)):
            life.happen(second)
            wait = end - (minutes * 60 - second) / hurry - time.monotonic()
            time.sleep(max(0.0, wait))
        edgeq.wait(lambda: edgeq.counter("edgeq_messages_acked_total") >= seen.messages, "to acknowledge", 120)
        seen.acknowledged = edgeq.counter("edgeq_messages_acked_total")
    return seen


class Life:
    """What happens to a gateway, second by second of its time."""

    def __init__(self, edgeq: Appliance, publisher: Wire, port: int, web: int, hurry: float, seen: Seen) -> None:
        self._edgeq, self._publisher, self._port, self._web, self._seen = edgeq, publisher, port, web, seen
        self._look_every = max(1, round(hurry / 4))

    def happen(self, second: int) -> None:
        """What belongs to this second."""
        heat = 50 if second % 600 > 450 else 20
        self._publish(f"sensors/bed-{second % 5}/temperature", {"value": heat + second % 10, "n": second})
        if second % 60 == 10:
            self._publish("doors/south", {"state": "open"})
        if second % 60 == (20 if second % 600 < 300 else 9):
            self._publish("doors/south", {"state": "closed"})
        if second % 60 == 30:
            self._send(publish_packet("sensors/bed-1/temperature", b'{"value', second))
        if second % 300 == 100:
            for number in range(100):
                self._publish(f"sensors/burst-{number % 10}/temperature", {"value": 20, "n": number})
        if second % 10 == 5:
            self._ask(PAGES[second // 10 % len(PAGES)])
        if second % 120 == 60:
            threading.Thread(target=self._listen, daemon=True).start()
        if second % 300 == 200:
            self._edgeq.process.send_signal(signal.SIGHUP)
        if second % 600 == 400:  # the broker sends edgeq away when another comes by its name
            Wire(self._port, "edgeq-soak", clean=False).close()
        if second % self._look_every == 0:
            self._seen.samples.append(held(self._edgeq))

    def _publish(self, topic: str, data: dict[str, object]) -> None:
        self._send(publish_packet(topic, json.dumps(data).encode(), self._seen.messages))

    def _send(self, packet: bytes) -> None:
        self._publisher.publish([packet])
        self._seen.messages += 1

    def _ask(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._web, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", path)
            connection.getresponse().read()
            self._seen.answers += 1

    def _listen(self) -> None:
        """Hear a little of the stream, and go without a word."""
        connection = http.client.HTTPConnection("127.0.0.1", self._web, timeout=2)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/api/stream")
            connection.getresponse().read(200)


def held(edgeq: Appliance) -> dict[str, float]:
    """What it holds on to now."""
    found = {
        "memory MiB": memory_mib(edgeq.pid),
        "descriptors": float(len(os.listdir(f"/proc/{edgeq.pid}/fd"))),
        "threads": float(len(os.listdir(f"/proc/{edgeq.pid}/task"))),
        "log of the database MiB": Path(f"{edgeq.database}-wal").stat().st_size / 2**20,
        "database MiB": edgeq.database.stat().st_size / 2**20,
    }
    uri = f"{edgeq.database.as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            found[f"rows of {table}"] = float(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    return found


if __name__ == "__main__":
    sys.exit(main())
