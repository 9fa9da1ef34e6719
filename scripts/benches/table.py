"""Every figure in one run, with the others' beside them, as a table in Markdown: that of docs/figures.md.

Runs the other benches one after the other, so nothing else should run meanwhile: `--quick` takes ten minutes and
measures shorter, without it every bench takes the time it takes by itself, two and a half hours together (an hour of it
with 500 messages a second). The table goes to standard output, what the benches say meanwhile to standard error.

Numbers have two digits that count, from 100 on three. Ends with status 1 when a bench isn't satisfied or fails.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from support import arguments, file_system


class Row(NamedTuple):
    """One line: the command that measures it, what it is, the figure with the names of what was measured, and what it
    has to be."""

    command: str
    what: str
    figure: str
    budget: str = "-"


QUICK = {
    "intake": "--rounds 3 --messages 20000",
    "latency": "--seconds 10",
    "jobs": "--rounds 3 --jobs 5000 --picks 60",
    "jobs --store postgresql": "--rounds 2 --jobs 4000",
    "intake --store postgresql": "--rounds 1 --messages 20000",
    "contracts": "--seconds 12 --rounds 1 --idle 15",
    "start": "--rounds 5",
    "idle": "--minutes 1",
    "idle --web": "--minutes 1",
    "memory": "--minutes 1",
    "limits": "--minutes 1",
    "writes": "--seconds 8 --rates 10",
}

ROWS = (
    Row("intake", "durable intake (QoS 1, small JSON, one `emit` route, SQLite FULL) against a bare paho-mqtt "
        "subscriber with an empty callback, MQTT 5",
        "{edgeq_5} against {bare_5} messages a second: **{ratio_5}**", "0.6"),
    Row("intake", "the same with MQTT 3.1.1",
        "{edgeq_3.1.1} against {bare_3.1.1}: **{ratio_3.1.1}**", "0.6"),
    Row("intake", "events a commit, bytes written an event, peak memory under that load",
        "{events_a_commit_5}, {bytes_an_event_5}, {peak_mib_5} MiB", "-, -, 64 MiB"),
    Row("latency", "published to `process_item`, 100 messages a second, beyond one commit: median, 99 %",
        "{above_ms_median} ms, {above_ms_99%} ms", "2 ms, 10 ms"),
    Row("jobs", "jobs dispatched a second, each in a commit of its own, against huey on SQLite, both with full "
        "synchronisation, by turns of 20", "{single} against {single_huey}: **{single_huey_ratio}**", "1.0"),
    Row("jobs", "jobs dispatched a second in bulk, against huey one by one",
        "{bulk} against {bulk_huey}: **{bulk_huey_ratio}**", "3.0"),
    Row("jobs", "jobs claimed, run and completed a second by one worker (100 at once), against huey's",
        "{run} against {run_huey}: **{run_huey_ratio}**", "3.0"),
    Row("jobs", "from the dispatch to the first line of an idle worker's handler, beyond one commit: median; "
        "dispatched by another process", "{pick_up_ms_this_process} ms; {pick_up_ms_another_process} ms", "2 ms"),
    Row("jobs --store postgresql", "jobs a second on PostgreSQL, one by one: edgeq, procrastinate, pgqueuer",
        "{single}, {single_procrastinate}, {single_pgqueuer}: **{single_procrastinate_ratio}** and "
        "**{single_pgqueuer_ratio}**", "1.0"),
    Row("jobs --store postgresql", "the same in bulk", "{bulk}, {bulk_procrastinate}, {bulk_pgqueuer}: "
        "**{bulk_procrastinate_ratio}** and **{bulk_pgqueuer_ratio}**", "1.0"),
    Row("jobs --store postgresql", "claimed, run and completed by one worker, 100 at once", "{run}, "
        "{run_procrastinate}, {run_pgqueuer}: **{run_procrastinate_ratio}** and **{run_pgqueuer_ratio}**", "1.0"),
    Row("intake --store postgresql", "durable intake by one, two and three members of one group (see "
        "[a hundred gateways](scaling.md))", "{members_1}, {members_2}, {members_3} messages a second"),
    Row("contracts", "300 contracts of six kinds over one stream of 500 events a second, each with a `where` of its "
        "own that holds of one or two in a hundred: share of a core (without contracts), peak memory, event to verdict "
        "(median)", "{cores_narrow} ({cores_none}), {peak_mib_narrow} MiB, {lag_ms_narrow} ms", "1.0, 64 MiB, 1 s"),
    Row("contracts", "10,000 subjects of one `absence` contract: memory a subject; while nothing is due: processor, "
        "written to disk", "{bytes_a_subject} bytes, {idle_percent} %, {idle_bytes} bytes", "-, 0.3 %, 0 bytes"),
    Row("contracts", "the same 10,000 subjects: from starting it to ready (without them)", "{ready_s} s "
        "({ready_s_without} s)"),
    Row("contracts", "10,000 deadlines due at once: told, all of it stored", "{told_s} s, {stored_s} s", "1 s, 1 s"),
    Row("start", "from starting `edgeq run` to ready, the greenhouse example with its web interface (the interpreter "
        "alone)", "{ready_s} s ({interpreter_s} s)", "1.5 s"),
    Row("idle", "idle, without the web interface: memory, processor, written to disk; watched for",
        "{memory_mib} MiB, {processor_percent} %, {bytes} bytes; {seconds} s", "40 MiB, 0.3 %, 0 bytes"),
    Row("idle --web", "the same with it, after it was asked once for all that there is",
        "{memory_mib} MiB, {processor_percent} %, {bytes} bytes; {seconds} s", "48 MiB, 0.3 %, 0 bytes"),
    Row("memory", "500 messages a second: peak memory, share of a core; published for",
        "{peak_mib} MiB, {cores}; {minutes} minutes", "64 MiB"),
    Row("limits", "the greenhouse example with its web interface in a cgroup of 128 MiB and a quarter of a core, 200 "
        "messages a second: peak memory, published to stored (median, 99 %), lost, killed; published for",
        "{memory_peak_mib} MiB, {latency_median_ms} ms, {latency_99_ms} ms, {lost}, {killed}; {minutes} minutes",
        "64 MiB, -, 1 s, 0, 0"),
    Row("writes", "bytes written an event at 10 messages a second with a `commit_interval` of 0 ms, 250 ms, 1 s, 5 s",
        "{edgeq_0ms_10}, {edgeq_250ms_10}, {edgeq_1s_10}, {edgeq_5s_10}"),
)  # fmt: skip


def main() -> int:
    """Run them all and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="measure shorter")
    parser.add_argument("--only", metavar="BENCH", help="those rows alone, such as 'intake'")
    options = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    measured: dict[str, dict[str, float]] = {}
    unsatisfied = []
    for command in QUICK:
        if options.only in (None, command):
            measured[command], satisfied = run(command, options.folder, quick=options.quick)
            unsatisfied += [] if satisfied else [command]
    if options.json:
        print(json.dumps(measured))
    else:
        print(preface(options.folder, load, (time.monotonic() - began) / 60, quick=options.quick), end="\n\n")
        print("\n".join(markdown(measured)))
    if unsatisfied:
        print(f"not as it should be: {', '.join(f'scripts/bench {each}' for each in unsatisfied)}", file=sys.stderr)
    return 1 if unsatisfied else 0


def run(command: str, folder: str, *, quick: bool) -> tuple[dict[str, float], bool]:
    """What a bench has measured, and whether it is satisfied."""
    name, *words = shlex.split(command)
    shorter = shlex.split(QUICK[command]) if quick else []
    print(f"\n== scripts/bench {shlex.join([name, *words, *shorter])}", file=sys.stderr, flush=True)
    path = str(Path(__file__).with_name(f"{name}.py"))
    done = subprocess.run(
        [sys.executable, path, *words, *shorter, "--folder", folder, "--json"], stdout=subprocess.PIPE, text=True
    )
    measured: dict[str, float] = json.loads(done.stdout) if done.stdout else {}
    return measured, done.returncode == 0


def preface(folder: str, load: float, minutes: float, *, quick: bool) -> str:
    """On what it was measured."""
    return (
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}{' with `--quick`' if quick else ''} in "
        f"{minutes:.0f} minutes, on {os.cpu_count()} cores ({platform.machine()}, Linux {platform.release()}, load "
        f"{load:.1f} before), {file_system(Path(folder))}, Python {platform.python_version()}, SQLite "
        f"{sqlite3.sqlite_version}."
    )


def markdown(measured: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The table, line by line. A command stands in the first of its rows."""
    yield "| command | what | figure | budget |"
    yield "|---|---|---|---|"
    told = ""
    for row in ROWS:
        if row.command in measured:
            command = "" if row.command == told else f"`scripts/bench {row.command}`"
            told = row.command
            yield f"| {command} | {row.what} | {figure(row, measured[row.command])} | {row.budget} |"


def figure(row: Row, measured: Mapping[str, float]) -> str:
    """The figure of a row in words."""
    text = row.figure
    for name, value in measured.items():
        text = text.replace(f"{{{name}}}", number(value))
    return "not measured" if "{" in text else text


def number(value: float) -> str:
    """With two digits that count, from 100 on three; thousands have a comma."""
    if abs(value) < 1e-9:
        return "0"
    digits = (2 if abs(value) < 99.5 else 3) - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, digits)}f}"


if __name__ == "__main__":
    sys.exit(main())
