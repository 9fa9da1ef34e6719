"""The control session of a process: it hears of the commits of others, and holds what the process owns.

- Every commit tells, by NOTIFY, what it touched; `signal` is fired for it, at most once in `_REST_SECONDS`. It is fired
  for all topics after each connection, every `_NET_SECONDS`, and, while there is no session, every FOREIGN_NET_SECONDS.
- A beat a second asks the server for what the process wants to own. The server ends a session that asked nothing for
  FROZEN_SECONDS, and with it its locks: so it goes with a process that is frozen or cut off. It counts as lost sooner.
- It begins anew when the tables were put back from a backup meanwhile: what was read of them before is void.
- It is connected again for ever. An outage is one line in the log, one each _REMIND_SECONDS, and one when it is over;
  `trouble` says it meanwhile. When the server doesn't answer, `silent` is called, and `silence` says so until it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import peewee as pw
import psycopg

from ...backoff import Backoff
from ...clock import Clock
from ..store import FOREIGN_NET_SECONDS, TOPICS, Health, Row, Signal, Topic
from .connecting import FROZEN_SECONDS, connect_async, cut, place
from .engine import CHANNEL, REPLACED
from .ownership import PostgresOwnership

log = logging.getLogger("edgeq.store")

_BEAT_SECONDS = 1.0
_ASKING_SECONDS = 0.5  # while there is something to be had
_LOST_SECONDS = FROZEN_SECONDS - 0.5
_NET_SECONDS = 30.0
_REST_SECONDS = 0.02
_AGAIN = Backoff(0.2, 2.0, jitter=0.5)
_CALM_SECONDS = 10.0
_END_SECONDS = 1.0
_REMIND_SECONDS = 600.0

_SETTINGS = f"SET idle_session_timeout = '{FROZEN_SECONDS}s'; LISTEN {CHANNEL}"
_STORE = b"SELECT coalesce(to_regclass('events')::oid::bigint, 0)"
_TAKE = b"SELECT key, pg_try_advisory_lock(%s::bigint::bit(32)::int, key) FROM unnest(%s::int[]) AS key"
_GIVE = b"SELECT pg_advisory_unlock(%s::bigint::bit(32)::int, key) FROM unnest(%s::int[]) AS key"


class Session:
    """The session of `part` of the program, whose own commits are those of `writer`. It belongs to the event loop."""

    def __init__(
        self,
        url: str,
        part: str,
        signal: Signal,
        writer: str,
        read: Callable[[pw.Node], Awaitable[list[Row]]],
        silent: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.silence: Health | None = None
        self.trouble: Health | None = None
        self.ownership = PostgresOwnership(self.alive, self._ask, read)
        self._url = url
        self._part = f"{part} session".strip()
        self._signal = signal
        self._writer = writer
        self._silent = silent
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._store = 0
        self._up_since: float | None = None
        self._lost_at: float | None = None
        self._said_at = 0.0
        self._ends_at = 0.0
        self._end: asyncio.TimerHandle | None = None
        self._net: asyncio.TimerHandle | None = None
        self._asked = False
        self._woken = asyncio.Event()
        self._heard: set[Topic] = set()

    def start(self) -> None:
        """Begin. Returns at once; it is connected in a task of its own."""
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name="store.session")

    async def stop(self) -> None:
        """Give back all that is owned, and end. Safe to call when it wasn't started."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping = True
        self._woken.set()
        for insist in (lambda: cut(self._connection), task.cancel):
            if (await asyncio.wait([task], timeout=_END_SECONDS))[1]:
                insist()
        await asyncio.wait([task])

    def alive(self) -> bool:
        """Whether the server surely keeps the session's locks at this moment."""
        return asyncio.get_running_loop().time() < self._ends_at

    def _ask(self) -> None:
        self._asked = True
        self._woken.set()

    async def _run(self) -> None:
        try:
            await self._go_on()
        finally:  # it may be cancelled while it connects
            self._lost(None, say=False)

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while not self._stopping:
            error: Exception | None = None
            try:
                await self._live()
            except (psycopg.Error, OSError) as caught:
                error = caught
            lived = 0.0 if self._up_since is None else loop.time() - self._up_since
            attempt = 1 if lived > _CALM_SECONDS else attempt + 1
            self._lost(error, say=attempt == 1)
            if not self._stopping:
                self._fire_all()
                await self._wait(_AGAIN.delay(attempt))

    async def _live(self) -> None:
        """Connect, and go on until it is to stop or the connection is lost, which raises psycopg.Error or OSError."""
        self._connection = connection = await connect_async(self._url, self._part, _SETTINGS, opened=self._opened)
        connection.add_notify_handler(lambda notification: self._note(notification.payload))
        [(self._store,)] = await (await connection.execute(_STORE)).fetchall()
        while not self._stopping:
            await self._beat(connection)
            if self._up_since is None:
                self._up()
            await self._listen(connection)

    def _opened(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._end_at(asyncio.get_running_loop().time() + _LOST_SECONDS)

    def _up(self) -> None:
        now = self._up_since = asyncio.get_running_loop().time()
        self.silence = self.trouble = None
        if self._lost_at is not None:
            log.info("the control session is back, after %.1fs", now - self._lost_at)
            self._lost_at = None
        self._fire_all()

    def _lost(self, error: Exception | None, *, say: bool) -> None:
        self._up_since, self._ends_at = None, 0.0
        self._cancel_timers()
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None
        self.ownership.lost()
        if error is not None and not self._stopping:
            self._tell(next(iter(str(error).splitlines()), type(error).__name__), say=say)

    def _tell(self, reason: str, *, say: bool) -> None:
        """Of an outage, once and now and then."""
        now = asyncio.get_running_loop().time()
        text = (
            f"the control session at the {place(self._url)} is lost: {reason}. Until it is back, nothing is owned by "
            "this process, and what others commit is noticed late."
        )
        self.trouble = Health(ok=True, reason=text, since=self.trouble.since if self.trouble else self._clock.now())
        if say or now - self._said_at > _REMIND_SECONDS:
            self._lost_at, self._said_at = self._lost_at if self._lost_at is not None else now, now
            log.warning("%s", text)

    # Beats

    async def _beat(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Have the server know that we live, and let go of locks and try for others on the way."""
        self._asked = False
        departed = asyncio.get_running_loop().time()
        if unwanted := self.ownership.unwanted():
            await connection.execute(_GIVE, (self._store, unwanted))
            self.ownership.released(unwanted)
        [(store,)] = await (await connection.execute(_STORE)).fetchall()
        if store != self._store:  # whoever comes now owns by another number
            raise psycopg.errors.UndefinedTable(REPLACED)
        answer = await connection.execute(_TAKE, (self._store, self.ownership.wanted()))
        taken = [key for key, was_taken in await answer.fetchall() if was_taken]
        self._end_at(departed + _LOST_SECONDS)
        self.ownership.granted(taken)

    def _end_at(self, when: float) -> None:
        """The session counts as lost from `when` on, unless that is put off before."""
        self._ends_at = when
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_at(when, self._give_up)

    def _give_up(self) -> None:
        reason = f"the database doesn't answer: {place(self._url)}"
        self.silence = self.silence or Health(ok=False, reason=reason, since=self._clock.now())
        cut(self._connection)
        self._silent()

    # Notifications

    async def _listen(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Pass on what is heard, until the next beat is due or asked for."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (_ASKING_SECONDS if self.ownership.wanted() else _BEAT_SECONDS)
        while not (self._asked or self._stopping) and (left := until - loop.time()) > 0:
            loop.add_reader(connection.fileno(), self._woken.set)
            try:
                await self._wait(left)
            finally:
                loop.remove_reader(connection.fileno())
            connection.pgconn.consume_input()
            while (notification := connection.pgconn.notifies()) is not None:
                self._note(notification.extra.decode("utf-8", "replace"))
            if self._heard:
                self._signal.fire(self._heard)
                self._heard.clear()
                await asyncio.sleep(_REST_SECONDS)

    def _note(self, payload: str) -> None:
        store, writer, *topics = [*payload.split(), "", ""]
        if store == str(self._store) and writer != self._writer:
            self._heard.update(topic for topic in TOPICS if topic in topics)

    def _fire_all(self) -> None:
        if self._net is not None:
            self._net.cancel()
        seconds = FOREIGN_NET_SECONDS if self._up_since is None else _NET_SECONDS
        self._net = asyncio.get_running_loop().call_later(seconds, self._fire_all)
        self._signal.fire(TOPICS)

    async def _wait(self, seconds: float) -> None:
        self._woken.clear()
        if self._stopping:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    def _cancel_timers(self) -> None:
        for timer in (self._end, self._net):
            if timer is not None:
                timer.cancel()
