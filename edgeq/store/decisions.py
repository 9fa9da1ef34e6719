"""What a controller, processor or job decided, gathered first and committed as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ..events import NewEvent
from ..telemetry.metrics import Metrics
from . import dead_letters, events, jobs
from .dead_letters import NewDeadLetter
from .jobs import NewJob
from .store import Tx, Unit


@runtime_checkable
class Absorbing(Protocol):
    """A lazy unit that can do the work of one that comes right after it."""

    def absorb(self, later: object) -> bool:
        """Take over what `later` would do, so that it need not be called; False if it can't."""


@dataclass(slots=True)
class Decisions:
    """Events to append, jobs to add, dead letters to keep, in order; and whatever else belongs in the same commit.

    `also` are units of a station's own tables (notifications, contract states). `lazily` are such units that may wait
    for the next commit and be done again after a crash: they alone don't cause one. `tallies` count in memory what was
    done, and are called by `count`.
    """

    events: list[NewEvent] = field(default_factory=list)
    jobs: list[NewJob] = field(default_factory=list)
    dead_letters: list[NewDeadLetter] = field(default_factory=list)
    also: list[Unit[object]] = field(default_factory=list)
    lazily: list[Unit[object]] = field(default_factory=list)
    tallies: list[Callable[[], None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything that must not wait."""
        return bool(self.events or self.jobs or self.dead_letters or self.also)

    @property
    def more_than_dead_letters(self) -> bool:
        """Whether there is anything else to be stored."""
        return bool(self.events or self.jobs or self.also or self.lazily)

    def extend(self, other: Decisions) -> None:
        """Add everything that `other` holds."""
        self.events += other.events
        self.jobs += other.jobs
        self.dead_letters += other.dead_letters
        self.also += other.also
        for unit in other.lazily:
            last = self.lazily[-1] if self.lazily else None
            if not (isinstance(last, Absorbing) and last.absorb(unit)):
                self.lazily.append(unit)
        self.tallies += other.tallies


def record(tx: Tx, decisions: Decisions) -> int:
    """Store everything; the number of events left out because their idempotency key was there."""
    duplicates = 0
    if decisions.lazily or decisions.also:
        tx.alone()
    for unit in decisions.lazily:
        unit(tx)
    for unit in decisions.also:
        unit(tx)
    if decisions.jobs:
        jobs.add(tx, decisions.jobs)
    if decisions.dead_letters:
        dead_letters.add(tx, decisions.dead_letters)
    if decisions.events:
        duplicates = events.append(tx, decisions.events).duplicates
    return duplicates


def count(metrics: Metrics, decisions: Decisions, duplicates: int) -> None:
    """Count what `record` has stored. On the event loop, once the commit is on disk: what is refused or done again
    must not count."""
    metrics.events.add(len(decisions.events) - duplicates)
    if duplicates:
        metrics.duplicates.add(duplicates)
    for letter in decisions.dead_letters:
        metrics.dead_letters.add(1, letter.source)
    for tally in decisions.tallies:
        tally()
