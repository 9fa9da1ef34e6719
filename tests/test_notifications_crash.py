"""A program that is killed between rendered, committed, sent and marked, at every message: nothing is lost, and only
what was answered but not marked comes again, with the same key and the same text."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator

import pytest
from support.outbox import Outbox, outbox
from support.programs import of_tests
from support.stores import Database
from support.targets import HttpTarget, Request, closing

from edgeq.clock import MICROSECONDS, Clock
from edgeq.store.notifications import Group

PROGRAM = """
import asyncio, os, sys
from edgeq.clock import Clock
from edgeq.failpoints import arm
from support.outbox import outbox
from support.stores import at
from test_channels_kinds import build

async def main(where, url):
    arm(os.environ)
    async with outbox(at(where), Clock()) as box:
        channel = build(kind="webhook", url=url)
        channel.digests = True
        sender = await box.start(channel, "hook")
        while any(state == "queued" for state in (await box.states()).values()):
            await asyncio.sleep(0.01)

asyncio.run(main(*sys.argv[1:]))
"""
ROOM = Group("room", 0, 0)


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


async def fill(box: Outbox) -> None:
    """Five messages: a critical one, a digest of three, one of two that belong together, and two single ones."""
    at = box.clock.now() - MICROSECONDS
    await box.queue("one", "two", "three", channel="hook", group=ROOM, created_at=at)
    await box.queue("opened", channel="hook", fingerprint="door", created_at=at + 1)
    await box.queue("closed", channel="hook", fingerprint="door", kind="resolved", created_at=at + 2)
    await box.queue("single", "last", channel="hook", created_at=at + 3)
    await box.queue("urgent", channel="hook", severity="critical", created_at=at + 4)


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("step", ["rendered", "committed", "sent", "marked"])
async def test_killed_at_each_step_nothing_is_lost_and_little_comes_again(
    database: Database, target: HttpTarget, step: str, number: int
) -> None:
    async with outbox(database, Clock()) as box:
        await fill(box)
    killed = await asyncio.to_thread(program, database, target.url, EDGEQ_FAILPOINT=f"notification.{step}:{number}")
    assert killed == -signal.SIGKILL
    before = len(target.requests)
    assert before == number - (step in ("rendered", "committed"))
    async with outbox(database, Clock()) as box:  # more to tell of what was begun
        await box.queue("closed again", channel="hook", fingerprint="door", kind="update")
    assert await asyncio.to_thread(program, database, target.url) == 0

    again = 1 if step == "sent" else 0
    requests = target.requests
    keys = [request.headers["Idempotency-Key"] for request in requests]
    assert len(keys) == len(set(keys)) + again
    if again:
        assert requests[before].body == requests[before - 1].body, "not what the target has already"
    bodies = [json.loads(request.body) for request in requests]
    assert bodies[0]["title"] == "urgent"
    async with outbox(database, Clock()) as box:
        store_id = box.store.id
        for row in await box.rows():
            assert row.state in ("sent", "grouped")
            told = keys.count(f"{store_id}-{row.digest_id or row.id}")
            assert told in ((1, 2) if again else (1,)), row
            assert row.state == "sent" or f"{store_id}-{row.id}" not in keys, "told twice"
    digest = next(body for body in bodies if body["kind"] == "digest")
    assert [line.split()[1] for line in digest["body"].splitlines()] == ["one", "two", "three"]


async def test_killed_again_and_again(database: Database, target: HttpTarget) -> None:
    async with outbox(database, Clock()) as box:
        await fill(box)
    steps = ["sent", "committed", "rendered", "marked", "sent", "sent", "marked"]
    for step in steps:
        await asyncio.to_thread(program, database, target.url, EDGEQ_FAILPOINT=f"notification.{step}:1")
    assert await asyncio.to_thread(program, database, target.url) == 0
    keys = [request.headers["Idempotency-Key"] for request in target.requests]
    assert len(keys) <= len(set(keys)) + steps.count("sent")
    assert same_text(target.requests)
    async with outbox(database, Clock()) as box:
        assert set((await box.states()).values()) == {"sent", "grouped"}


def same_text(requests: list[Request]) -> bool:
    """Whether what came again was the same."""
    return len({request.body for request in requests}) == len({r.headers["Idempotency-Key"] for r in requests})


def program(database: Database, url: str, **environ: str) -> int:
    return subprocess.run(**of_tests("-c", PROGRAM, database.where, url, **environ), timeout=120).returncode
