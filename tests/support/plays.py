"""Histories of events of many types, told to a judge that may be restarted between any two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from edgeq.contracts.judge import Judge
from edgeq.contracts.turn import IN_FLIGHT_SECONDS, Turn
from edgeq.events import NewEvent
from edgeq.testing.clock import NOON
from support.contracts import Story, contracts_of, event, micro
from support.histories import through_json

IN_FLIGHT = round(IN_FLIGHT_SECONDS * 1e6)


@dataclass(frozen=True)
class Scene:
    """One event of a history. Times are seconds after `NOON`; one that doesn't say when it occurred occurred when it
    was recorded."""

    type: str
    recorded: float
    occurred: float | None = None
    subject: str = "a"
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def at(self) -> int:
        """When it occurred, in microseconds since 1970 UTC."""
        return micro(self.recorded if self.occurred is None else self.occurred)

    @property
    def recorded_at(self) -> int:
        """When it was recorded, in microseconds since 1970 UTC."""
        return micro(self.recorded)


@dataclass(frozen=True)
class Said:
    """A verdict. Times are microseconds since 1970 UTC."""

    what: str
    since: int
    at: int
    contract: str = ""
    subject: str = "a"

    @property
    def seconds(self) -> tuple[str, float, float]:
        """What was said, with `since` and `at` in seconds after `NOON`."""
        return self.what, (self.since - NOON) / 1e6, (self.at - NOON) / 1e6


def scenes(*happened: str) -> list[Scene]:
    """`"a 0"`, `"b 3.5"`, and of one that is recorded later than it occurred `"c 4 recorded 5"`."""
    found = []
    for each in happened:
        type_, occurred, *rest = each.split()
        found.append(Scene(type_, float(rest[1] if rest else occurred), float(occurred)))
    return found


def play(
    mappings: Sequence[Mapping[str, Any]], history: Sequence[Scene], until: float, chance: Iterator[bool]
) -> list[Said]:
    """What the contracts say to the history when time goes on to `until`. `chance` says whether there is a restart
    before an event and before the end, and whether anybody looks at the clock when an event is recorded."""
    judge = Judge(contracts_of(*mappings))
    judge.load([], NOON)
    said: list[Said] = []

    def hear(turn: Turn) -> None:
        for contract, instance, verdict in turn.verdicts:
            said.append(Said(verdict.what, verdict.since, verdict.at, contract.name, instance.subject))

    def look(now: int) -> None:
        with judge.turn() as turn:
            turn.elapse(now)
        hear(turn)

    now = NOON
    for number, scene in enumerate(history, 1):
        if next(chance):
            judge = through_json(judge, now)
        now = scene.recorded_at
        if next(chance):
            look(now)
        happened = event(
            number, scene.type, scene.recorded, occurred=scene.occurred, subject=scene.subject, data=dict(scene.data)
        )
        with judge.turn() as turn:
            turn.observe(happened, trusted=True)
        hear(turn)
    if next(chance):
        judge = through_json(judge, now)
    look(micro(until) + IN_FLIGHT)
    return said


def told(mapping: Mapping[str, Any], history: Sequence[Scene], until: float) -> list[tuple[str, float, float]]:
    """What one contract says to a history, with times in seconds, whether it is restarted all the time or never."""
    never = play([mapping], history, until, repeat(False))
    assert play([mapping], history, until, repeat(True)) == never
    return [each.seconds for each in never]


def told_event(story: Story) -> NewEvent:
    """The event for the last verdict of a story."""
    return story.events[-1]


def proven(scene: Scene, *, kept: bool) -> int:
    """Up to when an event proves that time has passed, to its own instance: deadlines before have passed."""
    watermark = scene.recorded_at - IN_FLIGHT
    return max(watermark, scene.at) if kept else watermark
