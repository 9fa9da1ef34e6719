"""What `edgeq.testing` gives to tests."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest
from support.processing import Bench

from edgeq.store import cursors
from edgeq.testing import FakeClock, Harness, cursor_at, events_stored, until


def test_a_fake_clock_moves_when_it_is_told() -> None:
    clock = FakeClock(now=1_000_000)
    began = clock.monotonic()
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic() - began) == (3_500_000, 2.5)
    clock.step(-3600)
    assert (clock.now(), clock.monotonic() - began) == (3_500_000 - 3_600_000_000, 2.5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


async def test_until_returns_the_first_true_value_and_says_what_did_not_come() -> None:
    values = iter([0, "", [7]])
    assert await until(lambda: next(values)) == [7]
    with pytest.raises(AssertionError, match=r"waited 0\.05s for a sign; it is None"):
        await until(lambda: None, "a sign", deadline_seconds=0.05)


async def test_waiting_for_events_and_cursors(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        waiting = asyncio.create_task(events_stored(bench.store, 2, "in.*"))
        await bench.add("in.a", "out")
        await bench.add("in.b")
        assert [event.type for event in await waiting] == ["in.a", "in.b"]
        with pytest.raises(AssertionError, match=r"for 3 events of type in\.\*"):
            await events_stored(bench.store, 3, "in.*", deadline_seconds=0.05)
        cursor = await bench.store.write(lambda tx: cursors.take(tx, "p", "beginning", 0))
        waiting_cursor = asyncio.create_task(cursor_at(bench.store, "p", 3))
        await bench.store.write(lambda tx: cursors.move(tx, cursor, 3, 0))
        assert (await waiting_cursor).last_consumed_id == 3
        with pytest.raises(AssertionError, match="the cursor of nobody at 1"):
            await cursor_at(bench.store, "nobody", 1, deadline_seconds=0.05)


SLOW_APP = """\
import threading
from edgeq import QueueProcessor, job

gate = threading.Event()
store = None

@job
def tell(): pass

class Watch(QueueProcessor):
    async def process_item(self, event, ctx):
        store.submit(lambda tx: gate.wait(10))  # the commit of what is decided here takes a while
        ctx.dispatch(tell())
"""


async def test_an_app_is_not_settled_before_what_its_processors_decided_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_app.py").write_text(SLOW_APP)
    (tmp_path / "edgeq.yaml").write_text(
        "app: {path: ., modules: [slow_app]}\nprocessors: {watch: {kind: 'slow_app:Watch'}}\n"
        "routes: [{topic: doors, emit: door.opened}]\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    async with Harness(tmp_path / "edgeq.yaml") as edgeq:
        app = sys.modules["slow_app"]
        vars(app)["store"] = edgeq.store
        await edgeq.publish("doors", {})
        opening = threading.Timer(0.5, vars(app)["gate"].set)
        opening.start()
        await edgeq.settle()
        opening.join()
        assert [job.state for job in await edgeq.jobs()] == ["completed"]
