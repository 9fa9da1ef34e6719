"""`edgeq run --once`, as cron calls it: it does what there is to do, leaves what is for later, and ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer, free_port
from support.stores import Database, at
from support.working import APP, FINDER, dispatch, job

from edgeq import once
from edgeq.app import App
from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.errors import EdgeqError
from edgeq.parts import Parts
from edgeq.testing import until

CONFIGURATION = """\
gateway: gw
mqtt: {{url: "{url}"}}
store: {{url: edgeq.db, durability: normal}}
app: {{path: ., modules: [{module}]}}
routes:
  - {{topic: "a/{{n}}", emit: a, data: {{value: "{{payload.v}}"}}}}
"""
PROCESSOR = """\

from edgeq import QueueProcessor

class Copy(QueueProcessor):
    types = ["a"]

    async def process_item(self, event, ctx):
        await asyncio.sleep(0.03)
        ctx.dispatch(Chain(left=1))
        ctx.emit("copied")

class Watch(QueueProcessor):
    async def process_item(self, event, ctx): ...

    async def opened(self, store, last_consumed_id):
        Path("opened").touch()

    async def closed(self):
        Path("closed").touch()

class Broken(QueueProcessor):
    types = ["a"]

    async def process_item(self, event, ctx):
        raise ValueError("no")
"""


@pytest.fixture
def edgeq(tmp_path: Path, broker: Mosquitto, database: Database) -> Iterator[Appliance]:
    """An appliance that runs once when it is spawned."""
    made = Appliance(tmp_path / "edgeq", CONFIGURATION.format(url=broker.url, module="app"), database)
    (made.folder / "app.py").write_text(APP + PROCESSOR)
    made.command = (*made.command, "--once")
    yield made
    made.kill()


def add(edgeq: Appliance, more: str) -> None:
    """Add lines to the configuration."""
    edgeq.configure((edgeq.folder / "edgeq.yaml").read_text() + more)


def run(edgeq: Appliance) -> int:
    """Run it once; its exit status."""
    edgeq.spawn()
    return edgeq.ended()


def test_what_the_broker_kept_is_taken_in_and_all_that_comes_of_it_is_done(edgeq: Appliance, broker: Mosquitto) -> None:
    add(edgeq, "processors: {copy: {kind: 'app:Copy', start: beginning}}\nchannels: {screen: {kind: log}}\n")
    assert run(edgeq) == 0, "the broker keeps the session from now on"
    with Peer(broker.port) as peer:
        peer.publish_many([(f"a/{n}", '{"v": 1}') for n in range(100)])
    dispatch(edgeq.url, job("Note", text="later", delay_seconds=3600), job("Note", text="now"))
    assert edgeq.cli("emit", "x", "--tag", "notification").returncode == 0
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT type, count(*) FROM events GROUP BY 1") == [("a", 100), ("copied", 100), ("x", 1)]
    found = edgeq.sql("SELECT kind, state, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2")
    assert found == [
        ("app:Chain", "completed", 200), ("app:Note", "completed", 1), ("app:Note", "scheduled", 1)
    ]  # fmt: skip
    assert edgeq.sql("SELECT state, count(*) FROM notifications GROUP BY 1") == [("sent", 1)]
    (seen,) = edgeq.sql("SELECT last_consumed_id FROM cursors WHERE processor = 'copy'")
    assert seen == edgeq.sql("SELECT max(id) FROM events")[0]
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT count(*) FROM events") == [(201,)], "nothing is done twice"
    assert "Traceback" not in edgeq.log


def test_jobs_that_come_of_jobs_are_run(edgeq: Appliance) -> None:
    dispatch(edgeq.url, job("Chain", left=200))
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT state, count(*) FROM jobs GROUP BY 1") == [("completed", 201)]


def test_schedules_that_are_due_are_dispatched_and_run(edgeq: Appliance) -> None:
    add(edgeq, "schedules: [{name: tick, every: 1h, job: 'app:Chain', args: {left: 0}}]\n")
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT count(*) FROM jobs") == [(0,)], "the first time is an hour later"
    at(edgeq.url).sql("UPDATE schedules SET next_run_at = next_run_at - ? RETURNING 1", 3600 * 10**6)
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT kind, state FROM jobs") == [("app:Chain", "completed")]


def test_sources_are_asked_once(edgeq: Appliance) -> None:
    add(edgeq, "jobs: {queues: {other: {}}}\n")
    edgeq.configure((edgeq.folder / "edgeq.yaml").read_text().replace("[app]", "[app, finder]"))
    (edgeq.folder / "finder.py").write_text(FINDER)
    (edgeq.folder / "inbox").mkdir()
    for name in ("a", "b"):
        (edgeq.folder / "inbox" / name).touch()
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT args, state FROM jobs ORDER BY id") == [
        ('{"text":"a"}', "completed"), ('{"text":"b"}', "completed")
    ]  # fmt: skip


def test_a_deadline_that_passed_meanwhile_is_judged_and_told(edgeq: Appliance) -> None:
    add(edgeq, "contracts: [{name: alive, kind: absence, of: a, every: 1s, known: [x]}]\nchannels: {s: {kind: log}}\n")
    assert run(edgeq) == 0
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT DISTINCT type FROM events") == [("contract.violated",)]
    assert edgeq.sql("SELECT state FROM notifications") == [("sent",)]


def test_what_can_not_go_on_now_is_left_for_the_next_time(edgeq: Appliance, broker: Mosquitto) -> None:
    add(
        edgeq,
        "processors: {broken: {kind: 'app:Broken', start: beginning, on_error: {backoff: 1h}}}\n"
        f"channels: {{away: {{kind: webhook, url: 'http://127.0.0.1:{free_port()}/'}}}}\n",
    )
    assert run(edgeq) == 0
    with Peer(broker.port) as peer:
        peer.publish("a/1", '{"v": 1}')
    dispatch(edgeq.url, job("Note", text="held"))
    for words in (["emit", "x", "--tag", "notification"], ["queues", "pause", "default"]):
        assert edgeq.cli(*words).returncode == 0
    assert run(edgeq) == 0
    assert edgeq.sql("SELECT attempt FROM cursors WHERE processor = 'broken'") == [(1,)]
    assert edgeq.sql("SELECT state FROM notifications") == [("queued",)]
    assert edgeq.sql("SELECT state FROM jobs ORDER BY id") == [("available",)]


def test_a_signal_ends_it_when_what_runs_has_ended(edgeq: Appliance) -> None:
    add(edgeq, "processors: {watch: {kind: 'app:Watch'}}\n")
    dispatch(edgeq.url, job("Wait", n=1), job("Wait", n=2), job("Wait", n=3))
    edgeq.spawn()
    for name in ("began-1", "began-2", "opened"):
        edgeq.until((edgeq.folder / name).exists, name)
    edgeq.send(signal.SIGTERM)
    # It says that it stops before its workers hear of it, but they hear of it when processors do.
    edgeq.until((edgeq.folder / "closed").exists, "the end to begin")
    assert "stopping" in edgeq.log
    for n in (1, 2, 3):
        (edgeq.folder / f"go-{n}").touch()
    assert edgeq.ended() == 0
    assert edgeq.sql("SELECT state FROM jobs ORDER BY id") == [("completed",), ("completed",), ("available",)]


def test_without_a_broker_the_rest_is_done_and_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with less patience."""
    backlog = once._backlog

    async def tried(parts: Parts, clock: Clock) -> str:
        await until(lambda: "nothing listens" in parts.session.reason, "the first attempt")
        return await backlog(parts, clock)

    monkeypatch.setattr(once, "_backlog", tried)
    monkeypatch.setattr(once, "BROKER_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    port = free_port()
    (tmp_path / "edgeq.yaml").write_text(CONFIGURATION.format(url=f"mqtt://127.0.0.1:{port}", module="brokerless"))
    (tmp_path / "brokerless.py").write_text(APP)
    new = job("Note", text="done")
    dispatch(str(tmp_path / "edgeq.db"), type(new)(queue="default", kind="brokerless:Note", args=new.args))
    with pytest.raises(EdgeqError) as raised:
        asyncio.run(App(lambda: load("edgeq.yaml", environ={})).run(once=True))
    assert f"the broker at mqtt://127.0.0.1:{port} could not be reached within 0.5s: nothing listens" in str(
        raised.value
    )
    assert "everything else was done" in raised.value.hint
    assert (tmp_path / "notes").read_text().startswith("done ")


def test_one_at_a_time_runs(edgeq: Appliance) -> None:
    dispatch(edgeq.url, job("Wait", n=1))
    edgeq.spawn()
    edgeq.until((edgeq.folder / "began-1").exists, "the job")
    for _ in range(3):
        done: subprocess.CompletedProcess[str] = edgeq.cli("run", "--once")
        assert done.returncode == 1
        assert "another edgeq (process" in done.stderr or "another edgeq run goes by the name gw" in done.stderr
    assert "stopping" not in edgeq.log, "it waits for the job"
    (edgeq.folder / "go-1").touch()
    assert edgeq.ended() == 0


def test_it_runs_with_all_standard_streams_closed(tmp_path: Path, broker: Mosquitto) -> None:
    """As a start script or cron may call it. No file of its own may get the number of one, nor what is printed."""
    (tmp_path / "edgeq.yaml").write_text(f"gateway: gw\nmqtt: {{url: '{broker.url}'}}\n")
    command = [sys.executable, "-m", "edgeq.cli.main", "run", "--once"]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "edgeq.db").exists()
