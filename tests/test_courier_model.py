"""The courier over random histories: restarts change nothing, and of each thread what is told follows a slow model's
rules."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.couriers import MINUTE, Desk
from support.memory import MemoryStore

from edgeq.store.notifications import StoredNotification
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON, FakeClock

ROUTES = (
    {
        "match": {"types": ["contract.*"], "subject": "a"}, "channels": ["phone"], "repeat": ["10m", "20m"],
        "escalate": [{"after": "15m", "channels": ["mail"]}, {"after": "50m", "channels": ["siren"]}],
        "continue": True,
    },
    {
        "match": {"types": ["contract.*"]}, "channels": ["phone", "mail"], "repeat": ["30m"], "group_by": ["subject"],
        "quiet": {"times": "13:00-14:30", "timezone": "UTC"},
    },
    {"channels": ["siren"], "repeat": ["5m", "10m"], "ttl": "2h"},
)  # fmt: skip
SUBJECTS = st.sampled_from("ab")
Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("violated"), SUBJECTS),
        st.tuples(st.just("resolved"), SUBJECTS),
        st.tuples(st.just("unknown"), SUBJECTS),
        st.tuples(st.just("occurs"), SUBJECTS),
        st.tuples(st.just("pass"), st.integers(1, 40)),
        st.tuples(st.just("pass"), st.integers(1, 40)),
        st.tuples(st.just("acknowledge"), st.integers(0, 3)),
        st.tuples(st.just("silence"), SUBJECTS, st.integers(1, 60)),
        st.tuples(st.just("end"), st.integers(1, 3)),
        st.tuples(st.just("send")),
        st.tuples(st.just("step"), st.integers(-300, 300)),
        st.tuples(st.just("restart")),
    ),
    min_size=5,
    max_size=40,
)


UNSTEPPED = STEPS.map(lambda steps: [each for each in steps if each[0] != "step"])
ALWAYS_LOUD = tuple({key: value for key, value in route.items() if key != "quiet"} for route in ROUTES)


async def play(
    steps: list[Step], *routes: dict[str, Any], restarts: bool
) -> tuple[list[StoredNotification], list[Any]]:
    """The rows and threads at the end."""
    store = MemoryStore()
    box = Desk(store, FakeClock(NOON), Metrics())
    await box.open(*routes)
    for step in steps:
        await _do(box, *step, restarts=restarts)
    await box.live(3600)
    try:
        return await box.rows(), await box.threads()
    finally:
        await store.close()


async def _do(box: Desk, what: str, *arguments: Any, restarts: bool) -> None:
    if what in ("violated", "resolved", "unknown"):
        (subject,) = arguments
        await box.happens(what, subject=subject)
    elif what == "occurs":
        await box.occurs(subject=arguments[0])
    elif what == "pass":
        await box.pass_time(arguments[0] * 60)
    elif what == "acknowledge":
        open_threads = sorted(await box.threads(), key=lambda each: each.thread.key)
        if len(open_threads) > arguments[0]:
            await box.acknowledge(open_threads[arguments[0]].thread.fingerprint)
    elif what == "silence":
        await box.silence({"subject": arguments[0]}, seconds=arguments[1] * 60)
    elif what == "end":
        await box.end_silence(arguments[0])
    elif what == "send":
        await box.sent()
    elif what == "step":
        box.clock.step(arguments[0])
    elif restarts:
        await box.tick()  # what a running courier does at once
        await box.restart()
    if what != "restart":
        await box.tick()


@settings(max_examples=200)
@given(UNSTEPPED)
def test_restarts_change_nothing(steps: list[Step]) -> None:
    assert asyncio.run(play(steps, *ROUTES, restarts=True)) == asyncio.run(play(steps, *ROUTES, restarts=False))


@settings(max_examples=200)
@given(STEPS)
def test_nor_do_they_when_the_clock_is_set(steps: list[Step]) -> None:
    """Without quiet hours: these are by the wall clock, so that a thread's first reminder after them may move."""
    with_them = asyncio.run(play(steps, *ALWAYS_LOUD, restarts=True))
    assert with_them == asyncio.run(play(steps, *ALWAYS_LOUD, restarts=False))


@settings(max_examples=200)
@given(UNSTEPPED)
def test_what_may_be_told_and_what_not(steps: list[Step]) -> None:
    rows, _ = asyncio.run(play(steps, *ROUTES, restarts=True))
    lines: dict[tuple[str, str], list[StoredNotification]] = defaultdict(list)
    for row in rows:
        if row.state != "silenced":
            lines[row.channel, row.fingerprint].append(row)
    for line in lines.values():
        stands = False
        for row in line:
            if row.kind in ("alert", "update"):
                stands = True
            elif row.kind == "resolved":
                assert stands, "resolved, and never told"
                stands = False
            else:
                assert stands, "reminded of what nobody was told"
        for earlier, later in pairwise(row for row in line if row.kind == "reminder"):
            assert later.created_at - earlier.created_at >= 5 * MINUTE
    for row in rows:
        if row.kind == "reminder" and row.channel == "mail" and row.title.startswith("b"):
            at = (row.created_at - NOON) % (24 * 60 * MINUTE)
            assert not 60 * MINUTE <= at < 150 * MINUTE, "in quiet hours"
