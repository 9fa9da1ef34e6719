"""Unit tests of contracts, as they are written in YAML files.

A file names the contracts under test (`contracts:`, or `config:` with the path of a configuration, relative to the
file, and `only:` with some of their names), the `timezone` of the machine (default UTC), and `tests`. Each test has a
`name`, a `start`, and what happens: `events`, single ones or series, and the link going down and up. It says which
verdicts it expects (all of them, unless `complete: false`) and how contracts stand at some times. It ends `until` a
time, by default the last that it mentions.

Times are durations since the start (`5m`), or times of the calendar (`2026-03-29T03:00`, in `timezone`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..calendar import local_zone, machine_in, parse_moment
from ..config.files import in_order
from ..config.load import load_file, load_to_plan
from ..config.section import Section
from ..config.suggest import did_you_mean
from ..errors import ConfigError, Problem
from ..events import to_json_whole
from ..units import Duration
from .contract import Contract
from .kinds import load_contracts
from .scenario_keys import EventKeys, ExpectedKeys, ScenarioFile, ScenarioKeys, StateKeys

EVENTS_MAX = 100_000


class Happening(NamedTuple):
    """An event, or, with `link`, what becomes of the link. Times are microseconds since 1970 UTC, `place` is
    file:line."""

    at: int
    place: str
    type: str = ""
    subject: str = ""
    data_json: str = "{}"
    occurred_at: int = 0
    link: str | None = None


class Expected(NamedTuple):
    """A verdict that is expected, of `contract` at `at`, `since` a time if that is given."""

    at: int
    place: str
    contract: str
    since: int | None
    keys: ExpectedKeys


class Standing(NamedTuple):
    """How a contract is expected to stand."""

    at: int
    place: str
    contract: str
    subject: str
    state: str


class Scenario(NamedTuple):
    """A test. Times are microseconds since 1970 UTC; `local` is the zone in which times of the calendar are told, if
    there are any, and None if all times are told since the start."""

    name: str
    place: str
    contracts: Sequence[Contract]
    start: int
    until: int
    happenings: Sequence[Happening]
    expected: Sequence[Expected]
    standings: Sequence[Standing]
    complete: bool
    local: tzinfo | None


def load_scenarios(path: Path) -> list[Scenario]:
    """The tests in a file. Raises ConfigError with every mistake."""
    keys, problems = load_file(path, ScenarioFile)
    scenarios: list[Scenario] = []
    if keys is not None:
        with machine_in(keys.timezone):
            contracts = _contracts(path, keys, problems)
            local = local_zone(keys.timezone)
            for section in keys.tests:
                scenario = _Reader(contracts, local, problems).read(section)
                scenarios += [scenario] if scenario is not None else []
        if not keys.tests and not problems:
            problems.append(Problem(f"{path}:1", "tests", "is missing"))
    if problems:
        raise ConfigError(in_order(problems, [str(path)]))
    return scenarios


def _contracts(path: Path, keys: ScenarioFile, problems: list[Problem]) -> list[Contract]:
    sections: Sequence[Section] = keys.contracts
    if bool(keys.contracts) == bool(keys.config):
        if not problems:
            problems.append(Problem(f"{path}:1", "", "needs either contracts or config, to say what is tested"))
    elif keys.config:
        try:
            loaded = load_to_plan(str(path.parent / keys.config))
        except ConfigError as error:
            problems.extend(error.problems)
            return []
        problems.extend(each for each in loaded.problems if each.path.startswith("contracts"))
        sections = loaded.config.contracts
    contracts = load_contracts(sections, problems)
    known = {contract.name for contract in contracts}
    for index, name in enumerate(keys.only):
        if name not in known:
            place = f"only[{index}]"
            problems.append(Problem(f"{path}:1", place, f"there is no contract {name!r}", did_you_mean(name, known)))
    return [contract for contract in contracts if not keys.only or contract.name in keys.only]


class _Reader:
    """Reads a test; what is wrong with it is added to `problems`."""

    def __init__(self, contracts: Sequence[Contract], local: tzinfo, problems: list[Problem]) -> None:
        self._contracts = contracts
        self._local = local
        self._problems = problems
        self._start = 0
        self._latest = 0
        self._by_calendar = False

    def read(self, section: Section) -> Scenario | None:
        """The test; None when something is wrong with it."""
        before = len(self._problems)
        keys = section.read(ScenarioKeys, self._problems, ignore=())
        if keys is None:
            return None
        try:
            self._start = self._latest = parse_moment(keys.start, self._local)
        except ValueError as error:  # it is a time in UTC, and not here
            self._wrong(section, "start", str(error))
            return None
        until = self._time(section, "until", keys.until)
        happenings: list[Happening] = []
        for part in keys.events:
            happenings += self._happenings(part, max(0, EVENTS_MAX + 1 - len(happenings)))
        happenings.sort(key=lambda each: each.at)
        expected = [each for part in keys.expect for each in self._expected(part)]
        standings = [each for part in keys.states for each in self._standings(part)]
        if len(happenings) > EVENTS_MAX:
            self._wrong(section, "events", f"there are more than {EVENTS_MAX} of them")
        if keys.until != "0s" and until < self._latest:
            self._wrong(section, "until", "lies before the last time that the test mentions")
        if len(self._problems) > before:
            return None
        return Scenario(
            keys.name, section.where("name"), self._contracts, self._start, max(until, self._latest), happenings,
            expected, sorted(standings, key=lambda each: each.at), keys.complete,
            self._local if self._by_calendar else None,
        )  # fmt: skip

    def _happenings(self, section: Section, room: int) -> Iterator[Happening]:
        """What a part says that happens; of a series until a time the first `room` events."""
        keys = section.read(EventKeys, self._problems, ignore=())
        if keys is None:
            return
        place = section.where()
        if keys.every is None:
            at = self._time(section, "at", keys.at or "")
            if keys.link:
                yield Happening(at, place, link=keys.link)
                return
            occurred_at = at if keys.occurred_at is None else self._time(section, "occurred_at", keys.occurred_at)
            data = {} if keys.data is msgspec.UNSET else keys.data
            yield Happening(at, place, keys.type, keys.subject, self._json(section, "data", data), occurred_at)
            return
        at, step = self._time(section, "from", keys.from_), keys.every.microseconds
        if keys.values:
            for index, value in enumerate(keys.values):
                text = self._json(section, f"values[{index}]", {"value": value})
                yield Happening(at + index * step, place, keys.type, keys.subject, text, at + index * step)
            self._latest = max(self._latest, at + (len(keys.values) - 1) * step)
            return
        text = self._json(section, "data", {} if keys.data is msgspec.UNSET else keys.data)
        for count in range(min((self._time(section, "until", keys.until or "") - at) // step + 1, room)):
            yield Happening(at + count * step, place, keys.type, keys.subject, text, at + count * step)

    def _expected(self, section: Section) -> Iterator[Expected]:
        keys = section.read(ExpectedKeys, self._problems, ignore=())
        if keys is not None:
            since = None if keys.since is None else self._time(section, "since", keys.since)
            contract = self._contract(section, keys.contract)
            yield Expected(self._time(section, "at", keys.at), section.where(), contract, since, keys)

    def _standings(self, section: Section) -> Iterator[Standing]:
        keys = section.read(StateKeys, self._problems, ignore=())
        if keys is not None:
            at, contract = self._time(section, "at", keys.at), self._contract(section, keys.contract)
            yield Standing(at, section.where(), contract, keys.subject, keys.state)

    def _contract(self, section: Section, name: str) -> str:
        names = [contract.name for contract in self._contracts]
        if name in names or not names:
            return name
        if not name and len(names) == 1:
            return names[0]
        message = f"there is no contract {name!r}" if name else "is missing: there are several contracts"
        self._wrong(section, "contract", message, did_you_mean(name, names))
        return name

    def _time(self, section: Section, key: str, text: str) -> int:
        """The time that `text` says. It isn't before the start, but for when something occurred."""
        try:
            at = self._start + Duration.parse(text).microseconds
        except ValueError:
            try:
                at = parse_moment(text, self._local)
            except ValueError as error:
                self._wrong(section, key, str(error))
                return self._start
            self._by_calendar = True
        if at < self._start and key != "occurred_at":
            self._wrong(section, key, "lies before the start of the test")
        if key not in ("occurred_at", "since"):
            self._latest = max(self._latest, at)
        return at

    def _json(self, section: Section, key: str, value: Any) -> str:
        try:
            return to_json_whole(value)
        except ValueError as error:
            self._wrong(section, key, f"can't be the data of an event: {error}")
            return "{}"

    def _wrong(self, section: Section, key: str, message: str, hint: str = "") -> None:
        self._problems.append(section.problem(key, message, hint))
