"""Deletes what has had its time, and what there is no room for: a few rows in a unit, and a rest between two.

By age, the rows of a table go in order of their ids, up to the first one that isn't old enough. One whose time can't be
right, before the year 2000 or later than now, is as old as the next one whose time can.

For want of room, stage after stage goes, oldest first, until there is enough: see STAGES. Events that a processor
hasn't seen go only where the limit is a hard one.

While it deletes, intake and processors get on: a unit holds the writer for some milliseconds, and takes fewer rows when
it was slower than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..clock import CLOCKLESS_BEFORE, Clock
from ..failpoints import failpoint
from ..store import events, jobs, pruning, space
from ..store.pruning import DEAD_LETTERS, EVENTS, HELD, ID_MAX, LOW_EVENTS, NOTIFICATIONS, History
from ..store.store import Row, Store, Tx, Unit
from ..telemetry.metrics import Metrics
from . import dropped

ROWS_AT_ONCE = 500
PAGES_AT_ONCE = 64
LATEST_KEPT = 1000
_ROWS_FIRST, _ROWS_MIN = 100, 10
_UNIT_SECONDS = 0.005
_REST_SECONDS, _REST_SECONDS_MAX = 0.02, 2.0
_REST_TIMES = 4  # as long as a unit took: others get four fifths of the disk
_COUNTED_AT_ONCE = 10_000


@dataclass(frozen=True)
class Stage:
    """What goes together: rows of up to a `rank`, but for the `latest` ones; also `beyond` a processor's cursor. Jobs
    that completed or were cancelled have no history here."""

    history: History | None
    rank: int = HELD - 1
    beyond: bool = False
    latest: int = 0


STAGES = (
    Stage(LOW_EVENTS, -1),
    Stage(NOTIFICATIONS, latest=LATEST_KEPT),
    Stage(DEAD_LETTERS, latest=LATEST_KEPT),
    Stage(EVENTS, 0),
    Stage(None),  # jobs
    Stage(EVENTS, 1),
    Stage(NOTIFICATIONS),
    Stage(DEAD_LETTERS),
    Stage(LOW_EVENTS, -1, beyond=True),
    Stage(EVENTS, 0, beyond=True),
    Stage(EVENTS, 1, beyond=True),
)
"""What goes for want of room, in this order: events that all have seen, by the `keep` of their route; between them,
what else is only history: notifications that were told, dead letters, jobs that completed or were cancelled. Last what
somebody waits for. What floods the store otherwise goes before events of normal priority, but for the latest rows."""


class Taken(NamedTuple):
    """What a unit did: it looked at rows up to the id `last` (None: there were none), deleted `deleted` and dropped
    `missed` of these. It held the writer for so many `seconds`."""

    last: int | None
    deleted: int
    missed: int = 0
    seconds: float = 0.0


class Pruner:
    """Deletes in the store. `processors` are those that events are kept for, and others whose cursor has moved since
    `moved_since` (microseconds since 1970 UTC).

    `rest` waits for so many seconds, `stopping` says whether to end soon, and `progress` is told of each table how many
    rows were deleted from it. With `dry`, nothing is deleted by age, only counted. `made_room` counts rows that went
    for want of room, by the limit.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        processors: Collection[str],
        rest: Callable[[float], Awaitable[None]],
        stopping: Callable[[], bool] = lambda: False,
        progress: Callable[[str, int], None] = lambda table, rows: None,
        dry: bool = False,
    ) -> None:
        self.moved_since = 0
        self.made_room: Counter[str] = Counter()
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._processors = frozenset(processors)
        self._rest = rest
        self._stopping = stopping
        self._progress = progress
        self._dry = dry
        self._rows = _ROWS_FIRST

    async def old(self, history: History, before: int, now: int) -> int:
        """Delete what is from earlier than `before` (both in microseconds since 1970 UTC); how many. Of events, none
        that a processor hasn't seen."""
        total, after, seen = 0, 0, 0
        until = await self._seen_by_all() if history is EVENTS else ID_MAX
        while not self._stopping():
            rows = await pruning.page(self._store, history, seen, until, ROWS_AT_ONCE)
            cut, more = old_up_to(rows, before, now)
            if cut:
                total, after = total + await self._delete(history, after, cut), cut
            if not more or len(rows) < ROWS_AT_ONCE:
                break
            seen = rows[-1][0]
        return total

    async def old_jobs(self, state: str, before: int) -> int:
        """Delete jobs that ended in `state` before that moment; how many."""

        def unit(tx: Tx) -> Taken:
            began = self._clock.monotonic()
            count = jobs.purge(tx, states=[state], finished_before=before, limit=ROWS_AT_ONCE)
            return Taken(None, count, seconds=self._clock.monotonic() - began)

        total = 0
        while not self._stopping():
            taken = await self._write(unit, "jobs")
            total += taken.deleted
            if taken.deleted < ROWS_AT_ONCE:
                break
        return total

    async def count_old_jobs(self, before: Mapping[str, int]) -> None:
        """Tell `progress` how many jobs there are that ended, in each of these states, before that moment."""
        for state, moment in before.items():
            if count := await pruning.count_jobs(self._store, state, moment):
                self._progress("jobs", count)

    async def excess(self, rows_max: int) -> int:
        """How many events there are more than `rows_max`; 0 if there aren't. Reads as many as there are, but only if
        the ids say that it may be too many."""
        first = await pruning.oldest(self._store)
        if first is None or await events.head(self._store) - first[0] < rows_max:
            return 0
        count, after = 0, 0
        while not self._stopping():
            some, after = await pruning.count_some(self._store, after, ID_MAX, _COUNTED_AT_ONCE)
            count += some
            if some < _COUNTED_AT_ONCE:
                break
            await self._rest(_REST_SECONDS)
        return max(0, count - rows_max)

    async def make_room(self, lacking: Callable[[int], Awaitable[int]], reason: str, *, hard: bool) -> bool:
        """Delete stage after stage until `lacking` returns 0, which is told how many rows are deleted and says how many
        may go next at most; only events that all have seen, unless the limit is a `hard` one. False when nothing is
        left that may go."""
        deleted = 0
        for stage in STAGES:
            if not hard and (stage.beyond or stage.history not in (EVENTS, LOW_EVENTS)):
                continue
            after = 0
            until = ID_MAX
            if stage.history is not None and stage.latest:
                until = await pruning.last_but(self._store, stage.history, stage.latest)
            while not self._stopping():
                rows = min(self._rows, await lacking(deleted))
                if rows <= 0:
                    return True
                taken = await self._write(self._unit(stage, after, until, rows, reason), _table(stage))
                deleted += taken.deleted
                self.made_room[reason] += taken.deleted
                if taken.missed:
                    self._metrics.events_dropped.add(taken.missed, reason)
                if taken.last is None:
                    break
                after = taken.last
        return self._stopping() or await lacking(deleted) <= 0

    async def hand_back(self, keep: int, *, at_least: int = 0) -> int:
        """Give what is free in a SQLite file back to the disk, but for `keep` bytes, if it is more than `at_least`;
        how many bytes."""
        first = room = await space.measure(self._store)
        while room.shrinks and room.free > max(keep, at_least if room is first else 0) and not self._stopping():

            def unit(tx: Tx) -> Taken:
                began = self._clock.monotonic()
                space.hand_back(tx, PAGES_AT_ONCE)
                return Taken(None, 0, seconds=self._clock.monotonic() - began)

            await self._write(unit, "")
            before, room = room, await space.measure(self._store)
            if room.free >= before.free:
                break
        return max(0, first.free - room.free)

    async def _seen_by_all(self) -> int:
        places = await pruning.read_places(self._store, self._processors, self.moved_since)
        return min(places.values(), default=ID_MAX)

    async def _delete(self, history: History, after: int, until: int) -> int:
        """All from after `after` up to `until` but what is held."""
        total, last = 0, after
        while not self._stopping():
            if self._dry:
                taken = _looked(await pruning.page(self._store, history, last, until, ROWS_AT_ONCE))
                self._progress(history.name, taken.deleted)
            else:
                taken = await self._write(self._unit(Stage(history), last, until, self._rows, ""), history.name)
            total += taken.deleted
            if taken.last is None:
                break
            last = taken.last
        return total

    def _unit(self, stage: Stage, after: int, until: int, limit: int, reason: str) -> Unit[Taken]:
        history = stage.history

        def unit(tx: Tx) -> Taken:
            began = self._clock.monotonic()
            if history is None:
                states = ["completed", "cancelled"]
                count = jobs.purge(tx, states=states, finished_before=ID_MAX, limit=limit)
                return Taken(after if count else None, count, 0, self._clock.monotonic() - began)
            places = pruning.places(tx, self._processors, self.moved_since) if history.name == "events" else {}
            end = until if stage.beyond else min([until, *places.values()])
            rows = pruning.take(tx, history, after, end, limit)
            gone = [row for row in rows if row[2] <= stage.rank]
            missed = 0
            if stage.beyond:
                missed = dropped.note_events(tx, [row[0] for row in gone], places, reason, self._clock.now())
            elif reason and history is DEAD_LETTERS:
                dropped.note_letters(tx, sum(row[2] for row in gone), reason, self._clock.now())
            pruning.delete(tx, history, [row[0] for row in gone])
            failpoint("retention.deleted")
            return Taken(rows[-1][0] if rows else None, len(gone), missed, self._clock.monotonic() - began)

        return unit

    async def _write(self, unit: Unit[Taken], table: str) -> Taken:
        """Run the unit, and rest in proportion to how long that took."""
        began = self._clock.monotonic()
        taken = await self._store.relieve(unit)
        failpoint("retention.committed")
        if taken.deleted:
            self._metrics.deleted.add(taken.deleted, table)
            self._progress(table, taken.deleted)
        if taken.seconds > _UNIT_SECONDS:
            self._rows = max(_ROWS_MIN, self._rows // 2)
        elif taken.seconds < _UNIT_SECONDS / 2:
            self._rows = min(ROWS_AT_ONCE, self._rows + self._rows // 4)
        if table and taken.last is None and not taken.deleted:
            return taken  # there was nothing to do
        took = self._clock.monotonic() - began
        await self._rest(min(_REST_SECONDS_MAX, max(_REST_SECONDS, _REST_TIMES * took)))
        return taken


def old_up_to(rows: Sequence[Row], before: int, now: int) -> tuple[int, bool]:
    """Up to which id the rows are from earlier than `before`, 0 for none; and whether those behind them may be, too."""
    cut = 0
    for row_id, moment, _ in rows:
        if CLOCKLESS_BEFORE <= moment < before:
            cut = row_id
        elif CLOCKLESS_BEFORE <= moment <= now:
            return cut, False
    return cut, True


def _looked(rows: Sequence[Row]) -> Taken:
    return Taken(rows[-1][0] if rows else None, sum(row[2] < HELD for row in rows))


def _table(stage: Stage) -> str:
    return "jobs" if stage.history is None else stage.history.name
