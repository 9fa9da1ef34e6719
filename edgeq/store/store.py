"""The store's interface and its promises; `sqlite` and `postgres` keep them, `opening` makes the one that is asked for.

- A **unit** is a plain function on an open transaction. `write(unit)` returns when what the unit did is on disk
  (with `durability: full`), or raises what the unit raised, and then nothing of that unit is left behind. What the
  unit reads, it reads as of its own transaction: read-then-write inside one unit is atomic.
- Units are committed in the order in which they were handed over, many in one commit. A unit may be run again
  from the start when the store couldn't take it, so it must have no effect outside its transaction.
- When the store can't take a commit (disk full, read-only, locked by somebody else), nothing fails: units wait, in
  order, and are tried again with growing delays until they succeed or the store is closed. `health` says why.
- A unit has the store for itself from its first statement to its commit, on any machine, unless it says that it may
  share it.
- Event ids only grow, are never used again, and once an id has been read no smaller one appears later (G6).
- A read sees everything that was committed before it began. It never writes and never holds a transaction open.
- After each commit, `signal` wakes those who wait for a table that it touched. Commits of other processes count as
  touching every table. Where the system tells of writes to files they are noticed at once, a burst of them every
  20 ms, and in any case within `FOREIGN_NET_SECONDS`; elsewhere within `FOREIGN_POLL_SECONDS`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import peewee as pw

from ..errors import StoreError, StoreUnavailable
from .ownership import Ownership

if TYPE_CHECKING:
    from .sqlite.recover import Recovery

T = TypeVar("T")
Row = tuple[Any, ...]
Topic = Literal[
    "events",
    "jobs",
    "claimed",
    "finished",
    "cancelled",
    "dead_letters",
    "notifications",
    "threads",
    "silences",
    "cursors",
]
TOPICS: tuple[Topic, ...] = get_args(Topic)

FOREIGN_POLL_SECONDS = 0.25
FOREIGN_NET_SECONDS = 2.0

# Constants for statements, which leave all their parameters open.
NULL = pw.SQL("NULL")
ZERO = pw.SQL("0")


def literal(text: str) -> pw.SQL:
    """A text constant for a statement. For words of our own only: nothing is escaped."""
    return pw.SQL(f"'{text}'")


class Statement:
    """A query that peewee renders once, with its parameters left open.

    `build` gets the placeholder to put where a parameter goes; parameters are handed over, in the order of the text,
    when the statement runs.
    """

    def __init__(self, build: Callable[[pw.SQL], pw.Node]) -> None:
        self._build = build
        self._text: dict[str, str] = {}

    def text(self, database: pw.Database) -> str:
        """The SQL for `database`'s dialect."""
        rendered = self._text.get(database.param)
        if rendered is None:
            rendered, values = render(database, self._build(pw.SQL(database.param)))
            if values:
                raise ValueError(f"a statement must leave its parameters open: {rendered} has {values}")
            self._text[database.param] = rendered
        return rendered


def render(database: pw.Database, query: pw.Node) -> tuple[str, list[Any]]:
    """SQL text and parameters of a peewee query in `database`'s dialect."""
    text, values = database.get_sql_context().sql(query).query()
    return text, list(values)


def storable(text: str) -> str:
    """`text` with what no database takes as text, lone surrogates and NUL, in escaped form."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class NotAlone(Exception):
    """A shared unit must be run again, with the store for itself. For the writer alone."""


class Tx(ABC):
    """An open transaction, handed to a unit in the writer's thread. Don't keep it."""

    def __init__(self) -> None:
        self.touched: set[Topic] = set()

    @abstractmethod
    def run(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> int:
        """Execute; the number of rows changed."""

    @abstractmethod
    def rows(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """Execute; all rows that it returns (also of INSERT, UPDATE and DELETE … RETURNING)."""

    @abstractmethod
    def insert(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> int:
        """Insert many rows the fast way. A row that breaks a unique index is left out; the number inserted."""

    @abstractmethod
    def insert_returning(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """Insert many rows the fast way, into a table without unique indexes; their ids, in the order of the rows."""

    @abstractmethod
    def now(self, now: int) -> int:
        """The moment by which leases are given and judged, in microseconds since 1970 UTC: `now`, the time of this
        machine, unless several machines share the store; then it is the store's own clock."""

    @abstractmethod
    def alone(self) -> None:
        """Go on only if nobody else writes until the commit, as is so for every unit that isn't `shared`. A shared one
        ends here, and is run again alone."""

    def touch(self, topic: Topic) -> None:
        """Say that rows of `topic` were added or changed, so that those who wait for them wake up."""
        self.touched.add(topic)


Unit = Callable[[Tx], T]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the store takes commits. `since` is in microseconds since 1970 UTC, `reason` for an operator; of a store
    that takes commits, it is what else is wrong."""

    ok: bool
    reason: str = ""
    since: int = 0


class Signal:
    """Wakes waiting tasks after a commit. Lives on one event loop."""

    def __init__(self) -> None:
        self._versions: dict[Topic, int] = dict.fromkeys(TOPICS, 0)
        self._waiting: dict[Topic, set[asyncio.Future[None]]] = {topic: set() for topic in TOPICS}
        self._watching: dict[Topic, list[asyncio.Event]] = {topic: [] for topic in TOPICS}

    def version(self, topic: Topic) -> int:
        """A number that grows with every commit that touched `topic`."""
        return self._versions[topic]

    async def wait(
        self,
        topic: Topic,
        seen: int,
        timeout_seconds: float | None = None,
        *,
        unless: asyncio.Event | None = None,
    ) -> bool:
        """True as soon as `version(topic)` is no longer `seen`; False after the time, or once `unless` is set."""
        if self._versions[topic] != seen:
            return True
        waiter = asyncio.get_running_loop().create_future()
        waiting = self._waiting[topic]
        waiting.add(waiter)
        ended = None if unless is None else asyncio.ensure_future(unless.wait())
        try:
            await asyncio.wait(
                [waiter] if ended is None else [waiter, ended],
                timeout=timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            return self._versions[topic] != seen
        finally:
            waiting.discard(waiter)
            waiter.cancel()
            if ended is not None:
                ended.cancel()

    @contextmanager
    def watch(self, woken: asyncio.Event, *topics: Topic) -> Iterator[None]:
        """Set `woken` at every commit that touches one of `topics`: for those who wait for several things at once."""
        for topic in topics:
            self._watching[topic].append(woken)
        try:
            yield
        finally:
            for topic in topics:
                self._watching[topic].remove(woken)

    def fire(self, topics: Iterable[Topic]) -> None:
        """Wake all who wait for one of `topics`."""
        for topic in topics:
            self._versions[topic] += 1
            for woken in self._watching[topic]:
                woken.set()
            for waiter in self._waiting[topic]:
                if not waiter.done():
                    waiter.set_result(None)


class Store(ABC):
    """See the module's text for what can be relied on."""

    signal: Signal
    ownership: Ownership
    place: str
    """Where it is, for people: a path, or a database on a server, without its password."""
    quarantined: str | None = None
    """Where a damaged store was put when it was opened, and a new one begun in its place."""
    recovery: Recovery | None = None
    """What was recovered from it."""

    @property
    def fault(self) -> StoreError | None:
        """Why nothing can be stored any more before the program is started anew; None: there is no such reason."""
        return None

    def disk(self) -> dict[str, int]:
        """Bytes that it takes of this machine's disk, and that are free there; nothing for a store elsewhere."""
        return {}

    async def warnings(self) -> list[str]:
        """What keeps the place where it is from being as safe as an operator may think."""
        return []

    @property
    @abstractmethod
    def health(self) -> Health:
        """Whether commits go through now, and if not, why not and since when."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a commit is under way, or tried again and again: then it is the disk that others wait for. One that
        has taken two minutes, with no reason given by `health`, hangs, and doesn't count."""

    @property
    @abstractmethod
    def id(self) -> str:
        """The store's own id, made when it was created: a restored or fresh store is told from the old one."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, bring the schema up to date, begin to take units.

        Raises StoreError; StoreUnavailable, of which `health` tells, when it may be tried again later; StoreMissing
        when there is none, and none is to be made.
        """

    @abstractmethod
    async def close(self) -> None:
        """Commit what waits (unless the store can't), fail the rest with StoreUnavailable, disconnect."""

    @abstractmethod
    def submit(self, unit: Unit[T], *, shared: bool = False) -> asyncio.Future[T]:
        """Hand a unit over; the future is done when the unit is on disk, or has raised.

        `shared`: it may run beside other shared units of other processes, because it takes its rows by locking them or
        only adds some; and it appends no events. Any other unit has the store for itself until its commit.
        """

    async def relieve(self, unit: Unit[T]) -> T:
        """`write` a unit that makes room: it comes before all others, also before those that wait for room."""
        return await self.submit(unit)

    @abstractmethod
    def submit_lazily(self, unit: Unit[object], within_seconds: float) -> None:
        """Let a unit ride along with the next commit, or get one of its own after `within_seconds`.

        For what may be lost at a power cut and done again, such as the cursor over events that nobody wanted: it costs
        no commit of its own. An error that it raises is logged.
        """

    async def write(self, unit: Unit[T], *, timeout_seconds: float | None = None, shared: bool = False) -> T:
        """Run the unit and wait until it is on disk. For `shared` see `submit`.

        Raises what the unit raised, or StoreUnavailable after `timeout_seconds` (None: wait as long as it takes) or
        when the store is closed first; what was in the midst of its commit then may be there all the same.
        """
        if timeout_seconds is None:
            return await self.submit(unit, shared=shared)
        late = False

        def in_time(tx: Tx) -> T:
            if late:  # whoever asked was told that it failed
                raise StoreUnavailable("the time for this unit is over")
            return unit(tx)

        future = self.submit(in_time, shared=shared)
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_seconds)
        except TimeoutError:
            late = True
            future.cancel()
            raise StoreUnavailable(self.health.reason or "the store did not answer in time") from None

    @abstractmethod
    async def read(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query. Raises StoreError when the store can't be read."""
