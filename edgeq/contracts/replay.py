"""Contracts judged over events that are over, with a clock that goes by them: what they would have said.

Nothing is touched: no store, no machine's clock. The same events give the verdicts that the Sentinel gives live: it
looks at the clock whenever something is due, and here each deadline passes by itself, too, before the event that comes
after it. What isn't in the events can't be known: whether the sensors could be heard, which is taken for granted, and
whether the machine's clock was set. A leap from before the year 2000 (a machine that had no clock) counts as that; any
other leap forward is a silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..clock import MICROSECONDS
from ..events import Event, NewEvent
from .contract import Contract
from .instance import Instance
from .judge import Judge
from .relations import Key
from .reporting import CLOCKLESS_BEFORE
from .turn import IN_FLIGHT_SECONDS, Turn
from .verdict_event import verdict_event

AFTER_DEADLINE = round(IN_FLIGHT_SECONDS * MICROSECONDS) + 1


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict of `contract` on `subject`, or that it `skipped` an event or did not take its word for when it happened
    (`reason` says why).

    Times are microseconds since 1970 UTC. `event_id` is the event behind the verdict, or the one that was skipped (0:
    none). `event` is what the Sentinel would have recorded of a verdict, at the time of the replay.
    """

    at: int
    contract: str
    subject: str
    what: Literal["violated", "resolved", "unknown", "flapping", "skipped"]
    event_id: int = 0
    since: int = 0
    episode: int = 0
    reason: str | None = None
    reminder: int = 0
    observed: Any = None
    message: str = ""
    event: NewEvent | None = None


class Replay:
    """Judges `contracts`. Call `begin` first, then `observe` and `elapse` in any order."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self.now = 0
        self._judge = Judge(contracts)

    @property
    def instances(self) -> Mapping[Key, Instance]:
        """Every instance as it stands, by contract and subject."""
        return self._judge.instances

    def instance(self, contract: str, subject: str) -> Instance | None:
        """Where a contract stands for a subject; None when it doesn't know that."""
        return self._judge.instances.get((contract, subject))

    def begin(self, now: int) -> list[Said]:
        """Begin at `now`, as at a first load."""
        self.now = now
        with self._judge.turn() as turn:
            for contract in self._judge.contracts.values():
                for instance in contract.initial(now):
                    turn.begin(contract, instance, now)
            turn.settle(now)
        return self._said(turn)

    def observe(self, event: Event) -> list[Said]:
        """Let an event happen, when it was recorded. They come in the order of their ids."""
        said: list[Said] = []
        if self.now < CLOCKLESS_BEFORE <= event.recorded_at:
            said += self.set_clock(event.recorded_at)
        said += self._pass(event.recorded_at)
        self.now = max(self.now, event.recorded_at)
        if not self._judge.index.cares(event.type):
            return said
        clockless = event.recorded_at < CLOCKLESS_BEFORE <= self.now
        with self._judge.turn() as turn:
            turn.observe(event, trusted=not clockless, moved=self.now - event.recorded_at if clockless else 0)
        return said + self._said(turn, event)

    def elapse(self, now: int) -> list[Said]:
        """Let time go on to `now`; what is due before has passed then, nothing being in flight any more."""
        said = self._pass(now + AFTER_DEADLINE - 1)
        self.now = max(self.now, now)
        return said

    def set_clock(self, now: int) -> list[Said]:
        """The machine's clock was set to `now`; no time has passed."""
        step, self.now = now - self.now, now
        with self._judge.turn() as turn:
            turn.set_clock(now, step)
        return self._said(turn)

    def _pass(self, until: int) -> list[Said]:
        """Look at the clock whenever something is due, as long as that is up to `until`."""
        said: list[Said] = []
        while (earliest := self._judge.earliest()) is not None and earliest + AFTER_DEADLINE <= until:
            self.now = max(self.now, earliest + AFTER_DEADLINE)
            with self._judge.turn() as turn:
                turn.elapse(self.now)
            said += self._said(turn)
        return said

    def _said(self, turn: Turn, event: Event | None = None) -> list[Said]:
        said = [
            Said(
                at=verdict.at, contract=contract.name, subject=instance.subject, what=verdict.what,
                event_id=verdict.cause_id, since=verdict.since, episode=verdict.episode, reason=verdict.reason,
                reminder=verdict.reminder, observed=verdict.observed, message=told.description, event=told,
            )
            for contract, instance, verdict in turn.verdicts
            for told in [verdict_event(contract, instance, verdict, self.now)]
        ]  # fmt: skip
        if event is not None:
            said += [
                Said(
                    at=event.occurred_at, contract=contract.name, subject=event.subject, what="skipped",
                    event_id=event.id, reason=reason,
                )
                for contract, reason in turn.skipped
            ]  # fmt: skip
        return said
