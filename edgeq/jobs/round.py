"""One unit for all that a worker has to say to the store, and all that it wants to know.

While one commits, more gathers for the next. In this order: what jobs reported; the ends of what has ended, each with
what the job recorded if the claim was still held; longer leases for what runs, and only then the rescue of what nobody
has extended: a step of the clock must not take our own jobs from us; then the claim of as many as there is room for;
and last what there will be to do, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import StoreUnavailable
from ..failpoints import failpoint
from ..store import claims
from ..store.claims import BreakerSettings, Outlook, Rate, Rescued
from ..store.decisions import record
from ..store.jobs import StoredJob
from ..store.store import NotAlone, Store, Tx, Unit
from .attempt import Attempt
from .ends import Ending
from .lease_clock import LeaseClock
from .slots import Grant

RESCUED_AT_ONCE = 100
_ALONE_SECONDS = 1.0  # after a round that needed the store for itself: those that follow do, too, as a rule


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done. `held`: whose leases are to be extended; `grant`: how many jobs to claim at most. `version`
    is that of the topic `jobs` before."""

    endings: Sequence[Ending]
    reports: Sequence[tuple[StoredJob, str]]
    held: Sequence[Attempt]
    rescue: bool
    grant: Grant
    version: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An ending that was committed. `done`: whether it took effect; if so, so many events were `duplicates`."""

    ending: Ending
    done: bool
    duplicates: int


@dataclass(slots=True)
class Found:
    """What came of it. `refused` are endings that can't be stored, with the reason. `lost` are ids. `outlook` is None
    when the unit could not be carried out as a whole."""

    ended: list[Ended] = field(default_factory=list)
    refused: list[tuple[Ending, Exception]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    rescued: list[Rescued] = field(default_factory=list)
    claimed: list[StoredJob] = field(default_factory=list)
    outlook: Outlook | None = None


class Rounds:
    """Carries out plans for one queue. Once it is `closed` nothing is claimed, not even by a unit that waits."""

    def __init__(
        self,
        store: Store,
        clock: LeaseClock,
        *,
        queue: str,
        owner: str,
        lease_seconds: float,
        rate: Rate | None,
        breakers: Mapping[str, BreakerSettings],
    ) -> None:
        self.closed = False
        self._store = store
        self._clock = clock
        self._queue = queue
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._rate = rate
        self._breakers = breakers
        self._alone_until = 0.0

    async def carry_out(self, plan: Plan) -> Found:
        """Raises StoreUnavailable when the store was closed first, and what the unit raised unless it had ends in it.
        Then each of these is committed in a unit of its own, so that only the guilty one is refused."""
        try:
            return await self._store.write(lambda tx: self._unit(tx, plan), shared=self._may_share(plan))
        except StoreUnavailable:
            raise
        except Exception:  # texts and numbers that no database takes, and what else there may be
            if not plan.endings:
                raise
        found = Found()
        alone = [self._store.write(self._only(ending)) for ending in plan.endings]
        for ending, answer in zip(plan.endings, await asyncio.gather(*alone, return_exceptions=True), strict=True):
            if isinstance(answer, list):
                found.ended += answer
            elif isinstance(answer, StoreUnavailable) or not isinstance(answer, Exception):
                raise answer
            else:
                found.refused.append((ending, answer))
        return found

    def _only(self, ending: Ending) -> Unit[list[Ended]]:
        return lambda tx: self._end(tx, [ending])

    def _may_share(self, plan: Plan) -> bool:
        """Whether the store will hardly be needed alone, which would make us begin again."""
        appends = any(ending.decisions.events or ending.decisions.also for ending in plan.endings)
        return not plan.rescue and not appends and self._clock.monotonic() >= self._alone_until

    def _unit(self, tx: Tx, plan: Plan) -> Found:
        try:
            return self._carry_out(tx, plan)
        except NotAlone:
            self._alone_until = self._clock.monotonic() + _ALONE_SECONDS
            raise

    def _carry_out(self, tx: Tx, plan: Plan) -> Found:
        now = self._clock.look(tx)
        found = Found()
        for job, text in plan.reports:
            claims.progress(tx, job, text)
        if plan.endings:
            found.ended = self._end(tx, plan.endings)
        if plan.held:
            found.lost = claims.extend(
                tx, [attempt.job for attempt in plan.held], lease_seconds=self._lease_seconds, now=now
            )
        if plan.rescue:
            found.rescued = claims.rescue(
                tx, queue=self._queue, lease_seconds=self._lease_seconds, limit=RESCUED_AT_ONCE, now=now
            )
        limit = 0 if self.closed else self._limit(tx, plan.grant, now)
        if limit:
            found.claimed = claims.claim(
                tx,
                queue=self._queue,
                owner=self._owner,
                lease_seconds=self._lease_seconds,
                limit=limit,
                now=now,
                rate=self._rate,
                breakers=self._breakers,
            )
        found.outlook = claims.outlook(tx, self._queue, now)
        return found

    def _limit(self, tx: Tx, grant: Grant, now: int) -> int:
        if grant.most > grant.sure and any(claims.outlook(tx, queue, now).ready for queue in grant.ahead):
            return grant.sure
        return grant.most

    def _end(self, tx: Tx, endings: Sequence[Ending]) -> list[Ended]:
        """What the jobs recorded is stored only for claims that were held until now (G7)."""
        for ending in endings:
            if ending.progress is not None:
                claims.progress(tx, ending.end.job, ending.progress)
        kept = claims.end(tx, [ending.end for ending in endings], now=self._clock.look(tx), breakers=self._breakers)
        ended = [
            Ended(ending, done, record(tx, ending.decisions) if done else 0)
            for ending, done in zip(endings, kept, strict=True)
        ]
        failpoint("job.ended")
        return ended
