"""Bytes written per event, by `store.commit_interval` and by messages a second; and gigabytes a year.

One route, a sentinel with a contract and a courier, one message after the other at a steady pace, each of them an event
of about 60 bytes of data. What is written is what the process has the kernel write (the log of the database, page by
page, and the database itself when it is brought up to date, the last time at the end of a run). Where a disk of its own
can be made for a run (root, ext4 in a file), what that disk was told to write is counted too: beside the same pages
that is the file system's journal and its knowledge of the file's size and time, which each commit brings up to date.

The figures don't depend on the machine's speed as long as a commit takes less time than there is between two messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from process import bytes_written
from support import (
    DEADLINE_SECONDS,
    Appliance,
    Wire,
    arguments,
    file_system,
    mosquitto,
    note,
    pace,
    publish_packet,
    results,
    scratch,
)

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))  # for the disk that the tests cut the power of
from power import Disk, NoDiskError

INTERVALS = ("0ms", "50ms", "250ms", "1s", "5s")
RATES = (1, 10, 100)
SECONDS_A_YEAR = 365 * 86400
CONFIG = """\
gateway: bench
mqtt: {{url: "mqtt://127.0.0.1:{port}"}}
store: {{commit_interval: {interval}}}
routes: [{{topic: "sensors/{{device}}", emit: temperature.reading, subject: "{{device}}"}}]
processors: {{courier: {{kind: courier}}, sentinel: {{kind: sentinel}}}}
channels: {{journal: {{kind: log}}}}
notifications: {{routes: [{{match: {{tags: [notification]}}, channels: [journal]}}]}}
contracts: [{{name: cold, kind: threshold, of: temperature.reading, field: value, above: 60}}]
"""


def main() -> int:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="to publish for each figure (default: 30)")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, help="messages a second (default: 1 10 100)")
    options = parser.parse_args()
    with results(options), scratch(options.folder) as folder, mosquitto(folder) as port:
        print(f"{options.seconds} s for each figure; bytes an event, gigabytes a year, on {file_system(folder)}")
        print(f"{'commit_interval':16}" + "".join(f"{f'{rate} a second':>22}" for rate in options.rates))
        for interval in INTERVALS:
            print(f"{interval:16}", end="", flush=True)
            on_disk = f"{'  its disk':16}"
            for rate in options.rates:
                with a_disk(folder) as disk:
                    by_edgeq, by_disk = measure(disk or folder, port, interval, rate, options.seconds, disk is not None)
                note({f"edgeq_{interval}_{rate}": by_edgeq})
                print(told(by_edgeq, rate), end="", flush=True)
                if by_disk is not None:
                    note({f"disk_{interval}_{rate}": by_disk})
                    on_disk += told(by_disk, rate)
            print()
            if on_disk.strip() != "its disk":
                print(on_disk)
    return 0


def told(bytes_an_event: float, rate: int) -> str:
    """So many bytes an event, and what that is in a year."""
    return f"{bytes_an_event:11.0f} {bytes_an_event * rate * SECONDS_A_YEAR / 1e9:7.1f} GB"


@contextlib.contextmanager
def a_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of its own, mounted; None where there can be none."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(Disk(folder)).folder
        except NoDiskError as error:
            print(f"{error}; only what edgeq writes is counted", file=sys.stderr)
            disk = None
        yield disk


def measure(
    home: Path, port: int, interval: str, rate: int, seconds: int, own_disk: bool
) -> tuple[float, float | None]:
    """Bytes an event: what edgeq has written, and what the disk has, if it is its own."""
    with Appliance(home, CONFIG.format(port=port, interval=interval)) as edgeq:
        edgeq.wait_connected()
        os.sync()
        before = bytes_written(edgeq.pid), sectors(home)
        publisher = Wire(port, "edgeq-bench-publisher")
        count = rate * seconds
        for number in pace(count, rate):
            data = {"value": 20 + number % 50 / 10, "unit": "C", "battery": 87, "seq": number}
            publisher.publish([publish_packet(f"sensors/device-{number % 20}", json.dumps(data).encode(), number)])
        publisher.close()
        edgeq.wait(lambda: edgeq.counter("edgeq_messages_acked_total") == count, "to acknowledge")
        edgeq.process.send_signal(signal.SIGTERM)
        written = ended(edgeq.pid) - before[0]
        edgeq.process.returncode = 0
    os.sync()
    return written / count, (sectors(home) - before[1]) * 512 / count if own_disk else None


def ended(pid: int) -> int:
    """How many bytes a child has had written, the last ones at its end, which this waits for."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        child, status, usage = os.wait4(pid, os.WNOHANG)
        if child:
            if status:
                raise SystemExit(f"edgeq ended with status {status}")
            return usage.ru_oublock * 512
        time.sleep(0.02)
    raise SystemExit("edgeq doesn't end")


def sectors(folder: Path) -> int:
    """How many sectors of 512 bytes the disk below `folder` was told to write so far."""
    device = os.stat(folder).st_dev
    return int(Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()[6])


if __name__ == "__main__":
    sys.exit(main())
