"""What is decided of an event, and of a thread that is due: rows to queue, and how its threads go on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ..clock import CLOCKLESS_BEFORE
from ..events import Event
from ..store import notifications, outbox, threads
from ..store.decisions import Decisions
from ..store.notifications import NewNotification
from ..store.store import Tx
from ..store.threads import Thread, ThreadText
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .acknowledge import Told
from .links import Links
from .match import Facts
from .policy import Policy, Route
from .rows import Message, detail_of, facts_of, lasting, linked, numbered, of_step, with_note
from .silences import Silences
from .text import render
from .threads import THREADS_MAX, Threads, escalated, is_over, reminded, told

log = logging.getLogger("edgeq.courier")


class Target(NamedTuple):
    """Where something is told by a route, and in which thread, if one is open."""

    route: Route
    channels: tuple[str, ...]
    thread: Thread | None


class Turn(NamedTuple):
    """When something is decided, in microseconds since 1970 UTC, and where that is noted."""

    now: int
    decisions: Decisions


class Teller:
    """Decides by `policy`, with what is open in `threads`. What it decides holds once `turn.decisions` is committed;
    `threads` follow at once."""

    def __init__(
        self, policy: Policy, open_threads: Threads, metrics: Metrics, calm: Calm, links: Links | None = None
    ) -> None:
        self.threads = open_threads
        self._links = links
        self._policy = policy
        self._metrics = metrics
        self._calm = calm

    # Events

    def tell(self, event: Event, silences: Silences, turn: Turn) -> None:
        """Tell of an event."""
        text = render(event, place=self._policy.place)
        facts = Facts.of(event, text.severity)
        direct, targets = self._where(event, facts, text.fingerprint, turn)
        if not direct and not targets:
            self._skip("unrouted_notification", turn)
            log.info("event %d (%s) is routed to no channel: %s", event.id, text.severity, text.title)
            return
        raised_at = _raised_at(event, turn.now)
        kind = _kind(facts)
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
        silence = silences.of(facts, raised_at)
        silenced = None if silence is None else f"silence {silence.id}"
        rows = message.rows(None, direct, facts, turn.now, silenced=silenced)
        taken = set(direct)
        for target in targets:
            channels = tuple(name for name in target.channels if name not in taken)
            taken.update(channels)
            worded = self._worded(message, event, target.route, turn)
            rows += self._tell_by(worded, target._replace(channels=channels), facts, silenced, turn)
        if rows:
            turn.decisions.also.append(lambda tx: notifications.add(tx, rows))
            self._count(rows, turn)

    def _worded(self, message: Message, event: Event, route: Route, turn: Turn) -> Message:
        """`message` in the words of the route's templates, if it has some."""
        if route.title is None and route.body is None:
            return message
        text = render(event, route.title, route.body, place=self._policy.place)
        if text.gaps:
            turn.decisions.tallies.append(lambda: self._metrics.template_gaps.add(len(text.gaps)))
            where, lacking = f"notifications.routes[{route.place}]", ", ".join(dict.fromkeys(text.gaps))
            self._calm.warning(route.id, "%s: event %d (%s) has no %s", where, event.id, event.type, lacking)
        return replace(message, title=text.title, body=text.body)

    def _where(self, event: Event, facts: Facts, fingerprint: str, turn: Turn) -> tuple[tuple[str, ...], list[Target]]:
        """The channels that `event` names itself, and where else it is told. What comes of an episode goes where its
        threads are, whatever the routes say of it; its end also goes by the routes without one, as what there was no
        room for was told, too: the store knows where."""
        open_threads = self.threads.of(fingerprint) if facts.contract else []
        if open_threads:
            targets = sorted(map(self._target, open_threads), key=lambda target: target.route.place)
            if _kind(facts) == "resolved":
                begun = {target.route.id for target in targets}
                found = self._policy.find(facts)
                targets += [Target(route, channels, None) for route, channels in found if route.id not in begun]
            return (), targets
        direct, unknown = self._direct(event, facts)
        if unknown:
            self._skip("unknown_channel", turn)
            self._calm.warning("unknown", "event %d names a channel that there isn't: it goes by the routes", event.id)
        if direct and not unknown:
            return direct, []
        found = self._policy.find(facts)
        return direct, [Target(route, channels, self.threads.get((fingerprint, route.id))) for route, channels in found]

    def _target(self, thread: Thread) -> Target:
        """Where a thread goes on: on its channels that are still there, if these are gone on those that its route has
        now; on none if it never had any, as other routes have them."""
        route = self._policy.route(thread.route)
        assert route is not None, "threads of routes that are gone are closed"
        live = tuple(name for name in thread.channels if name in self._policy.channels)
        return Target(route, live if live or not thread.channels else route.channels, thread)

    def _direct(self, event: Event, facts: Facts) -> tuple[tuple[str, ...], bool]:
        """The channels that a notification names itself, as far as there are such; and whether it names others."""
        names = facts.data.get("channels") if event.type == "notification" and isinstance(facts.data, dict) else None
        if not isinstance(names, list):
            return (), bool(names)
        words = [name for name in names if isinstance(name, str)]
        known = tuple(dict.fromkeys(name for name in words if name in self._policy.channels))
        return known, any(name not in known for name in names)

    def _tell_by(
        self, message: Message, target: Target, facts: Facts, silenced: str | None, turn: Turn
    ) -> list[NewNotification]:
        """The rows for one target; and what becomes of its thread."""
        route, channels, thread = target
        told_at = _told_at(route, message, turn)
        if message.kind == "resolved":
            if thread is not None:
                self.close(thread, turn)
            if not route.resolved:
                return []
        elif message.kind == "reminder" and thread is not None:
            if thread.acknowledged_at is not None:
                silenced = silenced or "acknowledged"
            elif silenced is None:
                goes_on = told(thread, route, told_at) if thread.silenced else thread
                message = self._linked(message, thread, turn)
                rows = message.rows(route, channels, facts, turn.now)
                self._queue(reminded(goes_on, route, turn.now), rows, turn)
                return []
        elif message.kind != "update" and (facts.contract or route.repeat or route.escalate):
            self._open(message, target, facts, None if silenced else told_at, turn)
        if message.kind != "resolved":
            message = self._linked(message, self.threads.get((message.fingerprint, route.id)), turn)
        return message.rows(route, channels, facts, turn.now, silenced=silenced)

    def _open(self, message: Message, target: Target, facts: Facts, told_at: int | None, turn: Turn) -> None:
        """Open a thread; `told_at` None: nobody is told."""
        if target.thread is None and len(self.threads) >= THREADS_MAX:
            self._skip("threads_full", turn)
            self._calm.warning("full", "%d threads are open: no more are reminded of or escalated", THREADS_MAX)
            return
        thread = Thread(
            fingerprint=message.fingerprint,
            route=target.route.id,
            event_id=message.event_id,
            severity=message.severity,
            channels=target.channels,
            opened_at=_opened_at(facts, message.created_at),
            silenced=told_at is None,
            endless=bool(facts.contract),
        )
        if told_at is not None:
            thread = told(thread, target.route, told_at)
        text = ThreadText(message.title, message.body, message.detail)
        turn.decisions.also.append(lambda tx: threads.begin(tx, thread, text))
        self.threads.put(thread)

    # Time

    def go_on(self, thread: Thread, text: ThreadText, silences: Silences, turn: Turn) -> None:
        """Remind of a thread that is due, escalate it, or tell of it now that nothing silences it; or put it off."""
        now = turn.now
        facts = facts_of(text.detail, thread.severity)
        target = self._target(thread)
        route = target.route
        silence = silences.of(facts, now)
        held_until = None if silence is None else silence.ends_at
        if held_until is None and not thread.silenced:
            held_until = route.quiet_until(thread.severity, now)
        if held_until is not None:
            self.threads.hold(thread.key, held_until)
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
        message = self._linked(message, thread, turn)
        if thread.silenced:
            goes_on = told(thread, route, _told_at(route, message, turn))
            self._queue(goes_on, message.rows(route, target.channels, facts, now), turn)
            return
        goes_on, rows = thread, []
        if thread.escalate_at is not None and thread.escalate_at <= now and thread.escalation < len(route.escalate):
            goes_on = escalated(goes_on, route, now, self._elsewhere(thread))
            names = [name for name in route.escalate[thread.escalation][1] if name in self._policy.channels]
            note = f"not acknowledged {lasting(thread.opened_at, now)}"
            detail = of_step(message.detail, goes_on.escalation)
            step = replace(message, title=with_note(text.title, note), detail=detail)
            rows += [replace(row, group=None) for row in step.rows(route, names, facts, now)]
        if thread.next_at is not None and thread.next_at <= now:
            goes_on = reminded(goes_on, route, now)
            number = goes_on.reminder
            title = with_note(text.title, f"reminder {number}, {lasting(thread.opened_at, now)}")
            reminder = replace(message, kind="reminder", title=title, detail=numbered(message.detail, number))
            told_now = {row.channel for row in rows}
            rows += reminder.rows(route, [name for name in target.channels if name not in told_now], facts, now)
        self._queue(goes_on, rows, turn)

    def _linked(self, message: Message, thread: Thread | None, turn: Turn) -> Message:
        """`message` with a link to acknowledge it, if there is something to acknowledge."""
        if self._links is None or thread is None or thread.acknowledged_at is not None:
            return message
        url = self._links.url(Told(message.fingerprint, message.event_id), turn.now)
        return replace(message, detail=linked(message.detail, url))

    def _elsewhere(self, thread: Thread) -> frozenset[str]:
        """The channels that other threads of the same fingerprint go to: what follows comes there by these."""
        others = (other for other in self.threads.of(thread.fingerprint) if other.route != thread.route)
        return frozenset(name for other in others for name in other.channels)

    def close(self, thread: Thread, turn: Turn) -> None:
        """A thread is over."""
        turn.decisions.also.append(lambda tx: threads.close(tx, [thread.key]))
        self.threads.close(thread.key)

    def _queue(self, thread: Thread, rows: Sequence[NewNotification], turn: Turn) -> None:
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

        turn.decisions.also.append(unit)
        turn.decisions.tallies.append(lambda: self._metrics.skipped.add(len(waiting), "reminder_waiting"))
        self._count(queued, turn)
        if is_over(thread):
            self.close(thread, turn)
        else:
            self.threads.put(thread)

    # Counting

    def _skip(self, reason: str, turn: Turn) -> None:
        turn.decisions.tallies.append(lambda: self._metrics.skipped.add(1, reason))

    def _count(self, rows: Sequence[NewNotification], turn: Turn) -> None:
        """Count what stands in `rows` once it is committed."""

        def tally() -> None:
            for state in ("queued", "silenced"):
                if number := sum(row.state == state for row in rows):
                    self._metrics.notifications.add(number, state)

        turn.decisions.tallies.append(tally)


def _kind(facts: Facts) -> str:
    """What an event is in its thread: alert, reminder, resolved or update."""
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


def _told_at(route: Route, message: Message, turn: Turn) -> int:
    """From when on people know of a message that is queued now."""
    return max(turn.now, route.quiet_until(message.severity, turn.now) or 0)


def _waits(tx: Tx, row: NewNotification) -> bool:
    """Whether something of the same thread waits for its channel."""
    waiting = outbox.waiting(tx, row.channel, row.fingerprint, 0, 1)
    return bool(waiting) or outbox.digest_with(tx, row.channel, row.fingerprint) is not None
