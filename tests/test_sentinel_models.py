"""The Sentinel against slow models of each kind, over random histories with crashes and pauses: what it says depends on
the events and their times alone, not on when it ran.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, contracts_of, micro
from support.memory import MemoryStore

from edgeq.contracts.turn import IN_FLIGHT_SECONDS
from edgeq.events import NewEvent, from_json, to_json
from edgeq.processors.processor import ProcessorContext
from edgeq.processors.sentinel import Sentinel
from edgeq.store import cursors, events
from edgeq.store.decisions import Decisions, record
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON, FakeClock

Told = tuple[str, str, int, int]  # what, subject, since, at
IN_FLIGHT = round(IN_FLIGHT_SECONDS * 1e6)
LIMIT = 10_000_000  # `every`, `within` and `for` of the contracts below


@dataclass(frozen=True)
class Happening:
    """One event of a history, and what becomes of the Sentinel just before it."""

    type: str
    subject: str
    at: int
    recorded_at: int
    value: float
    before: str


class Appliance:
    """A Sentinel driven as its runner would: batches, timers when nothing is left to read, commits with the cursor.

    What need not be committed at once isn't until something must be, and is lost in a crash together with the cursor.
    """

    def __init__(self, mapping: dict[str, Any], batch_size: int) -> None:
        self._mapping = mapping
        self._batch_size = batch_size
        self._clock = FakeClock(NOON)
        self._store = MemoryStore()
        self._awake = False

    async def play(self, history: Sequence[Happening], until: int) -> list[Told]:
        """Everything that was told of the history, in order of subject and time."""
        await self._start()
        for happening in history:
            await self._live(happening.recorded_at)
            if happening.before in ("crash", "pause"):
                self._awake = False
                if happening.before == "pause":
                    await self._commit()
            elif happening.before == "start" and not self._awake:
                await self._start()
            new = NewEvent(
                happening.type, subject=happening.subject, occurred_at=happening.at,
                recorded_at=happening.recorded_at, data_json=to_json({"value": happening.value}),
            )  # fmt: skip
            await self._store.write(lambda tx, new=new: events.append(tx, [new]))
            await self._work()
        if not self._awake:
            await self._start()
        await self._live(until)
        told = [each for each in await events.after(self._store, 0, 10_000) if each.type.startswith("contract.")]
        await self._store.close()
        return sorted(
            (each.type[9:], each.subject, from_json(each.data_json)["since"], each.occurred_at) for each in told
        )

    async def _start(self) -> None:
        self._sentinel = Sentinel(contracts_of(self._mapping), Metrics(), self._clock)
        self._cursor = await self._store.write(lambda tx: cursors.take(tx, "sentinel", "beginning", self._clock.now()))
        self._position = self._cursor.last_consumed_id
        self._pending = Decisions()
        self._awake = True
        await self._sentinel.opened(self._store, self._position)
        await self._work()

    async def _live(self, until: int) -> None:
        """Let time go on, with all that comes due in it."""
        while self._awake and (due := self._sentinel.due_at()) is not None and due <= until:
            self._clock.advance(max(0, due - self._clock.now()) / 1e6)
            ctx = self._context()
            await self._sentinel.on_time(ctx)
            await self._decided(ctx)
        self._clock.advance((until - self._clock.now()) / 1e6)

    async def _work(self) -> None:
        while self._awake and (batch := await events.after(self._store, self._position, self._batch_size)):
            wanted = [each for each in batch if self._sentinel.filter_item(each)]
            ctx = self._context()
            await self._sentinel.process_batch(wanted, ctx)
            self._position = batch[-1].id
            await self._decided(ctx)

    async def _decided(self, ctx: ProcessorContext) -> None:
        self._pending.extend(ctx.decisions)
        if self._pending:
            await self._commit()

    async def _commit(self) -> None:
        def unit(tx: Any) -> None:
            cursors.move(tx, self._cursor, self._position, self._clock.now())
            assert record(tx, self._pending) == 0

        await self._store.write(unit)
        self._pending = Decisions()

    def _context(self) -> ProcessorContext:
        return ProcessorContext(self._clock, cause_id=None, idempotency_key="", attempt=1)


def histories(types: list[str], gaps: list[float], late: list[float]) -> st.SearchStrategy[list[Happening]]:
    """Random histories with times at and around the edges."""
    step = st.tuples(
        st.sampled_from(types), st.sampled_from("ab"), st.sampled_from(gaps), st.sampled_from(late),
        st.sampled_from([0, 4, 5, 6]), st.sampled_from(["", "", "", "crash", "pause", "start"]),
    )  # fmt: skip

    def build(steps: list[tuple[str, str, float, float, float, str]]) -> list[Happening]:
        recorded_at, built = NOON, []
        for type_, subject, gap, lateness, value, before in steps:
            recorded_at += round(gap * 1e6)
            at = recorded_at - round(lateness * 1e6)
            built.append(Happening(type_, subject, at, recorded_at, value, before))
        return built

    return st.lists(step, max_size=25).map(build)


GAPS = [0, 0.1, 1, 4, 9.9, 10 - 1e-6, 10, 10 + 1e-6, 10.2, 10.3, 10.300001, 10.4, 15, 40]
LATE = [0, 0, 0, 0.2, 0.3, 5, 12, 30]


def own(history: Sequence[Happening]) -> Iterator[tuple[str, list[Happening]]]:
    """The history of each subject, without what is older than something that came before it."""
    for subject in sorted({each.subject for each in history}):
        newest, kept = 0, []
        for each in history:
            if each.subject == subject and each.at >= newest:
                newest = each.at
                kept.append(each)
        yield subject, kept


def absence_model(history: Sequence[Happening], until: int, known: dict[str, int]) -> list[Told]:
    """At every moment: is the newest event, of those that happened by then and were heard of soon after, too old?

    Moments are counted in halves of microseconds, so that there is one between a deadline and what comes right after.
    """
    told: list[Told] = []
    mine = dict(own(history))
    for subject in {*mine, *known}:
        heard = [(each.at, max(each.at, each.recorded_at - IN_FLIGHT)) for each in mine.get(subject, [])]
        if subject in known:
            heard.insert(0, (known[subject], known[subject]))
        since = None
        for half in sorted({2 * seen for _, seen in heard} | {2 * (at + LIMIT) + 1 for at, _ in heard}):
            there = [at for at, seen in heard if 2 * seen <= half]
            if half > 2 * (until - IN_FLIGHT) or not there:
                continue
            stale = half - 2 * max(there) > 2 * LIMIT
            if stale and since is None:
                since = max(there) + LIMIT
                told.append(("violated", subject, since, since))
            elif not stale and since is not None:
                fresh = next(at for at, seen in heard if 2 * seen == half and half - 2 * at <= 2 * LIMIT)
                told.append(("resolved", subject, since, max(fresh, since)))
                since = None
    return sorted(told)


def deadline_model(history: Sequence[Happening], until: int) -> list[Told]:
    """For each question that isn't open already: which is the first answer after it, and was it in time?"""
    told: list[Told] = []
    for subject, mine in own(history):
        position = 0
        while position < len(mine):
            if mine[position].type != "opened":
                position += 1
                continue
            deadline = mine[position].at + LIMIT
            answers = [index for index in range(position, len(mine)) if mine[index].type == "closed"]
            answer = mine[answers[0]] if answers else None
            heard = until - IN_FLIGHT if answer is None else max(answer.at, answer.recorded_at - IN_FLIGHT)
            if deadline < heard:
                told.append(("violated", subject, deadline, deadline))
                if answer is not None:
                    told.append(("resolved", subject, deadline, max(answer.at, deadline)))
            position = answers[0] + 1 if answers else len(mine)
    return sorted(told)


def threshold_model(history: Sequence[Happening], until: int, seconds: int, clear_seconds: int) -> list[Told]:
    """Second by second: what is the value, and for how long has it been bad, or good?"""
    told: list[Told] = []
    for subject, mine in own(history):
        bad_from = good_from = violated_from = None
        for now in range(NOON, until + 1, 1_000_000):
            if violated_from is None and bad_from is not None and now > bad_from + seconds * 1_000_000:
                violated_from = bad_from + seconds * 1_000_000
                told.append(("violated", subject, violated_from, violated_from))
            if violated_from is not None and good_from is not None and now > good_from + clear_seconds * 1_000_000:
                told.append(("resolved", subject, violated_from, good_from + clear_seconds * 1_000_000))
                violated_from = bad_from = good_from = None
            for each in mine:
                if each.at != now:
                    continue
                if violated_from is None:
                    bad_from = None if each.value <= 5 else now if bad_from is None else bad_from
                    if bad_from is not None and not seconds:
                        violated_from = now
                        told.append(("violated", subject, now, now))
                else:
                    good_from = None if each.value >= 5 else now if good_from is None else good_from
                    if good_from is not None and not clear_seconds:
                        told.append(("resolved", subject, violated_from, now))
                        violated_from = bad_from = good_from = None
    return sorted(told)


def play(mapping: dict[str, Any], history: Sequence[Happening], batch_size: int, until: int) -> list[Told]:
    """What the Sentinel says to a history."""

    async def run() -> list[Told]:
        return await Appliance(mapping, batch_size).play(history, until)

    return asyncio.run(run())


def end_of(history: Sequence[Happening], after: float) -> int:
    """A time after the history."""
    return (history[-1].recorded_at if history else NOON) + round(after * 1e6)


@settings(max_examples=150, deadline=None)
@given(histories(["reading", "noise"], GAPS, LATE), st.sampled_from([1, 3, 100]), st.sampled_from([1, 10.2, 60]))
def test_absence(history: list[Happening], batch_size: int, after: float) -> None:
    until = end_of(history, after)
    known = {**ABSENCE, "every": "8s", "grace": "2s", "known": ["a", "k"]}
    wanted = [each for each in history if each.type == "reading" and each.at >= NOON]
    quiet = [each for each in history if each.type != "reading" or each.at >= NOON]
    assert play(known, quiet, batch_size, until) == absence_model(wanted, until, {"a": NOON, "k": NOON})


@settings(max_examples=150, deadline=None)
@given(histories(["opened", "closed"], GAPS, LATE), st.sampled_from([1, 3, 100]), st.sampled_from([1, 10.2, 60]))
def test_deadline(history: list[Happening], batch_size: int, after: float) -> None:
    until = end_of(history, after)
    assert play(DEADLINE, history, batch_size, until) == deadline_model(history, until)


@settings(max_examples=150, deadline=None)
@given(
    histories(["reading"], [0, 1, 2, 9, 10, 11, 30], [0]),
    st.sampled_from([1, 3, 100]),
    st.sampled_from([(0, 0), (10, 0), (0, 10), (10, 10)]),
)
def test_threshold(history: list[Happening], batch_size: int, seconds: tuple[int, int]) -> None:
    until = end_of(history, 20)
    for_, clear_for = seconds
    mapping = {**THRESHOLD, "for": f"{for_}s", "clear": {"below": 5, "for": f"{clear_for}s"}}
    assert play(mapping, history, batch_size, until) == threshold_model(history, until, for_, clear_for)


def test_the_models_see_what_they_are_for() -> None:
    # Otherwise a model that never says anything would agree with a Sentinel that never says anything.
    opened = Happening("opened", "a", NOON, NOON, 0, "")
    closed = Happening("closed", "a", micro(20), micro(20), 0, "crash")
    expected = [("resolved", "a", micro(10), micro(20)), ("violated", "a", micro(10), micro(10))]
    assert deadline_model([opened, closed], micro(60)) == expected
    assert play(DEADLINE, [opened, closed], 1, micro(60)) == expected
