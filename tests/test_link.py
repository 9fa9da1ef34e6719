"""When the silence of a sensor begins to count."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgeq.link import BUSY_MESSAGES, QUIET_SECONDS, Link
from edgeq.mqtt.session import State
from edgeq.testing import FakeClock


@dataclass
class Way:
    """A session, an inbox and an intake, as far as the link looks at them."""

    state: State = State.CONNECTED
    connected_since: int | None = 1
    connections: int = 1
    waiting: int = 0

    def __len__(self) -> int:
        return self.waiting

    def in_flight(self) -> int:
        return 0


def link(way: Way, clock: FakeClock) -> Link:
    return Link(way, way, way, clock)  # type: ignore[arg-type]


def looks(made: Link, clock: FakeClock, seconds: float) -> int | None:
    """What the link says after it was asked every quarter of a second."""
    for _ in range(int(seconds * 4)):
        made.settled_at()
        clock.advance(0.25)
    return made.settled_at()


def test_settled_once_little_is_under_way_for_a_while(clock: FakeClock) -> None:
    made = link(Way(), clock)
    assert made.settled_at() is None
    assert looks(made, clock, QUIET_SECONDS) == clock.now()


def test_steady_traffic_settles(clock: FakeClock) -> None:
    assert looks(link(Way(waiting=BUSY_MESSAGES - 1), clock), clock, QUIET_SECONDS) is not None


def test_a_backlog_keeps_it_open(clock: FakeClock) -> None:
    way = Way(waiting=BUSY_MESSAGES)
    made = link(way, clock)
    assert looks(made, clock, 60) is None
    way.waiting = 0
    assert looks(made, clock, QUIET_SECONDS) is not None


def test_once_settled_a_burst_changes_nothing(clock: FakeClock) -> None:
    way = Way()
    made = link(way, clock)
    settled = looks(made, clock, QUIET_SECONDS)
    way.waiting = 10 * BUSY_MESSAGES
    assert looks(made, clock, 5) == settled


@pytest.mark.parametrize("change", [{"state": State.DISCONNECTED}, {"connections": 2}])
def test_another_connection_begins_anew(clock: FakeClock, change: dict[str, object]) -> None:
    way = Way()
    made = link(way, clock)
    looks(made, clock, QUIET_SECONDS)
    for name, value in change.items():
        setattr(way, name, value)
    assert made.settled_at() is None
