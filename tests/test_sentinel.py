"""The Sentinel on a real store: what it keeps, what it tells, and what becomes of it over restarts and changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, contracts_of, micro

from edgeq.contracts.link import Link
from edgeq.contracts.turn import IN_FLIGHT_SECONDS
from edgeq.events import Event, NewEvent, from_json, to_json
from edgeq.processors.processor import ProcessorContext
from edgeq.processors.sentinel import SETTLE_SECONDS, Sentinel
from edgeq.store import contract_states, events
from edgeq.store.contract_states import ContractState
from edgeq.store.decisions import count, record
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON, FakeClock

SOON = IN_FLIGHT_SECONDS + 1e-6


class FakeLink:
    """A link that is as a test says. Times are seconds after NOON."""

    def __init__(self, settled: float | None) -> None:
        self.settled = settled

    def settled_at(self) -> int | None:
        """See Link."""
        return None if self.settled is None else micro(self.settled)


class Bench:
    """A store, a clock and a Sentinel at work, without its runner."""

    def __init__(self, store: SqliteStore, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.metrics = Metrics()
        self.position = 0

    async def start(self, *mappings: dict[str, Any], link: Link | None = None) -> Bench:
        """A new Sentinel takes over."""
        self.sentinel = Sentinel(contracts_of(*mappings), self.metrics, self.clock, link)
        await self.sentinel.opened(self.store, self.position)
        assert self.sentinel.due_at() == self.clock.now()
        if not any(map(self.sentinel.filter_item, await events.after(self.store, self.position, 1000))):
            await self._on_time()
        return self

    async def at(self, seconds: float) -> Bench:
        """Let it become that many seconds after NOON, and what is due by then happen."""
        self.clock.advance(seconds - (self.clock.now() - NOON) / 1e6)
        due = self.sentinel.due_at()
        if due is not None and due <= self.clock.now():
            await self._on_time()
        return self

    async def hear(self, type: str = "reading", *, occurred: float | None = None, **rest: Any) -> Bench:  # noqa: A002
        """Record an event now, and have everything processed that waits."""
        await self.miss(type, occurred=occurred, **rest)
        return await self.catch_up()

    async def miss(
        self,
        type: str = "reading",  # noqa: A002
        *,
        occurred: float | None = None,
        subject: str = "a",
        value: Any = 0,
    ) -> Bench:
        """Record an event now that waits to be processed."""
        now = self.clock.now()
        at = now if occurred is None else micro(occurred)
        new = NewEvent(type, subject=subject, occurred_at=at, recorded_at=now, data_json=to_json({"value": value}))
        await self.store.write(lambda tx: events.append(tx, [new]))
        return self

    async def catch_up(self) -> Bench:
        """Process what waits."""
        batch = await events.after(self.store, self.position, 1000)
        wanted = [each for each in batch if self.sentinel.filter_item(each)]
        ctx = self._context()
        if wanted:
            counted = self.metrics.skipped.total()
            await self.sentinel.process_batch(wanted, ctx)
            assert self.metrics.skipped.total() == counted, "nothing is committed yet"
        count(self.metrics, ctx.decisions, await self.store.write(lambda tx: record(tx, ctx.decisions)))
        self.position = batch[-1].id
        return self

    async def told(self) -> list[Event]:
        """The verdicts so far."""
        found = await events.after(self.store, 0, 1000)
        return [each for each in found if each.type.startswith("contract.")]

    async def words(self) -> list[str]:
        """The verdicts so far, in words."""
        return [each.description for each in await self.told()]

    async def states(self) -> list[tuple[str, str, str]]:
        """What stands in the table."""
        return [(each.contract, each.subject, each.state) for each in await contract_states.every(self.store)]

    async def _on_time(self) -> None:
        ctx = self._context()
        await self.sentinel.on_time(ctx)
        count(self.metrics, ctx.decisions, await self.store.write(lambda tx: record(tx, ctx.decisions)))

    def _context(self) -> ProcessorContext:
        return ProcessorContext(self.clock, cause_id=None, idempotency_key="", attempt=1)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench on a fresh store."""
    clock = FakeClock(NOON)
    store = SqliteStore(str(tmp_path / "edgeq.db"), metrics=Metrics(), clock=clock)
    await store.open()
    yield Bench(store, clock)
    await store.close()


async def test_a_verdict_is_an_event_and_a_state(bench: Bench) -> None:
    await bench.start(THRESHOLD)
    await bench.hear(value=7)
    (told,) = await bench.told()
    assert (told.type, told.subject, told.tags, told.cause_id) == (
        "contract.violated",
        "a",
        ("contract", "notification"),
        1,
    )
    assert told.data["observed"] == 7
    (state,) = await contract_states.every(bench.store)
    assert (state.contract, state.subject, state.state, state.since, state.episode) == (
        "cold",
        "a",
        "violated",
        NOON,
        1,
    )
    assert await contract_states.counts(bench.store) == [{"contract": "cold", "violated": 1}]
    # It doesn't judge what it said itself.
    await bench.catch_up()
    assert len(await bench.told()) == 1


async def test_events_that_no_contract_wants_are_filtered_out(bench: Bench) -> None:
    await bench.start(THRESHOLD, DEADLINE)
    wanted = [bench.sentinel.filter_item(Event(1, type_, "", None, "{}", "[]", "", 0, 0, None, None))
              for type_ in ("reading", "opened", "closed", "noise", "contract.violated")]  # fmt: skip
    assert wanted == [True, True, True, False, False]


async def test_states_without_a_verdict_may_wait_verdicts_may_not(bench: Bench) -> None:
    await bench.start(ABSENCE)
    ctx = ProcessorContext(bench.clock, cause_id=None, idempotency_key="", attempt=1)
    await bench.sentinel.process_batch([Event(1, "reading", "a", None, "{}", "[]", "", NOON, NOON, None, None)], ctx)
    assert not ctx.decisions
    assert len(ctx.decisions.lazily) == 1


async def test_it_is_due_when_the_first_deadline_has_passed(bench: Bench) -> None:
    await bench.start(ABSENCE)
    assert bench.sentinel.due_at() is None
    await bench.hear(subject="a")
    await (await bench.at(3)).hear(subject="b")
    assert bench.sentinel.due_at() == micro(10 + SOON)
    await bench.at(10 + SOON)
    assert [each.subject for each in await bench.told()] == ["a"]
    assert bench.sentinel.due_at() == micro(13 + SOON)
    await bench.at(60)
    assert bench.sentinel.due_at() is None


async def test_a_deadline_survives_a_restart_and_passes_once(bench: Bench) -> None:
    await (await bench.start(DEADLINE)).hear("opened")
    bench.clock.advance(3600)
    for _ in range(3):
        await bench.start(DEADLINE)
        await bench.at(3601)
    (told,) = await bench.told()
    assert (told.occurred_at, told.cause_id) == (micro(10), 1)


async def test_what_came_before_the_restart_is_judged_before_the_clock(bench: Bench) -> None:
    await (await bench.start(DEADLINE)).hear("opened")
    await (await bench.at(5)).miss("closed")
    bench.clock.advance(3600)
    await bench.start(DEADLINE)
    await bench.catch_up()
    await bench.at(3700)
    assert await bench.told() == []


async def test_known_subjects_count_from_the_first_load(bench: Bench) -> None:
    known = {**ABSENCE, "known": ["x"]}
    await bench.start(known)
    assert await bench.states() == [("reports", "x", "unknown")]
    for restart in (3, 6, 9):
        bench.clock.advance(3)
        await bench.start(known)
        assert bench.sentinel.due_at() == micro(10 + SOON), restart
    await bench.at(10 + SOON)
    assert await bench.words() == ["reports: x no reading for 10s (never seen)"]


class TestLink:
    """Nothing is judged absent while nobody can be heard."""

    async def test_no_deadline_passes_without_a_link(self, bench: Bench) -> None:
        link = FakeLink(None)
        await bench.start(ABSENCE, link=link)
        await bench.hear()
        await bench.at(3600)
        assert await bench.told() == []
        assert bench.sentinel.due_at() == micro(3600 + SETTLE_SECONDS)  # it looks again
        link.settled = 3600
        await bench.at(3600 + SETTLE_SECONDS - 1e-6)
        assert await bench.told() == []
        await bench.at(3600 + SETTLE_SECONDS)
        assert [each.occurred_at for each in await bench.told()] == [micro(10)]

    async def test_the_backlog_at_the_broker_comes_first(self, bench: Bench) -> None:
        link = FakeLink(-100)
        await bench.start(ABSENCE, link=link)
        await bench.hear(subject="a")
        await bench.hear(subject="b")
        link.settled = None
        await (await bench.at(3600)).hear(subject="a")
        assert await bench.told() == []
        link.settled = 3601
        await bench.at(3603)
        await bench.hear(subject="b")  # the last of the backlog, after the link looked settled
        await bench.at(3608)
        assert await bench.told() == []

    async def test_a_restart_waits_for_the_link(self, bench: Bench) -> None:
        await (await bench.start(DEADLINE, link=FakeLink(-100))).hear("opened")
        bench.clock.advance(3600)
        link = FakeLink(None)
        await bench.start(DEADLINE, link=link)
        await bench.at(3602)
        link.settled = 3602
        await bench.hear("closed")
        await bench.at(3700)
        assert await bench.told() == []

    async def test_a_bad_value_is_not_held_longer_than_it_was_heard_of(self, bench: Bench) -> None:
        link = FakeLink(-100)
        await bench.start({**THRESHOLD, "for": "10s"}, link=link)
        await bench.hear(value=6)
        link.settled = None
        await (await bench.at(60)).hear(value=6)
        assert await bench.told() == []
        await bench.hear(value=4)
        link.settled = 61
        await bench.at(3600)
        assert await bench.told() == []

    async def test_a_step_of_the_clock_is_no_settled_link(self, bench: Bench) -> None:
        link = FakeLink(None)
        await bench.start(ABSENCE, link=link)
        await bench.hear()
        link.settled = 3600
        await bench.at(3602)
        bench.clock.step(3600)
        await bench.at(7203)
        assert await bench.told() == []
        await bench.at(7205)
        assert [each.occurred_at for each in await bench.told()] == [micro(3610)]

    async def test_the_settled_time_follows_a_step_of_the_clock(self, bench: Bench) -> None:
        await bench.start(ABSENCE, link=FakeLink(0))
        await bench.hear()
        bench.clock.step(-3600)
        await bench.at(-3600 + 6)
        await bench.at(-3600 + 11)
        assert [each.occurred_at for each in await bench.told()] == [micro(-3600 + 10)]


class TestChanges:
    """What becomes of the states of contracts that are gone or changed."""

    async def test_a_removed_contract_is_closed(self, bench: Bench) -> None:
        await bench.start({**THRESHOLD, "severity": "critical"}, DEADLINE)
        await bench.hear(value=7)
        await bench.hear("opened", subject="door")
        await bench.at(5)
        await bench.start(DEADLINE)
        assert await bench.states() == [("closes", "door", "pending")]
        told = (await bench.told())[1]
        assert (told.type, told.subject) == ("contract.resolved", "a")
        assert told.description == "cold: a no longer judged: the contract was removed"
        assert told.data == {
            "contract": "cold", "kind": "threshold", "severity": "critical", "episode": 1, "since": NOON, "cause": None,
            "observed": None, "duration_seconds": 5.0, "reason": "removed",
            "message": "a no longer judged: the contract was removed",
        }  # fmt: skip
        await bench.start()
        assert await bench.states() == []
        assert len(await bench.told()) == 2
        assert bench.metrics.events.total() == 2

    async def test_a_contract_that_comes_back_is_heard_again(self, bench: Bench) -> None:
        for time in (0, 10):
            await bench.at(time) if time else None
            await bench.start(THRESHOLD)
            await bench.hear(value=7)
            await bench.start()
        assert [each.type for each in await bench.told()] == ["contract.violated", "contract.resolved"] * 2

    async def test_another_kind_of_the_same_name_begins_anew(self, bench: Bench) -> None:
        await bench.start(THRESHOLD)
        await bench.hear(value=7)
        await bench.start({**ABSENCE, "name": "cold"})
        assert (await bench.told())[-1].data["reason"] == "changed"
        assert await bench.states() == []

    async def test_another_limit_keeps_the_state(self, bench: Bench) -> None:
        await bench.start(THRESHOLD)
        await bench.hear(value=7)
        await bench.start({**THRESHOLD, "above": 6})
        assert await bench.states() == [("cold", "a", "violated")]
        await bench.hear(value=6)
        assert (await bench.words())[-1] == "cold: a resolved after 0s (observed 6)"

    async def test_a_subject_that_no_longer_belongs_to_it_goes(self, bench: Bench) -> None:
        await bench.start({**ABSENCE, "known": ["typo", "b"]})
        await bench.hear(subject="a")
        await bench.hear(subject="b")
        await bench.start({**ABSENCE, "known": ["b"]})
        assert await bench.states() == [("reports", "a", "ok"), ("reports", "b", "ok")]
        await bench.start({**ABSENCE, "subject": "b"})
        assert await bench.states() == [("reports", "b", "ok")]

    @pytest.mark.parametrize(
        "detail", ["", "nonsense", "[]", '{"kind": 7}', '{"kind": "threshold", "memory": {"newest": "x"}}']
    )
    async def test_a_damaged_row_is_closed_not_feared(self, bench: Bench, detail: str) -> None:
        row = ContractState("cold", "a", "violated", NOON - 5_000_000, None, 3, detail)
        await bench.store.write(lambda tx: contract_states.put(tx, [row]))
        await bench.start(THRESHOLD)
        (told,) = await bench.told()
        assert (told.data["episode"], told.data["reason"]) == (3, "changed")
        assert await bench.states() == []


async def test_reading_old_events_again_says_nothing_twice(bench: Bench) -> None:
    await bench.start(THRESHOLD, DEADLINE)
    await bench.hear(value=7)
    await bench.hear("opened")
    await (await bench.at(20)).hear("closed")
    await bench.hear(value=3)
    before = await bench.words()
    assert len(before) == 4
    bench.position = 0
    await bench.start(THRESHOLD, DEADLINE)
    await bench.catch_up()
    await bench.at(60)
    assert await bench.words() == before


async def test_what_cannot_be_judged_is_counted(bench: Bench) -> None:
    await bench.start(THRESHOLD, {**ABSENCE, "known": ["a"]})
    await bench.hear(value="warm")
    await bench.hear(value=3, occurred=99)
    await bench.hear(value=4, occurred=-1)
    assert bench.sentinel.skipped == {
        ("cold", "not_a_number"): 1, ("cold", "future_timestamp"): 1, ("cold", "late"): 1,
        ("reports", "future_timestamp"): 1, ("reports", "late"): 1,
    }  # fmt: skip
    assert bench.metrics.skipped.values == {"not_a_number": 1, "future_timestamp": 2, "late": 2}


async def test_a_failed_batch_can_be_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.start(THRESHOLD)
    await bench.miss(value=7)
    with monkeypatch.context() as patched:
        patched.setattr("edgeq.processors.sentinel.verdict_event", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await bench.catch_up()
    await bench.catch_up()
    assert len(await bench.told()) == 1


@pytest.mark.parametrize("step", [6 * 3600, -14 * 86400])
async def test_a_step_of_the_clock_fires_nothing_and_loses_nothing(bench: Bench, step: float) -> None:
    await bench.start(ABSENCE)
    await bench.hear()
    await bench.at(4)
    bench.clock.step(step)
    assert bench.sentinel.due_at() == micro(4 + step)  # to take note of the step
    await bench.at(step + 4)
    assert await bench.told() == []
    assert bench.sentinel.due_at() == micro(step + 10 + SOON)
    # It is kept over a restart.
    await bench.start(ABSENCE)
    await bench.at(step + 10 + SOON)
    assert [each.occurred_at for each in await bench.told()] == [micro(step + 10)]


async def test_a_clock_behind_after_a_boot_gives_the_full_period(bench: Bench) -> None:
    await (await bench.start(ABSENCE)).hear()
    bench.clock.step(-NOON / 1e6)  # 1970
    await bench.start(ABSENCE)
    assert bench.sentinel.due_at() == bench.clock.now() + 10_000_000 + round(SOON * 1e6)
    bench.clock.step(NOON / 1e6 + 3600)
    await bench.at(3609)
    assert await bench.told() == []
    await bench.at(3611)
    assert len(await bench.told()) == 1


async def test_many_states_are_stored_and_found(bench: Bench) -> None:
    states = [ContractState(f"c{n % 2}", f"s{n:04}", "ok", n, None, 0, "{}") for n in range(1234)]
    await bench.store.write(lambda tx: contract_states.put(tx, states))
    changed = [ContractState("c0", f"s{n:04}", "violated", 7, 8, 9, "[1]") for n in range(0, 1234, 2)]
    await bench.store.write(lambda tx: contract_states.put(tx, changed))
    found = await contract_states.every(bench.store)
    assert found == sorted([*changed, *states[1::2]], key=lambda each: (each.contract, each.subject))
    assert await contract_states.counts(bench.store) == [
        {"contract": "c0", "violated": 617}, {"contract": "c1", "ok": 617},
    ]  # fmt: skip
    assert await contract_states.find(bench.store, limit=2, contract="c1", state="ok") == [states[1], states[3]]
    await bench.store.write(lambda tx: contract_states.delete(tx, [(each.contract, each.subject) for each in changed]))
    assert await contract_states.find(bench.store, limit=5, state="violated") == []


async def test_odd_subjects_are_kept_as_they_are(bench: Bench) -> None:
    await bench.start(THRESHOLD)
    for subject in ("", "a b", "ü→😀", "'; DROP TABLE events", "x" * 5000, "{observed}"):
        await bench.hear(subject=subject, value=9)
    assert [each.subject for each in await bench.told()] == [
        "", "a b", "ü→😀", "'; DROP TABLE events", "x" * 5000, "{observed}",
    ]  # fmt: skip
    assert (await bench.words())[0] == "cold: value above 5 (observed 9)"
    assert from_json((await contract_states.find(bench.store, limit=1))[0].detail)["kind"] == "threshold"
