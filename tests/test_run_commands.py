"""Commands beside a running appliance, and what they ask of it while it isn't there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer
from support.stores import Database
from support.targets import Answer, HttpTarget

from edgeq.cli.screen import lines

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db}}
app: {{path: ., modules: [app]}}
routes:
  - {{topic: "a/{{n}}", emit: a, subject: "{{n}}"}}
  - {{topic: "doors/{{n}}", emit: {{map: "{{payload.state}}", to: {{open: door.opened}}}}}}
  - {{topic: "jobs/{{n:int}}", dispatch: "app:Note"}}
processors:
  copy: {{kind: "app:Copy", start: beginning, on_error: {{attempts: 1}}}}
  courier: {{kind: courier, start: beginning}}
channels:
  hook: {{kind: webhook, url: "{hook}"}}
"""

APP = """\
import asyncio
import time
from pathlib import Path
from edgeq import Job, QueueProcessor

class Copy(QueueProcessor):
    types = ("a",)
    async def process_item(self, event, ctx):
        while Path("slow").exists():
            await asyncio.sleep(0.01)
        if Path("broken").exists():
            raise ValueError("the copier is broken")
        ctx.emit("copied", data={"of": event.id})

class Note(Job):
    max_attempts = 1
    n: int
    async def handle(self, ctx):
        if Path("broken").exists():
            raise ValueError("the pen is broken")
        ctx.emit("noted", data={"n": self.n})

class Long(Job):
    async def handle(self, ctx):
        Path("began").touch()
        ctx.emit("void")
        await asyncio.sleep(3600)

class Hang(Job):
    timeout = "100ms"
    max_attempts = 1
    def handle(self, ctx):
        while not Path("let-go").exists():
            time.sleep(0.01)
"""


@pytest.fixture
def hook() -> Iterator[HttpTarget]:
    target = HttpTarget()
    yield target
    target.stop()


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto, hook: HttpTarget, database: Database) -> Iterator[Appliance]:
    """An appliance that is not started yet."""
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url, hook=hook.url), database)
    (made.folder / "app.py").write_text(APP)
    yield made
    made.kill()


def do(edgeq: Appliance, *words: str) -> str:
    """What a command prints that must succeed."""
    done = edgeq.cli(*words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def copied(edgeq: Appliance) -> list[int]:
    """The ids of the events that the processor has copied, in order."""
    rows = edgeq.sql("SELECT data FROM events WHERE type = 'copied' ORDER BY id")
    return [json.loads(row[0])["of"] for row in rows]


def state(edgeq: Appliance, name: str = "copy") -> str:
    (found,) = [each["state"] for each in edgeq.status()["processors"] if each["name"] == name]
    return str(found)


# Processors


def test_a_running_processor_is_paused_resumed_and_moved(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    assert do(edgeq, "processors", "pause", "copy") == "copy is paused\n"
    edgeq.until(lambda: state(edgeq) == "paused", "the processor to pause")
    with Peer(broker.port) as peer:
        peer.publish_many([("a/1", "{}"), ("a/2", "{}")])
    edgeq.until(lambda: len(edgeq.sql("SELECT id FROM events")) == 2, "the events")
    lag = [json.loads(line) for line in do(edgeq, "processors", "list", "--json").splitlines()]
    assert [(each["state"], each["lag_events"]) for each in lag if each["name"] == "copy"] == [("paused", 2)]
    assert copied(edgeq) == []
    assert do(edgeq, "processors", "resume", "copy") == "copy goes on\n"
    edgeq.until(lambda: copied(edgeq) == [1, 2], "the copies")
    assert "running" in do(edgeq, "processors", "list")
    assert do(edgeq, "processors", "seek", "copy", "--to", "1") == "copy stands at 1\n"
    edgeq.until(lambda: copied(edgeq) == [1, 2, 2], "the second copy of 2")
    assert do(edgeq, "processors", "seek", "copy", "--to", "start") == "copy stands at 0\n"
    edgeq.until(lambda: copied(edgeq) == [1, 2, 2, 1, 2], "both copies again")
    assert edgeq.stop() == 0
    assert "Traceback" not in edgeq.log


def test_a_processor_that_does_not_run_is_paused_and_moved_for_its_next_start(
    edgeq: Appliance, broker: Mosquitto
) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish_many([(f"a/{n}", "{}") for n in range(3)])
    edgeq.until(lambda: len(copied(edgeq)) == 3, "the copies")
    assert edgeq.stop() == 0
    first, second, third = copied(edgeq)
    do(edgeq, "processors", "pause", "copy")
    assert do(edgeq, "processors", "seek", "copy", "--to", str(second)) == f"copy stands at {second}\n"
    edgeq.start()
    edgeq.until(lambda: state(edgeq) == "paused", "the processor to be there")
    do(edgeq, "processors", "resume", "copy")
    edgeq.until(lambda: copied(edgeq) == [first, second, third, third], "the second copy of the third")
    assert do(edgeq, "processors", "seek", "copy", "--to", "latest").startswith("copy stands at ")
    assert edgeq.stop() == 0


# Dead letters


def test_dead_letters_of_all_four_sources_are_redriven(edgeq: Appliance, broker: Mosquitto, hook: HttpTarget) -> None:
    broken = edgeq.folder / "broken"
    broken.touch()
    hook.answers.append(Answer(400))
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish_many([("a/1", "{}"), ("doors/front", '{"state": "ajar"}'), ("jobs/7", "{}")])
    do(edgeq, "emit", "alarm", "--tag", "notification")

    def open_sources() -> list[str]:
        rows = edgeq.sql("SELECT source FROM dead_letters WHERE redriven_at IS NULL ORDER BY source")
        return [row[0] for row in rows]

    all_four = ["channel:hook", "intake", "job:default", "processor:copy"]
    edgeq.until(lambda: open_sources() == all_four, "four dead letters")
    shown = do(edgeq, "dead-letters", "list")
    for text in ("400", "ajar", "the pen is broken", "the copier is broken"):
        assert text in shown

    # As long as nothing has changed, all but the channel fail again, and say so.
    assert do(edgeq, "dead-letters", "redrive", "--source", "intake") == "1 to be redriven\n"
    edgeq.until(lambda: edgeq.log.count("failed again") == 1, "the intake's refusal")
    assert do(edgeq, "dead-letters", "redrive", "--source", "processor:copy") == "1 to be redriven\n"
    edgeq.until(lambda: "redrive of dead letter" in edgeq.log.split("failed again")[1], "the processor's refusal")
    asked = "SELECT id FROM dead_letters WHERE redrive_requested_at IS NOT NULL"
    edgeq.until(lambda: edgeq.sql(asked) == [], "the requests to be taken back, which comes after the log")
    assert open_sources() == all_four
    assert "Traceback" not in edgeq.log.split("redrive of dead letter", 1)[1]

    broken.unlink()
    edgeq.reload((edgeq.folder / "edgeq.yaml").read_text().replace("{open: ", "{ajar: door.ajar, open: "))
    assert do(edgeq, "dead-letters", "redrive", "--all") == "4 to be redriven\n"
    edgeq.until(lambda: open_sources() == [], "all of them to be redriven")
    edgeq.until(lambda: edgeq.sql("SELECT state FROM notifications") == [("sent",)], "the notification to be sent")
    edgeq.until(lambda: edgeq.sql("SELECT state FROM jobs") == [("completed",)], "the job to be done")
    kinds = sorted(row[0] for row in edgeq.sql("SELECT type FROM events"))
    assert kinds == ["a", "alarm", "copied", "door.ajar", "noted"]
    assert len({request.headers["Idempotency-Key"] for request in hook.requests}) == 1
    assert do(edgeq, "dead-letters", "list") == "no dead letters\n"
    assert len(do(edgeq, "dead-letters", "list", "--redriven", "--json").splitlines()) == 4
    done = edgeq.cli("dead-letters", "redrive", "--all")
    assert (done.returncode, done.stderr) == (1, "edgeq: no dead letter fits\n"), "what is redriven isn't open any more"
    assert edgeq.stop() == 0


def test_a_redrive_that_is_asked_for_while_nothing_runs_waits_for_the_next_start(
    edgeq: Appliance, broker: Mosquitto
) -> None:
    broken = edgeq.folder / "broken"
    broken.touch()
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish_many([("a/1", "{}"), ("a/2", "{}")])
    edgeq.until(lambda: len(edgeq.sql("SELECT id FROM dead_letters")) == 2, "the dead letters")
    assert edgeq.stop() == 0
    broken.unlink()
    assert do(edgeq, "dead-letters", "redrive", "2") == "1 to be redriven\n"
    assert do(edgeq, "dead-letters", "discard", "1") == "1 discarded\n"
    edgeq.start()
    edgeq.until(lambda: copied(edgeq) == [2], "the copy")
    assert edgeq.stop() == 0
    assert copied(edgeq) == [2]


def test_a_dead_letter_whose_processor_is_gone_stays_and_says_why(edgeq: Appliance, broker: Mosquitto) -> None:
    (edgeq.folder / "broken").touch()
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish("a/1", "{}")
    edgeq.until(lambda: len(edgeq.sql("SELECT id FROM dead_letters")) == 1, "the dead letter")
    configuration = (edgeq.folder / "edgeq.yaml").read_text()
    edgeq.reload("\n".join(line for line in configuration.splitlines() if "app:Copy" not in line))
    do(edgeq, "dead-letters", "redrive", "1")
    edgeq.until(lambda: "there is no processor 'copy' in this configuration" in edgeq.log, "the refusal")
    refused = "SELECT id FROM dead_letters WHERE redrive_requested_at IS NULL"
    edgeq.until(lambda: edgeq.sql(refused) == [(1,)], "the reason in the store, which comes after the log")
    assert "there is no processor 'copy'" in do(edgeq, "dead-letters", "show", "1")
    assert state(edgeq) == "not configured"
    assert edgeq.stop() == 0


# Events


def test_events_are_followed_as_they_come(edgeq: Appliance, broker: Mosquitto) -> None:
    edgeq.start()
    do(edgeq, "emit", "before")
    command = [sys.executable, "-m", "edgeq.cli.main", "events", "tail", "--json", "--limit", "1"]
    pipe = subprocess.PIPE
    follower = subprocess.Popen(command, cwd=edgeq.folder, env=edgeq.environment, stdout=pipe, stderr=pipe, text=True)
    try:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["type"] == "before"
        with Peer(broker.port) as peer:
            peer.publish("a/1", "{}")
            assert json.loads(follower.stdout.readline())["topic"] == "a/1"
            assert json.loads(follower.stdout.readline())["type"] == "copied"
        follower.send_signal(2)
        assert follower.wait(60) == 130
        assert follower.stderr is not None
        assert follower.stderr.read().strip() == ""
    finally:
        follower.kill()
        follower.communicate()
    assert edgeq.stop() == 0


def test_the_status_shows_what_runs(edgeq: Appliance, broker: Mosquitto, database: Database) -> None:
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish_many([("a/1", "{}"), ("a/2", "?"), ("doors/x", "{}"), ("jobs/1", "{}"), ("doors/x", "")])
    edgeq.until(lambda: edgeq.sql("SELECT state FROM jobs") == [("completed",)], "the job")
    edgeq.until(lambda: copied(edgeq) == [1], "the copy")
    edgeq.until(lambda: all_counted(edgeq), "the other messages, and what is counted after a commit")
    shown = {}
    for line in do(edgeq, "status").splitlines():
        shown.setdefault(line[:14].strip(), []).append(line[14:])
    assert shown["gateway"][0].startswith("gw: running as process ")
    assert f"127.0.0.1:{broker.port} as edgeq-gw: connected for " in shown["broker"][0]
    assert shown["rates"][0].startswith(("1", "2", "3", "4", "5", "0."))
    place = str(edgeq.database) if database.kind == "sqlite" else "at 127.0.0.1:"
    assert place in shown["store"][0]
    assert ": 3 events up to now" in shown["store"][0]
    assert [line.partition(",")[0] for line in shown["route"]] == [
        "a/{n}: 2 messages", "doors/{n}: 1 messages", "jobs/{n:int}: 1 messages",
    ]  # fmt: skip
    assert shown["jobs"] == ["default: 1 completed"]
    assert sorted(line.partition(",")[0] for line in shown["dead letters"]) == [
        "1 from intake (missing_field)", "1 from intake (undecodable)",
    ]  # fmt: skip
    assert shown["dropped"] == ["1 empty"]
    assert [line.partition(":")[0] for line in shown["processor"]] == ["copy", "courier"]
    assert edgeq.stop() == 0
    assert "edgeq is not running" in do(edgeq, "status")


def all_counted(edgeq: Appliance) -> bool:
    """Whether the five messages were received, and what became of them was counted: events, dead letters, nothing."""
    counters = edgeq.status()["counters"]
    names = ("messages_received", "events", "dead_letters", "messages_dropped")
    return [sum(counters[f"edgeq_{name}_total"].values()) for name in names] == [5, 3, 2, 1]


def test_the_status_shows_what_is_held_up(edgeq: Appliance, broker: Mosquitto) -> None:
    (edgeq.folder / "slow").touch()
    edgeq.start()
    with Peer(broker.port) as peer:
        peer.publish("a/1", "{}")
    do(edgeq, "jobs", "dispatch", "app:Hang")
    do(edgeq, "queues", "pause", "default")

    def place() -> dict[str, Any]:
        (found,) = [each for each in edgeq.status()["processors"] if each["name"] == "copy"]
        return found

    edgeq.until(lambda: "busy_with" in place(), "the processor to be busy")
    assert place()["busy_with"] == 1
    assert place()["busy_since"] > edgeq.sql("SELECT recorded_at FROM events")[0][0]
    do(edgeq, "queues", "resume", "default")
    edgeq.until(lambda: edgeq.sql("SELECT state FROM jobs") == [("dead",)], "the job to be given up")
    do(edgeq, "queues", "pause", "default")
    given_up = [{"queue": "default", "running": 0, "concurrency": 2, "overdue": 1}]
    edgeq.until(lambda: edgeq.status()["workers"] == given_up, "the worker to have given it up, too")
    shown = do(edgeq, "status")
    assert "jobs          default: paused, 1 dead\n" in shown
    assert "worker        default: 1 of 2 places are held by jobs that should have ended\n" in shown
    (edgeq.folder / "slow").unlink()
    (edgeq.folder / "let-go").touch()
    edgeq.until(lambda: "busy_with" not in place() and not edgeq.status()["workers"][0]["overdue"], "both to end")
    assert edgeq.stop() == 0


def test_a_running_job_is_cancelled(edgeq: Appliance) -> None:
    edgeq.start()
    job_id = json.loads(do(edgeq, "jobs", "dispatch", "app:Long", "--json"))["id"]
    edgeq.until((edgeq.folder / "began").exists, "the job to begin")
    assert do(edgeq, "jobs", "cancel", str(job_id)) == "1 cancelled\n"
    edgeq.until(lambda: f"job {job_id} (app:Long) was cancelled while it ran" in edgeq.log, "the worker to notice")
    assert edgeq.sql("SELECT state FROM jobs") == [("cancelled",)]
    assert edgeq.sql("SELECT type FROM events") == []
    edgeq.until(lambda: edgeq.status()["workers"][0]["running"] == 0, "the place to be free")
    assert edgeq.stop() == 0


def test_the_status_says_it_in_words() -> None:
    now = 1_000_000_000_000_000
    place = {
        "name": "p", "state": "running", "last_consumed_id": 6, "lag_events": 2, "lag_seconds": 300.0, "error": None,
        "busy_with": 7, "busy_since": now - 300_000_000,
    }  # fmt: skip
    queue = {
        "queue": "q", "paused": True, "ready": 3, "delayed": 0, "blocked": 1, "executing": 2, "dead": 0,
        "completed": 0, "cancelled": 0, "oldest_ready_seconds": 7200.0,
    }  # fmt: skip
    answer = {
        "gateway": "g", "running": True, "store": {}, "processors": [place], "jobs": [queue],
        "workers": [{"queue": "q", "overdue": 0, "concurrency": 2}],
        "breakers": [
            {"name": "crm", "state": "half_open", "failures": 5, "error": "OSError: away"},
            {"name": "ok", "state": "closed", "failures": 0, "error": None},
        ],
        "crashed": [{"name": "worker.q", "crashes": 3, "last_error": "RuntimeError: no"}],
    }  # fmt: skip
    assert lines(answer, now)[1:] == [
        "processor     p: running, at event 6, 2 events, 5m behind, busy with event 7 for 5m",
        "jobs          q: paused, 3 ready, 1 blocked, 2 executing; the oldest ready for 2h",
        "dependency    crm: half open after 5 failures, its jobs wait; OSError: away",
        "crashed       worker.q: 3 times; RuntimeError: no",
    ]


def watched(edgeq: Appliance, looks: int) -> str:
    """What `edgeq status --watch` prints in that many looks."""
    command = [sys.executable, "-m", "edgeq.cli.main", "status", "--watch", "--json"]
    with subprocess.Popen(
        command, cwd=edgeq.folder, env=edgeq.environment, stdout=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        lines = [watcher.stdout.readline() for _ in range(looks)]
        watcher.send_signal(2)
        assert watcher.wait(60) == 130
    return "".join(lines)


def test_the_status_can_be_watched_over_a_restart(edgeq: Appliance) -> None:
    edgeq.start()
    answers = [json.loads(line) for line in watched(edgeq, 2).splitlines()]
    assert [answer["running"] for answer in answers] == [True, True]
    assert edgeq.stop() == 0
    assert not json.loads(watched(edgeq, 1))["running"]
