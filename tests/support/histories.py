"""Histories of events for tests of single kinds, and a judge that is restarted between any two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeq.contracts.instance import Instance, Verdict
from edgeq.contracts.judge import Judge
from edgeq.contracts.turn import IN_FLIGHT_SECONDS
from edgeq.testing.clock import NOON
from support.contracts import Story, event

IN_FLIGHT = round(IN_FLIGHT_SECONDS * 1e6)

Told = tuple[str, int, int]  # what, since, at


@dataclass(frozen=True)
class Happened:
    """One event of a history."""

    at: int
    recorded_at: int
    value: Any = 0


def chances() -> st.SearchStrategy[Iterator[bool]]:
    """Endless random answers, mostly no."""
    return st.randoms(use_true_random=False).map(lambda random: iter(lambda: random.random() < 0.3, None))


def histories(
    gaps: Sequence[float], late: Sequence[float], values: Sequence[Any] = (0,)
) -> st.SearchStrategy[list[Happened]]:
    """Random histories with times at and around the edges, in seconds. Nothing happens before `NOON`."""
    steps = st.tuples(st.sampled_from(gaps), st.sampled_from(late), st.sampled_from(values))

    def build(drawn: list[tuple[float, float, Any]]) -> list[Happened]:
        recorded_at, built = NOON, []
        for gap, lateness, value in drawn:
            recorded_at += round(gap * 1e6)
            built.append(Happened(max(NOON, recorded_at - round(lateness * 1e6)), recorded_at, value))
        return built

    return st.lists(steps, max_size=25).map(build)


def through_json(judge: Judge, now: int) -> Judge:
    """The judge after a restart: with what was stored of it."""
    contracts = list(judge.contracts.values())
    stored = []
    for (name, _), instance in judge.instances.items():
        memory = msgspec.json.decode(msgspec.json.encode(instance.memory), type=judge.contracts[name].memory_type)
        assert memory == instance.memory
        stored.append((name, replace(instance, memory=memory)))
    restarted = Judge(contracts)
    restarted.load(stored, now)
    assert restarted.instances == judge.instances
    return restarted


def told_of(mapping: Mapping[str, Any], history: Sequence[Happened], until: int, chance: Iterator[bool]) -> list[Told]:
    """See `tell`: only what it says."""
    return tell(mapping, history, until, chance)[0]


def tell(
    mapping: Mapping[str, Any], history: Sequence[Happened], until: int, chance: Iterator[bool]
) -> tuple[list[Told], Judge]:
    """What the contract says to the history when time goes on to `until`, all in flight included, and the judge as it
    stands then. `chance` says whether it is restarted before an event and before the end, and whether anybody looked at
    the clock before an event."""
    judge = Story(mapping).judge
    (contract,) = judge.contracts.values()
    judge.load([(contract.name, instance) for instance in contract.initial(NOON)], NOON)
    told: list[Told] = []

    def hear(verdicts: Sequence[tuple[Any, Instance, Verdict]]) -> None:
        told.extend((verdict.what, verdict.since, verdict.at) for _, _, verdict in verdicts)

    now = NOON
    for index, each in enumerate(history):
        if next(chance):
            judge = through_json(judge, now)
        now = each.recorded_at
        if next(chance):
            with judge.turn() as turn:
                turn.elapse(now)
            hear(turn.verdicts)
        with judge.turn() as turn:
            recorded, occurred = ((moment - NOON) / 1e6 for moment in (each.recorded_at, each.at))
            happened = event(index + 1, recorded=recorded, occurred=occurred, data={"value": each.value})
            assert (happened.recorded_at, happened.occurred_at) == (each.recorded_at, each.at)
            turn.observe(happened, trusted=True)
        hear(turn.verdicts)
    if next(chance):
        judge = through_json(judge, now)
    with judge.turn() as turn:
        turn.elapse(until + IN_FLIGHT)
    hear(turn.verdicts)
    return told, judge


def end_of(history: Sequence[Happened], after: float) -> int:
    """The moment so many seconds after the history."""
    return (history[-1].recorded_at if history else NOON) + round(after * 1e6)
