"""Contracts of kind `count`: at their edges, in calendars, and against a slow model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.histories import IN_FLIGHT, Happened, Told, chances, end_of, histories, tell

from edgeq.contracts.count import CountMemory
from edgeq.contracts.judge import Judge

US = 1e-6
H = 3600
HOUR = H * 1_000_000
LEAST = {
    "name": "enough", "kind": "count", "of": "reading", "at_least": 2, "per": "hour", "timezone": "UTC",
    "lateness": "0s",
}  # fmt: skip
MOST = {key: value for key, value in {**LEAST, "at_most": 2}.items() if key != "at_least"}


def streaks(judge: Judge) -> tuple[int, int, int, int]:
    """How many periods the only instance met and missed, its streak and its best."""
    ((instance),) = judge.instances.values()
    memory = instance.memory
    assert isinstance(memory, CountMemory)
    return memory.met, memory.missed, memory.streak, memory.best


def count_model(
    history: Sequence[Happened], until: int, least: int, most: int, lateness: int
) -> tuple[list[Told], tuple[int, int, int, int]]:
    """Hour by hour, with all the times in it: which hours are judged, which had enough, which had too many?

    `most` may be without end, and `least` nothing. Hours are numbers, counted from 1970.
    """
    told: list[Told] = []
    hours: dict[int, list[int]] = {}
    overs: set[int] = set()
    outcomes: list[bool] = []
    head = judged_from = newest = 0
    since: int | None = None
    is_short = False

    def moment_of_enough(hour: int) -> int | None:
        times = hours.get(hour, [])
        return max(times[:least]) if least and len(times) >= least else None

    def violate(at: int) -> None:
        nonlocal since
        if since is None:
            since = at
            told.append(("violated", at, at))

    def look() -> None:
        """Whether it is violated still, by the first hour that isn't judged."""
        nonlocal since, is_short
        enough_at = moment_of_enough(head)
        if is_short and enough_at is not None:
            is_short = False
            if not overs:
                assert since is not None
                told.append(("resolved", since, max(since, enough_at)))
                since = None

    def pass_time(proof: int) -> None:
        nonlocal since, is_short, head
        while head:
            judged_at = (head + 1) * HOUR + lateness
            over_at = (max(overs) + 1) * HOUR if overs else judged_at + 1
            if min(judged_at, over_at) >= proof:
                return
            if over_at <= judged_at:
                overs.clear()
                if not is_short:
                    assert since is not None
                    told.append(("resolved", since, max(since, over_at)))
                    since = None
                continue
            count, is_whole = len(hours.get(head, [])), head * HOUR >= judged_from
            if is_whole or count > most:
                outcomes.append(count <= most and (count >= least or not is_whole))
            head += 1
            if is_whole and count < least:
                is_short = True
                violate(head * HOUR)
            look()

    for each in history:
        watermark = each.recorded_at - IN_FLIGHT
        pass_time(watermark)
        hour = each.at // HOUR
        if each.at < newest - lateness:
            continue
        pass_time(max(watermark, each.at))
        if hour < head:
            continue
        newest = max(newest, each.at)
        if not head:
            head, judged_from = hour, max(each.at, watermark)
        hours.setdefault(hour, []).append(each.at)
        if len(hours[hour]) == most + 1:
            overs.add(hour)
            violate(max(hours[hour]))
        else:
            look()
    pass_time(until)
    streak = best = 0
    for is_met in outcomes:
        streak = streak + 1 if is_met else 0
        best = max(best, streak)
    return told, (sum(outcomes), outcomes.count(False), streak, best)


GAPS = [0, 1, 60, 600, 1800 - US, 1800, 1800 + US, H - US, H, H + US, 2 * H, 7 * H]
LATE = [0, 0, 0, 0.3, 1, 59, 60, 60 + US, 600, 1800, H - US, H, 2 * H]


@settings(max_examples=300, deadline=None)
@given(
    histories(GAPS, LATE), st.sampled_from([(1, None), (2, None), (0, 1), (0, 0), (1, 1), (1, 2), (2, 4)]),
    st.sampled_from([0, 60, 1800, H]), st.sampled_from([0.1, H, 5 * H]), chances(),
)  # fmt: skip
def test_it_is_what_a_slow_model_says(
    history: list[Happened], limits: tuple[int, int | None], lateness: int, after: float, chance: Iterator[bool]
) -> None:
    least, most = limits
    until = end_of(history, after)
    mapping: dict[str, Any] = {**LEAST, "at_least": least, "at_most": most, "lateness": f"{lateness}s"}
    mapping = {key: value for key, value in mapping.items() if value or (key != "at_least" and value is not None)}
    expected = count_model(history, until, least, 10**9 if most is None else most, lateness * 1_000_000)
    told, judge = tell(mapping, history, until, chance)
    assert told == expected[0]
    if history:
        assert streaks(judge) == expected[1]
