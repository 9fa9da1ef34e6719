"""What `edgeq.testing` gives to tests."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest
from support.processing import Bench
from support.stores import Database

from edgeq.store import cursors
from edgeq.testing import FakeClock, Harness, Notified, cursor_at, events_stored, until


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


async def test_waiting_for_events_and_cursors(database: Database) -> None:
    async with Bench(database) as bench:
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


TELLING_APP = """\
from edgeq import QueueProcessor, Router, job

router = Router()

@job
def lock(ctx):
    ctx.notify("Locked", tags=["night"])

@router.on("doors/{door}")
def opened(ctx, door):
    ctx.emit("door.opened", subject=door)
    ctx.notify("Open", "since now", subject=door, channels=["phone"])
    ctx.dispatch(lock())

class Watch(QueueProcessor):
    types = ("door.opened",)

    async def process_item(self, event, ctx):
        ctx.notify("Seen", severity="critical", channels=["siren", "phone"])
"""


async def test_what_was_told_can_be_asserted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "telling_app.py").write_text(TELLING_APP)
    (tmp_path / "edgeq.yaml").write_text(
        "app: {path: ., modules: [telling_app]}\n"
        "processors: {watch: {kind: 'telling_app:Watch'}}\n"
        "channels: {phone: {kind: log}, siren: {kind: log}, mail: {kind: log}}\n"
        "notifications: {routes: [{channels: [mail]}]}\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    async with Harness(tmp_path / "edgeq.yaml") as edgeq:
        await edgeq.publish("doors/front", {})
        await edgeq.settle()
        told = await edgeq.notified()
        assert told[0] == Notified("Open", "since now", subject="front", channels=("phone",))
        assert sorted(told[1:], key=lambda each: each.title) == [
            Notified("Locked", tags=("night",)),
            Notified("Seen", severity="critical", channels=("siren", "phone")),
        ]
        assert {(row.title, row.channel) for row in await edgeq.notifications()} == {
            ("Open", "phone"), ("Locked", "mail"), ("Seen", "siren"), ("Seen", "phone"),
        }  # fmt: skip


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
