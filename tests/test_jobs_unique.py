"""Unique keys: which job stands for one that is dispatched, and which doesn't any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.job_table import SECOND, add, cancel, claim, end, ids, moment, new, one, opened, rescue
from support.stores import Database

from edgeq.store import jobs
from edgeq.store.claims import Buried, Completed, End, Retried, Snoozed
from edgeq.store.jobs import FINISHED, STATES, Dispatched, NewJob, StoredJob, Unique
from edgeq.store.store import Store

TEN_MINUTES = Unique((*jobs.INCOMPLETE, "completed"), within_us=600 * SECOND)
YEAR = 365 * 86400.0


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


def only(number: int = 0, key: str = "front door", **more: Any) -> NewJob:
    return new(number, unique_key=key, **more)


async def in_state(store: Store, state: str) -> None:
    """Bring the one job there is into that state."""
    if state in ("scheduled", "available"):
        return
    if state == "cancelled":
        await cancel(store, 1)
        return
    [job] = await claim(store, at=1)
    ends: dict[str, Callable[[StoredJob], End]] = {
        "retryable": lambda job: Retried(job, moment(9), "again"),
        "completed": lambda job: Completed(job, "1"),
        "dead": lambda job: Buried(job, "failed", "over"),
    }
    if state in ends:
        await end(store, ends[state](job))


@pytest.mark.parametrize("state", STATES)
async def test_a_job_that_is_not_finished_stands_for_another_with_its_key(store: Store, state: str) -> None:
    assert await add(store, only(after=1 if state == "scheduled" else 0)) == [Dispatched(1)]
    await in_state(store, state)
    assert (await one(store, 1)).state == state
    expected = Dispatched(2) if state in FINISHED else Dispatched(1, existed=True)
    assert await add(store, only(1)) == [expected]
    assert (await one(store, 1)).args == '{"number":0}', "the one that is there stays as it is"


@pytest.mark.parametrize("state", STATES)
async def test_the_states_that_count_can_be_chosen(store: Store, state: str) -> None:
    await add(store, only(after=1 if state == "scheduled" else 0))
    await in_state(store, state)
    assert await add(store, only(unique=Unique((state,)))) == [Dispatched(1, existed=True)]
    others = tuple(other for other in STATES if other != state)
    assert await add(store, only(unique=Unique(others))) == [Dispatched(2)]


async def test_keys_are_those_of_a_kind(store: Store) -> None:
    await add(store, only())
    assert await add(store, only(kind="m:Other"), only(key="back door"), new()) == [
        Dispatched(2), Dispatched(3), Dispatched(4),
    ]  # fmt: skip


@pytest.mark.parametrize(("later", "existed"), [(600.0, True), (600.000001, False)])
@pytest.mark.parametrize("finished", [True, False])
async def test_within_a_window_also_one_that_is_completed_counts(
    store: Store, later: float, existed: bool, finished: bool
) -> None:
    await add(store, only())
    if finished:
        await in_state(store, "completed")
    [answer] = await add(store, only(at=later, unique=TEN_MINUTES))
    assert answer == (Dispatched(1, existed=True) if existed else Dispatched(2))


@pytest.mark.parametrize("state", ["cancelled", "dead"])
async def test_one_that_came_to_nothing_does_not_count(store: Store, state: str) -> None:
    await add(store, only())
    await in_state(store, state)
    assert await add(store, only(at=60, unique=TEN_MINUTES)) == [Dispatched(2)]


async def test_the_latest_of_several_is_the_answer(store: Store) -> None:
    for at in (0, 700, 1400):
        await add(store, only(at=at, unique=TEN_MINUTES))
    assert await add(store, only(at=1500, unique=TEN_MINUTES)) == [Dispatched(3, existed=True)]


async def test_a_window_that_was_opened_before_the_clock_was_set_back_keeps_nobody_out(store: Store) -> None:
    await add(store, only(at=YEAR))
    assert await add(store, only(at=0, unique=TEN_MINUTES)) == [Dispatched(2)]
    assert await add(store, only(at=-599, unique=TEN_MINUTES)) == [Dispatched(2, existed=True)], "a small step does"


async def test_one_dispatch_of_many_keeps_the_first_of_each_key(store: Store) -> None:
    await add(store, only(key="a"))
    rows = [new(), only(key="b"), only(key="a"), only(key="b"), only(key="b", kind="m:Other"), new(), only(key="b")]
    assert await add(store, *rows) == [
        Dispatched(2), Dispatched(3), Dispatched(1, existed=True), Dispatched(3, existed=True), Dispatched(4),
        Dispatched(5), Dispatched(3, existed=True),
    ]  # fmt: skip


async def test_within_one_dispatch_states_and_windows_count_as_well(store: Store) -> None:
    rows = [
        only(after=60),
        only(unique=Unique(("available",))),
        only(unique=Unique(("scheduled",))),
        only(at=601, unique=TEN_MINUTES),
        only(at=602, unique=Unique(())),
    ]
    assert await add(store, *rows) == [
        Dispatched(1), Dispatched(2), Dispatched(1, existed=True), Dispatched(3), Dispatched(4),
    ]  # fmt: skip


async def test_a_job_that_was_not_stored_stands_for_nobody(store: Store) -> None:
    rows = [only(at=at, unique=TEN_MINUTES) for at in (0, 400, 800)]
    assert await add(store, *rows) == [Dispatched(1), Dispatched(1, existed=True), Dispatched(2)]


async def test_a_dispatch_of_nothing_new_wakes_nobody(store: Store) -> None:
    await add(store, only())
    seen = store.signal.version("jobs")
    assert await add(store, only(), only()) == [Dispatched(1, existed=True)] * 2
    assert await add(store) == []
    assert store.signal.version("jobs") == seen


async def test_many_keys_in_one_dispatch(store: Store) -> None:
    await add(store, *(only(key=f"item {number}") for number in range(0, 3000, 2)))
    answers = await add(store, *(only(key=f"item {number}") for number in range(3000)))
    assert [answer.existed for answer in answers] == [number % 2 == 0 for number in range(3000)]
    assert [answer.id for answer in answers[:4]] == [1, 1501, 2, 1502]


async def test_a_job_that_sleeps_or_was_left_by_its_worker_still_stands_for_others(store: Store) -> None:
    await add(store, only())
    [job] = await claim(store)
    await end(store, Snoozed(job, moment(10)))
    await claim(store, at=10)
    await rescue(store, 100)
    assert await add(store, only(at=100)) == [Dispatched(1, existed=True)]


@pytest.mark.parametrize("key", ["ä☃𝄞'\";--", "x" * 10_000, "", '["a"]', "%", "1"])
async def test_a_key_is_any_text(store: Store, key: str) -> None:
    assert await add(store, only(key=key)) == [Dispatched(1)]
    assert await add(store, only(key=key)) == [Dispatched(1, existed=True)]
    assert ids(await jobs.find(store, limit=9)) == [1]


@pytest.mark.parametrize("key", ["\udcff", "a\0"])
async def test_a_key_that_can_not_be_kept_is_refused_before_anything_is_stored(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="unique_key"):
        await add(store, new(), only(key=key))
    assert await jobs.find(store, limit=9) == []
