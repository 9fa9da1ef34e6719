"""The greenhouse example with its web interface in a cgroup of 128 MiB and a quarter of a core, 200 messages a second.

Forty sensors and a door report, two pumps go on and off without a reason, a bed gets too hot, and somebody asks the web
interface for the status every five seconds. Latency is from before a message is published until its event can be read
from the database by another process, which looks every 3 ms. Memory is that of the process; the cgroup's limit counts
the pages of the files that it writes, too. Throttled: the share of the tenths of a second in which it had used up what
it may and had to wait for the next one.

Where no cgroup can be made, that is said, and the same is measured without limits. Ends with status 1 when a message is
lost, the kernel kills, or a demand isn't met.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from cgroup import Cgroup, NoCgroupError
from process import memory_mib, processor_seconds
from support import (
    Appliance,
    Wire,
    arguments,
    file_system,
    free_port,
    mosquitto,
    note,
    pace,
    percentile,
    publish_packet,
    results,
    scratch,
)

ALLOWED = {"memory_peak_mib": 64.0, "latency_99_ms": 1000.0, "lost": 0.0, "killed": 0.0, "refused": 0.0}
DEVICES = 40
LOOK_SECONDS = 0.003
ASK_SECONDS = 5.0
EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "greenhouse.yaml"


def main() -> int:
    """Measure, print, say whether it holds."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="to publish (default: 10)")
    parser.add_argument("--rate", type=int, default=200, help="messages a second (default: 200)")
    parser.add_argument("--memory", type=int, default=128, metavar="MIB", help="limit (default: 128)")
    parser.add_argument("--cores", type=float, default=0.25, help="limit (default: 0.25)")
    options = parser.parse_args()
    with results(options), scratch(options.folder) as folder, mosquitto(folder) as port:
        with limited(options.memory, options.cores) as cgroup:
            found = measure(folder, port, cgroup, options.rate, options.minutes * 60)
        within = f"in {options.memory} MiB and {options.cores:g} cores" if cgroup else "WITHOUT limits"
        note({**found, "minutes": options.minutes})
        print(f"{options.minutes:g} minutes with {options.rate} messages a second, {within}, on {file_system(folder)}")
        print(f"{'':20} {'is':>10} {'allowed':>10}")
        for name, value in found.items():
            limit = ALLOWED.get(name)
            told = "" if limit is None else f"{limit:10.0f}{'  too much' if value > limit else ''}"
            print(f"{name:20} {value:10.2f} {told}".rstrip())
    return 1 if any(found[name] > limit for name, limit in ALLOWED.items()) else 0


@contextlib.contextmanager
def limited(memory_mib: int, cores: float) -> Iterator[Cgroup | None]:
    """A cgroup, or None, and why, where none can be made."""
    with contextlib.ExitStack() as stack:
        try:
            cgroup = stack.enter_context(Cgroup(memory_mib * 2**20, cores))
        except NoCgroupError as error:
            print(f"{error}; all of it is measured, but nothing is limited")
            cgroup = None
        yield cgroup


def measure(folder: Path, port: int, cgroup: Cgroup | None, rate: int, seconds: float) -> dict[str, float]:
    """Run it; the figures by name, with MiB, shares and milliseconds."""
    web = f"127.0.0.1:{free_port()}"
    settings = {"mqtt__url": f"mqtt://127.0.0.1:{port}", "web__listen": web}
    before = cgroup.command if cgroup else ()
    with Appliance(folder, EXAMPLE.read_text(), before=before, **settings) as edgeq:
        edgeq.wait_connected()
        began, used = time.monotonic(), processor_seconds(edgeq.pid)
        sender, reader, asker = (
            Sender(port, rate, seconds, message),
            Reader(edgeq.database),
            Asker(f"http://{web}/api/status"),
        )
        with sender, reader, asker:
            wal = 0
            while sender.is_alive():
                time.sleep(0.5)
                wal = max(wal, edgeq.database.with_name("edgeq.db-wal").stat().st_size)
                if edgeq.process.poll() is not None:
                    raise SystemExit(f"edgeq ended with status {edgeq.process.returncode}")
            processor = (processor_seconds(edgeq.pid) - used) / (time.monotonic() - began)
            deadline = time.monotonic() + 60
            told_apart = {number for number in sender.sent if not is_of_a_pump(number)}
            while len(reader.seen) < len(told_apart) and time.monotonic() < deadline:
                time.sleep(0.1)
        delays = [(at - sender.sent[number]) * 1000 for number, at in reader.seen.items()]
        return {
            "memory_peak_mib": memory_mib(edgeq.pid, peak=True),
            "memory_end_mib": memory_mib(edgeq.pid),
            "processor_share": processor,
            "throttled_share": cgroup.throttled_share if cgroup else 0.0,
            "latency_median_ms": percentile(delays, 0.5),
            "latency_99_ms": percentile(delays, 0.99),
            "latency_max_ms": max(delays),
            "wal_mib": wal / 2**20,
            "messages": float(len(sender.sent)),
            "lost": float(len(told_apart - reader.seen.keys())),
            "notifications": float(query(edgeq.database, "SELECT count(*) FROM notifications")),
            "asked": float(asker.answered),
            "refused": float(asker.refused),
            "killed": float(cgroup.killed if cgroup else 0),
        }


def is_of_a_pump(number: int) -> bool:
    """Whether that message has no room for its number."""
    return number % 1000 == 999


def message(number: int) -> bytes:
    """What is published as message `number`. All but those of the pumps are told apart by `n`."""
    if is_of_a_pump(number):
        return publish_packet(f"pumps/{number // 1000 % 2}/state", (b"ON", b"OFF")[number // 2000 % 2], number)
    if number % 500 == 499:
        state = ("open", "closed")[number // 500 % 2]
        return publish_packet("doors/south/state", json.dumps({"state": state, "n": number}).encode(), number)
    device, metric = number % DEVICES, ("moisture", "temperature")[number // DEVICES % 2]
    value = 45.0 if device == 3 and metric == "temperature" else 30 + number // 100 % 40 / 10
    data = json.dumps({"value": value, "ts": round(time.time(), 3), "n": number}).encode()
    return publish_packet(f"sensors/bed-{device}/{metric}", data, number)


class Worker(threading.Thread):
    """A thread for the time of a `with` block."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


class Sender(Worker):
    """Publishes what `packet` makes of each number; `sent` is when, by number."""

    def __init__(self, port: int, rate: int, seconds: float, packet: Callable[[int], bytes]) -> None:
        super().__init__()
        self._packet = packet
        self._wire = Wire(port, "edgeq-bench-publisher")
        self._rate, self._count = rate, round(rate * seconds)
        self.sent: dict[int, float] = {}

    def run(self) -> None:
        """See threading.Thread."""
        for number in pace(self._count, self._rate):
            packet = self._packet(number)
            self.sent[number] = time.monotonic()
            self._wire.publish([packet])
            if self.over.is_set():
                break
        self._wire.close()


class Reader(Worker):
    """Reads what is stored, as another process can; `seen` is when, by number."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self._database = database
        self.seen: dict[int, float] = {}

    def run(self) -> None:
        """See threading.Thread."""
        last = 0
        connection = sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True, timeout=10)
        text = "SELECT id, json_extract(data, '$.n') FROM events WHERE id > ? ORDER BY id"
        while not self.over.wait(LOOK_SECONDS):
            rows = connection.execute(text, (last,)).fetchall()
            now = time.monotonic()
            self.seen |= {number: now for _, number in rows if number is not None}
            last = rows[-1][0] if rows else last
        connection.close()


class Asker(Worker):
    """Asks the web interface now and then."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.answered = self.refused = 0

    def run(self) -> None:
        """See threading.Thread."""
        while not self.over.wait(ASK_SECONDS):
            try:
                with urllib.request.urlopen(self._url, timeout=20) as answer:
                    answer.read()
                self.answered += 1
            except OSError:
                self.refused += 1


def query(database: Path, text: str) -> int:
    """One number from the database."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute(text).fetchone()[0])


if __name__ == "__main__":
    sys.exit(main())
