"""The senders: one for each channel takes what is queued for it to the target, one notification at a time.

- What is queued stays queued until the target has answered and that is committed. Only a crash between the two, or a
  stop that can't wait for the answer, makes the same notification come again, with the same idempotency key.
- Notifications with one fingerprint are sent in order, and as a rule all of a channel are. One that fails waits longer
  and longer, and those that did not fail yet go before it; after `ATTEMPTS_MAX` attempts it becomes a dead letter.
- While the target can't be reached or takes nothing, the channel waits as a whole, longer and longer, and no attempt is
  counted: however long that lasts, nothing is given up.
- A sender waits for nobody else: one target that hangs delays no other channel.
- What is queued for a channel that the configuration no longer has stays queued, until that channel is back.
"""

from __future__ import annotations

import asyncio

from ..clock import MICROSECONDS, Clock
from ..failpoints import failpoint
from ..service import Service
from ..store import dead_letters, notifications
from ..store.dead_letters import NewDeadLetter
from ..store.notifications import StoredNotification
from ..store.store import Store, Tx
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .channels.channel import Channel, Outcome, Rejected, Retry, Sent
from .notification import delivered_now

ATTEMPTS_MAX = 20
SEND_SECONDS_MAX = 120.0

_PAGE = 100
_ERROR_CHARACTERS_MAX = 500


class Sender(Service):
    """Sends what is queued for the channel `name`.

    `sent` counts what it has sent since the start, `last_error` says why the last attempt failed (None after one that
    did not), `waiting_until` (microseconds since 1970 UTC) until when the channel waits as a whole.
    """

    def __init__(self, name: str, channel: Channel, store: Store, metrics: Metrics, clock: Clock) -> None:
        super().__init__(f"channel.{name}", clock)
        self.channel = channel
        self.sent = 0
        self._channel_name = name
        self._store = store
        self._metrics = metrics
        self._calm = Calm(self.log, clock.monotonic)
        self._failures = 0
        self._resumes = clock.monotonic()

    @property
    def waiting_until(self) -> int | None:
        """See the class."""
        rest = self._resumes - self.clock.monotonic()
        return self.clock.now() + round(rest * MICROSECONDS) if rest > 0 else None

    async def run(self) -> None:
        """See Service.run."""
        signal = self._store.signal
        while not self.stopping.is_set():
            seen = signal.version("notifications")
            seconds = await self._send_due()
            await signal.wait("notifications", seen, seconds, unless=self.stopping)

    async def _send_due(self) -> float | None:
        """Send what is due; in how many seconds to look again, None when nothing will be due by itself."""
        while not self.stopping.is_set():
            rest = self._resumes - self.clock.monotonic()
            if rest > 0:
                return rest
            now = self.clock.now()
            page = await notifications.due(self._store, self._channel_name, now, _PAGE)
            if not page:
                due_at = await notifications.next_due_at(self._store, self._channel_name, now)
                return None if due_at is None else (due_at - now) / MICROSECONDS
            for row in page:
                await self._deliver(row)
                if self.stopping.is_set() or self._failures:
                    break
        return None

    async def _deliver(self, row: StoredNotification) -> None:
        outcome = await self._send(row)
        failpoint("notification.sent")
        if isinstance(outcome, Sent):
            await self._sent(row, outcome)
        elif isinstance(outcome, Rejected):
            self._recovered()
            await self._give_up(row, "rejected", outcome.reason)
        elif outcome.target_down:
            await self._wait(row, outcome)
        else:
            await self._put_off(row, outcome)

    async def _send(self, row: StoredNotification) -> Outcome:
        notification = delivered_now(row, store_id=self._store.id, now=self.clock.now())
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
        await self._store.write(lambda tx: notifications.mark_sent(tx, row.id, attempt=attempt, now=now, error=missed))
        self.sent += 1
        self._metrics.notifications.add(1, "sent")

    async def _wait(self, row: StoredNotification, outcome: Retry) -> None:
        """The channel waits; the notification keeps its place."""
        error = self._failed(row, outcome)
        if row.error != error:  # said once: an outage of weeks writes nothing more
            await self._store.write(lambda tx: notifications.note_error(tx, row.id, error))

    async def _put_off(self, row: StoredNotification, outcome: Retry) -> None:
        """The notification waits, as it may be its own fault, and the channel with it, as it may not."""
        error = self._failed(row, outcome)
        attempt = row.attempt + 1
        if attempt >= ATTEMPTS_MAX:
            await self._give_up(row, "attempts", f"failed {attempt} times, the last time: {error}")
            return
        seconds = min(self.channel.backoff.delay(attempt), notifications.WAIT_SECONDS_MAX)
        at = self.clock.now() + round(seconds * MICROSECONDS)
        await self._store.write(
            lambda tx: notifications.mark_retry(tx, row.id, attempt=attempt, next_attempt_at=at, error=error)
        )
        self._metrics.notifications.add(1, "retried")

    async def _give_up(self, row: StoredNotification, reason: str, error: str) -> None:
        self.last_error = error = _short(error)
        letter = NewDeadLetter(
            source=f"channel:{self._channel_name}",
            reason=reason,
            error=error,
            payload=delivered_now(row, store_id=self._store.id, now=row.created_at).as_json(),
            event_id=row.event_id,
            created_at=self.clock.now(),
            detail={"notification_id": row.id},
        )

        def unit(tx: Tx) -> None:
            if notifications.mark_dead(tx, row.id, attempt=row.attempt + 1, error=error):
                dead_letters.add(tx, [letter])

        await self._store.write(unit)
        self._metrics.notifications.add(1, "dead")
        self._metrics.dead_letters.add(1, letter.source)
        self._calm.warning("dead", "notification %d became a dead letter (%s): %s", row.id, reason, error)

    def _failed(self, row: StoredNotification, outcome: Retry) -> str:
        """Make the channel wait; why it does."""
        self._failures += 1
        seconds = max(outcome.after_seconds or 0.0, self.channel.backoff.delay(self._failures))
        self._resumes = self.clock.monotonic() + seconds
        self.last_error = error = _short(outcome.reason)
        if self._failures == 1:
            self.log.warning("notification %d was not taken: %s; trying again", row.id, error)
        return error

    def _recovered(self) -> None:
        if self._failures:
            self.log.info("takes notifications again, after %d failed attempts", self._failures)
        self._failures = 0
        self.last_error = None


def _short(text: str) -> str:
    return text if len(text) <= _ERROR_CHARACTERS_MAX else f"{text[: _ERROR_CHARACTERS_MAX - 1]}…"
