"""What becomes of states and open violations when contracts are changed or gone, and of what the Sentinel finds at its
start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, contracts_of
from support.stores import Database
from support.watching import Bench, watching

from edgeq.processors.processor import ProcessorContext
from edgeq.processors.sentinel import Sentinel, close_all
from edgeq.store import contract_states
from edgeq.store.contract_states import ContractState
from edgeq.store.decisions import record
from edgeq.testing.clock import NOON


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    """A bench on a fresh store."""
    async with watching(database) as bench:
        yield bench


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

    @pytest.mark.parametrize(
        "keys",
        [{"where": {"unit": "C"}}, {"of": "other"}, {"by": "data.id"}, {"subject": "b*"}],
    )
    async def test_what_means_something_else_now_is_closed(self, bench: Bench, keys: dict[str, Any]) -> None:
        await bench.start(THRESHOLD)
        await bench.hear(value=7)
        await bench.start({**THRESHOLD, **keys})
        assert await bench.states() == []
        assert [(each.type, each.data.get("reason")) for each in await bench.told()] == [
            ("contract.violated", None), ("contract.resolved", "changed"),
        ]  # fmt: skip

    async def test_a_composite_gives_up_a_subject_that_none_of_its_parts_has_any_more(self, bench: Bench) -> None:
        parts = [{**THRESHOLD, "name": name, "of": name} for name in ("cold", "open")]
        whole = {"name": "whole", "kind": "composite", "any_of": ["cold", "open"]}
        above = {"name": "above", "kind": "composite", "not": "whole"}
        everything = {"name": "everything", "kind": "composite", "any_of": ["cold", "open"], "over": "all"}
        await bench.start(above, whole, everything, *parts)
        await bench.hear("cold", subject="x", value=7)
        await bench.hear("open", subject="y", value=7)
        narrow = [{**parts[0], "subject": "a"}, {**parts[1], "subject": "y"}]
        await bench.start(above, whole, everything, *narrow)
        told = await bench.told()
        ended = [(each.data["contract"], each.subject) for each in told if each.data.get("reason") == "changed"]
        assert sorted(ended) == [("cold", "x"), ("whole", "x")]
        assert await bench.states() == [
            ("above", "y", "ok"), ("everything", "", "violated"), ("open", "y", "violated"), ("whole", "y", "violated"),
        ]  # fmt: skip
        await bench.hear("cold", subject="a", value=7)
        assert [(each.data["contract"], each.subject) for each in (await bench.told())[len(told) :]] == [
            ("cold", "a"), ("whole", "a"),
        ]  # fmt: skip

    async def test_a_composite_keeps_a_subject_that_a_part_begins_with(self, bench: Bench) -> None:
        whole = {"name": "whole", "kind": "composite", "any_of": ["reports"]}
        await bench.start(ABSENCE, whole)
        await bench.hear(subject="a")
        await bench.at(11)
        await bench.start({**ABSENCE, "of": "other", "known": ["a"]}, whole)
        assert await bench.states() == [("reports", "a", "unknown"), ("whole", "a", "violated")]

    @pytest.mark.parametrize(
        "keys",
        [
            {"message": "{data.value}!"}, {"severity": "critical"}, {"description": "x"}, {"cooldown": "1h"},
            {"remind": "1h"}, {"flapping": {"changes": 3, "within": "1h"}}, {"lateness": "1h"}, {"for": "1m"},
            {"valid_until": "2030-01-01"}, {"subject": "a*"}, {"suppressed_by": ["link"]},
        ],
    )  # fmt: skip
    async def test_what_means_the_same_is_kept(self, bench: Bench, keys: dict[str, Any]) -> None:
        await bench.start(THRESHOLD)
        await bench.hear(value=7)
        await bench.start({**THRESHOLD, **keys})
        assert await bench.states() == [("cold", "a", "violated")]
        await (await bench.at(5)).hear(value=3)
        await bench.start(THRESHOLD)
        assert [each.type for each in await bench.told()] == ["contract.violated", "contract.resolved"]

    async def test_other_subjects_are_another_meaning_for_what_is_made_of_a_field(self, bench: Bench) -> None:
        by_field = {**ABSENCE, "by": "data.value"}
        await bench.start(by_field)
        await bench.hear(value=7)
        await bench.start({**by_field, "severity": "critical"})
        assert await bench.states() == [("reports", "7", "ok")]
        await bench.start({**by_field, "subject": "b*"})
        assert await bench.states() == []

    async def test_the_order_in_which_keys_are_written_means_nothing(self, bench: Bench) -> None:
        one = {"unit": {"exists": False}, "value": {"above": 1, "below": 9}}
        other = {"value": {"below": 9, "above": 1}, "unit": {"exists": False}}
        await bench.start({**THRESHOLD, "where": one})
        await bench.hear(value=7)
        await bench.start({**THRESHOLD, "where": other})
        assert await bench.states() == [("cold", "a", "violated")]

    async def test_the_log_says_once_what_becomes_of_states(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "edgeq.sentinel")
        silent = {**ABSENCE, "known": ["a", "b"]}
        await bench.start(THRESHOLD, silent, DEADLINE)
        await bench.hear(value=7)
        for _ in range(2):
            await bench.start({**THRESHOLD, "where": {"unit": "C"}}, {**silent, "every": "20s"})
        await bench.start({**silent, "every": "20s"})
        assert [record.getMessage() for record in caplog.records] == [
            "contract cold was changed: one of its states is closed",
            "contract reports was changed: 2 of its states are kept",
        ]
        await bench.start()
        assert [record.getMessage() for record in caplog.records][2:] == [
            "contract reports was removed: 2 of its states are closed",
        ]

    async def test_what_was_told_and_is_held_back_is_closed_too(self, bench: Bench) -> None:
        quiet = {**THRESHOLD, "suppressed_by": ["power"]}
        power = {**THRESHOLD, "name": "power", "of": "power"}
        await bench.start(quiet, power)
        await bench.hear(value=7)
        await (await bench.at(5)).hear("power", subject="p", value=7)
        await (await bench.at(6)).hear(value=3)
        assert await bench.states() == [("cold", "a", "suppressed"), ("power", "p", "violated")]
        await bench.start(power)
        told = (await bench.told())[-1]
        assert (told.type, told.data["episode"], told.data["since"], told.data["reason"]) == (
            "contract.resolved", 1, NOON, "removed",
        )  # fmt: skip

    async def test_what_was_never_told_ends_without_a_word(self, bench: Bench) -> None:
        cool = {**THRESHOLD, "cooldown": "1h"}
        await bench.start(cool)
        for value in (7, 3, 7):
            await bench.hear(value=value)
        assert await bench.states() == [("cold", "a", "pending")]
        await bench.start()
        assert len(await bench.told()) == 2

    async def test_what_flaps_is_closed(self, bench: Bench) -> None:
        await bench.start({**THRESHOLD, "flapping": {"changes": 2, "within": "1h"}})
        for value in (7, 3):
            await bench.hear(value=value)
        await bench.start()
        assert [each.type for each in await bench.told()][1:] == ["contract.flapping", "contract.resolved"]


async def test_what_is_found_at_the_start_moves_with_the_cursor(bench: Bench) -> None:
    await bench.start(THRESHOLD)
    await bench.hear(value=7)
    before = await contract_states.every(bench.store)
    sentinel = Sentinel(contracts_of({**ABSENCE, "known": ["k"]}), bench.metrics, bench.clock)
    await sentinel.opened(bench.store, bench.position)
    assert await contract_states.every(bench.store) == before
    assert len(await bench.told()) == 1
    assert sentinel.due_at() == bench.clock.now()
    ctx = ProcessorContext(bench.clock, cause_id=None, idempotency_key="", attempt=1)
    await sentinel.on_time(ctx)
    assert ctx.decisions, "it doesn't wait for anything else"
    await bench.store.write(lambda tx: record(tx, ctx.decisions))
    assert await bench.states() == [("reports", "k", "unknown")]
    assert len(await bench.told()) == 2
    assert sentinel.due_at() != bench.clock.now()


async def test_without_contracts_all_is_closed(bench: Bench) -> None:
    await bench.start(THRESHOLD)
    await bench.hear(value=7)
    for _ in range(2):
        await close_all(bench.store, bench.metrics, bench.clock)
    assert await bench.states() == []
    assert [each.type for each in await bench.told()] == ["contract.violated", "contract.resolved"]
    assert bench.metrics.events.total() == 2


async def test_a_start_at_which_nothing_has_changed_writes_nothing(bench: Bench) -> None:
    mappings = [THRESHOLD, {**ABSENCE, "known": ["k"], "active": {"days": "mon-fri"}, "remind": "1h"}]
    await bench.start(*mappings)
    await bench.hear(value=7)
    sentinel = Sentinel(contracts_of(*mappings), bench.metrics, bench.clock)
    await sentinel.opened(bench.store, bench.position)
    ctx = ProcessorContext(bench.clock, cause_id=None, idempotency_key="", attempt=1)
    await sentinel.on_time(ctx)
    assert not ctx.decisions
    assert not ctx.decisions.lazily
