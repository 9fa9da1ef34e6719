"""A Sentinel on a real store over a history of events, driven as its runner drives it, with whatever befalls a gateway
in between: the program ends in peace or is killed, the Sentinel falls behind, events come twice.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from hypothesis import strategies as st

from edgeq.contracts.turn import IN_FLIGHT_SECONDS
from edgeq.events import Event, NewEvent, to_json
from edgeq.processors.calls import Calls
from edgeq.processors.progress import Progress
from edgeq.processors.sentinel import Sentinel
from edgeq.processors.settings import ProcessorSettings
from edgeq.store import events
from edgeq.store.schema import migrate
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON, FakeClock

from .contracts import contracts_of
from .plays import Said, Scene
from .stores import Database, SqliteDatabase, emptied

IN_FLIGHT = round(IN_FLIGHT_SECONDS * 1e6)

# What happens right before an event. "crash": the program is killed, and what wasn't committed is gone. "restart": it
# ends in peace, and starts again. "sleep": it is killed, and the next events find the Sentinel behind; "wake" ends
# that. "look": the clock is looked at once. "again": the event before comes once more, with the key that it had.
Fate = Literal["", "crash", "restart", "sleep", "wake", "look", "again"]


class Told(NamedTuple):
    """A verdict, as its event says it. Times are microseconds since 1970 UTC."""

    subject: str
    what: str
    since: int
    at: int
    episode: int
    duration_seconds: float | None = None


def fates(*without: Fate, at_least: int = 0) -> st.SearchStrategy[list[Fate]]:
    """What befalls a gateway before the first event, the second, and so on."""
    every: list[Fate] = ["", "", "", "crash", "restart", "sleep", "wake", "look", "again"]
    return st.lists(st.sampled_from([fate for fate in every if fate not in without]), min_size=at_least, max_size=16)


def scene_lists(
    types: str | Sequence[str],
    gaps: Sequence[float],
    late: Sequence[float] = (0,),
    values: Sequence[Any] = (0,),
    subjects: str = "aab",
    at_least: int = 0,
) -> st.SearchStrategy[list[Scene]]:
    """Random histories of at least so many events with times at and around the edges, in seconds. Some events come
    twice, as two."""
    steps = st.tuples(
        st.sampled_from(types), st.sampled_from(subjects), st.sampled_from(gaps), st.sampled_from(late),
        st.sampled_from(values), st.sampled_from([1, 1, 1, 1, 1, 2]),
    )  # fmt: skip

    def build(drawn: list[tuple[str, str, float, float, Any, int]]) -> list[Scene]:
        recorded, built = 0.0, []
        for type_, subject, gap, lateness, value, times in drawn:
            recorded = round(recorded + gap, 6)
            occurred = round(max(0.0, recorded - lateness), 6)
            built += [Scene(type_, recorded, occurred, subject, {"value": value})] * times
        return built

    return st.lists(steps, min_size=at_least, max_size=16).map(build)


def end_of(history: Sequence[Scene], after: float) -> float:
    """The moment so many seconds after the history."""
    return round((history[-1].recorded if history else 0.0) + after, 6)


def numbered(subject: str, verdicts: Iterable[tuple[str, int, int]]) -> list[Told]:
    """Verdicts of one subject, as (what, since, at), with their episodes and durations."""
    told, episode = [], 0
    for what, since, at in verdicts:
        episode += what == "violated"
        told.append(Told(subject, what, since, at, episode, (at - since) / 1e6 if what == "resolved" else None))
    return told


def by_subject(history: Sequence[Scene], types: Iterable[str]) -> Iterator[tuple[str, list[Scene]]]:
    """The events of those types, for each subject."""
    wanted = set(types)
    for subject in sorted({scene.subject for scene in history}):
        yield subject, [scene for scene in history if scene.subject == subject and scene.type in wanted]


def expected(history: Sequence[Scene], types: Iterable[str], model: Callable[[list[Scene]], Any]) -> list[Told]:
    """What the model says to the history of each subject, as `told` has it."""
    found: list[Told] = []
    for subject, mine in by_subject(history, types):
        verdicts = [(each.what, each.since, each.at) if isinstance(each, Said) else each for each in model(mine)]
        found += numbered(subject, verdicts)
    return found


def run(
    mappings: Sequence[Mapping[str, Any]],
    history: Sequence[Scene],
    until: float,
    fates: Sequence[Fate] = (),
    batch_size: int = 100,
    database: Database | None = None,
) -> list[Event]:
    """The verdicts on a history when time goes on to `until`, in seconds after `NOON`, in the order in which they came.
    Their causes are numbers of the events of the history, from 1 on. Without a `database`, it is on one of SQLite."""
    with TemporaryDirectory(prefix="edgeq-model-") as folder:
        if database is None:
            database = SqliteDatabase(Path(folder))
            shutil.copy(_fresh(), database.path)
        return asyncio.run(_Gateway(database, mappings, batch_size).play(history, until, fates))


def told(found: Iterable[Event]) -> list[Told]:
    """What the events say, by subject and in the order in which it came; for a single contract."""
    verdicts = [
        Told(
            each.subject, each.type.removeprefix("contract."), each.data["since"], each.occurred_at,
            each.data["episode"], each.data.get("duration_seconds"),
        )
        for each in found
    ]  # fmt: skip
    return sorted(verdicts, key=lambda each: each.subject)


def all_told(found: Iterable[Event]) -> list[tuple[Any, ...]]:
    """Everything that the events say, by contract, subject, and the order in which it came."""
    verdicts = [
        (each.data["contract"], each.subject, each.type, each.occurred_at, each.cause_id, to_json(each.data))
        for each in found
    ]
    return sorted(verdicts, key=lambda each: each[:2])


class _Gateway:
    """The program, and the machine that it runs on."""

    def __init__(self, database: Database, mappings: Sequence[Mapping[str, Any]], batch_size: int) -> None:
        self._database = database
        self._mappings = mappings
        self._batch_size = batch_size
        self._clock = FakeClock(NOON)
        self._awake = False

    async def play(self, history: Sequence[Scene], until: float, fates: Sequence[Fate]) -> list[Event]:
        """See `run`."""
        await self._boot()
        await self._store.write(emptied)
        try:
            return _with_own_numbers(await self._all_of(history, until, fates))
        finally:
            await self._store.close()

    async def _all_of(self, history: Sequence[Scene], until: float, fates: Sequence[Fate]) -> list[Event]:
        await self._wake()
        sent: list[NewEvent] = []
        for number, (scene, fate) in enumerate(zip_longest(history, fates[: len(history)], fillvalue=""), 1):
            assert isinstance(scene, Scene)
            await self._live(scene.recorded_at)
            await self._befall(fate, sent)
            sent.append(
                NewEvent(
                    scene.type, subject=scene.subject, data_json=to_json(dict(scene.data)), occurred_at=scene.at,
                    recorded_at=scene.recorded_at, idempotency_key=f"scene {number}",
                )
            )  # fmt: skip
            await self._record(sent[-1])
        await self._wake()
        await self._live(NOON + round(until * 1e6))
        await self._end(in_peace=True)
        return await events.after(self._store, 0, 100_000)

    async def _befall(self, fate: str, sent: Sequence[NewEvent]) -> None:
        if fate in ("crash", "restart", "sleep"):
            await self._end(in_peace=fate == "restart")
            await self._store.close()
            await self._boot()
            if fate != "sleep":
                await self._wake()
        elif fate == "wake":
            await self._wake()
        elif fate == "look" and self._awake:
            await self._look(self._clock.now())
        elif fate == "again" and sent:
            await self._record(sent[-1])

    async def _boot(self) -> None:
        self._metrics = Metrics()
        self._store = self._database.store(metrics=self._metrics, clock=self._clock, durability="normal")
        await self._store.open()

    async def _wake(self) -> None:
        if self._awake:
            return
        self._sentinel = Sentinel(contracts_of(*self._mappings), self._metrics, self._clock)
        settings = ProcessorSettings(start="beginning")
        self._calls = Calls("sentinel", self._sentinel, settings, self._store, self._metrics, self._clock)
        self._progress = Progress("sentinel", self._store, self._metrics, self._clock)
        await self._progress.take("beginning")
        await self._calls.refresh(self._progress.position)
        self._awake = True
        await self._work()
        await self._live(self._clock.now())

    async def _end(self, *, in_peace: bool) -> None:
        if self._awake and in_peace:
            await self._progress.commit()
        self._awake = False
        assert self._metrics.duplicates.total() == 0, "a verdict was told again, and only its key kept it away"

    async def _record(self, new: NewEvent) -> None:
        await self._store.write(lambda tx: events.append(tx, [new]))
        if self._awake:
            await self._work()

    async def _work(self) -> None:
        """Process what is there."""
        while batch := await events.after(self._store, self._progress.position, self._batch_size):
            wanted = [each for each in batch if self._calls.wants(each)]
            decisions = await self._calls.handle(wanted, 1) if wanted else None
            self._progress.add(batch[-1].id, decisions)
            await self._progress.commit_decided()

    async def _live(self, until: int) -> None:
        """Let time go on, with all that comes due in it."""
        while self._awake and (due := self._sentinel.due_at()) is not None and due <= until:
            self._clock.advance(max(0, due - self._clock.now()) / 1e6)
            await self._look(due)
            after = self._sentinel.due_at()
            assert after is None or after > due, "it is called again and again"
        self._clock.advance((until - self._clock.now()) / 1e6)

    async def _look(self, due: int) -> None:
        decisions = await self._calls.on_time(due, 1)
        self._progress.add(self._progress.position, decisions)
        await self._progress.commit_decided()
        await self._work()


@functools.cache
def _templates() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="edgeq-model-")


@functools.cache
def _fresh() -> str:
    """A database of SQLite that nothing has happened to yet."""
    made = SqliteDatabase(Path(_templates().name))
    migrate(made.path, may_change=True)
    return made.path


def _with_own_numbers(stored: Sequence[Event]) -> list[Event]:
    """The verdicts among these events, with causes by their numbers among those that are none."""
    numbers: dict[int | None, int | None] = {None: None, 0: None}
    verdicts = []
    for each in stored:
        if each.type.startswith("contract."):
            verdicts.append(each)
        else:
            numbers[each.id] = len(numbers) - 1
    return [_with_cause(each, numbers[each.cause_id]) for each in verdicts]


def _with_cause(event: Event, cause: int | None) -> Event:
    data = {**event.data, "cause": cause}
    return Event(
        event.id, event.type, event.subject, event.topic, to_json(data), event.tags_json, event.description,
        event.occurred_at, event.recorded_at, event.idempotency_key, cause,
    )  # fmt: skip
