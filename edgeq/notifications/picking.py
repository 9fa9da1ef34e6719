"""What a channel sends next, and what is told together.

Critical ones come first. On a channel that people read, what waits of one fingerprint is one message; a group that is
due is one digest; and when more than `DIGEST_OVER` fingerprints below critical are late, they are told in digests, a
line each, as many as the channel's body limit needs. Late critical ones go one by one as long as all of them can be out
within a minute, and in digests of their own otherwise. A channel for programs gets every notification by itself.

All of it is one unit on the store: what is put together is committed before anything is sent, and is then tried again
as it is. Nothing is kept in memory but what goes into one message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from ..clock import MICROSECONDS
from ..failpoints import failpoint
from ..store import outbox
from ..store.notifications import WAIT_SECONDS_MAX, Group, NewNotification, StoredNotification
from ..store.store import Tx
from .digest import Digest, Story
from .functions import Place
from .notification import LATE_SECONDS

DIGEST_OVER = 5
BODY_BYTES_MAX = 16 * 1024

_PAGE = 100
_HOLD_MAX = 1000
_WAIT_MAX = WAIT_SECONDS_MAX * MICROSECONDS
_LATE = round(LATE_SECONDS * MICROSECONDS)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How `channel` takes notifications at present.

    `digests`: people read it, bodies of up to `body_bytes_max` bytes, with times as clocks show them in `place`.
    `capacity` is how many it takes within a minute, None: any number. `trying`: the last attempt failed, and the next
    is to see whether the target is back. `unreached` are the ids of those that were tried and never reached it, surely:
    they may still be put together with others. `quiet` are the routes, by their ids, that hold back what isn't
    critical, and until when.
    """

    channel: str
    digests: bool
    place: Place = Place()
    body_bytes_max: int = BODY_BYTES_MAX
    capacity: int | None = None
    trying: bool = False
    unreached: Collection[int] = ()
    quiet: Mapping[str, int] = {}


class Picked(msgspec.Struct, frozen=True):
    """What to send now. `first`: it was never handed to the target before."""

    row: StoredNotification
    first: bool


def pick(tx: Tx, terms: Terms, now: int) -> Picked | None:
    """The notification to send now (microseconds since 1970 UTC), noted as being tried; None when nothing is due."""
    return _Picking(tx, terms, now).pick()


class _Picking:
    def __init__(self, tx: Tx, terms: Terms, now: int) -> None:
        self._tx = tx
        self._terms = terms
        self._channel = terms.channel
        self._now = now

    def pick(self) -> Picked | None:
        if not self._hold():
            return None
        while (head := self._head()) is not None:
            row = self._together(head) if self._terms.digests else self._alone(head)
            if row is not None:
                failpoint("notification.rendered")
                first = row.tried_at is None
                return Picked(outbox.begin(self._tx, row, self._now) if first else row, first)
        return None

    def _hold(self) -> bool:
        """Hold back what is due in quiet hours, however it came to be due in them; False when there is more of it."""
        quiet = self._terms.quiet.items()
        held = [outbox.hold(self._tx, self._channel, route, until, self._now, _HOLD_MAX) for route, until in quiet]
        return _HOLD_MAX not in held

    def _head(self) -> StoredNotification | None:
        order = ((True, False), (True, True), (False, False), (False, True))
        if self._terms.trying:  # what failed comes last, so that a bad critical one can't stop all others
            order = ((True, False), (False, False), (True, True), (False, True))
        for critical, again in order:
            head = outbox.head(self._tx, self._channel, self._now, critical=critical, again=again)
            if head is not None:
                return head
        return None

    def _alone(self, head: StoredNotification) -> StoredNotification | None:
        """The first of the line that `head` stands in; None when that must wait, and all behind it with it."""
        return self._if_due(outbox.waiting(self._tx, self._channel, head.fingerprint, 0, 1)[0], head)

    def _together(self, head: StoredNotification) -> StoredNotification | None:
        """`head` with what is told together with it, as one row; None when that must wait."""
        before = self._before(head)
        if before is not None:
            return self._if_due(before, head)
        critical = head.severity == "critical"
        if not self._terms.trying and self._too_many(head, critical=critical):
            return self._late(head, critical=critical)
        gathered = _Gathered(head.group_key, self._terms, self._now)
        if head.group_key is None:
            self._take_in(gathered, head)
            return gathered.merge(self._tx, head)
        row: StoredNotification | None = None
        while row := outbox.next_of_group(self._tx, self._channel, head.group_key, self._now, row):
            if not self._take_in(gathered, row):
                break
        return gathered.merge(self._tx, head)

    def _late(self, head: StoredNotification, *, critical: bool) -> StoredNotification | None:
        gathered = _Gathered(None, self._terms, self._now)
        row: StoredNotification | None = None
        while row := outbox.next_late(self._tx, self._channel, self._now - _LATE, row, critical=critical):
            if not self._take_in(gathered, row):
                break
        return gathered.merge(self._tx, head)

    def _before(self, row: StoredNotification) -> StoredNotification | None:
        """What must be sent, as it is, before `row` can be told; perhaps itself."""
        if row.kind == "digest":
            return row
        begun = outbox.begun(self._tx, self._channel, row.fingerprint)
        if begun is not None and (begun.attempt or begun.id not in self._terms.unreached):
            return begun
        return outbox.digest_with(self._tx, self._channel, row.fingerprint)

    def _if_due(self, first: StoredNotification, head: StoredNotification) -> StoredNotification | None:
        if first.attempt and self._now < first.next_attempt_at <= self._now + _WAIT_MAX:  # later: quiet hours hold it
            outbox.postpone(self._tx, self._channel, head.fingerprint, first.next_attempt_at)
            return None
        return first

    def _too_many(self, head: StoredNotification, *, critical: bool) -> bool:
        """Whether there are so many late ones that they are told in digests."""
        late_since = self._now - _LATE
        if head.next_attempt_at > late_since:
            return False
        if not critical:
            return outbox.different(self._tx, self._channel, late_since, critical=False) > DIGEST_OVER
        capacity = self._terms.capacity
        if capacity is None:
            return False
        return outbox.different(self._tx, self._channel, self._now, critical=True) > max(capacity, 1)

    def _take_in(self, gathered: _Gathered, row: StoredNotification) -> bool:
        """Tell what waits of the fingerprint of `row` with the others, unless it is there already or something must be
        sent before; False when there is no more room."""
        if not gathered.wants(row) or self._before(row) is not None:
            return True
        page = outbox.waiting(self._tx, self._channel, row.fingerprint, 0, _PAGE)
        story, page = Story.of(page[0]), page[1:]
        while page:
            for each in page:
                story = story.then(each)
            page = outbox.waiting(self._tx, self._channel, row.fingerprint, page[-1].id, _PAGE)
        return gathered.add(self._tx, story)


class _Gathered:
    """What is told in one message: the stories of some fingerprints."""

    def __init__(self, group_key: str | None, terms: Terms, now: int) -> None:
        self._digest = Digest(group_key, min(terms.body_bytes_max, BODY_BYTES_MAX), now, terms.place)
        self._terms = terms
        self._now = now
        self._first: Story | None = None
        self._taken_out = False

    def wants(self, row: StoredNotification) -> bool:
        """Whether `row` may be told with the others."""
        first = self._first
        return first is None or (
            row.fingerprint != first.newest.fingerprint
            and row.failover == first.failover
            and row.route == first.newest.route
        )

    def add(self, tx: Tx, story: Story) -> bool:
        """Take a story in, and its rows out of the queue; False when there is no room."""
        if not self._digest.add(story):
            return False
        if self._first is None:
            self._first = story
            if story.several:
                self._take_out(tx, story)
            return True
        if not self._taken_out:
            self._take_out(tx, self._first)
        self._take_out(tx, story)
        return True

    def _take_out(self, tx: Tx, story: Story) -> None:
        outbox.take_out(tx, self._terms.channel, story.newest.fingerprint, story.newest.id)
        self._taken_out = True

    def merge(self, tx: Tx, head: StoredNotification) -> StoredNotification:
        """The row to send."""
        if self._first is None:
            return head
        if not self._taken_out:
            return self._first.newest
        due_at = min(head.next_attempt_at, self._now)
        new = self._as_digest(self._first) if self._digest.count > 1 else self._as_one(self._first)
        return outbox.merge(tx, new, due_at=due_at)

    def _as_digest(self, first: Story) -> NewNotification:
        digest = self._digest
        return NewNotification(
            channel=self._terms.channel,
            severity=digest.severity,
            title=digest.title,
            body=digest.body,
            fingerprint=f"digest:{digest.group_key or 'late'}",
            created_at=self._now,
            kind="digest",
            detail=digest.detail,
            group=_group(digest.group_key),
            expires_at=digest.expires_at,
            failover=first.failover,
            route=first.newest.route,
        )

    def _as_one(self, story: Story) -> NewNotification:
        newest = story.newest
        return NewNotification(
            channel=self._terms.channel,
            severity=story.severity,
            title=newest.title,
            body=story.body(self._now, self._terms.place),
            fingerprint=newest.fingerprint,
            created_at=story.merged.first_at,
            event_id=newest.event_id,
            kind=newest.kind,
            detail=story.detail,
            group=_group(story.group_key),
            expires_at=story.expires_at,
            failover=story.failover,
            route=newest.route,
        )


def _group(key: str | None) -> Group | None:
    return None if key is None else Group(key, 0, 0)
