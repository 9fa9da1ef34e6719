"""What a replay comes to, for each contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..clock import MICROSECONDS
from .replay import Said

FLAP_SECONDS = 600.0

_FLAP = round(FLAP_SECONDS * MICROSECONDS)


class Tally:
    """Of one contract: its `violations`, and how long they stood over all subjects (`violated_microseconds`).

    `flaps` are violations that began within `FLAP_SECONDS` of the end of the one before, of the same subject, and the
    times that the contract itself said that it flaps. `unknowns` are the times that nothing was known, `reminders`
    those that a violation was told again, `skipped` the events that could not be judged, or not by the time that they
    claim, by reason. `open` holds the subjects that are violated, with when that began.
    """

    def __init__(self) -> None:
        self.violations = 0
        self.violated_microseconds = 0
        self.flaps = 0
        self.unknowns = 0
        self.reminders = 0
        self.skipped: Counter[str] = Counter()
        self.open: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def add(self, said: Said) -> None:
        """Take note of what the contract said."""
        if said.what == "skipped":
            self.skipped[said.reason or ""] += 1
        elif said.what == "unknown":
            self.unknowns += 1
        elif said.what == "flapping":
            self.flaps += 1
        elif said.what == "resolved":
            self._end(said.subject, said.at if said.ended_at is None else said.ended_at)
        elif said.reminder:
            self.reminders += 1
        elif said.subject not in self.open:  # otherwise it is told again, after something has held it back
            self.violations += 1
            ended_at = self._ended.get(said.subject)
            self.flaps += ended_at is not None and said.since - ended_at < _FLAP
            self.open[said.subject] = said.since

    def finish(self, now: int) -> None:
        """Count what is still open until `now`."""
        self.violated_microseconds += sum(max(0, now - since) for since in self.open.values())

    def _end(self, subject: str, at: int) -> None:
        since = self.open.pop(subject, None)
        if since is not None:
            self.violated_microseconds += max(0, at - since)
            self._ended[subject] = at


class Tallies:
    """One for each of the contracts of these names. `failed` counts the events that no contract could judge, and
    `failure` says why, of the first."""

    def __init__(self, names: Iterable[str]) -> None:
        self.of = {name: Tally() for name in names}
        self.failed = 0
        self.failure = ""

    def add(self, said: Said) -> None:
        """Take note of what a contract said."""
        if said.contract in self.of:
            self.of[said.contract].add(said)
        elif not said.contract:
            self.failed += 1
            self.failure = self.failure or f"event {said.event_id}: {said.message}"
