"""Kinds that wait (absence, deadline, threshold) through the Sentinel and a real store; see
test_contracts_models_numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from support import kind_models
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, micro
from support.kind_models import HOUR, Verdicts, in_order
from support.model_runs import (
    IN_FLIGHT,
    Fate,
    Told,
    by_subject,
    end_of,
    expected,
    fates,
    numbered,
    run,
    scene_lists,
    told,
)
from support.plays import Scene, scenes

from edgeq.testing.clock import NOON

US = 1e-6
S = 1_000_000
BOUNDED = settings(max_examples=60)
BATCHES = st.sampled_from([1, 2, 5, 100])
AFTER = st.sampled_from([0.4, 10, 10.3, 10.3 + US, 100])

GAPS = [0, 0.1, 1, 3, 5 - US, 5, 5 + US, 9.9, 10 - US, 10, 10 + US, 10.3, 10.3 + US, 15, 40]
SOON = [0, 0, 0, 0.2, 0.3]
LATE = [0, 0, 0, 0.2, 0.3, 5, 10, 12, 30]
LIMIT = 10 * S
LATENESS = 12 * S

Verdict = tuple[str, str, int, int]  # what, subject, since, at


def absence_model(history: Sequence[Scene], until: int) -> list[Verdict]:
    """At every moment: is the newest event, of those that happened by then and were heard of soon after, too old?

    Moments are counted in halves of microseconds, so that there is one between a deadline and what comes right after.
    """
    said: list[Verdict] = []
    for subject, mine in by_subject(history, ["reading"]):
        heard = [(each.at, max(each.at, each.recorded_at - IN_FLIGHT)) for each in in_order(mine)]
        since = None
        for half in sorted({2 * seen for _, seen in heard} | {2 * (at + LIMIT) + 1 for at, _ in heard}):
            there = [at for at, seen in heard if 2 * seen <= half]
            if half > 2 * (until - IN_FLIGHT) or not there:
                continue
            stale = half - 2 * max(there) > 2 * LIMIT
            if stale and since is None:
                since = max(there) + LIMIT
                said.append(("violated", subject, since, since))
            elif not stale and since is not None:
                fresh = next(at for at, seen in heard if 2 * seen == half and half - 2 * at <= 2 * LIMIT)
                said.append(("resolved", subject, since, max(fresh, since)))
                since = None
    return sorted(said)


def deadline_model(history: Sequence[Scene], until: int) -> list[Verdict]:
    """All questions that nobody has answered, and what each of them is told by what comes next."""
    said: list[Verdict] = []
    for subject, mine in by_subject(history, ["opened", "closed"]):
        questions: list[tuple[int, int]] = []  # when each was asked, and when silence is an answer
        newest = answered = 0
        since: int | None = None
        end = Scene("end", (until - NOON) / 1e6, (until - IN_FLIGHT - NOON) / 1e6, subject)
        for each in [*mine, end]:
            passed = each.recorded_at - IN_FLIGHT
            overdue = [(silence, asked) for asked, silence in questions if silence < max(passed, each.at)]
            if overdue and since is None:
                since = min(overdue)[1] + LIMIT
                said.append(("violated", subject, since, since))
            if newest - each.at > LATENESS:
                continue
            newest = max(newest, each.at)
            if each.type == "opened" and each.at >= answered:
                in_time = each.at + LIMIT >= passed
                questions.append((each.at, each.at + LIMIT if in_time else passed + LATENESS))
            if each.type == "closed":
                answered = max(answered, each.at)
                late = [asked for asked, silence in questions if silence != asked + LIMIT < each.at]
                questions = [(asked, silence) for asked, silence in questions if asked > each.at]
                if late and since is None:
                    since = min(late) + LIMIT
                    said.append(("violated", subject, since, since))
                    said.append(("resolved", subject, since, each.at))
                    since = None
                elif since is not None and all(asked + LIMIT >= passed for asked, _ in questions):
                    said.append(("resolved", subject, since, max(each.at, since)))
                    since = None
    return sorted(said)


def as_told(verdicts: Sequence[Verdict]) -> list[Told]:
    """Verdicts in no order, as `told` has them."""
    found: list[Told] = []
    for name in sorted({subject for _, subject, _, _ in verdicts}):
        mine = [(since, at, what != "violated", what) for what, subject, since, at in verdicts if subject == name]
        found += numbered(name, [(what, since, at) for since, at, _, what in sorted(mine)])
    return found


@BOUNDED
@given(scene_lists(["reading", "reading", "noise"], GAPS, SOON), st.booleans(), AFTER, fates(), BATCHES)
def test_absence(history: list[Scene], known: bool, after: float, fate: list[Fate], batch_size: int) -> None:
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT
    history = [scene for scene in history if scene.subject == "a"] if known else history

    def model(mine: list[Scene]) -> Verdicts:
        times = [*([NOON] if known else []), *(scene.at for scene in in_order(mine))]
        return kind_models.absence(times, 10 * S, end) if times else []

    silent = numbered("k", kind_models.absence([NOON], 10 * S, end)) if known else []
    there = expected(history, ["reading"], model)
    if known and not history:
        there = numbered("a", model([]))
    mapping = {**ABSENCE, "every": "8s", "grace": "2s", "known": ["a", "k"] if known else []}
    assert told(run([mapping], history, until, fate, batch_size)) == [*there, *silent]


@BOUNDED
@given(scene_lists(["reading", "noise"], GAPS, LATE), AFTER, fates(), BATCHES)
def test_absence_of_what_comes_late(history: list[Scene], after: float, fate: list[Fate], batch_size: int) -> None:
    until = end_of(history, after)
    found = told(run([ABSENCE], history, until, fate, batch_size))
    assert found == as_told(absence_model(history, micro(until)))


@BOUNDED
@given(scene_lists(["opened", "closed"], GAPS, SOON), AFTER, fates(), BATCHES)
def test_deadline(history: list[Scene], after: float, fate: list[Fate], batch_size: int) -> None:
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> Verdicts:
        return kind_models.deadline(in_order(mine), "opened", "closed", 10 * S, end)

    found = run([{**DEADLINE, "lateness": "0s"}], history, until, fate, batch_size)
    assert told(found) == expected(history, ["opened", "closed"], model)


@BOUNDED
@given(scene_lists(["opened", "closed"], GAPS, LATE), AFTER, fates(), BATCHES)
def test_deadline_of_what_comes_late(history: list[Scene], after: float, fate: list[Fate], batch_size: int) -> None:
    until = end_of(history, after)
    found = told(run([{**DEADLINE, "lateness": "12s"}], history, until, fate, batch_size))
    assert found == as_told(deadline_model(history, micro(until)))


@BOUNDED
@given(
    scene_lists(["reading"], GAPS, SOON, [4, 5, 6]), st.sampled_from([0, 5, 10]), st.sampled_from([0, 5, 10]), AFTER,
    fates(), BATCHES,
)  # fmt: skip
def test_threshold(
    history: list[Scene], for_: int, clear_for: int, after: float, fate: list[Fate], batch_size: int
) -> None:
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> Verdicts:
        kept = in_order(mine)
        return kind_models.threshold(kept, lambda each: each > 5, lambda each: each < 5, for_ * S, clear_for * S, end)

    mapping = {**THRESHOLD, "for": f"{for_}s", "clear": {"below": 5, "for": f"{clear_for}s"}}
    found = run([mapping], history, until, fate, batch_size)
    assert told(found) == expected(history, ["reading"], model)


def test_the_models_see_what_they_are_for() -> None:
    """Otherwise models that never say anything would agree with a Sentinel that never does."""
    assert kind_models.absence([0, 10, 21], 10, 40) == [
        ("violated", 20, 20), ("resolved", 20, 21), ("violated", 31, 31),
    ]  # fmt: skip
    asked = scenes("opened 0", "opened 5", "closed 12", "opened 13")
    broken = kind_models.deadline(asked, "opened", "closed", 10 * S, micro(20))
    assert broken == [("violated", micro(10), micro(10)), ("resolved", micro(10), micro(12))]
    assert kind_models.more_than([0, 1, 9, 20], 2, 10, 40) == [("violated", 9, 9), ("resolved", 9, 10)]
    assert kind_models.fewer_than([0, 10], 1, 10, 0, 40) == [("violated", 20, 20)]
    assert kind_models.at_most([0, 1], 1, 2 * HOUR) == [("violated", 1, 1), ("resolved", 1, HOUR)]
    enough = kind_models.at_least([2 * HOUR + 5], 1, 0, 1, 3 * HOUR)
    assert enough == [("violated", HOUR, HOUR), ("resolved", HOUR, 2 * HOUR + 5)]
    said = kind_models.true_for([(0, True), (5, None), (6, True), (20, False)], 10, 30)
    assert said == [("violated", 16, 16), ("resolved", 16, 20)]
    values = [Scene("reading", at, data={"value": value}) for at, value in [(0, 6), (5, 6), (12, 5), (20, 4)]]
    said = kind_models.threshold(values, lambda each: each > 5, lambda each: each < 5, 10 * S, 5 * S, micro(30))
    assert said == [("violated", micro(10), micro(10)), ("resolved", micro(10), micro(25))]
