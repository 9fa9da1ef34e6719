"""When a target may be handed the next notification."""

from __future__ import annotations

import pytest

from edgeq.backoff import Backoff
from edgeq.notifications.bucket import UNREACHABLE_SECONDS_MAX, Bucket, Limit, Pace
from edgeq.testing.clock import FakeClock

BACKOFF = Backoff(10.0, 900.0, jitter=0.0)


def test_a_burst_and_then_one_at_a_time(clock: FakeClock) -> None:
    bucket = Bucket(Limit(0.2, 3), clock.monotonic)
    for _ in range(3):
        assert bucket.seconds() == 0
        bucket.take()
    assert bucket.seconds() == pytest.approx(5)
    assert bucket.within(60) == 12
    clock.advance(4)
    assert bucket.seconds() == pytest.approx(1)
    clock.advance(1)
    assert bucket.seconds() == 0
    clock.advance(10_000)
    assert bucket.within(60) == 15, "no more than the burst is saved up"


def test_without_a_limit_there_is_no_end(clock: FakeClock) -> None:
    bucket = Bucket(None, clock.monotonic)
    for _ in range(1000):
        bucket.take()
    assert (bucket.seconds(), bucket.within(60)) == (0, None)


def test_after_failures_it_waits_longer_and_longer_but_looks_often_for_a_way(clock: FakeClock) -> None:
    pace = Pace(None, BACKOFF, clock.monotonic)
    waits = []
    for _ in range(9):
        pace.failed(None, unreachable=False)
        waits.append(pace.seconds())
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    pace.failed(None, unreachable=True)
    assert pace.seconds() == UNREACHABLE_SECONDS_MAX
    clock.advance(100)
    assert pace.failing_seconds == 100
    pace.took()
    assert (pace.seconds(), pace.failing_seconds, pace.failures) == (0, 0, 0)


def test_who_says_when_is_believed_three_times(clock: FakeClock) -> None:
    pace = Pace(None, BACKOFF, clock.monotonic)
    waits = []
    for _ in range(5):
        pace.failed(3.0, unreachable=False)
        waits.append(pace.seconds())
    assert waits == [3, 3, 3, 80, 160]
    pace.failed(5000.0, unreachable=False)
    assert pace.seconds() == 5000


def test_a_short_wait_says_how_many_it_takes(clock: FakeClock) -> None:
    pace = Pace(Limit(10, 100), BACKOFF, clock.monotonic)
    pace.failed(5.0, unreachable=False)
    assert pace.within(60) == 12
    clock.advance(5)
    pace.took()
    assert pace.seconds() == 5, "it would only refuse it"
    clock.advance(600)
    pace.took()
    assert pace.seconds() == 0
    assert pace.within(60) == 700


def test_a_long_wait_says_nothing_of_a_rate(clock: FakeClock) -> None:
    pace = Pace(None, BACKOFF, clock.monotonic)
    pace.failed(120.0, unreachable=False)
    clock.advance(120)
    pace.took()
    assert (pace.seconds(), pace.within(60)) == (0, None)
