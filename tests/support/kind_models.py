"""What kinds of contracts say to the whole history of one subject, slowly and obviously.

A history is in the order of event time, and what happened is heard of at once, or soon after. `end` is the moment
before which everything has passed. Verdicts are (what, since, at); times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

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


def _within(times: Sequence[int], at: int, within: int) -> int:
    return sum(at - within < each <= at for each in times)
