"""The heap of deadlines: always the earliest, and no bigger for what was cancelled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeq.contracts.timers import Key, Timers

KEYS: list[Key] = [("c", str(number)) for number in range(5)]
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.integers(0, 50)), max_size=60)


@given(CHANGES, st.integers(0, 60))
def test_deadlines_come_in_order(changes: list[tuple[Key, int | None]], until: int) -> None:
    deadlines: dict[Key, int | None] = {}
    timers = Timers(deadlines.get)
    for key, at in changes:
        deadlines[key] = at
        timers.arm(key)
        assert timers.earliest() == min((each for each in deadlines.values() if each is not None), default=None)
    expected = sorted((at, key) for key, at in deadlines.items() if at is not None and at < until)
    popped = []
    while key := timers.pop_due(until):
        popped.append((deadlines[key], key))
        deadlines[key] = None
    assert popped == expected


def test_moving_a_deadline_on_and_back_costs_no_room() -> None:
    deadlines: dict[Key, int | None] = dict.fromkeys(KEYS, 0)
    timers = Timers(deadlines.get)
    for at in range(10_000):
        for key in KEYS:
            deadlines[key] = at
            timers.arm(key)
    assert len(timers) == len(KEYS)
    timers = Timers(deadlines.get)
    for at in reversed(range(10_000)):
        for key in KEYS:
            deadlines[key] = at
            timers.arm(key)
    assert len(timers) < 100
