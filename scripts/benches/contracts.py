"""What contracts cost: 300 over one stream of 500 events a second; 10,000 subjects of one; 10,000 deadlines at once.

- stream: `edgeq run` with a mosquitto and a publisher in another process. All contracts are about the stream's one
  type of events; they are thresholds, absences, rates, counts, stuck values and deadlines in equal parts, each with a
  `where` of its own, of one or two conditions in five forms. "Narrow": each where holds of one event in a hundred or
  two; only the deadlines judge all of them, as any event of the device will do as an answer. "Wide": each holds of all
  events, so every contract judges every event, for each device on its own: the worst that there is, without a demand.
  "None": the same stream without contracts.
  Rates remember when each event of the last seconds happened, and have a lateness of 5 s for that reason; all else is
  as it is by default. Processor time and peak memory are those of the edgeq process, everything included: taking the
  messages in one by one, storing them, judging, storing the states. Lag is from an event's recording to the verdict
  that it causes, of one contract that is violated and resolved in turns, once a second; and how many events the stored
  cursor is behind at worst (it may wait for a second or two on purpose).
- judge: the same contracts and events, as fast as it goes, in this process and without a store; beside it a loop that
  only asks each contract's compiled `where`, one after the other, and judges nothing. In turns, median of the rounds.
- subjects: one `absence` contract and an event from each subject; memory against the same events without a contract,
  the time from starting it to "ready" and, after that, until its states are loaded; and what it does while nothing is
  due, again against the same without a contract.
- deadlines: one `deadline` contract, one event from each subject, all of one time: from when they are due until all
  verdicts and states are stored.

Other systems' figures for such a stream (300 rules at 500 events a second: 95 MB and half of two cores for eKuiper) are
of other machines and of rules without a state of their own.

Ends with status 1 when a demand isn't met.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process import bytes_written, memory_mib, processor_seconds, wakeups
from support import (
    Appliance,
    Wire,
    arguments,
    file_system,
    listening,
    mosquitto,
    note,
    percentile,
    publish_packet,
    results,
    scratch,
)

from edgeq.config.section import Section
from edgeq.contracts import Contract, load_contracts
from edgeq.contracts.judge import Judge
from edgeq.errors import Problem
from edgeq.events import Event

RATE = 500
DEVICES = 10
CORES, MEMORY_MIB, LAG_SECONDS = 1.0, 64.0, 1.0
IDLE_PERCENT = 0.3
DETECTION_SECONDS = 1.0
WARM_UP_SECONDS = 3
BATCH = 100
KINDS: tuple[dict[str, Any], ...] = (
    {"kind": "threshold", "of": "reading", "above": 1000, "for": "10s"},
    {"kind": "absence", "of": "reading", "every": "10m"},
    {"kind": "rate", "of": "reading", "more_than": 100, "within": "1s", "lateness": "5s"},
    {"kind": "count", "of": "reading", "at_most": 1_000_000, "per": "hour"},
    {"kind": "stuck", "of": "reading", "for": "10m"},
    {"kind": "deadline", "after": "reading", "expect": "reading", "within": "10m"},
)
TRACER = {"name": "tracer", "kind": "threshold", "of": "reading", "where": {"line": 100}, "above": 50}
CONFIG = """\
gateway: bench
mqtt: {{url: "mqtt://127.0.0.1:{port}"}}
routes: [{{topic: "sensors/{{device}}", emit: reading, subject: "{{device}}"}}]
processors: {{sentinel: {{kind: sentinel, start: beginning}}}}
contracts: {contracts}
"""


@dataclass(frozen=True)
class Streamed:
    """What a stream has cost: shares of one core, MiB, events a second, and lags in milliseconds and events."""

    cores: float
    peak_mib: float
    rate: float
    lags_ms: list[float]
    behind: int


def main() -> int:
    """Measure, print, say whether it is little enough."""
    parser = arguments(__doc__)
    parser.add_argument("--contracts", type=int, default=300, help="over the stream (default: 300)")
    parser.add_argument("--seconds", type=int, default=30, help="of each stream (default: 30)")
    parser.add_argument("--rounds", type=int, default=3, help="of the judge alone (default: 3)")
    parser.add_argument("--subjects", type=int, default=10_000, help="of one contract (default: 10000)")
    parser.add_argument("--idle", type=int, default=60, metavar="SECONDS", help="to watch doing nothing (default: 60)")
    parser.add_argument("--publish", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish_stream(options.publish, options.seconds)
        return 0
    good = True
    with results(options), scratch(options.folder) as folder, mosquitto(folder) as port:
        load = " ".join(f"{each:.2f}" for each in os.getloadavg())
        print(f"{folder} is on {file_system(folder)}, SQLite {sqlite3.sqlite_version}, load of the machine {load}\n")
        good = streams(folder, port, options.contracts, options.seconds) and good
        judges(options.contracts, options.rounds)
        good = subjects(folder, port, options.subjects, options.idle) and good
        good = deadlines(folder, port, options.subjects) and good
    return 0 if good else 1


# 300 contracts over one stream


def streams(folder: Path, port: int, count: int, seconds: int) -> bool:
    """Measure and print what the stream costs with each sort of contracts; whether that is little enough."""
    print(f"{count} contracts, {RATE} events a second from {DEVICES} devices, {seconds} s")
    print(
        f"{'where':8} {'cores':>6} {'peak MiB':>9} {'events/s':>9} {'evaluations/s':>14} "
        f"{'lag ms, median, max':>20} {'behind':>7}"
    )
    good = True
    for name, contracts in (
        ("none", []),
        ("narrow", mappings(count, wide=False)),
        ("wide", mappings(count, wide=True)),
    ):
        got = stream(folder / name, port, contracts, seconds)
        note({f"cores_{name}": got.cores, f"peak_mib_{name}": got.peak_mib})
        note({f"lag_ms_{name}": percentile(got.lags_ms, 0.5)} if got.lags_ms else {})
        lags = f"{percentile(got.lags_ms, 0.5):.0f}, {max(got.lags_ms):.0f}" if got.lags_ms else ""
        row = f"{name:8} {got.cores:6.2f} {got.peak_mib:9.1f} {got.rate:9.0f} {got.rate * len(contracts):14.0f}"
        keeps_up = got.rate > 0.98 * RATE and max(got.lags_ms, default=0) <= 1000 * LAG_SECONDS
        enough = got.cores <= CORES and got.peak_mib <= MEMORY_MIB and keeps_up
        word = verdict(enough) if name == "narrow" else "keeps up" if keeps_up else "falls behind"
        good = good and (enough or name != "narrow")
        print(f"{row} {lags:>20} {got.behind:7}  {word}", flush=True)
    print(f"{'demand':8} {CORES:6.2f} {MEMORY_MIB:9.1f} {RATE:9} {RATE * count:14} {1000 * LAG_SECONDS:20.0f}\n")
    return good


def mappings(count: int, *, wide: bool) -> list[dict[str, Any]]:
    """The contracts, the tracer among them."""
    return [
        TRACER,
        *({"name": f"c{n}", **KINDS[n % len(KINDS)], "where": where(n, wide=wide)} for n in range(1, count)),
    ]


def where(number: int, *, wide: bool) -> dict[str, Any]:
    """The conditions of one contract. `line` is 0 to 99 in equal parts, `value` 0.0 to 99.9."""
    form, line = number // len(KINDS) % 5, number % 100
    if wide:
        return (
            {"line": {"not": 1000 + number}},
            {"value": {"above": -1 - number}},
            {"fault": {"exists": False}, "value": {"above": -1 - number}},
            {"unit": ["C", "K"], "line": {"below": 1000 + number}},
            {"line": {"above": -1 - number, "below": 1000}},
        )[form]
    return (
        {"line": line},
        {"value": {"above": line, "below": line + 1}},
        {"line": [line, (line + 50) % 100], "unit": "C"},
        {"line": line, "fault": {"exists": False}},
        {"line": line, "value": {"above": number / 6}},
    )[form]


def payload(number: int) -> dict[str, Any]:
    """The data of an event."""
    return {"value": number * 37 % 1000 / 10, "line": number * 7 % 100, "unit": "CKC"[number % 3], "seq": number}


def publish_stream(port: int, seconds: int) -> None:
    """In a process of its own: the stream, and once a second a message that the tracer is about."""
    publisher = Wire(port, "edgeq-bench-publisher")
    began = time.monotonic()
    for number in range(RATE * seconds):
        topic, data = f"sensors/device-{number % DEVICES}", payload(number)
        if number % RATE == 0:
            topic, data = "sensors/tracer", {"value": 100 * (number // RATE % 2), "line": 100}
        packet = publish_packet(topic, json.dumps(data).encode(), number)
        time.sleep(max(0.0, began + number / RATE - time.monotonic()))
        publisher.publish([packet])
    publisher.close()


def stream(home: Path, port: int, contracts: list[dict[str, Any]], seconds: int) -> Streamed:
    """Run it."""
    home.mkdir()
    with Appliance(home, CONFIG.format(port=port, contracts=json.dumps(contracts))) as edgeq:
        edgeq.wait_connected()
        database = Database(edgeq.database)
        command = [sys.executable, __file__, "--publish", str(port), "--seconds", str(seconds + WARM_UP_SECONDS)]
        with subprocess.Popen(command) as publisher:
            edgeq.wait(lambda: database.head() >= RATE * WARM_UP_SECONDS, "to store the first events", 60)
            began, used, first = time.monotonic(), processor_seconds(edgeq.pid), database.head()
            behind = 0
            while time.monotonic() < began + seconds - 1:
                time.sleep(0.5)
                behind = max(behind, database.behind())
            took, used, last = time.monotonic() - began, processor_seconds(edgeq.pid) - used, database.head()
            if publisher.wait() != 0:
                raise SystemExit("the publisher failed")
        edgeq.wait(lambda: not database.behind(), "to judge the last events", 60)
        lags = database.numbers(
            "SELECT verdict.recorded_at - event.recorded_at FROM events AS verdict JOIN events AS event"
            " ON event.id = verdict.cause_id WHERE verdict.type LIKE 'contract.%' AND verdict.id > ?",
            first,
        )
        return Streamed(
            used / took, memory_mib(edgeq.pid, peak=True), (last - first) / took, [lag / 1000 for lag in lags], behind
        )


# The judge alone


def judges(count: int, rounds: int) -> None:
    """Measure and print how fast the judge is, beside a loop that judges nothing."""
    print(f"{count} contracts, the judge alone, {rounds} rounds: evaluations a second")
    print(f"{'where':8} {'judge':>12} {'conditions':>12} {'ratio':>6}")
    for name, wide, events in (("narrow", False, 4000), ("wide", True, 1000)):
        judge = Judge(loaded(mappings(count, wide=wide)))
        judge_events(judge, list(made(1, BATCH * DEVICES)))
        rates: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            some = list(made(1 + BATCH * DEVICES + number * events, events))
            for each in some:
                _ = each.data  # which both need
            for found, work in zip(rates, (judge_events, ask_conditions), strict=True):
                began = time.perf_counter()
                work(judge, some)
                found.append(count * events / (time.perf_counter() - began))
        ratio = statistics.median(mine / other for mine, other in zip(*rates, strict=True))
        print(f"{name:8} {statistics.median(rates[0]):12.0f} {statistics.median(rates[1]):12.0f} {ratio:6.2f}")
    print(flush=True)


def loaded(contracts: list[dict[str, Any]]) -> list[Contract]:
    """The contracts, compiled."""
    problems: list[Problem] = []
    found = load_contracts([Section(f"contracts[{n}]", each) for n, each in enumerate(contracts)], problems)
    assert not problems, problems
    return found


def made(first: int, count: int) -> Iterator[Event]:
    """Events of the stream."""
    for number in range(first, first + count):
        at = 1_700_000_000_000_000 + number * 1_000_000 // RATE
        data = json.dumps(payload(number))
        yield Event(number, "reading", f"device-{number % DEVICES}", "t", data, "[]", "", at, at, None, None)


def judge_events(judge: Judge, events: list[Event]) -> None:
    """As the sentinel does it."""
    for start in range(0, len(events), BATCH):
        with judge.turn() as turn:
            for event in events[start : start + BATCH]:
                turn.observe(event, trusted=True)


def ask_conditions(judge: Judge, events: list[Event]) -> None:
    """What comes to mind first, without judging anything."""
    tests = [contract.where for contract in judge.contracts.values()]
    passed = 0
    for event in events:
        for test in tests:
            if test is None or test(event.data):
                passed += 1


# 10,000 subjects of one contract


def subjects(folder: Path, port: int, count: int, idle_seconds: int) -> bool:
    """Measure and print what many subjects of one contract cost; whether doing nothing is free."""
    print(f"one absence contract, {count} subjects, {idle_seconds} s without events")
    print(
        f"{'':10} {'MiB, then':>10} {'MiB, started':>13} {'to ready, s':>12} {'to loaded, s':>13} "
        f"{'idle %':>7} {'bytes':>6} {'wake-ups/s':>11}"
    )
    plain = watch(folder / "plain", port, [], count, idle_seconds)
    contract = {"name": "reports", "kind": "absence", "of": "reading", "every": "1d"}
    watched = watch(folder / "watched", port, [contract], count, idle_seconds)
    shape = "{:10} {:10.1f} {:13.1f} {:12.2f} {:13.2f} {:7.2f} {:6.0f} {:11.2f}"
    print(shape.format("none", *plain))
    print(shape.format("absence", *watched))
    enough = watched[4] <= IDLE_PERCENT and watched[5] == 0
    each = (watched[1] - plain[1]) * 2**20 / count
    note({"bytes_a_subject": each, "idle_percent": watched[4], "idle_bytes": watched[5]})
    note({"ready_s": watched[2], "ready_s_without": plain[2]})
    print(
        f"{each:.0f} bytes a subject after a start; idle at most {IDLE_PERCENT} %, 0 bytes: {verdict(enough)}\n",
        flush=True,
    )
    return enough


def watch(home: Path, port: int, contracts: list[dict[str, Any]], count: int, seconds: int) -> list[float]:
    """MiB after the events, MiB after a start, seconds until ready, until the states are loaded, and idle: % of a core,
    bytes written, wake-ups a second."""
    home.mkdir()
    config = CONFIG.format(port=port, contracts=json.dumps(contracts))
    with Appliance(home, config) as edgeq:
        edgeq.wait_connected()
        publish_each(port, count, b'{"value":1}')
        settle(edgeq, count, count if contracts else 0)
        memory = memory_mib(edgeq.pid)
    with listening(home) as ready:
        began = time.monotonic()
        with Appliance(home, config) as edgeq:
            ready()
            ready_seconds = time.monotonic() - began
            edgeq.wait_connected()
            publish_each(port, 1, b'{"value":1}')
            database = Database(edgeq.database)
            edgeq.wait(lambda: database.head() > count and not database.behind(), "to judge an event")
            loaded_seconds = time.monotonic() - began
            time.sleep(WARM_UP_SECONDS + 2)
            started_memory = memory_mib(edgeq.pid)
            before = processor_seconds(edgeq.pid), bytes_written(edgeq.pid), wakeups(edgeq.pid)
            time.sleep(seconds)
            after = processor_seconds(edgeq.pid), bytes_written(edgeq.pid), wakeups(edgeq.pid)
    used, written, woken = (now - then for now, then in zip(after, before, strict=True))
    idle = [100 * used / seconds, written, woken / seconds]
    return [memory, started_memory, ready_seconds, loaded_seconds, *idle]


def publish_each(port: int, count: int, data: bytes) -> None:
    """One message from each of so many devices."""
    publisher = Wire(port, "edgeq-bench-publisher")
    publisher.publish([publish_packet(f"sensors/device-{number}", data, number) for number in range(count)])
    publisher.close()


def settle(edgeq: Appliance, events: int, states: int) -> None:
    """Return when so many events and states are stored, and everything else is."""
    database = Database(edgeq.database)
    edgeq.wait(lambda: database.head() >= events and not database.behind(), "to judge the events", 120)
    edgeq.wait(lambda: database.numbers("SELECT count(*) FROM contract_states")[0] >= states, "to store the states")


# 10,000 deadlines at once


def deadlines(folder: Path, port: int, count: int) -> bool:
    """Measure and print how long it takes to tell of so many at once; whether the first is told in time."""
    home = folder / "deadlines"
    home.mkdir()
    wait_seconds = 5 + count // 1000
    contract = {
        "name": "answers",
        "kind": "deadline",
        "after": "reading",
        "expect": "answer",
        "within": f"{wait_seconds}s",
    }
    config = CONFIG.format(port=port, contracts=json.dumps([contract]))
    config = config.replace("emit: reading,", 'emit: reading, occurred_at: "{payload.ts}",')
    with Appliance(home, config) as edgeq:
        edgeq.wait_connected()
        at = time.time_ns() // 1000
        publish_each(port, count, b'{"ts":%d}' % at)
        settle(edgeq, count, count)
        due_at = at + wait_seconds * 1_000_000
        if time.time_ns() // 1000 >= due_at:
            raise SystemExit("it took too long to store the events: fewer --subjects")
        database = Database(edgeq.database)
        edgeq.wait(lambda: database.head() >= 2 * count, "to tell of all", 120)
        all_seconds = (time.time_ns() // 1000 - due_at) / 1e6
        wrong = database.numbers("SELECT count(*) FROM contract_states WHERE state <> 'violated'")[0]
        recorded = database.row("SELECT min(recorded_at), max(recorded_at) FROM events WHERE id > ?", count)
        told = [(at - due_at) / 1e6 for at in recorded]
        peak = memory_mib(edgeq.pid, peak=True)
    enough = all_seconds <= DETECTION_SECONDS and not wrong
    note({"told_s": told[1], "stored_s": all_seconds})
    print(f"{count} deadlines due at once: told from {told[0]:.2f} to {told[1]:.2f} s after that,", end=" ")
    print(f"all stored after {all_seconds:.2f} s, peak {peak:.1f} MiB;", end=" ")
    print(f"at most {DETECTION_SECONDS:.0f} s: {verdict(enough)}")
    return enough


class Database:
    """Reads of what edgeq has stored."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    def row(self, text: str, *values: object) -> tuple[int, ...]:
        """The first row."""
        found: tuple[int, ...] = self._connection.execute(text, values).fetchone()
        return found

    def numbers(self, text: str, *values: object) -> list[int]:
        """The first column."""
        return [row[0] for row in self._connection.execute(text, values)]

    def head(self) -> int:
        """The id of the newest event."""
        return self.row("SELECT coalesce(max(id), 0) FROM events")[0]

    def behind(self) -> int:
        """How many events the sentinel's cursor, as it is stored, is behind."""
        cursor = self.numbers("SELECT last_consumed_id FROM cursors")
        return self.head() - max(cursor, default=0)


def verdict(good: bool) -> str:
    """In a word."""
    return "PASS" if good else "FAIL"


if __name__ == "__main__":
    sys.exit(main())
