"""What is due next among many threads, against looking through all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeq.notifications.threads import Threads
from edgeq.store.threads import Acknowledged, Key, Thread

TIMES = st.none() | st.integers(1, 50)
THREADS = st.builds(
    Thread,
    fingerprint=st.sampled_from("ab"),
    route=st.sampled_from("rst"),
    event_id=st.integers(1, 2),
    severity=st.just("info"),
    channels=st.just(()),
    opened_at=st.integers(0, 50),
    next_at=TIMES,
    escalate_at=TIMES,
    silenced=st.booleans(),
    endless=st.booleans(),
)
KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from("rst"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), THREADS),
        st.tuples(st.just("put"), THREADS),
        st.tuples(st.just("close"), KEYS),
        st.tuples(st.just("hold"), KEYS, st.integers(0, 60)),
        st.tuples(st.just("release")),
        st.tuples(st.just("acknowledge"), KEYS),
        st.tuples(st.just("step"), st.integers(-20, 20)),
        st.tuples(st.just("due"), st.integers(0, 60), st.integers(1, 3)),
    ),
    max_size=60,
)


class Slow:
    """The same, without any cleverness."""

    def __init__(self) -> None:
        self.threads: dict[Key, Thread] = {}
        self.held: dict[Key, int] = {}

    def due_at(self, thread: Thread) -> int | None:
        times = [at for at in (thread.next_at, thread.escalate_at) if at is not None]
        if thread.acknowledged_at is not None:
            found = None if thread.endless else min(times, default=0)
        else:
            found = 0 if thread.silenced else min(times, default=None)
        return None if found is None else max(found, self.held.get(thread.key, 0))

    def do(self, what: str, *arguments: Any) -> None:
        if what == "put":
            (thread,) = arguments
            self.threads[thread.key] = thread
            self.held.pop(thread.key, None)
        elif what == "close":
            self.threads.pop(arguments[0], None)
            self.held.pop(arguments[0], None)
        elif what == "hold":
            self.held[arguments[0]] = arguments[1]
        elif what == "release":
            self.held.clear()


def after_step(thread: Thread, step: int) -> Thread:
    """The thread after the clock was set by `step`, to 30."""
    next_at, escalate_at = (None if at is None else at + step for at in (thread.next_at, thread.escalate_at))
    return replace(thread, opened_at=min(thread.opened_at + step, 30), next_at=next_at, escalate_at=escalate_at)


@settings(max_examples=300)
@given(STEPS)
def test_what_is_due_when(steps: list[tuple[Any, ...]]) -> None:
    quick, slow = Threads(), Slow()
    for what, *arguments in steps:
        if what == "put":
            quick.put(arguments[0])
        elif what == "close":
            quick.close(arguments[0])
        elif what == "hold":
            if arguments[0] not in slow.threads:
                continue
            quick.hold(*arguments)
        elif what == "release":
            quick.release()
        elif what == "acknowledge":
            thread = slow.threads.get(arguments[0])
            if thread is None or thread.acknowledged_at is not None:
                continue
            quick.acknowledge(
                [Acknowledged(*thread.key, event_id=7 if thread.opened_at > 40 else thread.event_id, acknowledged_at=9)]
            )
            if thread.opened_at <= 40:  # the others are about an event before
                slow.do("put", replace(thread, acknowledged_at=9))
            continue
        elif what == "step":
            quick.set_clock(30, arguments[0])
            moved = [after_step(thread, arguments[0]) for thread in slow.threads.values()]
            slow.held.clear()
            slow.threads = {thread.key: thread for thread in moved}
        else:
            now, limit = arguments
            dues = [(due, key) for key, thread in slow.threads.items() if (due := slow.due_at(thread)) is not None]
            found = quick.due(now, limit)
            assert [thread.key for thread in found] == [key for due, key in sorted(dues) if due <= now][:limit]
            for thread in found:
                quick.put(thread)
                slow.do("put", thread)
        slow.do(what, *arguments)
        assert {thread.key: thread for thread in quick} == slow.threads
        assert len(quick) == len(slow.threads)
        assert quick.earliest() == min(
            (d for t in slow.threads.values() if (d := slow.due_at(t)) is not None), default=None
        )


def test_changes_without_end_need_no_room() -> None:
    threads = Threads()
    thread = Thread(fingerprint="a", route="r", event_id=1, severity="info", channels=(), opened_at=0)
    for number in range(10_000):
        threads.put(replace(thread, next_at=10**6 - number))
    assert len(threads._heap) < 100
