"""What nobody is to be told of for a while, as it stands in the table `silences`, ready to be asked.

A silence is about what its `match` says, from `starts_at` until before `ends_at`, by the wall clock. An empty match is
about everything. One whose match can't be read, as anybody may write it into the table, silences nothing, and is said.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..errors import Problem
from ..events import from_json
from ..store import silences
from ..store.silences import NewSilence, Silence
from ..store.store import Tx
from ..units import Duration
from .match import Facts, Matcher, compile_match, read_match

log = logging.getLogger("edgeq.courier")

# So many are kept in memory, those that end last; and so long after their end, for events that had to wait.
SILENCES_MAX = 1000
KEPT_SECONDS = 7 * 86400.0
LONGEST = Duration(366 * 86400)


class Silences:
    """The silences of `rows`."""

    def __init__(self, rows: Sequence[Silence] = ()) -> None:
        self._rows = tuple(rows)
        self._silences = [(row, matcher) for row in rows if (matcher := _matcher(row)) is not None]

    def __bool__(self) -> bool:
        return bool(self._silences)

    def same(self, rows: Sequence[Silence]) -> bool:
        """Whether they were made of these rows."""
        return self._rows == tuple(rows)

    def of(self, facts: Facts, at: int) -> Silence | None:
        """The silence that holds at `at` (microseconds since 1970 UTC) over what these facts are of; of several, the
        one that ends last. None: there is none."""
        holding = (row for row, matches in self._silences if row.starts_at <= at < row.ends_at and matches(facts))
        return max(holding, key=lambda row: row.ends_at, default=None)


def begin_silence(tx: Tx, new: NewSilence) -> int | None:
    """Begin a silence; its id, or None when there are SILENCES_MAX already."""
    return None if silences.count_after(tx, new.created_at) >= SILENCES_MAX else silences.add(tx, new)


def _matcher(row: Silence) -> Matcher | None:
    problems: list[Problem] = []
    try:
        match = read_match(from_json(row.match), problems)
    except ValueError as error:
        problems.append(Problem("", "match", str(error)))
        match = None
    if match is None:
        log.warning("silence %d silences nothing: %s: %s", row.id, problems[0].path, problems[0].message)
        return None
    return compile_match(match)
