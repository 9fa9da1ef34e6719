"""Several `edgeq run` on one PostgreSQL store, behind one shared subscription, under load; and the audit of it all.

Each numbered message becomes an event, which a processor echoes, and a job; some jobs fail for good. Every tenth number
also opens a door that nobody closes: the sentinel tells of it, by two channels.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgeq.store.postgres.ownership import lock_key

from .appliance import Appliance
from .mosquitto import Mosquitto
from .stores import PostgresDatabase

WINDOW = 100  # the receive maximum that each member is given
FAILS = 50  # each job of which the number divides by that is dead in the end
DOOR = 10  # and each such number opens a door
DEADLINE_SECONDS = 120.0

CONFIGURATION = """\
gateway: {name}
mqtt: {{url: "{url}", group: site, receive_maximum: {window}}}
app: {{path: ., modules: [work]}}
routes:
  - {{topic: "load/{{number:int}}", emit: load.received, subject: "{{number}}", dispatch: "work:Note"}}
  - {{topic: "doors/{{door:int}}", emit: door.opened, subject: "{{door}}", dedup: "{{door}}"}}
processors:
  echo: {{kind: "work:Echo", start: beginning}}
  sentinel: {{kind: sentinel, start: beginning}}
  courier: {{kind: courier, start: beginning}}
contracts:
  - {{name: closes, kind: deadline, after: door.opened, expect: door.closed, within: 1s}}
channels:
  box: {{kind: inbox}}
  out: {{kind: mqtt, topic: told/out}}
jobs:
  queues: {{default: {{concurrency: 8, lease: 3s}}}}
log: {{level: info}}
"""

WORK = f"""\
from edgeq import Context, Event, Job, QueueProcessor


class Echo(QueueProcessor):
    types = ("load.received",)

    async def process_item(self, event: Event, ctx: Context) -> None:
        ctx.emit("load.echoed", subject=event.subject, data={{"of": event.id}})


class Note(Job):
    max_attempts = 4  # two of them may be lost
    backoff = "100ms"
    number: int

    async def handle(self, ctx: Context) -> None:
        if self.number % {FAILS} == 0:
            raise ValueError("it divides")
        ctx.emit("job.done", subject=str(self.number))
"""


class Traffic:
    """Publishes numbered messages at QoS 1, `rate` a second, until it is stopped: to `load/<number>`, and for some to
    `doors/<number>` as well."""

    def __init__(self, port: int, rate: float) -> None:
        self.topics: set[str] = set()
        self._sent: list[paho.MQTTMessageInfo] = []
        self._rate = rate
        self._ending = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(200)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ending.wait(1 / self._rate):
            self._publish(f"load/{number}")
            if number % DOOR == 0:
                self._publish(f"doors/{number}")
            number += 1

    def _publish(self, topic: str) -> None:
        self._sent.append(self._client.publish(topic, b"{}", qos=1))
        self.topics.add(topic)

    def stop(self) -> None:
        """Publish no more, and return when the broker has acknowledged all. May be called again."""
        self._ending.set()
        self._thread.join()
        for info in self._sent:
            info.wait_for_publish(DEADLINE_SECONDS)
            assert info.is_published(), "the broker doesn't acknowledge"
        self._client.disconnect()
        self._client.loop_stop()


class Group:
    """Its members, by the names of their folders. `unclean` counts how often one was killed or stood still, each of
    which may double what it had in hand."""

    def __init__(self, folder: Path, broker: Mosquitto, database: PostgresDatabase) -> None:
        self.database = database
        self.members: dict[str, Appliance] = {}
        self.unclean = 0
        self._broker = broker
        self._folder = folder
        self._traffic: list[Traffic] = []

    def member(self, name: str, gateway: str = "") -> Appliance:
        """One that isn't started yet; so is its gateway called, too, unless another one is given."""
        configuration = CONFIGURATION.format(name=gateway or name, url=self._broker.url, window=WINDOW)
        made = self.members[name] = Appliance(self._folder / name, configuration, self.database)
        (made.folder / "work.py").write_text(WORK)
        return made

    def start(self, *names: str) -> None:
        """Start these, new ones or those that were stopped, and return when they are connected, and one of all owns
        what one at a time may do."""
        started = [self.members.get(name) or self.member(name) for name in names]
        for each in started:
            each.spawn()
        for each in started:
            each.until(each.connected, "a connection")
        self.until(self.owner, "an owner")

    def kill(self, name: str) -> None:
        """End a member as a power cut would."""
        self.members[name].kill()
        self.unclean += 1

    def traffic(self, rate: float = 60.0) -> Traffic:
        """Begin to publish, and return when that is stored. It ends with the group at the latest."""
        made = Traffic(self._broker.port, rate)
        self._traffic.append(made)
        self.flows()
        return made

    def close(self) -> None:
        """End everything."""
        for traffic in self._traffic:
            traffic.stop()
        for each in self.members.values():
            each.kill()

    # What comes of it

    def owner(self) -> str:
        """The gateway that judges contracts now; "" when none does."""
        rows = self.database.sql(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND objid::bigint = ?",
            lock_key("processor:sentinel") % 2**32,
        )
        return str(rows[0][0]).split()[1] if rows else ""

    def stored(self) -> Counter[str]:
        """How often each message is there as an event."""
        rows = self.database.sql("SELECT topic FROM events WHERE type IN ('load.received', 'door.opened')")
        return Counter(topic for (topic,) in rows)

    def flows(self, more: int = 30) -> None:
        """Return when `more` messages were stored."""
        before = self.stored().total()
        self.until(lambda: self.stored().total() >= before + more, f"{more} more messages to be stored")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Return when `condition()` is true. Fails with the logs when it doesn't become so."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            logs = "\n".join(f"--- {name}\n{each.log[-3000:]}" for name, each in self.members.items())
            assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS:g}s for {what}:\n{logs}"
            time.sleep(0.05)

    def settle(self, traffic: Traffic) -> None:
        """End the traffic, and return when all that has to come of it is there."""
        traffic.stop()
        self.until(lambda: traffic.topics <= set(self.stored()), "all messages to be stored")
        self.until(lambda: self._ended() == {True}, "jobs, echoes, verdicts, notifications")

    def _ended(self) -> set[bool]:
        received, doors = "type = 'load.received'", "type = 'door.opened'"
        done = [
            f"(SELECT count(*) FROM events WHERE {wanted}) <= (SELECT count(*) FROM {found})"
            for wanted, found in (
                (received, "events WHERE type = 'load.echoed'"),
                (received, "jobs WHERE state IN ('completed', 'dead')"),
                (doors, "events WHERE type = 'contract.violated'"),
                (doors, "notifications WHERE channel = 'box' AND state = 'sent'"),
                (doors, "notifications WHERE channel = 'out' AND state = 'sent'"),
            )
        ]
        return set(self.database.sql(f"SELECT {', '.join(done)}")[0])

    def audit(self, traffic: Traffic) -> None:
        """Fails unless nothing is missing, and nothing is there twice but what the broker sent twice. Once settled."""
        sql = self.database.sql
        stored = self.stored()
        assert set(stored) == traffic.topics
        doubled = stored.total() - len(stored)
        print(f"{len(stored)} messages, {doubled} of them twice")
        # What was committed and not acknowledged, and the acknowledgements that were under way: see load.audit.
        assert doubled <= self.unclean * 2 * WINDOW, f"{doubled} messages came twice"
        assert {count for topic, count in stored.items() if topic.startswith("doors/")} == {1}, "dedup keeps one"
        received = Counter(number for (number,) in sql("SELECT id FROM events WHERE type = 'load.received'"))
        of = "SELECT (data::json->>'of')::bigint FROM events WHERE type = 'load.echoed'"
        assert Counter(number for (number,) in sql(of)) == received, "each is echoed once"
        self._audit_jobs(received.total())
        opened = Counter(subject for (subject,) in sql("SELECT subject FROM events WHERE type = 'door.opened'"))
        verdicts = sql("SELECT subject, id FROM events WHERE type LIKE 'contract.%'")
        assert Counter(subject for subject, _ in verdicts) == opened, "there is one verdict for each door"
        for channel in ("box", "out"):
            told = sql("SELECT event_id, state FROM notifications WHERE channel = ?", channel)
            assert Counter(told) == Counter((event_id, "sent") for _, event_id in verdicts), channel
        assert sql("SELECT source, reason, error FROM dead_letters WHERE source NOT LIKE 'job%'") == []

    def _audit_jobs(self, wanted: int) -> None:
        jobs = self.database.sql("SELECT (args::json->>'number')::int, state, error FROM jobs")
        assert len(jobs) == wanted, "there is a job for each event"
        assert {(number % FAILS == 0, state) for number, state, _ in jobs} == {(True, "dead"), (False, "completed")}
        # An attempt that was under way when the store went away, or its worker was killed, counts as one.
        reasons = ("it divides", "went silent during attempt")
        dead = [error for _, state, error in jobs if state == "dead"]
        assert all(any(each in error for each in reasons) for error in dead), "dead, and nobody knows why"
        done = self.database.sql("SELECT subject FROM events WHERE type = 'job.done'")
        assert Counter(int(subject) for (subject,) in done) == Counter(
            number for number, state, _ in jobs if state == "completed"
        ), "what a job decided is committed with its completion, once"
