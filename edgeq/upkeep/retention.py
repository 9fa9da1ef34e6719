"""Retention: what is older than the configuration wants to keep is deleted, and what there is no room for.

The ages and limits are looked at every hour, or more often when an age is short. Between two looks nothing is read from
the store; only the free disk and the size of the files are, once a minute, or more often while the store takes nothing,
and when they are near a limit, the limits are looked at. What isn't due writes nothing (G9). The dead letter of a dead
job stays: it has the arguments and the error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import msgspec

from ..clock import CLOCKLESS_BEFORE, MICROSECONDS, Clock, rfc3339
from ..config.schema import Retention as Ages
from ..events import NewEvent, to_json
from ..service import Service
from ..store import events, jobs, meta, pruning
from ..store.pruning import DEAD_LETTERS, EVENTS, NOTIFICATIONS, SILENCES
from ..store.store import Store, Tx
from ..telemetry.metrics import Metrics
from . import dropped
from .pruner import Pruner
from .room import Room
from .witness import Seen, Witness

LOOK_SECONDS_MAX = 3600.0
GLANCE_SECONDS = 60.0
WAIT_DAYS = 7
_LOOK_SECONDS_MIN = 5.0
_WAKE_SECONDS = 2.0
_TELL_SECONDS = 3600.0
_SAVE_US = 3600 * MICROSECONDS
_SEEN, _WAITS = "retention_seen", "retention_waits"
_DAY = 86_400 * MICROSECONDS


class Retention(Service):
    """Deletes by the ages and limits that `store.retention` gives.

    A job that ended before the machine's clock was set counts from when that is noticed. `processors` are those that
    events are kept for; without, only jobs are deleted. `chosen`: somebody has chosen how long events are kept; if not,
    a store of an earlier version, which deleted none, waits for WAIT_DAYS, and says so. `by_hand`, it doesn't wait, and
    goes by the clock as it is.
    """

    def __init__(
        self,
        ages: Ages,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        processors: Collection[str] | None = None,
        gateway: str = "",
        chosen: bool = True,
        by_hand: bool = False,
        dry: bool = False,
        rest: Callable[[float], Awaitable[None]] | None = None,
        progress: Callable[[str, int], None] = lambda table, rows: None,
    ) -> None:
        super().__init__("retention", clock)
        self.waits_until: int | None = None
        self._states = {state: age.microseconds for state, age in ages.by_state().items()}
        self._ages = ages
        self._processors = processors
        self._gateway = gateway
        self._chosen = chosen or by_hand
        self._by_hand = by_hand
        self._dry = dry
        self._store = store
        self._metrics = metrics
        kept = list(ages.by_state().values())
        if processors is not None:
            kept += [ages.events, ages.dead_letters, ages.notifications]
        self._look_seconds = min(LOOK_SECONDS_MAX, max(_LOOK_SECONDS_MIN, min(kept) / 10))
        self._witness = Witness(clock, max(age.microseconds for age in kept))
        self._pruner = Pruner(
            store, clock, metrics, processors=processors or (), rest=rest or self.pause,
            stopping=self.stopping.is_set, progress=progress, dry=dry,
        )  # fmt: skip
        self.room = Room(ages, store, self._pruner, self.log)
        self._begun = False
        self._head = 0
        self._saved: Seen | None = None
        self._told_at: float | None = None

    def says(self) -> dict[str, Any]:
        """What an operator should know of it: `trouble` (see Room); `waits_until`, when it begins to delete in a store
        of an earlier version (microseconds since 1970 UTC, None: it has begun); whether it `doubts_clock`."""
        return {
            "trouble": self.room.trouble, "waits_until": self.waits_until, "doubts_clock": self.doubts_clock,
        }  # fmt: skip

    @property
    def doubts_clock(self) -> bool:
        """Whether the clock isn't believed: see Witness."""
        return self._witness.doubts

    async def run(self) -> None:
        """See Service."""
        while not self.stopping.is_set():
            await self.look()
            looked = glanced = self.clock.monotonic()
            while (now := self.clock.monotonic()) < looked + self._look_seconds and not self.stopping.is_set():
                if self._processors is not None and (now >= glanced + GLANCE_SECONDS or not self._store.health.ok):
                    glanced = now
                    if self.room.is_near():
                        await self.make_room()
                await self.pause(min(_WAKE_SECONDS, self._look_seconds))

    async def look(self) -> None:
        """Delete what is due now."""
        now = await self._believed()
        if now is not None:
            await self._delete_jobs(now)
            if self._processors is not None and not await self._waits(now):
                await self._delete_old(now)
        if self._processors is not None:
            await self.make_room()
        if self._store.ownership.shared and not self._dry:
            await self._store.relieve(pruning.forget_writers)
        await self._save()

    async def make_room(self) -> None:
        """Delete what there is no room for, and hand back what is free."""
        await self.room.make(dry=self._dry)
        await self._tell()

    async def shrink(self) -> int:
        """Hand back all that is free in a SQLite file, if it can be; how many bytes."""
        return await self._pruner.hand_back(0)

    async def _believed(self) -> int | None:
        if self._by_hand:
            said = self.clock.now()
            return said if said > CLOCKLESS_BEFORE else None
        if not self._begun:
            self._begun = True
            text = await meta.get(self._store, _SEEN)
            latest = [event async for event in events.latest(self._store, 1)]
            self._head = latest[0].id if latest else 0
            with contextlib.suppress(msgspec.DecodeError, TypeError):  # anybody may have written there
                self._saved = msgspec.json.decode(text or "", type=Seen)
            self._witness.begin(self._saved or (Seen(latest[0].recorded_at) if latest else None))
        doubted = self.doubts_clock
        now = self._witness.now()
        if now is not None and self.doubts_clock and not doubted:
            self.log.warning(
                "the clock isn't synchronised, and leapt to %s: what is old is reckoned by the time that was seen to "
                "pass, as of %s, until the clock is synchronised", rfc3339(self.clock.now()), rfc3339(now),
            )  # fmt: skip
        return now

    async def _delete_jobs(self, now: int) -> None:
        if self._dry:
            await self._pruner.count_old_jobs({state: now - age for state, age in self._states.items()})
            return
        await self._store.relieve(lambda tx: jobs.redate(tx, before=CLOCKLESS_BEFORE, now=now))
        for state, age in self._states.items():
            removed = await self._pruner.old_jobs(state, now - age)
            self._metrics.purged.add(removed, state)
            self._say(removed, f"{state} jobs")

    async def _delete_old(self, now: int) -> None:
        self._pruner.moved_since = now - self._ages.events.microseconds
        for history, kept in (
            (EVENTS, self._ages.events),
            (DEAD_LETTERS, self._ages.dead_letters),
            (NOTIFICATIONS, self._ages.notifications),
            (SILENCES, self._ages.notifications),
        ):
            removed = await self._pruner.old(history, now - kept.microseconds, now)
            self._say(removed, history.name.replace("_", " "))

    def _say(self, removed: int, what: str) -> None:
        if removed:
            self.log.info("%d %s were older than they are kept", removed, what)

    async def _waits(self, now: int) -> bool:
        """Whether nobody knows yet that events are deleted from now on, which they weren't in earlier versions."""
        text = await meta.get(self._store, _WAITS)
        self.waits_until = None
        if text is None or self._by_hand:
            return False
        if self._chosen or (text and now >= int(text)):
            await self._store.relieve(lambda tx: meta.remove(tx, _WAITS))
            return False
        if not text:
            text = str(now + WAIT_DAYS * _DAY)
            await self._store.relieve(lambda tx: self._announce(tx, now, text))
        self.waits_until = int(text)
        return True

    def _announce(self, tx: Tx, now: int, until: str) -> None:
        meta.put(tx, _WAITS, until)
        said = (
            f"From {rfc3339(int(until))} on, events older than {self._ages.events} are deleted, which earlier versions "
            "kept for good. store.retention.events says how long they are kept; giving it, also as 30d, ends the wait."
        )
        event = NewEvent(
            "edgeq.retention_begins",
            subject=self._gateway,
            data_json=to_json({"severity": "warning", "events_kept": str(self._ages.events)}),
            tags=("notification",),
            description=said,
            occurred_at=now,
            recorded_at=now,
        )
        events.append(tx, [event])
        self.log.warning("%s", said)

    async def _tell(self) -> None:
        """Tell of what went for want of room, and of what was dropped, at most once in an hour."""
        gone = +self._pruner.made_room
        if self._dry or (not gone and await meta.get(self._store, dropped.KEY) is None):
            return
        now = self.clock.monotonic()
        if self._told_at is None or now - self._told_at >= _TELL_SECONDS:
            for limit, rows in gone.items():
                self.log.warning("%d rows were deleted for want of room (%s)", rows, limit)
            self._pruner.made_room.clear()
            tally = await self._store.relieve(lambda tx: dropped.tell(tx, self._gateway, self.clock.now()))
            self._told_at = now
            if tally is not None:
                self.log.error("%s", tally.words())

    async def _save(self) -> None:
        """Remember which time is believed: at first, and then once in an hour in which something was stored."""
        seen = self._witness.seen
        if self._by_hand or self._processors is None or seen is None:
            return
        head = await events.head(self._store)
        saved = self._saved
        if (saved is None and head) or (saved and head != self._head and abs(seen.at - saved.at) >= _SAVE_US):
            text = to_json(seen)
            await self._store.relieve(lambda tx: meta.put(tx, _SEEN, text))
            self._saved, self._head = seen, head
