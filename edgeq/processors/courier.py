"""The courier: decides what is told of events tagged `notification`, where and when, in the commit that moves its
cursor. The senders do the rest.

What can be relied on:

- **Each event is told once on each channel that its routes name**, however often edgeq is killed: its rows, the threads
  that they open or end, and the cursor are one commit. The text is made once.
- **What is open is in the store** (see notifications.threads), with who has acknowledged it and when it is due again; a
  restart changes nothing. What became due while edgeq was down or the events waited is told once, not as often as it
  would have been.
- **An acknowledgement counts at once**: a reminder that it has overtaken is not queued, wherever it came from.
- **A step of the clock is no time that passed.** What was left until each reminder is left after it. Of an earlier run,
  nothing is due later than its full length from now. Silences and quiet hours go by the wall clock, as people do.
- **Silenced** notifications stand in the history, told to nobody. Those of which a thread is still open, and not
  acknowledged, when the silence ends are told then.
- **While anything of a thread waits for a channel, no reminder is queued there**: an outage makes no heap of them.
- Threads of routes that are gone are closed; channels that are gone are passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ..clock import MICROSECONDS, Clock
from ..contracts.reporting import CLOCKLESS_BEFORE
from ..events import Event
from ..notifications.match import Facts
from ..notifications.policy import Policy, Route
from ..notifications.rows import Message, detail_of, facts_of, lasting, numbered, with_note
from ..notifications.silences import KEPT_SECONDS, SILENCES_MAX, Silences
from ..notifications.text import render
from ..notifications.threads import THREADS_MAX, Threads, adopted, escalated, is_over, reminded, told
from ..store import notifications, outbox, silences, threads
from ..store.decisions import Decisions
from ..store.notifications import NewNotification
from ..store.store import Store, Tx
from ..store.threads import Key, Thread, ThreadText
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .processor import ProcessorContext, QueueProcessor

log = logging.getLogger("edgeq.courier")

CLOCK_STEP_SECONDS = 1.0
DUE_MAX = 200

_STEP = round(CLOCK_STEP_SECONDS * MICROSECONDS)
_KEPT = round(KEPT_SECONDS * MICROSECONDS)


class _Opening(NamedTuple):
    """What is to be decided first: threads whose routes are gone, and those that go on differently."""

    gone: list[Key]
    changed: list[Thread]


class _Target(NamedTuple):
    """Where something is told: by which route (None: it names its channels itself), and in which thread."""

    route: Route | None
    channels: tuple[str, ...]
    thread: Thread | None = None


class Courier(QueueProcessor):
    """Tells by `policy`. An event that is routed nowhere is counted (`unrouted_notification`) and passed over."""

    tags = ("notification",)

    def __init__(self, policy: Policy, metrics: Metrics, clock: Clock) -> None:
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._calm = Calm(log, clock.monotonic)
        self._store: Store | None = None
        self._seen = (-1, -1)
        self._silences = Silences()
        self._threads = Threads()
        self._opening: _Opening | None = None
        self._offset = clock.offset()

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """Load what is open and what is silenced."""
        self._store = store
        now = self._clock.now()
        opening = _Opening([], [])
        found = []
        for thread in await threads.every(store, THREADS_MAX):
            route = self._policy.route(thread.route)
            if route is None:
                opening.gone.append(thread.key)
                continue
            goes_on = adopted(thread, route, now)
            if is_over(goes_on):
                opening.gone.append(thread.key)
                continue
            if goes_on != thread:
                opening.changed.append(goes_on)
            found.append(goes_on)
        self._threads = Threads(found)
        self._opening = opening if opening.gone or opening.changed else None
        self._seen = (-1, -1)
        await self._look(now)

    def due_at(self) -> int | None:
        """See QueueProcessor."""
        if self._opening is not None or abs(self._step()) >= _STEP or self._seen != self._versions():
            return self._clock.now()
        return self._threads.earliest()

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        await self._begin(ctx)
        text = render(event)
        facts = Facts.of(event, text.severity)
        raised_at = _raised_at(event, ctx.now)
        kind = _kind(facts)
        targets = self._targets(event, facts, text.fingerprint, ctx.decisions)
        if not targets:
            ctx.decisions.tallies.append(lambda: self._metrics.skipped.add(1, "unrouted_notification"))
            log.info("event %d (%s) is routed to no channel: %s", event.id, text.severity, text.title)
            return
        if kind == "alert" and facts.contract and any(target.thread for target in targets):
            kind = "update"
        message = Message(
            kind=kind,
            severity=text.severity,
            title=text.title,
            body=text.body,
            detail=detail_of(facts, event.occurred_at),
            fingerprint=text.fingerprint,
            event_id=event.id,
            created_at=raised_at,
        )
        silence = self._silences.of(facts, raised_at)
        silenced = None if silence is None else f"silence {silence.id}"
        rows: list[NewNotification] = []
        taken: set[str] = set()
        for target in targets:
            channels = tuple(name for name in target.channels if name not in taken)
            taken.update(channels)
            rows += self._tell(message, target, channels, facts, silenced, ctx)
        if rows:
            ctx.decisions.also.append(lambda tx: notifications.add(tx, rows))
            self._count(ctx.decisions, rows)

    async def on_time(self, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        await self._begin(ctx)
        for thread in self._threads.due(ctx.now, DUE_MAX):
            await self._go_on(thread, ctx)

    # Events

    def _targets(self, event: Event, facts: Facts, fingerprint: str, decisions: Decisions) -> list[_Target]:
        """Where `event` is told. What comes of an episode goes where its threads are, whatever the routes say of it."""
        open_threads = self._threads.of(fingerprint) if facts.contract else []
        if open_threads:
            return [self._target(thread) for thread in open_threads]
        direct, unknown = self._direct(event, facts)
        if unknown:
            decisions.tallies.append(lambda: self._metrics.skipped.add(1, "unknown_channel"))
            self._calm.warning("unknown", "event %d names a channel that there isn't; it goes by the routes", event.id)
        named = [_Target(None, direct)] if direct else []
        if direct and not unknown:
            return named
        found = self._policy.find(facts)
        return named + [
            _Target(route, channels, self._threads.get((fingerprint, route.id))) for route, channels in found
        ]

    def _target(self, thread: Thread) -> _Target:
        """Where a thread goes on: on its channels that are still there, else on those that its route has now."""
        route = self._policy.route(thread.route)
        assert route is not None, "threads of routes that are gone are closed"
        live = tuple(name for name in thread.channels if name in self._policy.channels)
        return _Target(route, live or route.channels, thread)

    def _direct(self, event: Event, facts: Facts) -> tuple[tuple[str, ...], bool]:
        """The channels that a notification names itself, as far as there are such; and whether it names others."""
        names = facts.data.get("channels") if event.type == "notification" and isinstance(facts.data, dict) else None
        if not isinstance(names, list):
            return (), bool(names)
        words = [name for name in names if isinstance(name, str)]
        known = tuple(dict.fromkeys(name for name in words if name in self._policy.channels))
        return known, any(name not in known for name in names)

    def _tell(
        self,
        message: Message,
        target: _Target,
        channels: tuple[str, ...],
        facts: Facts,
        silenced: str | None,
        ctx: ProcessorContext,
    ) -> list[NewNotification]:
        """The rows for one target; and what becomes of its thread."""
        route, thread = target.route, target.thread
        if route is None:
            return message.rows(None, channels, facts, ctx.now, silenced=silenced)
        if message.kind == "resolved":
            if thread is not None:
                self._close(thread, ctx)
            return message.rows(route, channels, facts, ctx.now, silenced=silenced) if route.resolved else []
        told_at = max(ctx.now, route.quiet_until(message.severity, ctx.now) or 0)
        if thread is not None and message.kind in ("update", "reminder"):
            if message.kind == "reminder":
                if thread.acknowledged_at is not None:
                    silenced = silenced or "acknowledged"
                elif silenced is None:
                    on = told(thread, route, told_at) if thread.silenced else thread
                    self._change(reminded(on, route, ctx.now), ctx)
        elif facts.contract and message.kind == "update":
            pass  # nothing is violated
        elif facts.contract or route.repeat or route.escalate:
            self._open(message, target, channels, facts, ctx, told_at=None if silenced else told_at)
        return message.rows(route, channels, facts, ctx.now, silenced=silenced)

    def _open(
        self,
        message: Message,
        target: _Target,
        channels: tuple[str, ...],
        facts: Facts,
        ctx: ProcessorContext,
        *,
        told_at: int | None,
    ) -> None:
        """Open a thread; `told_at` None: nobody is told."""
        if target.thread is None and len(self._threads) >= THREADS_MAX:
            ctx.decisions.tallies.append(lambda: self._metrics.skipped.add(1, "threads_full"))
            self._calm.warning("full", "%d threads are open: no more are reminded of or escalated", THREADS_MAX)
            return
        route = target.route
        assert route is not None
        thread = Thread(
            fingerprint=message.fingerprint,
            route=route.id,
            event_id=message.event_id,
            severity=message.severity,
            channels=channels,
            opened_at=_opened_at(facts, message.created_at),
            silenced=told_at is None,
            endless=bool(facts.contract),
        )
        if told_at is not None:
            thread = told(thread, route, told_at)
        text = ThreadText(message.title, message.body, message.detail)
        ctx.decisions.also.append(lambda tx: threads.begin(tx, thread, text))
        self._threads.put(thread)

    # Time

    async def _go_on(self, thread: Thread, ctx: ProcessorContext) -> None:
        """Remind of a thread that is due, escalate it, or tell of it now that nothing silences it; or put it off."""
        text = None
        if thread.acknowledged_at is None:
            assert self._store is not None
            text = await threads.text(self._store, thread.key)
        if text is None:  # acknowledged and over, or somebody has deleted it
            self._close(thread, ctx)
            return
        now = ctx.now
        facts = facts_of(text.detail, thread.severity)
        target = self._target(thread)
        route = target.route
        assert route is not None
        held_until = self._silences.until(facts, now)
        if held_until is None and not thread.silenced:
            held_until = route.quiet_until(thread.severity, now)
        if held_until is not None:
            self._threads.hold(thread.key, held_until)
            return
        message = Message(
            kind="alert",
            severity=thread.severity,
            title=with_note(text.title, lasting(thread.opened_at, now)),
            body=text.body,
            detail=text.detail,
            fingerprint=thread.fingerprint,
            event_id=thread.event_id,
            created_at=now,
        )
        if thread.silenced:
            told_at = max(now, route.quiet_until(thread.severity, now) or 0)
            self._queue(told(thread, route, told_at), message.rows(route, target.channels, facts, now), ctx)
            return
        goes_on = thread
        rows: list[NewNotification] = []
        if thread.escalate_at is not None and thread.escalate_at <= now and thread.escalation < len(route.escalate):
            goes_on = escalated(goes_on, route, now)
            names = [name for name in route.escalate[thread.escalation][1] if name in self._policy.channels]
            note = f"not acknowledged {lasting(thread.opened_at, now)}"
            rows += replace(message, title=with_note(text.title, note)).rows(route, names, facts, now)
            rows = [replace(row, group=None) for row in rows]
        if thread.next_at is not None and thread.next_at <= now:
            goes_on = reminded(goes_on, route, now)
            number = goes_on.reminder
            note = f"reminder {number}, {lasting(thread.opened_at, now)}"
            names = [name for name in target.channels if name not in {row.channel for row in rows}]
            reminder = replace(
                message, kind="reminder", title=with_note(text.title, note), detail=numbered(text.detail, number)
            )
            rows += reminder.rows(route, names, facts, now)
        self._queue(goes_on, rows, ctx)

    def _queue(self, thread: Thread, rows: Sequence[NewNotification], ctx: ProcessorContext) -> None:
        """Queue what is due of a thread, unless it is acknowledged by then; reminders only where nothing waits."""
        queued: list[NewNotification] = []
        waiting: list[NewNotification] = []

        def unit(tx: Tx) -> None:
            queued.clear()
            waiting.clear()
            if threads.change(tx, thread):
                for row in rows:
                    (waiting if row.kind == "reminder" and _waits(tx, row) else queued).append(row)
                notifications.add(tx, queued)

        ctx.decisions.also.append(unit)
        ctx.decisions.tallies.append(lambda: self._metrics.skipped.add(len(waiting), "reminder_waiting"))
        self._count(ctx.decisions, queued)
        if is_over(thread):
            self._close(thread, ctx)
        else:
            self._threads.put(thread)

    def _change(self, thread: Thread, ctx: ProcessorContext) -> None:
        ctx.decisions.also.append(lambda tx: threads.change(tx, thread))
        self._threads.put(thread)

    def _close(self, thread: Thread, ctx: ProcessorContext) -> None:
        ctx.decisions.also.append(lambda tx: threads.close(tx, [thread.key]))
        self._threads.close(thread.key)

    # What is to be seen to first

    async def _begin(self, ctx: ProcessorContext) -> None:
        """Decide what is left of the start, follow a step of the clock, and see what others have changed."""
        opening, self._opening = self._opening, None
        if opening is not None:
            ctx.decisions.also.append(lambda tx: _settle(tx, opening))
        step = self._step()
        if abs(step) >= _STEP:
            now = ctx.now
            self._offset += step
            self._threads.set_clock(now, step)
            if len(self._threads):
                ctx.decisions.also.append(lambda tx: threads.set_clock(tx, now, step))
            self._seen = (-1, -1)
        await self._look(ctx.now)

    async def _look(self, now: int) -> None:
        """See what others have silenced or acknowledged, if there is a sign that they may have."""
        versions = self._versions()
        if versions == self._seen:
            return
        assert self._store is not None
        rows = await silences.until_after(self._store, now - _KEPT, SILENCES_MAX)
        if not self._silences.same(rows):
            self._silences = Silences(rows)
            self._threads.release()
        self._threads.acknowledge(await threads.acknowledged(self._store))
        self._seen = versions

    def _versions(self) -> tuple[int, int]:
        if self._store is None:
            return self._seen
        signal = self._store.signal
        return signal.version("silences"), signal.version("threads")

    def _step(self) -> int:
        """By how many microseconds the clock was set since the last look."""
        return self._clock.offset() - self._offset

    def _count(self, decisions: Decisions, rows: Sequence[NewNotification]) -> None:
        """Count what stands in `rows` once it is committed."""

        def tally() -> None:
            for state in ("queued", "silenced"):
                if number := sum(row.state == state for row in rows):
                    self._metrics.notifications.add(number, state)

        decisions.tallies.append(tally)


def _kind(facts: Facts) -> str:
    """What an event is in its thread: see `notifications`."""
    if not facts.contract:
        return "alert"
    if facts.type == "contract.violated":
        return "reminder" if facts.data.get("reminder") else "alert"
    return "resolved" if facts.type == "contract.resolved" else "update"


def _raised_at(event: Event, now: int) -> int:
    """When `event` was raised, by the clock as it is now: it may have been wrong then."""
    clockless = event.recorded_at < CLOCKLESS_BEFORE <= now
    return now if clockless else min(event.recorded_at, now)


def _opened_at(facts: Facts, raised_at: int) -> int:
    """When what a thread is about began."""
    since = facts.data.get("since") if facts.contract else None
    return since if isinstance(since, int) and CLOCKLESS_BEFORE <= since <= raised_at else raised_at


def _waits(tx: Tx, row: NewNotification) -> bool:
    """Whether something of the same thread waits for its channel."""
    waiting = outbox.waiting(tx, row.channel, row.fingerprint, 0, 1)
    return bool(waiting) or outbox.digest_with(tx, row.channel, row.fingerprint) is not None


def _settle(tx: Tx, opening: _Opening) -> None:
    threads.close(tx, opening.gone)
    for thread in opening.changed:
        threads.change(tx, thread)
