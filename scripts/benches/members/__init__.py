"""Durable intake by several `edgeq run` behind one shared subscription, on one PostgreSQL: the rate, and its limit.

Each run publishes the same messages, QoS 1, small JSON, to one mosquitto and waits until their events are committed.
While it lasts, the server is asked every few milliseconds who holds the store's lock (see edgeq.store.postgres.engine),
what its holder is doing, and how many wait for it; before and after, how much processor time everybody has used, and
what the server has written. Broker, members and server share this machine.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import psycopg
from postgres import Postgres
from process import children, processor_seconds
from support import Appliance, Wire, mosquitto, note, publish_packet

CONFIG = """\
gateway: member-{number}
mqtt: {{url: "mqtt://127.0.0.1:{port}", version: 5, client_id: member-{number}, receive_maximum: 1000, group: bench}}
routes:
  - {{topic: "sensors/{{device}}/{{metric}}", emit: "{{metric}}.reading", subject: "{{device}}", tags: [reading]}}
"""
SAMPLE_SECONDS = 0.005
_LOCK = """
SELECT granted, coalesce(wait_event_type, 'computes') FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND classid = 0 AND objsubid = 1 AND objid = 'events'::regclass::oid
"""
_DOES = {"computes": "server", "Client": "member", "IO": "disk", "LWLock": "server", "Lock": "server"}
_WRITTEN = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


@dataclass(frozen=True)
class Run:
    """What was measured in one run. `held` to `by_disk` are shares of the time, `waiting` how many waited on average;
    `edgeq` to `others` are cores."""

    rate: float
    commits: float
    held: float
    waiting: float
    by_server: float
    by_member: float
    by_disk: float
    edgeq: float
    postgres: float
    mosquitto: float
    others: float
    wal_bytes: float

    @property
    def cost_us(self) -> float:
        """Processor time of everybody for one message, in microseconds."""
        return (self.edgeq + self.postgres + self.mosquitto) / self.rate * 1e6


def measure(folder: Path, members: int, messages: int, rounds: int) -> list[Run]:
    """For one to so many members, the medians of all rounds; the rounds take turns."""
    runs: dict[int, list[Run]] = {count: [] for count in range(1, members + 1)}
    with Postgres(folder) as server:
        for number in range(rounds):
            for count, found in runs.items():
                home = folder / f"{number}-{count}"
                home.mkdir()
                # A broker of its own: mosquitto would go on to deal messages out to the members of earlier runs.
                with mosquitto(home) as port:
                    url = server.database(f"intake_{number}_{count}")
                    found.append(drain(home, server, url, port, count, messages))
    return [
        Run(*[statistics.median(getattr(run, field.name) for run in found) for field in fields(Run)])
        for found in runs.values()
    ]


def drain(home: Path, server: Postgres, url: str, port: int, count: int, messages: int) -> Run:
    """One run of so many members."""
    members = []
    try:
        for number in range(1, count + 1):
            folder = home / str(number)
            folder.mkdir()
            members.append(Appliance(folder, CONFIG.format(number=number, port=port), store=url))
        for member in members:
            member.wait_connected()
        return watch(members, server, url, port, messages)
    finally:
        for member in members:
            member.stop()


def watch(members: list[Appliance], server: Postgres, url: str, port: int, messages: int) -> Run:
    """Publish, and measure until every event is there."""
    packets = [
        publish_packet(
            f"sensors/device-{number % 20}/temperature",
            b'{"value":%.1f,"seq":%d}' % (20 + number % 50 / 10, number),
            number,
        )
        for number in range(messages)
    ]
    publisher = Wire(port, "publisher")
    commits = sum(member.counter("edgeq_commits_total") for member in members)
    with psycopg.connect(url, autocommit=True) as connection, Samples(url) as samples:
        before, written = used(members, server), connection.execute(_WRITTEN).fetchall()[0][0]
        began = time.perf_counter()
        thread = threading.Thread(target=publisher.publish, args=(packets,))
        thread.start()
        deadline = began + 300
        while stored(connection, messages) < messages:
            if time.perf_counter() > deadline:
                raise SystemExit(f"{stored(connection, messages)} of {messages} events were stored")
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        after = used(members, server)
        samples.stop()
        written = connection.execute(_WRITTEN).fetchall()[0][0] - written
    thread.join()
    publisher.close()
    edgeq, postgres, broker, machine = ((now - then) / seconds for now, then in zip(after, before, strict=True))
    commits = sum(member.counter("edgeq_commits_total") for member in members) - commits
    return Run(
        messages / seconds, commits / seconds, samples.held, samples.waiting, samples.does("server"),
        samples.does("member"), samples.does("disk"), edgeq, postgres, broker, machine - edgeq - postgres - broker,
        float(written) / messages,
    )  # fmt: skip


def stored(connection: psycopg.Connection[tuple[int]], wanted: int) -> int:
    """How many events there are. They are counted only when there may be as many as are wanted."""
    [(last,)] = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchall()
    return last if last < wanted else connection.execute("SELECT count(*) FROM events").fetchall()[0][0]


def used(members: list[Appliance], server: Postgres) -> tuple[float, float, float, float]:
    """Processor seconds so far: of the members, the server, the broker, and of the whole machine."""
    ours = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in children(os.getpid())}
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (
        sum(processor_seconds(member.pid) for member in members),
        sum(processor_seconds(pid) for pid in [server.pid, *children(server.pid)]),
        sum(processor_seconds(pid) for pid, name in ours.items() if name == "mosquitto"),
        (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"),
    )


class Samples:
    """Looks at the store's lock again and again, in a thread. Use it in a `with` block."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._found: Counter[str] = Counter()
        self._looks = self._waiting = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Samples:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._over.wait(SAMPLE_SECONDS):
                rows = connection.execute(_LOCK).fetchall()
                self._looks += 1
                self._waiting += sum(not granted for granted, _ in rows)
                self._found.update({_DOES.get(event, "server") for granted, event in rows if granted})

    @property
    def held(self) -> float:
        """For which share of the time somebody held the lock."""
        return self._found.total() / max(1, self._looks)

    @property
    def waiting(self) -> float:
        """How many waited for it, on average."""
        return self._waiting / max(1, self._looks)

    def does(self, who: str) -> float:
        """For which share of the time it was held while that one was to go on: the server, the member or the disk."""
        return self._found[who] / max(1, self._looks)


def report(runs: Sequence[Run]) -> None:
    """Print what was measured for one member, for two and so on, and what follows from it."""
    print(f"{'members':28}" + "".join(f"{number:>10}" for number in range(1, len(runs) + 1)))
    for name, text in _ROWS:
        print(f"{name:28}" + "".join(f"{text(run):>10}" for run in runs))
    for number, run in enumerate(runs, 1):
        print(f"{number} member{'s' if number > 1 else ''}: {limit(run)}")
    note({f"members_{count}": run.rate for count, run in enumerate(runs, 1)})
    first, last = runs[0], runs[-1]
    print(
        f"{len(runs)} members take in {last.rate / first.rate:.2f} times what one does, and each message costs "
        f"{last.cost_us / first.cost_us:.2f} times as much processor time."
    )


_ROWS: tuple[tuple[str, Callable[[Run], str]], ...] = (
    ("messages a second", lambda run: f"{run.rate:.0f}"),
    ("commits a second", lambda run: f"{run.commits:.0f}"),
    ("events a commit", lambda run: f"{run.rate / run.commits:.0f}"),
    ("lock held, share of time", lambda run: f"{run.held:.0%}"),
    ("  while the server works", lambda run: f"{run.by_server:.0%}"),
    ("  while the member works", lambda run: f"{run.by_member:.0%}"),
    ("  while the disk works", lambda run: f"{run.by_disk:.0%}"),
    ("members waiting for it", lambda run: f"{run.waiting:.2f}"),
    ("disk, ms a commit", lambda run: f"{run.by_disk / run.commits * 1e3:.2f}"),
    ("bytes of log a message", lambda run: f"{run.wal_bytes:.0f}"),
    ("cores: members", lambda run: f"{run.edgeq:.2f}"),
    ("cores: PostgreSQL", lambda run: f"{run.postgres:.2f}"),
    ("cores: mosquitto", lambda run: f"{run.mosquitto:.2f}"),
    ("cores: publisher, others", lambda run: f"{run.others:.2f}"),
    ("processor time a message, us", lambda run: f"{run.cost_us:.0f}"),
)


def limit(run: Run) -> str:
    """What keeps it from being faster, by what was measured."""
    cores = os.cpu_count() or 1
    shares = {"the server works": run.by_server, "its member works": run.by_member, "the disk works": run.by_disk}
    most = max(shares, key=lambda name: shares[name])
    lock = f"the store's lock is held for {run.held:.0%} of the time, mostly while {most}"
    busy = run.edgeq + run.postgres + run.mosquitto + run.others
    if run.held > 0.9:
        return f"the lock is the limit: {lock}; {busy:.1f} of {cores} cores work."
    if busy > 0.9 * cores:
        return f"the processors are the limit, {busy:.1f} of {cores} cores work; {lock}."
    return f"neither the processors ({busy:.1f} of {cores} cores work) nor the lock is the limit; {lock}."
