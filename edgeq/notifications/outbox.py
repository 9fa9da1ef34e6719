"""The senders: one for each channel takes what is queued for it to the target, one message at a time (see `picking`).

- What is queued stays queued until the target has answered and that is committed. Only a crash between the two, or a
  stop that can't wait for the answer, makes the same message come again, with the same idempotency key.
- Notifications with one fingerprint are sent in order. One that fails waits longer and longer, and all behind it with
  it; after `ATTEMPTS_MAX` attempts it becomes a dead letter, and so does one that is past its time to live.
- While the target can't be reached or takes nothing, the channel waits as a whole, longer and longer, and no attempt is
  counted: however long that lasts, nothing is given up.
- One that has failed `FAILOVER_ATTEMPTS` times, has waited `FAILOVER_SECONDS` for a channel that fails, or was refused,
  is queued on the next channel that it may fail over to as well, once.
- Nothing below critical goes out in the quiet hours of its route, however late it became due.
- A clock that is set ahead is no time that passed: what has a time to live keeps what is left of it.
- A sender waits for nobody else: one target that hangs delays no other channel.
- Where several machines share the store, one sender at a time works for a channel. One that was frozen, and goes on
  when another has taken over, begins nothing more, and what it marks late counts once: who was first counts.
- What is queued for a channel that the configuration no longer has stays queued, until that channel is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from ..clock import MICROSECONDS, Clock, rfc3339
from ..failpoints import failpoint
from ..service import Service
from ..store import dead_letters, notifications, outbox
from ..store import outlook as outlooks
from ..store.dead_letters import NewDeadLetter
from ..store.notifications import WAIT_SECONDS_MAX, NewNotification, StoredNotification
from ..store.outlook import Outlook
from ..store.store import Store, Tx
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .bucket import Pace
from .channels.channel import Channel, Outcome, Rejected, Retry, Sent
from .digest import Story
from .functions import Place
from .notification import delivered_now
from .picking import Terms, pick

ATTEMPTS_MAX = 20
SEND_SECONDS_MAX = 120.0
FAILOVER_ATTEMPTS = 3
FAILOVER_SECONDS = 300.0

_PAGE = 100
_ERROR_CHARACTERS_MAX = 500
# While something waits, the clock is looked at so often: it may be set.
_LOOK_SECONDS_MAX = 600.0
_CAPACITY_SECONDS = 60.0
_CLOCK_STEP = MICROSECONDS
_UNREACHED_MAX = 100


class Sender(Service):
    """Sends what is queued for the channel `name`; times in texts are those of `place`. `quiet` says which routes have
    quiet hours at a moment, and until when: see Policy.quiet. `owned` says whether the channel is this process's now.

    `sent` counts what it has sent since the start, `last_error` says why the last attempt failed (None after one that
    did not), `waiting_until` (microseconds since 1970 UTC) until when the channel waits as a whole.
    """

    def __init__(
        self,
        name: str,
        channel: Channel,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        place: Place | None = None,
        quiet: Callable[[int], Mapping[str, int]] = lambda at: {},
        *,
        owned: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(f"channel.{name}", clock)
        self.channel = channel
        self.sent = 0
        self._channel_name = name
        self._store = store
        self._metrics = metrics
        self._place = place or Place()
        self._quiet = quiet
        self._owned = owned
        self._calm = Calm(self.log, clock.monotonic)
        self._pace = Pace(channel.limit, channel.backoff, clock.monotonic)
        # What this sender was the first to try, and the target surely hasn't got; and the last that failed so.
        self._unreached: dict[int, None] = {}
        self._in_hand: StoredNotification | None = None
        self._offset = clock.offset()

    @property
    def waiting_until(self) -> int | None:
        """See the class."""
        rest = self._pace.pause_seconds
        return self.clock.now() + round(rest * MICROSECONDS) if rest else None

    async def start(self) -> None:
        """See Service.start. Another one may have been at it since the last stop."""
        self._in_hand, self._offset = None, self.clock.offset()
        self._unreached.clear()
        await super().start()

    async def run(self) -> None:
        """See Service.run."""
        signal = self._store.signal
        while not self.stopping.is_set():
            seen = signal.version("notifications")
            seconds = await self.work()
            await signal.wait("notifications", seen, seconds, unless=self.stopping)

    async def work(self) -> float | None:
        """Do what is due now; in how many seconds to look again, None when nothing will be due by itself."""
        while not self.stopping.is_set():
            await self._follow_clock()
            now = self.clock.now()
            outlook = await outlooks.outlook(self._store, self._channel_name)
            if outlook.due_at is None:
                return None
            if outlook.expires_at is not None and outlook.expires_at <= now:
                await self._expire(now)
                continue
            stuck_seconds = self._stuck_in(outlook, now)
            if stuck_seconds <= 0:
                await self._fail_over(now)
                continue
            seconds = self._pace.seconds()
            due_seconds = (outlook.due_at - now) / MICROSECONDS
            if due_seconds > 0 and await self._undo_ahead(now):
                continue
            if seconds <= 0 and due_seconds <= 0:
                row = await self._next(now)
                if row is not None:
                    await self._deliver(row)
                continue
            times = [max(seconds, due_seconds), stuck_seconds, _LOOK_SECONDS_MAX]
            if outlook.expires_at is not None:
                times.append((outlook.expires_at - now) / MICROSECONDS)
            return min(times)
        return None

    async def _follow_clock(self) -> None:
        """When the clock was set ahead, let nothing expire by that. Set back, it only makes things live longer."""
        step = self.clock.offset() - self._offset
        if abs(step) < _CLOCK_STEP:
            return
        if step > 0:
            self._in_hand = None
            now = self.clock.now()
            await self._store.write(lambda tx: outlooks.put_off_ends(tx, self._channel_name, now, step))
        self._offset += step

    async def _undo_ahead(self, now: int) -> bool:
        """Make due what a clock that was set back has put off; False when nothing is."""
        if not await outlooks.is_ahead(self._store, self._channel_name, now):
            return False
        return await self._store.write(lambda tx: outlooks.undo_ahead(tx, self._channel_name, now)) > 0

    def _stuck_in(self, outlook: Outlook, now: int) -> float:
        """In how many seconds a notification has waited long enough for a channel that fails to be queued elsewhere."""
        if outlook.failover_at is None or not self._pace.failures:
            return _LOOK_SECONDS_MAX
        waited_seconds = (now - outlook.failover_at) / MICROSECONDS
        return FAILOVER_SECONDS - min(self._pace.failing_seconds, waited_seconds)

    async def _next(self, now: int) -> StoredNotification | None:
        """What to send now."""
        row, self._in_hand = self._in_hand, None
        quiet = self._quiet(now)
        if (
            row is not None
            and (row.severity == "critical" or row.route not in quiet)
            and await outbox.is_next(self._store, row, now)
        ):
            return row  # an outage writes nothing
        terms = Terms(
            channel=self._channel_name,
            digests=self.channel.digests,
            place=self._place,
            body_bytes_max=self.channel.body_bytes_max,
            capacity=self._pace.within(_CAPACITY_SECONDS),
            trying=self._pace.failures > 0,
            unreached=frozenset(self._unreached),
            quiet=quiet,
        )
        picked = await self._store.write(lambda tx: pick(tx, terms, now))
        failpoint("notification.committed")
        if picked is None:
            return None
        if picked.first:
            self._remember_unreached(picked.row)
        return picked.row

    def _remember_unreached(self, row: StoredNotification) -> None:
        self._unreached[row.id] = None
        if len(self._unreached) > _UNREACHED_MAX:
            del self._unreached[next(iter(self._unreached))]

    async def _deliver(self, row: StoredNotification) -> None:
        self._pace.take()
        unreached = row.id in self._unreached
        self._unreached.pop(row.id, None)
        if not self._owned():
            await self.stopping.wait()
            return
        outcome = await self._send(row)
        failpoint("notification.sent")
        if isinstance(outcome, Retry) and outcome.target_down:
            if unreached:
                self._remember_unreached(row)
            await self._wait(row, outcome)
        elif isinstance(outcome, Sent):
            await self._sent(row, outcome)
        elif isinstance(outcome, Rejected):
            self._recovered()
            await self._give_up(row, "rejected", outcome.reason)
        else:
            await self._put_off(row, outcome)
        failpoint("notification.marked")

    async def _send(self, row: StoredNotification) -> Outcome:
        notification = delivered_now(row, store_id=self._store.id, now=self.clock.now(), place=self._place)
        limit = asyncio.timeout(SEND_SECONDS_MAX)
        try:
            async with limit:
                return await self.channel.send(notification)
        except Exception as error:
            self.log.debug("sending notification %d failed", row.id, exc_info=True)
            late = f"took longer than {SEND_SECONDS_MAX:g}s"
            return Retry(late if limit.expired() else f"{type(error).__name__}: {error}")

    async def _sent(self, row: StoredNotification, outcome: Sent) -> None:
        attempt, now = row.attempt + 1, self.clock.now()
        missed = f"not to everyone: {_short(outcome.missed)}" if outcome.missed else None
        self._recovered()
        self.last_error = missed
        if missed:
            self._calm.warning("missed", "notification %d was delivered, but %s", row.id, missed)
        if await self._store.write(lambda tx: outbox.mark_sent(tx, row.id, attempt=attempt, now=now, error=missed)):
            self.sent += 1
            self._metrics.notifications.add(1, "sent")

    async def _wait(self, row: StoredNotification, outcome: Retry) -> None:
        """The channel waits; the notification keeps its place."""
        error = self._failed(row, outcome)
        if row.error != error:  # said once: an outage of weeks writes nothing more
            await self._store.write(lambda tx: outbox.note_error(tx, row.id, error))
            row = msgspec.structs.replace(row, error=error)
        self._in_hand = row

    async def _put_off(self, row: StoredNotification, outcome: Retry) -> None:
        """The notification waits, as it may be its own fault, and the channel with it, as it may not."""
        error = self._failed(row, outcome)
        attempt = row.attempt + 1
        if attempt >= ATTEMPTS_MAX:
            await self._give_up(row, "attempts", f"failed {attempt} times, the last time: {error}")
            return
        seconds = min(self.channel.backoff.delay(attempt), WAIT_SECONDS_MAX)
        at, now = self.clock.now() + round(seconds * MICROSECONDS), self.clock.now()

        def unit(tx: Tx) -> tuple[bool, bool]:
            waits = outbox.mark_retry(tx, row, attempt=attempt, next_attempt_at=at, error=error)
            return waits, waits and attempt >= FAILOVER_ATTEMPTS and _queue_elsewhere(tx, row, now)

        waits, elsewhere = await self._store.write(unit)
        self._metrics.notifications.add(int(waits), "retried")
        self._count_elsewhere(int(elsewhere))

    async def _give_up(self, row: StoredNotification, reason: str, error: str) -> None:
        self.last_error = error = _short(error)
        now = self.clock.now()

        def unit(tx: Tx) -> tuple[bool, bool]:
            buried = self._bury(tx, row, row.attempt + 1, reason, error)
            return buried, buried and _queue_elsewhere(tx, row, now)

        buried, elsewhere = await self._store.write(unit)
        if not buried:
            return
        self._count_dead(1)
        self._count_elsewhere(int(elsewhere))
        self._calm.warning("dead", "notification %d became a dead letter (%s): %s", row.id, reason, error)

    async def _expire(self, now: int) -> None:
        """Give up what is past its time to live. It isn't queued elsewhere: it is too late there, too."""
        self._in_hand = None

        def unit(tx: Tx) -> list[StoredNotification]:
            rows = outlooks.expired(tx, self._channel_name, now, _PAGE)
            for row in rows:
                tried = f"; the last error: {row.error}" if row.error else ""
                error = f"was to be sent before {rfc3339(row.expires_at or 0)}{tried}"
                self._bury(tx, row, row.attempt, "expired", error)
            return rows

        rows = await self._store.write(unit)
        self._count_dead(len(rows))
        self._calm.warning("expired", "%d notifications became dead letters: their time to live is over", len(rows))

    async def _fail_over(self, now: int) -> None:
        """Queue elsewhere, too, what has waited long enough for a channel that fails."""
        self._in_hand = None

        def unit(tx: Tx) -> int:
            since = now - round(FAILOVER_SECONDS * MICROSECONDS)
            return sum(_queue_elsewhere(tx, row, now) for row in outlooks.stuck(tx, self._channel_name, since, _PAGE))

        self._count_elsewhere(await self._store.write(unit))

    def _bury(self, tx: Tx, row: StoredNotification, attempt: int, reason: str, error: str) -> bool:
        """Make a row a dead letter; False when it isn't queued any more."""
        if not outbox.mark_dead(tx, row.id, attempt=attempt, error=error):
            return False
        letter = NewDeadLetter(
            source=f"channel:{self._channel_name}",
            reason=reason,
            error=error,
            payload=delivered_now(row, store_id=self._store.id, now=row.created_at, place=self._place).as_json(),
            event_id=row.event_id,
            created_at=self.clock.now(),
            detail={"notification_id": row.id},
        )
        dead_letters.add(tx, [letter])
        return True

    def _count_dead(self, number: int) -> None:
        self._metrics.notifications.add(number, "dead")
        self._metrics.dead_letters.add(number, f"channel:{self._channel_name}")

    def _count_elsewhere(self, number: int) -> None:
        if number:
            self._metrics.notifications.add(number, "failed_over")

    def _failed(self, row: StoredNotification, outcome: Retry) -> str:
        """Make the channel wait; why it does."""
        self._pace.failed(outcome.after_seconds, unreachable=outcome.unreachable)
        self.last_error = error = _short(outcome.reason)
        if self._pace.failures == 1:
            self.log.warning("notification %d was not taken: %s; trying again", row.id, error)
        return error

    def _recovered(self) -> None:
        if self._pace.failures:
            self.log.info("takes notifications again, after %d failed attempts", self._pace.failures)
        self._pace.took()
        self.last_error = None


def _queue_elsewhere(tx: Tx, row: StoredNotification, now: int) -> bool:
    """Queue `row` on the first of the channels that it may fail over to, unless that was done; whether it was now."""
    if not outbox.mark_failed_over(tx, row.id) or not row.failover:
        return False
    copy = NewNotification(
        event_id=row.event_id,
        channel=row.failover[0],
        severity=row.severity,
        title=row.title,
        body=row.body,
        fingerprint=row.fingerprint,
        created_at=row.created_at,
        kind=row.kind,
        detail=row.detail,
        not_before=now,
        expires_at=row.expires_at,
        failover=row.failover[1:],
        route=row.route,
    )
    if row.kind == "digest":
        outbox.copy_members(tx, row.id, copy_id=notifications.put(tx, copy), channel=copy.channel)
    elif Story.of(row).merged.opened_at is not None:  # tells by itself what is resolved
        notifications.put(tx, copy)
    else:
        notifications.add(tx, [copy])
    return True


def _short(text: str) -> str:
    return text if len(text) <= _ERROR_CHARACTERS_MAX else f"{text[: _ERROR_CHARACTERS_MAX - 1]}…"
