"""Token buckets: so many at once, then so many a second, for each key."""

from __future__ import annotations

from edgeq.intake.limit import KEYS_MAX, Limiter
from edgeq.testing import FakeClock


def allowed(limiter: Limiter, key: str, tries: int) -> int:
    return sum(limiter.allow(key) for _ in range(tries))


def test_a_burst_at_once_and_then_as_many_as_time_brings() -> None:
    clock = FakeClock()
    limiter = Limiter(2.0, 5, clock.monotonic)
    assert allowed(limiter, "a", 20) == 5
    clock.advance(0.4)
    assert allowed(limiter, "a", 20) == 0
    clock.advance(0.1)
    assert allowed(limiter, "a", 20) == 1
    clock.advance(1.5)
    assert allowed(limiter, "a", 20) == 3


def test_a_long_silence_saves_no_more_than_a_burst() -> None:
    clock = FakeClock()
    limiter = Limiter(2.0, 5, clock.monotonic)
    clock.advance(86_400)
    assert allowed(limiter, "a", 20) == 5


def test_keys_do_not_take_from_each_other() -> None:
    limiter = Limiter(1.0, 2, FakeClock().monotonic)
    for key in ("a", "b", "", "x" * 100_000, "x" * 100_000 + "y"):
        assert allowed(limiter, key, 5) == 2


def test_less_than_one_a_second() -> None:
    clock = FakeClock()
    limiter = Limiter(0.1, 1, clock.monotonic)
    assert allowed(limiter, "a", 2) == 1
    clock.advance(9.9)
    assert allowed(limiter, "a", 2) == 0
    clock.advance(0.2)
    assert allowed(limiter, "a", 2) == 1


def test_the_wall_clock_does_not_matter() -> None:
    clock = FakeClock()
    limiter = Limiter(1.0, 1, clock.monotonic)
    assert limiter.allow("a")
    clock.step(10 * 365 * 86_400)
    assert not limiter.allow("a")


def test_only_the_keys_used_last_are_remembered() -> None:
    limiter = Limiter(1.0, 1, FakeClock().monotonic)
    limiter.allow("first")
    for number in range(KEYS_MAX - 1):
        limiter.allow(str(number))
    assert not limiter.allow("first")  # still known, and now the one used last
    for number in range(KEYS_MAX - 1):
        limiter.allow(f"more {number}")
    assert not limiter.allow("first")
    for number in range(KEYS_MAX):
        limiter.allow(f"yet more {number}")
    assert limiter.allow("first")
