"""The scheduler: dispatches the jobs of schedules when they are due.

Each run takes place at most once, over any number of processes and restarts: the job is stored and the schedule moved
on in one unit, which does nothing if somebody else has moved the schedule meanwhile. What isn't due writes nothing.

A process uses the rules that it was started with. The row in the store says by which rule it was reckoned; the process
that was started last decides, and others stand back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from msgspec.structs import replace

from ...backoff import Backoff
from ...clock import MICROSECONDS, Clock, rfc3339
from ...errors import StoreUnavailable
from ...failpoints import failpoint
from ...service import Service
from ...store import jobs
from ...store import schedules as table
from ...store.schedules import StoredSchedule
from ...store.store import Store, Tx
from ...telemetry.metrics import Metrics
from ...units import Duration
from .schedule import Decision, Schedule, decide

LOOK_SECONDS = 10.0
CLOCK_STEP_SECONDS = 1.0
_RETRY = Backoff(1.0, 60.0)


@dataclass(slots=True)
class _Entry:
    """A schedule and what is known of its row: `row`, unless it is `stale`. `looked_at` is when it was last looked at,
    by the clock that isn't set, `step` by how much the other one was set since then; `unsure`: the row is a later one.
    `reached` is the latest run known to be done. After failures in a row it is tried again at `retry_at`."""

    schedule: Schedule
    row: StoredSchedule
    looked_at: float
    stale: bool = False
    step: int = 0
    unsure: bool = True
    reached: int | None = None
    failures: int = 0
    retry_at: float = -inf


class Scheduler(Service):
    """Dispatches the jobs of `schedules`, each by its rule. What is stored of other schedules is deleted at the start.

    It looks at the clock at every run time and every LOOK_SECONDS, so that is how soon it notices that it was set.
    """

    def __init__(self, schedules: Sequence[Schedule], store: Store, clock: Clock, metrics: Metrics) -> None:
        super().__init__("schedules", clock)
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._store = store
        self._metrics = metrics
        self._entries: list[_Entry] = []
        self._offset = 0

    async def run(self) -> None:
        """See Service."""
        await self.adopt()
        if not self._entries:
            await self.stopping.wait()
        while not self.stopping.is_set():
            await self.pause(await self.look())

    async def adopt(self) -> None:
        """Take the schedules into use. Comes before the first look."""
        self._offset = self.clock.offset()
        now = self.clock.now()
        wanted = {name: schedule.begin(now) for name, schedule in self._schedules.items()}
        rows = await table.every(self._store)
        if {row.name: row.spec for row in rows} != {name: row.spec for name, row in wanted.items()}:
            rows = await self._store.write(lambda tx: table.adopt(tx, wanted))
        self._entries = [_Entry(self._schedules[row.name], row, self.clock.monotonic()) for row in rows]

    async def look(self) -> float:
        """Dispatch what is due; for how many seconds there is nothing to do."""
        self._follow_clock()
        now, elapsed = self.clock.now(), self.clock.monotonic()
        due = [entry for entry in self._entries if entry.retry_at <= elapsed]
        await asyncio.gather(*(self._attend(entry, now, elapsed) for entry in due))
        if any(entry.stale for entry in self._entries):
            await self._read_again()
        return min([LOOK_SECONDS, *map(self._seconds_until_due, self._entries)])

    async def _attend(self, entry: _Entry, now: int, elapsed: float) -> None:
        try:
            decision = decide(
                entry.schedule,
                entry.row,
                now=now,
                since=now - round((elapsed - entry.looked_at) * MICROSECONDS),
                step=entry.step,
                unsure=entry.unsure,
                reached=entry.reached,
            )
            if decision is not None and not await self._carry_out(entry, decision, now):
                entry.stale = True
                return
        except StoreUnavailable:
            raise
        except Exception:  # it must not stop the others
            entry.failures += 1
            delay = _RETRY.delay(entry.failures)
            entry.retry_at = self.clock.monotonic() + delay
            self.log.exception("%s can't be dispatched; tried again in %.1fs", entry.schedule.name, delay)
            return
        entry.looked_at, entry.step, entry.unsure, entry.failures, entry.retry_at = elapsed, 0, False, 0, -inf

    async def _carry_out(self, entry: _Entry, decision: Decision, now: int) -> bool:
        """False when somebody else has moved the schedule."""
        known, runs = entry.row, decision.runs
        new = [entry.schedule.new_job(run, now) for run in runs]
        row = replace(known, last_run_at=runs[-1] if runs else known.last_run_at, next_run_at=decision.next_run_at)

        def unit(tx: Tx) -> bool:
            if not table.move(tx, known, row):
                return False
            if new:
                jobs.add(tx, new)
                failpoint("schedule.decided")
            return True

        if not await self._store.write(unit):
            return False
        entry.row = row
        entry.reached = max([*runs, *filter(None, (known.last_run_at, entry.reached))], default=None)
        if runs:
            failpoint("schedule.dispatched")
            self._metrics.schedule_runs.add(len(runs), "dispatched")
        if decision.missed_since is not None:
            self._metrics.schedule_runs.add(1, "missed")
            self.log.warning(
                "%s: runs from %s on were missed; %s (catch_up: %s)",
                entry.schedule.name, rfc3339(decision.missed_since),
                f"{len(runs)} dispatched" if runs else "none was dispatched", entry.schedule.catch_up,
            )  # fmt: skip
        return True

    async def _read_again(self) -> None:
        rows = {row.name: row for row in await table.every(self._store)}
        for entry in self._entries:
            row = rows.get(entry.schedule.name)
            if not entry.stale:
                continue
            if row is not None and row.spec == entry.schedule.rule.spec:
                entry.row, entry.stale, entry.unsure = row, False, True
                entry.looked_at = self.clock.monotonic()
            else:
                self.log.warning("%s: another process goes by another rule; this one stands back", entry.schedule.name)
        self._entries = [entry for entry in self._entries if not entry.stale]

    def _seconds_until_due(self, entry: _Entry) -> float:
        if entry.failures:
            return max(0.0, entry.retry_at - self.clock.monotonic())
        if entry.unsure:
            return 0.0
        return max(0.0, (entry.row.next_run_at - self.clock.now()) / MICROSECONDS)

    def _follow_clock(self) -> None:
        """Note by how much the clock was set since the last look, if it was."""
        step = self.clock.offset() - self._offset
        if abs(step) >= CLOCK_STEP_SECONDS * MICROSECONDS:
            self._offset += step
            for entry in self._entries:
                entry.step += step
            direction = "forward" if step > 0 else "back"
            self.log.info("the clock was set %s by %s", direction, Duration(round(abs(step) / MICROSECONDS)))
