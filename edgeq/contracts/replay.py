"""Contracts judged over events that are over, with a clock that goes by them: what they would have said.

Nothing is touched: no store, no machine's clock. The same events give the verdicts that the Sentinel gives live: both
watch in the same way (see `watch`), the Sentinel looks at the clock whenever something is due, and here each deadline
passes by itself, too, before the event that comes after it.

What isn't in the events isn't known unless it is told: whether the sensors could be heard (`lose_link`), and whether
the machine's clock was set (`set_clock`). A leap from before the year 2000, where a machine has no clock yet, counts as
that; any other leap forward is a silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..clock import CLOCKLESS_BEFORE, EARLIEST, MICROSECONDS, Clock
from ..events import Event, NewEvent
from .contract import Contract
from .instance import Instance
from .relations import Key
from .turn import IN_FLIGHT_SECONDS, Turn
from .verdict_event import verdict_event
from .watch import SETTLE_SECONDS, Watch

What = Literal["violated", "resolved", "unknown", "flapping", "skipped"]

_IN_FLIGHT = round(IN_FLIGHT_SECONDS * MICROSECONDS)
_SETTLE = round(SETTLE_SECONDS * MICROSECONDS)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict of `contract` on `subject`, or that it `skipped` an event or didn't take its word for when it happened
    (`reason` says why; `failed`: its data isn't JSON or, if `contract` is empty, a kind has failed at it, and nobody
    can judge it).

    Times are microseconds since 1970 UTC. `event_id` is the event behind the verdict, or the one that was skipped (0:
    none). `event` is what the Sentinel records of a verdict, at the time of the replay.
    """

    at: int
    contract: str
    subject: str
    what: What
    event_id: int = 0
    since: int = 0
    ended_at: int | None = None
    episode: int = 0
    reason: str | None = None
    reminder: int = 0
    observed: Any = None
    message: str = ""
    event: NewEvent | None = None


class Replay:
    """Judges `contracts`. Call `begin` first and once, then the others in the order of time."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self._clock = _VirtualClock()
        self._link = _ToldLink()
        self._watch = Watch(contracts, self._clock, self._link)

    @property
    def now(self) -> int:
        """What the clock of the replay shows, in microseconds since 1970 UTC."""
        return self._clock.now()

    @property
    def instances(self) -> Mapping[Key, Instance]:
        """Every instance as it stands, by contract and subject."""
        return self._watch.judge.instances

    def instance(self, contract: str, subject: str) -> Instance | None:
        """Where a contract stands for a subject; None when it doesn't know that."""
        return self.instances.get((contract, subject))

    def begin(self, now: int) -> list[Said]:
        """Begin at `now`, as at a first load, with sensors that have been heard for long."""
        self._clock.go(now)
        self._link.settled = now - _SETTLE
        self._watch.open([])
        return self._look()

    def observe(self, event: Event) -> list[Said]:
        """Let an event happen when it was recorded. They come in the order of their ids."""
        said: list[Said] = []
        if self.now < CLOCKLESS_BEFORE <= event.recorded_at:
            said += self.set_clock(event.recorded_at)
        said += self.wait(event.recorded_at)
        if not self._watch.judge.index.cares(event.type):
            return said
        try:
            with self._watch.turn([event]) as turn:
                pass
        except Exception as error:  # noqa: BLE001 - a kind of somebody else's may raise anything
            failed = Said(
                at=event.recorded_at, contract="", subject=event.subject, what="skipped", event_id=event.id,
                reason="failed", message=f"{type(error).__name__}: {error}",
            )  # fmt: skip
            return [*said, failed]
        return said + self._said(turn, event)

    def wait(self, until: int) -> list[Said]:
        """Let time go on to `until`. Events that happened just before it may still be on their way."""
        said: list[Said] = []
        while (due := self._watch.due_at()) is not None and due <= until:
            self._clock.go(due)
            said += self._look()
            if self._watch.due_at() == due:
                self._clock.go(due + MICROSECONDS)  # as the Sentinel's timer rests
        self._clock.go(until)
        return said

    def elapse(self, now: int) -> list[Said]:
        """Let time go on to `now` with nothing on its way any more: what was due before has passed then."""
        return self.wait(now + _IN_FLIGHT)

    def set_clock(self, now: int) -> list[Said]:
        """The machine's clock is set to `now`; no time has passed, and everything recorded before was judged."""
        self._clock.step(now)
        return self._look()

    def lose_link(self) -> list[Said]:
        """Nothing can be heard from now on."""
        self._link.settled = None
        return self._look()

    def regain_link(self) -> list[Said]:
        """Everything can be heard again from now on, and what waited at the broker comes in."""
        self._link.settled = self.now
        return self._look()

    def _look(self) -> list[Said]:
        with self._watch.turn(None) as turn:
            pass
        return self._said(turn)

    def _said(self, turn: Turn, event: Event | None = None) -> list[Said]:
        said = []
        for contract, instance, verdict in turn.verdicts:
            told = verdict_event(contract, instance, verdict, self.now)
            said.append(Said(
                at=verdict.at, contract=contract.name, subject=instance.subject, what=verdict.what,
                event_id=verdict.cause_id, since=verdict.since, ended_at=verdict.ended_at, episode=verdict.episode,
                reason=verdict.reason, reminder=verdict.reminder, observed=verdict.observed,
                message=told.description.removeprefix(f"{contract.name}: "), event=told,
            ))  # fmt: skip
        if event is not None:
            said += [
                Said(
                    at=event.occurred_at, contract=skip.contract.name, subject=skip.subject, what="skipped",
                    event_id=skip.event_id, reason=skip.reason,
                )
                for skip in turn.skipped
            ]  # fmt: skip
        return said


class _VirtualClock(Clock):
    """A clock that is where it is told to be."""

    def __init__(self) -> None:
        self._now = EARLIEST
        self._offset = 0

    def now(self) -> int:
        """See Clock.now."""
        return self._now

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return (self._now - self._offset) / MICROSECONDS

    def offset(self) -> int:
        """See Clock.offset."""
        return self._offset

    def boot(self) -> str:
        """See Clock.boot."""
        return ""

    def since_boot(self) -> float:
        """See Clock.since_boot."""
        return self.monotonic()

    def synchronised(self) -> bool:
        """See Clock.synchronised."""
        return True

    def go(self, now: int) -> None:
        """Time passes; it doesn't run backwards."""
        self._now = max(self._now, now)

    def step(self, now: int) -> None:
        """It is set, and no time passes."""
        self._offset += now - self._now
        self._now = now


class _ToldLink:
    """A link that is as it is told to be."""

    def __init__(self) -> None:
        self.settled: int | None = 0

    def settled_at(self) -> int | None:
        """See Link."""
        return self.settled
