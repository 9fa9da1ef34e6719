"""Which events go, against a slow and obvious model of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.pruned import DAY, DAYS_30, ages, ids, no_rest, place, retention
from support.stores import Database, emptied

from edgeq.clock import CLOCKLESS_BEFORE
from edgeq.events import NewEvent
from edgeq.store import events
from edgeq.store.store import Store
from edgeq.testing import FakeClock
from edgeq.testing.clock import NOON
from edgeq.units import Duration
from edgeq.upkeep import pruner


class Given(NamedTuple):
    """Events as (recorded_at, keep), in order of id from 1; cursors as name -> (place, moved_at)."""

    events: Sequence[tuple[int, int]]
    cursors: Mapping[str, tuple[int, int]]
    configured: Sequence[str]
    max_rows: int | None


MOMENTS = st.sampled_from(
    [
        5,
        CLOCKLESS_BEFORE - 1,
        NOON - 400 * DAY,
        NOON - DAYS_30 - 1,
        NOON - DAYS_30,
        NOON - DAY,
        NOON,
        NOON + 1,
        NOON + 9999 * DAY,
    ]
)
NAMES = ["a", "b", "c"]
GIVEN = st.builds(
    Given,
    st.lists(st.tuples(MOMENTS, st.sampled_from([-1, 0, 0, 1])), max_size=14),
    st.dictionaries(
        st.sampled_from(NAMES),
        st.tuples(st.integers(0, 14), st.sampled_from([NOON - DAYS_30 - 1, NOON - DAYS_30, NOON])),
    ),
    st.lists(st.sampled_from(NAMES), max_size=2),
    st.none() | st.integers(1, 10),
)


def left(of: Given) -> list[int]:
    """What is left of them, as slowly as one would think of it."""
    rows = dict(enumerate(of.events, 1))
    counting = [
        at for name, (at, moved_at) in of.cursors.items() if name in of.configured or moved_at >= NOON - DAYS_30
    ]
    seen = [number for number in rows if number <= min(counting, default=99)]

    def moment(number: int) -> int | None:
        """Its own time, or that of the next one that has been seen and whose time can be right."""
        return next(
            (rows[other][0] for other in seen if other >= number and CLOCKLESS_BEFORE <= rows[other][0] <= NOON), None
        )

    for number in seen:
        at = moment(number)
        if at is None or at >= NOON - DAYS_30:
            break
        del rows[number]
    if of.max_rows is not None:
        may_go = sorted((rows[number][1], number) for number in seen if number in rows)
        for _, number in may_go[: max(0, len(rows) - of.max_rows)]:
            del rows[number]
    return list(rows)


async def left_by_edgeq(store: Store, clock: FakeClock, of: Given) -> list[int]:
    await store.write(emptied)
    first = (await store.write(events.newest_given)) + 1
    new = [NewEvent("t", at, at, keep=keep) for at, keep in of.events]
    await store.write(lambda tx: events.append(tx, new))
    for name, (at, moved_at) in of.cursors.items():
        await place(store, name, first - 1 + at, moved_at=moved_at)
    kept = ages(events=Duration(30 * 86_400), max_rows=of.max_rows)
    await retention(store, clock, kept, processors=of.configured, rest=no_rest).look()
    return [number - first + 1 for number in await ids(store)]


def test_what_goes_is_what_the_model_says(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROWS_AT_ONCE", 4), ("_ROWS_FIRST", 3), ("_COUNTED_AT_ONCE", 3)):
        monkeypatch.setattr(pruner, name, value)
    clock = FakeClock()
    store = database.store(clock=clock)
    with asyncio.Runner() as runner:
        runner.run(store.open())

        @settings(max_examples=150, suppress_health_check=list(HealthCheck))
        @given(GIVEN)
        def compare(of: Given) -> None:
            assert runner.run(left_by_edgeq(store, clock, of)) == left(of)

        try:
            compare()
        finally:
            runner.run(store.close())
