"""What becomes of what is gone, the last contract or the database file, and of what doesn't want to go."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support import working
from support.appliance import Appliance
from support.mosquitto import Mosquitto, Peer

WITH = """\
mqtt: {{url: "{url}"}}
contracts:
  - {{name: cold, kind: threshold, of: temperature.reading, above: 5}}
"""
READINGS = """\
mqtt: {{url: "{url}"}}
routes:
  - {{topic: "t/{{n}}", emit: reading}}
"""
WITHOUT = 'mqtt: {{url: "{url}"}}\n'


def test_the_last_contract_that_goes_is_closed(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    broker = mosquitto()
    edgeq = Appliance(tmp_path / "a", WITH.format(url=broker.url))
    try:
        edgeq.start()
        emit = [
            sys.executable,
            "-m",
            "edgeq.cli.main",
            "emit",
            "temperature.reading",
            "--subject",
            "f",
            "--data",
            '{"value": 9}',
        ]
        subprocess.run(emit, cwd=edgeq.folder, check=True, capture_output=True)
        edgeq.until(lambda: edgeq.sql("SELECT state FROM contract_states") == [("violated",)], "a violation")
        edgeq.configure(WITHOUT.format(url=broker.url))
        assert edgeq.process is not None
        edgeq.process.send_signal(signal.SIGHUP)
        edgeq.until(lambda: edgeq.sql("SELECT state FROM contract_states") == [], "the state to go")
        (resolved,) = edgeq.sql("SELECT json_extract(data, '$.reason') FROM events WHERE type = 'contract.resolved'")
        assert resolved == ("removed",)
        assert edgeq.stop() == 0
    finally:
        edgeq.kill()


SCHEDULED = """\
app: {path: ., modules: [app]}
schedules:
  - {name: hourly, every: 1h, job: "app:Chain", args: {left: 0}}
"""
CLOSED = "mqtt: {url: 'mqtt://127.0.0.1:1'}\n"


def test_the_last_schedule_that_goes_is_forgotten(tmp_path: Path) -> None:
    edgeq = Appliance(tmp_path / "a", CLOSED + SCHEDULED)
    (edgeq.folder / "app.py").write_text(working.APP)
    try:
        edgeq.spawn()
        edgeq.until(lambda: edgeq.sql("SELECT name FROM schedules") == [("hourly",)], "the schedule")
        edgeq.configure(CLOSED)
        edgeq.send(signal.SIGHUP)
        edgeq.until(lambda: edgeq.sql("SELECT name FROM schedules") == [], "the schedule to go")
        assert edgeq.stop() == 0
    finally:
        edgeq.kill()


CROWDED = """\
app: {path: ., modules: [app]}
jobs:
  concurrency: 1
  queues: {default: {priority: low}, other: {priority: high, context: "app:connect"}}
"""


def test_queues_of_an_appliance_share_what_may_run_at_once(tmp_path: Path) -> None:
    edgeq = Appliance(tmp_path / "a", CLOSED + CROWDED)
    (edgeq.folder / "app.py").write_text(working.APP)
    jobs = [working.job("Wait", n=1), working.job("Wait", n=2), working.job("Note", "other", text="urgent")]
    try:
        working.dispatch(str(edgeq.database), *jobs[:2])
        edgeq.spawn()
        edgeq.until((edgeq.folder / "began-1").exists, "the first job")
        assert edgeq.sql("SELECT state FROM jobs ORDER BY id") == [("executing",), ("available",)]
        working.dispatch(str(edgeq.database), jobs[2])
        (edgeq.folder / "go-1").touch()
        edgeq.until((edgeq.folder / "began-2").exists, "the last job")
        (edgeq.folder / "go-2").touch()
        edgeq.until(lambda: edgeq.sql("SELECT DISTINCT state FROM jobs") == [("completed",)], "all of them")
        assert edgeq.stop() == 0
    finally:
        edgeq.kill()


def test_a_second_signal_gives_jobs_back_at_no_cost(tmp_path: Path) -> None:
    edgeq = Appliance(tmp_path / "a", CLOSED + CROWDED)
    (edgeq.folder / "app.py").write_text(working.APP)
    try:
        working.dispatch(str(edgeq.database), working.job("Wait", n=1))
        edgeq.spawn()
        edgeq.until((edgeq.folder / "began-1").exists, "the job")
        edgeq.send(signal.SIGTERM)
        edgeq.until(lambda: "stopping" in edgeq.log, "the end to begin")
        edgeq.send(signal.SIGTERM)
        assert edgeq.ended() == 0
        assert "given back now" in edgeq.log
        assert edgeq.sql("SELECT state, attempt FROM jobs") == [("available", 0)]
    finally:
        edgeq.kill()


def test_a_database_that_is_removed_while_it_runs_takes_no_acknowledgement(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    """Commits to an unlinked file would be acknowledged, and gone with the process."""
    broker = mosquitto()
    edgeq = Appliance(tmp_path / "a", READINGS.format(url=broker.url))
    try:
        edgeq.start()
        with Peer(broker.port) as peer:
            peer.publish("t/1", b'{"value": 1}')
            edgeq.until(lambda: edgeq.sql("SELECT count(*) FROM events") == [(1,)], "the first event")
            for suffix in ("", "-wal", "-shm"):
                Path(f"{edgeq.database}{suffix}").unlink(missing_ok=True)
            peer.publish("t/2", b'{"value": 2}')
            assert edgeq.process is not None
            assert edgeq.process.wait(60) == 1
            assert "was removed or replaced while edgeq ran" in edgeq.log
            edgeq.start()  # as systemd does
            edgeq.until(
                lambda: edgeq.sql("SELECT topic FROM events") == [("t/2",)], "the message that was not acknowledged"
            )
        assert edgeq.stop() == 0
    finally:
        edgeq.kill()


STUBBORN = """\
import asyncio
from edgeq import Context, Event, QueueProcessor

class Stubborn(QueueProcessor):
    async def process_item(self, event: Event, ctx: Context) -> None:
        print("busy", flush=True)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
"""


def test_a_processor_that_swallows_cancellation_does_not_keep_the_program(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    broker = mosquitto()
    app = "app: {path: ., modules: [stubborn]}\nprocessors:\n  mule: {kind: 'stubborn:Stubborn'}\n"
    edgeq = Appliance(tmp_path / "a", READINGS.format(url=broker.url) + app)
    (edgeq.folder / "stubborn.py").write_text(STUBBORN)
    try:
        edgeq.start()
        with Peer(broker.port) as peer:
            peer.publish("t/1", b"1")
        edgeq.until(lambda: "busy" in edgeq.log, "the processor to be busy")
        assert edgeq.stop() == 0
        assert "doesn't let itself be cancelled: mule" in edgeq.log
    finally:
        edgeq.kill()
