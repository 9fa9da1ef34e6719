"""The backup that is made every so often, as `store.backup` says."""

from __future__ import annotations

import asyncio

from ..backoff import Backoff
from ..clock import CLOCKLESS_BEFORE, MICROSECONDS, Clock, rfc3339
from ..config.schema import Backup as Settings
from ..context import Context
from ..errors import StoreError
from ..service import Service
from ..store.decisions import record
from ..store.sqlite.backup import Made, back_up, newest
from ..store.store import Store
from ..telemetry.metrics import Metrics

_LOOK_SECONDS_MAX = 3600.0  # by then the clock may have been set
_AGAIN = Backoff(60.0, 3600.0)


class BackupMaker(Service):
    """Makes one when the newest in the folder is as old as that, so also at the start, and tries again when it failed,
    after a minute and then ever longer, up to an hour. The first failure of several is stored as an event that is
    notified of. A machine without a clock makes none.

    `last_success_at` is when the newest was made, in microseconds since 1970 UTC, by its name; `last_error` why the
    last attempt failed.
    """

    def __init__(self, settings: Settings, store: Store, gateway: str, metrics: Metrics, clock: Clock) -> None:
        super().__init__("backup", clock)
        self.to = settings.to
        self.last_success_at: int | None = None
        self.last_error: str | None = None
        self._every_seconds = float(settings.every)
        self._keep = settings.keep
        self._store = store
        self._gateway = gateway
        self._metrics = metrics
        self._failures = 0

    async def run(self) -> None:
        """See Service."""
        while not self.stopping.is_set():
            await self.pause(min(await self.look(), _LOOK_SECONDS_MAX))

    async def look(self) -> float:
        """Make one if it is time; in how many seconds to look again."""
        now = self.clock.now()
        if now <= CLOCKLESS_BEFORE:
            return _AGAIN.first
        try:
            self.last_success_at = await asyncio.to_thread(newest, self.to, self._gateway, now)
            age = float("inf") if self.last_success_at is None else (now - self.last_success_at) / MICROSECONDS
            if age < self._every_seconds and not self._failures:
                return self._every_seconds - age
            made = await asyncio.to_thread(self._make, now)
        except _Stopping:
            return 0.0
        except StoreError as error:
            await self._failed(f"{error}" + (f" ({error.hint})" if error.hint else ""))
            return min(self._every_seconds, _AGAIN.delay(self._failures))
        self._metrics.backups.add(1, "made")
        self._failures, self.last_error, self.last_success_at = 0, None, now
        self.log.info("%s was made, %d bytes", made.path, made.size)
        return self._every_seconds

    def _make(self, now: int) -> Made:
        return back_up(
            self._store.place, self.to, gateway=self._gateway, now=now, keep=self._keep, watch=self._unless_stopping
        )

    def _unless_stopping(self, doing: str, done: int, total: int) -> None:
        if self.stopping.is_set():
            raise _Stopping

    async def _failed(self, error: str) -> None:
        self._failures += 1
        self.last_error = error
        self._metrics.backups.add(1, "failed")
        if self._failures > 1:
            return
        self.log.error("failed: %s; trying again", error)
        ctx = Context(self.clock)
        last = self.last_success_at
        ctx.emit(
            "edgeq.backup_failed",
            subject=self._gateway,
            data={"severity": "warning", "to": self.to, "error": error, "last_success_at": last},
            tags=("notification",),
            description=f"The backup to {self.to} failed: {error}. "
            + ("There is none yet." if last is None else f"The newest is of {rfc3339(last)}."),
        )
        await self._store.write(lambda tx: record(tx, ctx.decisions))


class _Stopping(Exception):
    """The service is asked to stop."""
