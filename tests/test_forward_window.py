"""Newest first: every event is sent, and once if nothing crashes, whatever fails and however often it restarts."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forwarding import Site, add
from support.forwarding import settings as forward_settings

from edgeq.clock import Clock
from edgeq.forward.processor import Forward
from edgeq.forward.target import Away, Refused
from edgeq.forward.window import RANGES_MAX, Window
from edgeq.processors.processor import NotYet, ProcessorContext
from edgeq.store import events
from edgeq.store.decisions import Decisions
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Tx
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock

CHOSEN = "alarm"


class Gateway:
    """A forwarder and what a runner does with it: what it decided is on disk with its position, or forgotten."""

    def __init__(self, store: SqliteStore, site: Site) -> None:
        self.store = store
        self.site = site
        self.clock = FakeClock()
        self.position = self.durable = 0
        self.pending = Decisions()
        self.choice = [CHOSEN]
        self.letters: set[int] = set()

    async def start(self) -> None:
        """With what is on disk."""
        self.position, self.pending = self.durable, Decisions()
        made = forward_settings(batch_size=4, newest_first=self.choice)
        self.forward = Forward("cloud", made, self.site, "gw", Metrics(), self.clock)
        await self.forward.opened(self.store, self.position)

    async def step(self) -> bool:
        """One turn; False when there is nothing to do."""
        batch = await events.after(self.store, self.position, 4)
        if not batch:
            return False
        ctx = ProcessorContext(self.clock, cause_id=None, idempotency_key="", attempt=1)
        try:
            await self.forward.process_batch(batch, ctx)
            self.position = batch[-1].id
        except NotYet as pause:
            self.position = pause.done_to or self.position
        self.pending.extend(ctx.decisions)
        return True

    async def commit(self) -> None:
        """What was decided, and the position, in one."""
        units = self.pending.lazily
        self.letters |= {letter.event_id or 0 for letter in self.pending.dead_letters}
        self.pending = Decisions()

        def unit(tx: Tx) -> None:
            for each in units:
                each(tx)

        await self.store.write(unit)
        self.durable = self.position


def parcels_are_in_order(site: Site) -> None:
    assert all(list(parcel) == sorted(parcel) for parcel in site.parcels)


ops = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 9), st.booleans()),
        st.tuples(st.sampled_from(["step", "step", "step", "commit", "restart", "crash", "away", "refuse"])),
    ),
    max_size=40,
)


@settings(max_examples=30)
@given(ops)
def test_every_event_is_sent_and_once_unless_something_crashes(steps: list[tuple[object, ...]]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(str(Path(folder) / "edgeq.db"), metrics=Metrics(), clock=Clock())
            await store.open()
            try:
                await run(store)
            finally:
                await store.close()

    async def run(store: SqliteStore) -> None:
        site = Site()
        gateway = Gateway(store, site)
        await gateway.start()
        crashed = False
        for step in steps:
            match step:
                case ("add", int(count), chosen):
                    await add(store, count, CHOSEN if chosen else "reading")
                case ("step",):
                    await gateway.step()
                case ("commit",):
                    await gateway.commit()
                case ("restart",):
                    await gateway.commit()
                    await gateway.start()
                case ("crash",):
                    crashed = True
                    await gateway.start()
                case ("away",):
                    site.answers.append(Away("not now"))
                case ("refuse",):
                    site.answers.append(Refused("no", too_large=True))
        site.answers.clear()
        while await gateway.step():
            pass
        await gateway.commit()
        expected = list(range(1, await events.head(store) + 1))
        assert sorted(set(site.ids) | gateway.letters) == expected
        parcels_are_in_order(site)
        if not crashed:
            assert sorted([*site.ids, *gateway.letters]) == expected, "sent twice"

    asyncio.run(play())


@pytest.fixture
async def gateway(tmp_path: Path):  # type: ignore[no-untyped-def]
    store = SqliteStore(str(tmp_path / "edgeq.db"), metrics=Metrics(), clock=Clock())
    await store.open()
    made = Gateway(store, Site())
    yield made
    await store.close()


async def backlog(gateway: Gateway) -> None:
    """Three alarms among twenty readings: 7, 14 and 21."""
    for _ in range(3):
        await add(gateway.store, 6)
        await add(gateway.store, 1, CHOSEN)


async def test_alarms_go_first_and_the_rest_after_them_oldest_first(gateway: Gateway) -> None:
    await backlog(gateway)
    await gateway.start()
    while await gateway.step():
        pass
    rest = [number for number in range(1, 22) if number not in (7, 14, 21)]
    assert gateway.site.parcels[0] == (7, 14, 21)
    assert gateway.site.ids[3:] == rest


async def test_of_many_alarms_the_newest_go_first(gateway: Gateway) -> None:
    await add(gateway.store, 10, CHOSEN)
    await gateway.start()
    while await gateway.step():
        pass
    assert gateway.site.parcels == [(7, 8, 9, 10), (3, 4, 5, 6), (1, 2)]


async def test_one_that_comes_meanwhile_goes_before_all(gateway: Gateway) -> None:
    await add(gateway.store, 10, CHOSEN)
    await gateway.start()
    await gateway.step()
    await add(gateway.store, 1, CHOSEN)
    while await gateway.step():
        pass
    assert gateway.site.parcels == [(7, 8, 9, 10), (11,), (3, 4, 5, 6), (1, 2)]


async def test_what_went_first_is_remembered_over_a_restart(gateway: Gateway) -> None:
    await backlog(gateway)
    await gateway.start()
    await gateway.step()
    await gateway.commit()
    await gateway.start()
    while await gateway.step():
        pass
    assert sorted(gateway.site.ids) == list(range(1, 22))


async def test_a_cursor_that_is_moved_back_sends_all_again(gateway: Gateway) -> None:
    await backlog(gateway)
    await gateway.start()
    for _ in range(3):
        await gateway.step()
    await gateway.commit()
    assert gateway.durable > 0
    gateway.site.parcels.clear()
    gateway.durable = 0  # edgeq processors seek cloud --to start
    await gateway.start()
    while await gateway.step():
        pass
    assert sorted(gateway.site.ids) == list(range(1, 22))


async def test_with_other_types_chosen_nothing_is_taken_for_sent(gateway: Gateway) -> None:
    await backlog(gateway)
    await gateway.start()
    await gateway.step()
    await gateway.commit()
    gateway.choice = ["reading"]
    await gateway.start()
    while await gateway.step():
        pass
    assert set(gateway.site.ids) == set(range(1, 22))


async def test_nothing_is_remembered_once_it_has_caught_up(gateway: Gateway) -> None:
    await backlog(gateway)
    await gateway.start()
    while await gateway.step():
        pass
    await gateway.commit()
    await add(gateway.store, 1, CHOSEN)
    await gateway.step()
    assert not gateway.pending.lazily


def test_what_is_owed_beyond_the_cursor_stays_owed() -> None:
    window = Window(0).looked(10).sent_down_to(8).moved(5)
    assert [number for number in range(6, 11) if window.covers(number)] == [9, 10]


def test_ranges_are_bounded() -> None:
    window = Window(0)
    for head in range(10, 10_000, 10):
        window = window.looked(head)
        if window.owed[-1][1] == head:
            window = window.sent_down_to(head - 1)
    assert len(window.owed) == RANGES_MAX
    assert not window.covers(9_999), "what is beyond them has its turn in order"
