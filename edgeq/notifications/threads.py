"""Threads: what is open, and what time does to it. Pure.

- A **contract's episode** makes a thread for each route that told of it, from `contract.violated` until
  `contract.resolved`; whatever else comes of the episode goes where the thread was told. It is reminded of by `repeat`,
  the last length again and again, and by the contract's own `remind`.
- **Any other event** makes a thread only where its route has `repeat` or `escalate`, and as long as these lists are;
  the next event of its fingerprint takes its place.
- **Acknowledged**, a thread has no reminders and no escalation any more. **Silenced** means that nobody was told of it;
  it is told when the silence is over, and only then reminders begin.
- Reminders and steps of escalation count from when the thread was told (for what quiet hours hold back: from their
  end). What was missed is not made up for: after however long, there is one reminder and one step, and the next ones
  keep their distance.
- In memory there are `THREADS_MAX` threads at most, without their texts. What comes beyond is told, but not reminded of
  or escalated, and counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence

from msgspec.structs import replace

from ..store.threads import Acknowledged, Key, Thread
from .policy import Route

THREADS_MAX = 10_000

_ROOM = 64


def told(thread: Thread, route: Route, at: int) -> Thread:
    """The thread once it is told at `at`: reminders and escalation begin."""
    return replace(
        thread,
        silenced=False,
        next_at=at + route.repeat[0] if route.repeat else None,
        escalate_at=at + route.escalate[0][0] if route.escalate else None,
    )


def reminded(thread: Thread, route: Route, now: int) -> Thread:
    """The thread after a reminder at `now`, also one of the contract's own."""
    number = thread.reminder + 1
    interval = _interval(route, number, thread)
    due = thread.next_at if thread.next_at is not None and thread.next_at <= now else now
    return replace(thread, reminder=number, next_at=None if interval is None else _after(due, interval, now))


def escalated(thread: Thread, route: Route, now: int, elsewhere: Collection[str] = ()) -> Thread:
    """The thread after the step of escalation that was due. Its channels are those of the thread from then on, except
    those that have what follows from `elsewhere`."""
    step = thread.escalation
    new = (name for name in route.escalate[step][1] if name not in elsewhere)
    channels = tuple(dict.fromkeys((*thread.channels, *new)))
    escalate_at = None
    if step + 1 < len(route.escalate):
        due = now if thread.escalate_at is None else thread.escalate_at
        escalate_at = _after(due, route.escalate[step + 1][0] - route.escalate[step][0], now)
    return replace(thread, channels=channels, escalation=step + 1, escalate_at=escalate_at)


def adopted(thread: Thread, route: Route, now: int) -> Thread:
    """A thread of an earlier run, perhaps under other keys of its route, or by a clock that was ahead."""
    if thread.silenced or thread.acknowledged_at is not None:
        return thread
    from_at = max(now, route.quiet_until(thread.severity, now) or 0)
    interval = _interval(route, thread.reminder, thread)
    next_at, escalate_at = thread.next_at, thread.escalate_at
    if interval is None or next_at is None or next_at > from_at + interval:
        next_at = None if interval is None else from_at + interval
    if thread.escalation >= len(route.escalate):
        escalate_at = None
    else:
        most = from_at + route.escalate[thread.escalation][0]
        escalate_at = most if escalate_at is None else min(escalate_at, most)
    return replace(thread, next_at=next_at, escalate_at=escalate_at)


def is_over(thread: Thread) -> bool:
    """Whether nothing more comes of it."""
    return not (thread.endless or thread.silenced) and thread.next_at is None and thread.escalate_at is None


def _interval(route: Route, reminders: int, thread: Thread) -> int | None:
    """How long after so many reminders of a thread the next one follows; None when none does."""
    if reminders < len(route.repeat):
        return route.repeat[reminders]
    return route.repeat[-1] if thread.endless and route.repeat else None


def _times(thread: Thread) -> list[int]:
    return [at for at in (thread.next_at, thread.escalate_at) if at is not None]


def _after(due: int, interval: int, now: int) -> int:
    """When the next one follows what was due at `due` and came `now`: a little late is made up for, more isn't."""
    return due + interval if now - due < interval // 2 else now + interval


class Threads:
    """All that are open, and which of them is due next."""

    def __init__(self, threads: Sequence[Thread] = ()) -> None:
        self._threads: dict[str, dict[str, Thread]] = {}
        self._held: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []
        self._size = 0
        for thread in threads:
            self.put(thread)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Thread]:
        for routes in self._threads.values():
            yield from routes.values()

    def of(self, fingerprint: str) -> list[Thread]:
        """The threads of a fingerprint, one for each route."""
        return list(self._threads.get(fingerprint, {}).values())

    def get(self, key: Key) -> Thread | None:
        """The thread of that fingerprint and route."""
        return self._threads.get(key[0], {}).get(key[1])

    def put(self, thread: Thread) -> None:
        """Take a thread in, in place of the one of the same key."""
        routes = self._threads.setdefault(thread.fingerprint, {})
        self._size += thread.route not in routes
        routes[thread.route] = thread
        self._held.pop(thread.key, None)
        self._note(thread.key)

    def close(self, key: Key) -> None:
        """Forget a thread."""
        routes = self._threads.get(key[0], {})
        if routes.pop(key[1], None) is not None:
            self._size -= 1
            self._held.pop(key, None)
            if not routes:
                del self._threads[key[0]]

    def hold(self, key: Key, until: int) -> None:
        """Let a thread not be due before `until`, unless it changes or `release` is called."""
        self._held[key] = until
        self._note(key)

    def release(self) -> None:
        """Hold nothing any more: what held it may be gone."""
        held, self._held = self._held, {}
        for key in held:
            self._note(key)

    def acknowledge(self, acknowledged: Sequence[Acknowledged]) -> None:
        """Take over what somebody has acknowledged."""
        for each in acknowledged:
            thread = self.get((each.fingerprint, each.route))
            if thread is not None and thread.event_id == each.event_id and thread.acknowledged_at is None:
                self.put(replace(thread, acknowledged_at=each.acknowledged_at))

    def set_clock(self, now: int, step_microseconds: int) -> None:
        """Move all times: the clock was set by so much, to `now`."""

        def moved(at: int | None) -> int | None:
            return None if at is None else at + step_microseconds

        for thread in list(self):
            opened_at = min(thread.opened_at + step_microseconds, now)
            times = {"next_at": moved(thread.next_at), "escalate_at": moved(thread.escalate_at)}
            self._threads[thread.fingerprint][thread.route] = replace(thread, opened_at=opened_at, **times)
        self._held.clear()
        self._sort()

    def earliest(self) -> int | None:
        """When the next is due; one that was silenced is due at once, until it is held."""
        while self._heap and self._due_at(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: int, limit: int) -> list[Thread]:
        """Up to `limit` threads that are due, those first that are since long. Each must be put, held or closed."""
        found: dict[Key, Thread] = {}
        while len(found) < limit and (due := self.earliest()) is not None and due <= now:
            _, key = heapq.heappop(self._heap)
            thread = self.get(key)
            assert thread is not None
            found[key] = thread
        return list(found.values())

    def _due_at(self, key: Key) -> int | None:
        thread = self.get(key)
        if thread is None:
            return None
        if thread.acknowledged_at is not None:
            if thread.endless:
                return None
            due: int | None = min(_times(thread), default=0)  # it is over then
        elif thread.silenced:
            due = 0
        else:
            due = min(_times(thread), default=None)
        return None if due is None else max(due, self._held.get(key, 0))

    def _note(self, key: Key) -> None:
        due = self._due_at(key)
        if due is not None:
            heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 2 * self._size + _ROOM:
            self._sort()

    def _sort(self) -> None:
        dues = ((self._due_at(thread.key), thread.key) for thread in self)
        self._heap = [(due, key) for due, key in dues if due is not None]
        heapq.heapify(self._heap)
