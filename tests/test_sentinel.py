"""The Sentinel on a real store: what it keeps, what it tells, and what becomes of it over restarts and changes."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, contracts_of, micro
from support.stores import Database
from support.watching import SOON, Bench, watching

from edgeq.contracts.judge import Judge
from edgeq.events import Event, from_json
from edgeq.processors.processor import ProcessorContext
from edgeq.store import contract_states
from edgeq.store.contract_states import ContractState
from edgeq.testing.clock import NOON


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    """A bench on a fresh store."""
    async with watching(database) as bench:
        yield bench


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
    (counted,) = await contract_states.counts(bench.store)
    assert counted == {"contract": "cold", "violated": 1, "violated_at": NOON, "violated_subject": "a"}
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
    assert len(ctx.decisions.lazily) == 2  # the state, and the clock by which its times are told


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


async def test_a_contract_that_takes_no_new_subjects_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgeq.contracts.turn.INSTANCES_MAX", 3)
    await bench.start(THRESHOLD, {**ABSENCE, "known": ["a"]})
    for subject in "abcd":
        await bench.hear(value=1, subject=subject)
    told = [message for message in caplog.messages if "takes no new subjects" in message]
    assert [message.split(", and skips")[0] for message in told] == [
        "contract reports takes no new subjects", "contract cold takes no new subjects",
    ]  # fmt: skip
    assert "together have 3, which is the most, and 1 of them are its own" in told[0]
    assert bench.metrics.skipped.values["too_many_subjects"] == 5


async def test_what_cannot_be_judged_is_counted(bench: Bench) -> None:
    await bench.start(THRESHOLD, {**ABSENCE, "known": ["a"]})
    await bench.hear(value="warm")
    await bench.hear(value=3, occurred=99)
    await bench.hear(value=4, occurred=-1)
    assert bench.sentinel.skipped == {
        "cold": {"not_a_number": 1, "future_timestamp": 1, "late": 1}, "reports": {"future_timestamp": 1, "late": 1},
    }  # fmt: skip
    last = bench.sentinel.last_skipped["cold"]
    assert (last.reason, last.event_id, last.subject) == ("late", 3, "a")
    assert bench.metrics.contract_skipped.values == {"cold": 3, "reports": 2}
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


async def test_many_states_are_stored_and_found(bench: Bench) -> None:
    states = [ContractState(f"c{n % 2}", f"s{n:04}", "ok", n, None, 0, "{}") for n in range(1234)]
    await bench.store.write(lambda tx: contract_states.put(tx, states))
    changed = [ContractState("c0", f"s{n:04}", "violated", 7, 8, 9, "[1]") for n in range(0, 1234, 2)]
    await bench.store.write(lambda tx: contract_states.put(tx, changed))
    found = await contract_states.every(bench.store)
    assert found == sorted([*changed, *states[1::2]], key=lambda each: (each.contract, each.subject))
    assert await contract_states.counts(bench.store) == [
        {"contract": "c0", "violated": 617, "violated_at": 7, "violated_subject": "s0000"},
        {"contract": "c1", "ok": 617},
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


def test_a_turn_leaves_nothing_to_the_collector() -> None:
    """Each turn holds what it changed: many of them would be much."""
    judge = Judge(contracts_of(THRESHOLD))
    with judge.turn() as turn:
        turn.elapse(NOON)
    gone = weakref.ref(turn)
    del turn
    assert gone() is None
