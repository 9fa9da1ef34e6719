"""The heap of deadlines: always the earliest, and no bigger for what was cancelled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeq.contracts.timers import Key, Timers

KEYS: list[Key] = [("c", str(number)) for number in range(5)]
RANK = {"c": 0, "b": 1}
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.integers(0, 50)), max_size=60)


@given(CHANGES, st.integers(0, 60), st.integers(-1, 60))
def test_deadlines_come_in_order(changes: list[tuple[Key, int | None]], until: int, near: int) -> None:
    deadlines: dict[Key, int | None] = {}
    timers = Timers(deadlines.get, RANK)
    for key, at in changes:
        deadlines[key] = at
        timers.arm(key, at)
        first = min((each for each in deadlines.values() if each is not None), default=None)
        found = timers.earliest(near)
        assert found == first or (found is not None and near < found and (first is None or found < first))
    assert timers.earliest() == min((each for each in deadlines.values() if each is not None), default=None)
    expected = sorted((at, key) for key, at in deadlines.items() if at is not None and at < until)
    popped = []
    while due := timers.pop_due(until):
        at, key = due
        assert at == deadlines[key]
        popped.append((at, key))
        deadlines[key] = None
    assert popped == expected


def test_a_deadline_that_moves_on_is_not_looked_for_before_it_is_near() -> None:
    deadlines: dict[Key, int | None] = dict.fromkeys(KEYS, 100)
    asked: list[Key] = []

    def deadline_of(key: Key) -> int | None:
        asked.append(key)
        return deadlines[key]

    timers = Timers(deadline_of, RANK)
    for at in range(100, 150):
        for key in KEYS:
            deadlines[key] = at
            timers.arm(key, at)
        assert timers.earliest(99) == 100
        assert timers.pop_due(100) is None
    assert asked == []
    assert timers.earliest(100) == 149


def test_moving_a_deadline_on_and_back_costs_no_room() -> None:
    deadlines: dict[Key, int | None] = dict.fromkeys(KEYS, 0)
    timers = Timers(deadlines.get, RANK)
    for at in range(10_000):
        for key in KEYS:
            deadlines[key] = at
            timers.arm(key, at)
    assert len(timers) == len(KEYS)
    timers = Timers(deadlines.get, RANK)
    for at in reversed(range(10_000)):
        for key in KEYS:
            deadlines[key] = at
            timers.arm(key, at)
    assert len(timers) < 100


def test_of_one_moment_those_that_others_look_at_come_first() -> None:
    deadlines: dict[Key, int | None] = {("b", "x"): 5, ("c", "z"): 5, ("c", "a"): 5, ("b", "y"): 4}
    timers = Timers(deadlines.get, RANK)
    for key in deadlines:
        timers.arm(key, deadlines[key])
    popped = []
    while due := timers.pop_due(6):
        popped.append(due[1])
        deadlines[due[1]] = None
    assert popped == [("b", "y"), ("c", "a"), ("c", "z"), ("b", "x")]
