"""What kinds of contracts say to the whole history of one subject, slowly and obviously.

A history is in the order of event time, and what happened is heard of at once, or soon after. `end` is the moment
before which everything has passed. Verdicts are (what, since, at); times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from edgeq.clock import LATEST, MICROSECONDS

from .plays import Scene

HOUR = 3600 * MICROSECONDS

Verdicts = list[tuple[str, int, int]]


def in_order(history: Iterable[Scene]) -> list[Scene]:
    """Without what is older than something before it."""
    kept: list[Scene] = []
    for scene in history:
        if not kept or scene.at >= kept[-1].at:
            kept.append(scene)
    return kept


def while_bad(moments: Iterable[int], is_bad: Callable[[int], bool], end: int) -> Verdicts:
    """The verdicts on something that can change at these moments only: it is violated while it is bad."""
    verdicts: Verdicts = []
    since = None
    for moment in sorted(set(moments)):
        if moment < end and is_bad(moment) is (since is None):
            if since is None:
                since = moment
                verdicts.append(("violated", since, since))
            else:
                verdicts.append(("resolved", since, moment))
                since = None
    return verdicts


def absence(times: Sequence[int], period: int, end: int) -> Verdicts:
    """While the newest is older than `period`."""
    moments = [*times, *(each + period for each in times)]
    return while_bad(moments, lambda at: at - max(each for each in times if each <= at) >= period, end)


def deadline(history: Sequence[Scene], after: str, expect: str, within: int, end: int) -> Verdicts:
    """While there is a question older than `within` that nobody has answered."""
    questions = []
    for place, scene in enumerate(history):
        if scene.type == after:
            answers = [each.at for each in history[place:] if each.type == expect]
            questions.append((scene.at + within, min(answers, default=LATEST)))
    moments = [moment for question in questions for moment in question]
    return while_bad(moments, lambda at: any(due <= at < answered for due, answered in questions), end)


def threshold(
    history: Sequence[Scene], is_bad: Callable[[Any], bool], is_clear: Callable[[Any], bool], for_: int, clear_for: int,
    end: int,
) -> Verdicts:  # fmt: skip
    """From when it was bad for so long until it was clear for so long, and so on."""
    bad = [(*moment, "violated") for moment in _lasted(history, is_bad, for_, end)]
    clear = [(*moment, "resolved") for moment in _lasted(history, is_clear, clear_for, end)]
    verdicts: Verdicts = []
    since = None
    for at, _, what in sorted([*bad, *clear]):
        if (what == "violated") is (since is None):
            since = at if since is None else since
            verdicts.append((what, since, at))
            since = since if what == "violated" else None
    return verdicts


def more_than(times: Sequence[int], most: int, within: int, end: int) -> Verdicts:
    """While there are too many in (t - within, t]."""
    moments = [*times, *(each + within for each in times)]
    return while_bad(moments, lambda at: _within(times, at, within) > most, end)


def fewer_than(times: Sequence[int], least: int, within: int, watched_from: int, end: int) -> Verdicts:
    """While there are too few in (t - within, t], from one window after the beginning on."""
    begin = watched_from + within
    moments = [each for each in (begin, *times, *(each + within for each in times)) if each >= begin]
    return while_bad(moments, lambda at: _within(times, at, within) < least, end)


def at_most(times: Sequence[int], most: int, end: int) -> Verdicts:
    """From the event that is one too many in its hour until that hour ends."""

    def is_bad(at: int) -> bool:
        return sum(at // HOUR * HOUR <= each <= at for each in times) > most

    return while_bad([*times, *((each // HOUR + 1) * HOUR for each in times)], is_bad, end)


def at_least(times: Sequence[int], least: int, watched_from: int, lateness: int, end: int) -> Verdicts:
    """From the end of an hour without enough until there are enough in a later one, hour by hour. The first one is that
    which began at `watched_from` or later; an hour is judged when `lateness` has passed after it. `times` are in the
    order in which they were heard of."""
    verdicts: Verdicts = []
    since = None
    begin = -(-watched_from // HOUR) * HOUR
    while begin + lateness < end:  # the one before is judged
        mine = [each for each in times if begin <= each < begin + HOUR]
        if since is not None and len(mine) >= least:
            verdicts.append(("resolved", since, max(mine[:least])))
            since = None
        if since is None and len(mine) < least and begin + HOUR + lateness < end:
            since = begin + HOUR
            verdicts.append(("violated", since, since))
        begin += HOUR
    return verdicts


def true_for(changes: Sequence[tuple[int, bool | None]], lasting: int, end: int) -> Verdicts:
    """From when something has been true for so long without a break, until it is known to be false. `changes` say what
    it is from when on; None: nobody knows."""
    verdicts: Verdicts = []
    true_from = since = None
    for (at, value), (until, _) in pairwise([*changes, (LATEST, None)]):
        if value is True:
            true_from = at if true_from is None else true_from
            due = true_from + lasting
            if since is None and (not lasting or due < min(until, end)):
                since = due
                verdicts.append(("violated", since, since))
        else:
            true_from = None
        if value is False and since is not None:
            verdicts.append(("resolved", since, at))
            since = None
    return verdicts


def _lasted(
    history: Sequence[Scene], is_so: Callable[[Any], bool], lasting: int, end: int
) -> Iterator[tuple[int, int]]:
    """Each moment at which the value has been so for so long, and the place of the event that began it."""
    began: int | None = None
    for place, scene in enumerate(history):
        if not is_so(scene.data["value"]):
            began = None
        elif began is None:
            began = place
            other = next((each.at for each in history[place:] if not is_so(each.data["value"])), end)
            if not lasting or scene.at + lasting < other:
                yield scene.at + lasting, place


def _within(times: Sequence[int], at: int, within: int) -> int:
    return sum(at - within < each <= at for each in times)
