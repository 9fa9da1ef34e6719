"""Unit tests of contracts run: what the contracts say to what happens, compared with what is expected of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isclose
from typing import Any, NamedTuple

import msgspec

from ..clock import MICROSECONDS
from ..events import Event, from_json
from ..patterns import pattern
from .contract import Contract, say
from .instance import Instance
from .replay import Replay, Said
from .scenario import Expected, Happening, Scenario, Standing
from .telling import shown
from .turn import IN_FLIGHT_SECONDS

_AFTER = round(IN_FLIGHT_SECONDS * MICROSECONDS) + 1  # by then, nothing of a moment is on its way any more


class Pair(NamedTuple):
    """A verdict that was expected and one that came, or one of them alone. `wrong` are the fields in which they
    differ."""

    expected: Expected | None
    came: Said | None
    wrong: tuple[str, ...] = ()

    @property
    def at(self) -> int:
        """The earlier of their times."""
        return min(each.at for each in (self.expected, self.came) if each is not None)


class Fault(NamedTuple):
    """A contract that doesn't stand as expected, but as `state` says."""

    standing: Standing
    state: str


class Result(NamedTuple):
    """What came of a test. `skipped` says which events could not be judged, or not by the time that they claim;
    `ends` are the instances at the end."""

    scenario: Scenario
    pairs: Sequence[Pair]
    faults: Sequence[Fault]
    skipped: Sequence[Said]
    ends: Mapping[tuple[str, str], Instance]

    @property
    def passed(self) -> bool:
        """Whether all came as expected."""
        return not self.faults and not any(map(self.is_wrong, self.pairs))

    def is_wrong(self, pair: Pair) -> bool:
        """Whether a pair makes the test fail."""
        if pair.expected is None:
            return self.scenario.complete
        return pair.came is None or bool(pair.wrong)

    def happening(self, event_id: int) -> Happening | None:
        """What happened as the event of that id."""
        return self.scenario.happenings[event_id - 1] if event_id else None

    def contract(self, name: str) -> Contract:
        """The contract of that name."""
        return next(contract for contract in self.scenario.contracts if contract.name == name)


def rehearse(scenario: Scenario) -> Result:
    """Run a test."""
    replay = Replay(scenario.contracts)
    said = replay.begin(scenario.start)
    faults: list[Fault] = []
    standings = iter(scenario.standings)
    standing = next(standings, None)
    for event_id, happening in enumerate([*scenario.happenings, None], 1):
        at = scenario.until + _AFTER if happening is None else happening.at
        while standing is not None and (standing.at + _AFTER <= at):
            said += replay.wait(standing.at + _AFTER)
            faults += _look(replay, standing)
            standing = next(standings, None)
        said += replay.wait(at)
        if happening is not None:
            said += _happen(replay, event_id, happening)
    pairs = _paired(scenario.expected, [each for each in said if each.event is not None])
    skipped = [each for each in said if each.event is None]
    return Result(scenario, pairs, faults, skipped, dict(replay.instances))


def _happen(replay: Replay, event_id: int, happening: Happening) -> list[Said]:
    if happening.link is not None:
        return replay.lose_link() if happening.link == "down" else replay.regain_link()
    event = Event(
        event_id, happening.type, happening.subject, None, happening.data_json, "[]", "", happening.occurred_at,
        happening.at, None, None,
    )  # fmt: skip
    return replay.observe(event)


def _look(replay: Replay, standing: Standing) -> Iterator[Fault]:
    instance = replay.instance(standing.contract, standing.subject)
    state = "none" if instance is None else shown(instance)
    if state != standing.state:
        yield Fault(standing, state)


# Who goes with whom


def _paired(expected: Sequence[Expected], came: Sequence[Said]) -> list[Pair]:
    """Those that match, those that differ in something, and those that are left, in the order of time."""
    rest = list(came)
    pairs: list[Pair] = []
    open_: list[Expected] = []
    for each in sorted(expected, key=_vagueness):
        found = next((said for said in rest if _is_of(each, said) and not _wrong(each, said)), None)
        if found is None:
            open_.append(each)
        else:
            rest.remove(found)
            pairs.append(Pair(each, found))
    for each in sorted(open_, key=lambda one: one.at):
        near = [said for said in rest if _is_of(each, said)]
        found = min(near, key=lambda said, at=each.at: abs(said.at - at), default=None)  # type: ignore[misc]
        if found is None:
            pairs.append(Pair(each, None))
        else:
            rest.remove(found)
            pairs.append(Pair(each, found, tuple(_wrong(each, found))))
    pairs += [Pair(None, said) for said in rest]
    return sorted(pairs, key=lambda pair: pair.at)


def _vagueness(expected: Expected) -> int:
    """How many of its keys are left out."""
    return sum(getattr(expected.keys, name) in (None, msgspec.UNSET) for name in expected.keys.__struct_fields__)


def _is_of(expected: Expected, said: Said) -> bool:
    same = expected.contract == said.contract and expected.keys.verdict == said.what
    return same and expected.keys.subject in (None, said.subject)


def _wrong(expected: Expected, said: Said) -> list[str]:
    """The fields in which a verdict isn't as expected."""
    keys, fields = expected.keys, told(said)
    wrong = [] if expected.at == said.at else ["at"]
    if expected.since not in (None, said.since):
        wrong.append("since")
    if keys.message is not None and not pattern(keys.message)(said.message):
        wrong.append("message")
    plain = ("severity", "reason", "episode", "reminder")
    wrong += [name for name in plain if getattr(keys, name) not in (None, fields.get(name))]
    for name, field in (("late_by", "late_by_seconds"), ("lasted", "duration_seconds")):
        wanted = getattr(keys, name)
        if wanted is not None and not _equal(float(wanted), fields.get(field)):
            wrong.append(name)
    if keys.observed is not msgspec.UNSET and not _equal(keys.observed, said.observed):
        wrong.append("observed")
    return wrong


def told(said: Said) -> dict[str, Any]:
    """What the event of a verdict says."""
    assert said.event is not None
    data: dict[str, Any] = from_json(said.event.data_json)
    return data


def _equal(wanted: Any, got: Any) -> bool:
    """Whether a value is as wanted; of a mapping, whether it has what is wanted."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return all(name in got and _equal(value, got[name]) for name, value in wanted.items())
    if isinstance(wanted, float | int) and isinstance(got, float | int) and not isinstance(wanted, bool):
        return isclose(wanted, got, rel_tol=1e-9, abs_tol=1e-9)
    return bool(wanted == got) or (isinstance(got, str) and say(wanted) == got)
