"""Durable intake against a bare paho-mqtt subscriber with an empty callback: messages a second, commits, bytes, memory.

On SQLite, or, with `--store postgresql`, by one, two and three members behind one shared subscription: see `members`.

Both drain the same backlog from one mosquitto with raised in-flight limits: QoS 1, small JSON. edgeq has one `emit`
route and SQLite with synchronous=FULL. They take turns, and what counts is the median of the ratios: the rates of a
machine change from minute to minute, the ratio less. Ends with status 1 when it is below --least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process import bytes_written, memory_mib
from support import Appliance, Wire, arguments, file_system, mosquitto, note, publish_packet, results, scratch

CLIENT_ID = "edgeq-bench"
RECEIVE_MAXIMUM = 1000
CONFIG = """\
gateway: bench
mqtt: {{url: "mqtt://127.0.0.1:{port}", version: {version}, client_id: {client_id}, receive_maximum: {window}}}
routes:
  - {{topic: "sensors/{{device}}/{{metric}}", emit: "{{metric}}.reading", subject: "{{device}}", tags: [reading]}}
"""


@dataclass(frozen=True)
class Drained:
    """One backlog taken in by edgeq."""

    seconds: float
    commits: int
    bytes_written: int
    peak_mib: float


def main() -> int:
    """Measure, print, say whether it is enough."""
    parser = arguments(__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite", help="(default: sqlite)")
    parser.add_argument("--members", type=int, default=3, help="at most, on PostgreSQL (default: 3)")
    parser.add_argument("--version", choices=["5", "3.1.1", "both"], default="both", help="of MQTT (default: both)")
    parser.add_argument("--messages", type=int, default=50_000, help="in one backlog (default: 50000)")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--least", type=float, default=0.6, help="ratio that is still good (default: 0.6)")
    parser.add_argument("--bare", metavar="PORT", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(drain_bare(options.bare, options.version, options.messages)))
        return 0
    if options.store == "postgresql":
        import members

        with results(options), scratch(options.folder) as folder:
            print(f"{options.rounds} rounds of {options.messages} messages, {folder} is on {file_system(folder)}")
            members.report(members.measure(folder, options.members, options.messages, options.rounds))
        return 0
    versions = ["5", "3.1.1"] if options.version == "both" else [options.version]
    with results(options), scratch(options.folder) as folder, mosquitto(folder) as port:
        ratios = [measure(folder, port, version, options.messages, options.rounds) for version in versions]
    return 0 if min(ratios) >= options.least else 1


def measure(folder: Path, port: int, version: str, messages: int, rounds: int) -> float:
    """All rounds with one version of MQTT; the median ratio."""
    print(f"\nMQTT {version}, {rounds} rounds of {messages} messages, {folder} is on {file_system(folder)}")
    print(f"{'bare paho/s':>12} {'edgeq/s':>12} {'ratio':>6}")
    bare_rates, ratios, drained = [], [], []
    for number in range(rounds):
        fill_backlog(port, messages)
        command = [sys.executable, __file__, "--bare", str(port), "--version", version, "--messages", str(messages)]
        bare_seconds: float = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        fill_backlog(port, messages)
        home = folder / f"{version}-{number}"
        home.mkdir()
        drained.append(drain_edgeq(home, port, version, messages))
        bare_rates.append(messages / bare_seconds)
        ratios.append(bare_seconds / drained[-1].seconds)
        print(f"{bare_rates[-1]:12.0f} {messages / drained[-1].seconds:12.0f} {ratios[-1]:6.2f}", flush=True)
    rate = statistics.median(messages / each.seconds for each in drained)
    commits = statistics.median(each.commits for each in drained)
    written = statistics.median(each.bytes_written for each in drained)
    ratio = statistics.median(ratios)
    peak = max(each.peak_mib for each in drained)
    measured = {"bare": statistics.median(bare_rates), "edgeq": rate, "ratio": ratio, "peak_mib": peak}
    measured |= {"events_a_commit": messages / commits, "bytes_an_event": written / messages}
    note({f"{name}_{version}": value for name, value in measured.items()})
    print(f"{measured['bare']:12.0f} {rate:12.0f} {ratio:6.2f}  median")
    print(
        f"edgeq: {commits:.0f} commits, {messages / commits:.0f} events a commit, "
        f"{written / messages:.0f} bytes written an event, "
        f"peak memory {peak:.1f} MiB"
    )
    return ratio


def fill_backlog(port: int, messages: int) -> None:
    """Have the broker keep a session with `messages` waiting in it."""
    session = Wire(port, CLIENT_ID, clean=False)
    session.subscribe("sensors/+/+")
    session.close()
    publisher = Wire(port, "edgeq-bench-publisher")
    publisher.publish(
        [
            publish_packet(
                f"sensors/device-{number % 20}/{('temperature', 'humidity')[number % 2]}",
                b'{"value":%.1f,"unit":"C","seq":%d}' % (20 + number % 50 / 10, number),
                number,
            )
            for number in range(messages)
        ]
    )
    publisher.close()


def drain_edgeq(home: Path, port: int, version: str, messages: int) -> Drained:
    """`edgeq run` takes the backlog in: from the first message read to the last event committed."""
    config = CONFIG.format(port=port, version=version, client_id=CLIENT_ID, window=RECEIVE_MAXIMUM)
    with Appliance(home, config) as edgeq:
        edgeq.wait(lambda: stored(edgeq.database) is not None, "to make its database")
        edgeq.wait(lambda: stored(edgeq.database), "to store the first event")
        deadline = time.monotonic() + 300
        while stored(edgeq.database) != messages:
            if time.monotonic() > deadline:
                raise SystemExit(f"edgeq stored {stored(edgeq.database)} of {messages} events")
            time.sleep(0.005)
        end = time.time_ns() // 1000
        edgeq.wait(lambda: edgeq.counter("edgeq_messages_acked_total") == messages, "to acknowledge")
        begin = query(edgeq.database, "SELECT recorded_at FROM events ORDER BY id LIMIT 1")
        return Drained(
            (end - begin) / 1e6,
            edgeq.counter("edgeq_commits_total"),
            bytes_written(edgeq.pid),
            memory_mib(edgeq.pid, peak=True),
        )


def stored(database: Path) -> int | None:
    """How many events there are; None when there is no such table yet."""
    with contextlib.suppress(sqlite3.OperationalError):
        return query(database, "SELECT coalesce(max(id), 0) FROM events")
    return None


def query(database: Path, text: str) -> int:
    """One number from the database."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute(text).fetchone()[0])
    finally:
        connection.close()


def drain_bare(port: int, version: str, messages: int) -> float:
    """Seconds in which a paho-mqtt client that only counts takes the backlog in, from the first message to the last."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    seen, begin, end = 0, 0.0, 0.0

    def on_message(_client: Any, _data: Any, _message: Any) -> None:
        nonlocal seen, begin, end
        seen += 1
        if seen == 1:
            begin = time.perf_counter()
        elif seen == messages:
            end = time.perf_counter()
            threading.Timer(0.3, client.disconnect).start()  # not before the last acknowledgement is out

    if version == "5":
        client = paho.Client(CallbackAPIVersion.VERSION2, CLIENT_ID, protocol=paho.MQTTv5)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        client.on_message = on_message
        client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    else:
        client = paho.Client(CallbackAPIVersion.VERSION2, CLIENT_ID, protocol=paho.MQTTv311, clean_session=False)
        client.on_message = on_message
        client.connect("127.0.0.1", port)
    client.loop_forever()
    return end - begin


if __name__ == "__main__":
    sys.exit(main())
