"""Kinds that count and measure (rate, count, stuck) through the Sentinel and a real store, over random histories, with
restarts, crashes, backlogs, looks at the clock and events that come twice at random points: what is told is what a slow
model says of the whole history, and that knows nothing of any of these.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from support import kind_models
from support.contracts import micro
from support.histories import Happened
from support.kind_models import Verdicts, in_order
from support.model_runs import IN_FLIGHT, Fate, end_of, expected, fates, numbered, run, scene_lists, told
from support.plays import Scene
from test_contracts_count import count_model
from test_contracts_rate import fewer_than_model, more_than_model
from test_contracts_stuck import STUCK, stuck_model

from edgeq.testing.clock import NOON

US = 1e-6
S = 1_000_000
BOUNDED = settings(max_examples=80)
BATCHES = st.sampled_from([1, 2, 5, 100])
AFTER = st.sampled_from([0.4, 10, 10.3, 10.3 + US, 100])

GAPS = [0, 0.1, 1, 3, 5 - US, 5, 5 + US, 9.9, 10 - US, 10, 10 + US, 10.3, 10.3 + US, 15, 40]
SOON = [0, 0, 0, 0.2, 0.3]
LATE = [0, 0, 0, 0, 0.2, 0.3, 1, 5, 10 - US, 10, 10 + US, 30, 60, 60 + US, 200]
HOURS = [0, 1, 60, 600, 1800, 3600 - US, 3600, 3600 + US, 7200, 25200]

RATE = {"name": "rate", "kind": "rate", "of": "reading", "within": "10s"}
COUNT = {"name": "count", "kind": "count", "of": "reading", "per": "hour", "timezone": "UTC"}


def happened(scenes: Sequence[Scene]) -> list[Happened]:
    """The same history in another form."""
    return [Happened(scene.at, scene.recorded_at, scene.data["value"]) for scene in scenes]


@BOUNDED
@given(scene_lists(["reading"], GAPS, SOON), st.sampled_from([0, 1, 2, 3]), AFTER, fates(), BATCHES)
def test_more_than(history: list[Scene], most: int, after: float, fate: list[Fate], batch_size: int) -> None:
    until = end_of(history, after)

    def model(mine: list[Scene]) -> Verdicts:
        times = [scene.at for scene in in_order(mine)]
        return kind_models.more_than(times, most, 10 * S, micro(until) - IN_FLIGHT)

    found = run([{**RATE, "more_than": most, "lateness": "0s"}], history, until, fate, batch_size)
    assert told(found) == expected(history, ["reading"], model)


@BOUNDED
@given(
    scene_lists(["reading"], GAPS, SOON), st.sampled_from([1, 2, 3]), st.booleans(), AFTER, fates(), BATCHES
)  # fmt: skip
def test_fewer_than(
    history: list[Scene], least: int, known: bool, after: float, fate: list[Fate], batch_size: int
) -> None:
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> Verdicts:
        times = [scene.at for scene in in_order(mine)]
        return kind_models.fewer_than(times, least, 10 * S, NOON if known else times[0], end)

    keys = {"fewer_than": least, "lateness": "0s", "known": ["a", "k"] if known else []}
    history = [scene for scene in history if scene.subject == "a"] if known else history
    of_k = numbered("k", kind_models.fewer_than([], least, 10 * S, NOON, end)) if known else []
    of_a = numbered("a", kind_models.fewer_than([], least, 10 * S, NOON, end)) if known and not history else []
    found = run([{**RATE, **keys}], history, until, fate, batch_size)
    assert told(found) == [*of_a, *expected(history, ["reading"], model), *of_k]


@BOUNDED
@given(
    scene_lists(["reading"], GAPS, LATE), st.booleans(), st.sampled_from([1, 2, 3]), st.sampled_from([0, 4, 60]),
    AFTER, fates(), BATCHES,
)  # fmt: skip
def test_rates_of_what_comes_late(
    history: list[Scene], more: bool, limit: int, lateness: int, after: float, fate: list[Fate], batch_size: int
) -> None:
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> Verdicts:
        if more:
            return more_than_model(happened(mine), end, limit, lateness * S)
        return fewer_than_model(happened(mine), end, limit, lateness * S, False)

    keys = {"more_than" if more else "fewer_than": limit, "lateness": f"{lateness}s"}
    assert told(run([{**RATE, **keys}], history, until, fate, batch_size)) == expected(history, ["reading"], model)


@BOUNDED
@given(scene_lists(["reading"], HOURS, SOON), st.sampled_from([0, 1, 2]), AFTER, fates(), BATCHES)
def test_at_most(history: list[Scene], most: int, after: float, fate: list[Fate], batch_size: int) -> None:
    until = end_of(history, after * 100)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> Verdicts:
        return kind_models.at_most([scene.at for scene in in_order(mine)], most, end)

    found = run([{**COUNT, "at_most": most, "lateness": "0s"}], history, until, fate, batch_size)
    assert told(found) == expected(history, ["reading"], model)


@BOUNDED
@given(
    scene_lists(["reading"], HOURS, SOON), st.sampled_from([1, 2]), st.sampled_from([1, 60]), AFTER, fates(), BATCHES
)
def test_at_least(
    history: list[Scene], least: int, lateness: int, after: float, fate: list[Fate], batch_size: int
) -> None:
    until = end_of(history, after * 100)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> Verdicts:
        times = [scene.at for scene in mine]
        return kind_models.at_least(times, least, times[0], lateness * S, end)

    found = run([{**COUNT, "at_least": least, "lateness": f"{lateness}s"}], history, until, fate, batch_size)
    assert told(found) == expected(history, ["reading"], model)


@BOUNDED
@given(
    scene_lists(["reading"], HOURS, [0, 0, 0.3, 59, 60, 60 + US, 600, 3600, 7200]),
    st.sampled_from([(1, None), (2, None), (0, 1), (1, 1), (1, 2), (2, 4)]), st.sampled_from([0, 60, 1800]), AFTER,
    fates(), BATCHES,
)  # fmt: skip
def test_counts_of_what_comes_late(
    history: list[Scene],
    limits: tuple[int, int | None],
    lateness: int,
    after: float,
    fate: list[Fate],
    batch_size: int,
) -> None:
    least, most = limits
    until = end_of(history, after * 100)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> Verdicts:
        return count_model(happened(mine), end, least, 10**9 if most is None else most, lateness * S)[0]

    keys = {**({"at_least": least} if least else {}), **({} if most is None else {"at_most": most})}
    found = run([{**COUNT, **keys, "lateness": f"{lateness}s"}], history, until, fate, batch_size)
    assert told(found) == expected(history, ["reading"], model)


@BOUNDED
@given(scene_lists(["reading"], GAPS, LATE, [20.1, 20.1, 20.2, 20.6, 21]), st.booleans(), fates(), BATCHES)
def test_stuck(history: list[Scene], any_change: bool, fate: list[Fate], batch_size: int) -> None:
    change = None if any_change else "0.5"
    mapping = {**STUCK, **({} if change is None else {"change": float(change)})}
    found = run([mapping], history, end_of(history, 100), fate, batch_size)
    assert told(found) == expected(history, ["reading"], lambda mine: stuck_model(happened(mine), change))
