"""What is wrong when a unit test of contracts fails, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...clock import MICROSECONDS
from ...config.suggest import did_you_mean
from ...contracts.contract import say as said_value
from ...contracts.instance import Instance
from ...contracts.rehearsal import Fault, Pair, Result, told
from ...contracts.replay import Said
from ...contracts.scenario import Expected, Scenario
from ...contracts.telling import due_at, shown
from ...patterns import pattern
from ...units import Duration
from ...zones import offset_at, reading_at
from ..printing import cell

_FIELDS = ("since", "severity", "message", "observed", "reason", "episode", "reminder", "late_by", "lasted")
_SKIPPED_SHOWN = 10
_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


def differences(result: Result) -> Iterator[str]:
    """What was expected beside what came, line by line, for a test that has failed."""
    scenario = result.scenario
    yield f"FAILED {scenario.place}: {scenario.name}"
    words = _Words(scenario)
    rows = [words.row(result, pair) for pair in result.pairs]
    if rows:
        width = max(len("expected"), *(len(row[1]) for row in rows))
        yield f"      {'expected':<{width}}   got"
        for mark, expected, came, notes in rows:
            yield f"    {mark} {expected:<{width}}   {came}".rstrip()
            yield from (f"        {note}" for note in notes)
    yield from (f"    ! {words.fault(fault)}" for fault in result.faults)
    yield from (f"      {line}" for line in words.skipped(result))


def fault_text(scenario: Scenario, fault: Fault) -> str:
    """A contract that doesn't stand as expected, in words."""
    return _Words(scenario).fault(fault)


class _Words:
    """Puts what has to do with a test into words; times as the test tells them."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def time(self, at: int) -> str:
        """Since the start, or, in a test with times of the calendar, by its clocks."""
        local = self._scenario.local
        if local is not None:
            seconds, rest = divmod(at, MICROSECONDS)
            hours, minutes = divmod(offset_at(seconds, local) // 60, 60)
            fraction = f".{rest:06d}".rstrip("0") if rest else ""
            return f"{reading_at(seconds, local):%Y-%m-%dT%H:%M:%S}{fraction}{hours:+03d}:{minutes:02d}"
        return _length(at - self._scenario.start)

    def row(self, result: Result, pair: Pair) -> tuple[str, str, str, list[str]]:
        """A mark, what was expected, what came, and notes. The mark is empty when all is well."""
        differing = [name for name in _FIELDS if name in pair.wrong]
        expected = "nothing" if pair.expected is None else self.expected(pair.expected, differing)
        came = "nothing" if pair.came is None else self.came(pair.came, differing)
        if not result.is_wrong(pair):
            return " ", expected if pair.expected else "", came, []
        mark = "!" if pair.expected and pair.came else "-" if pair.expected else "+"
        return mark, expected, came, list(self._notes(result, pair))

    def expected(self, expected: Expected, fields: Sequence[str]) -> str:
        """What was expected, with the values of these fields."""
        values = {name: getattr(expected.keys, name) for name in fields}
        if "since" in values:
            values["since"] = self.time(expected.since or 0)
        return self._verdict(expected.at, expected.keys.verdict, expected.contract, expected.keys.subject or "", values)

    def came(self, came: Said, fields: Sequence[str]) -> str:
        """What came."""
        data = told(came)
        values: dict[str, Any] = {name: data.get(name) for name in fields}
        for name, field in (("late_by", "late_by_seconds"), ("lasted", "duration_seconds")):
            if name in values and data.get(field) is not None:
                values[name] = Duration(data[field])
        if "since" in values:
            values["since"] = self.time(came.since)
        if "message" in values:
            values["message"] = came.message
        return self._verdict(came.at, came.what, came.contract, came.subject, values)

    def fault(self, fault: Fault) -> str:
        """A contract that doesn't stand as expected."""
        standing = fault.standing
        of = f"{standing.contract} {standing.subject}".rstrip()
        return f"{self.time(standing.at)} {of} is {fault.state}, expected {standing.state} ({standing.place})"

    def skipped(self, result: Result) -> Iterator[str]:
        """What could not be judged."""
        for said in result.skipped[:_SKIPPED_SHOWN]:
            by = f" by {said.contract}" if said.contract else ""
            error = f" ({said.message})" if said.message else ""
            yield f"skipped{by} as {said.reason}: {self._event(said.event_id)}{error}"
        if len(result.skipped) > _SKIPPED_SHOWN:
            yield f"and {len(result.skipped) - _SKIPPED_SHOWN} more events were skipped"

    def _notes(self, result: Result, pair: Pair) -> Iterator[str]:
        if pair.expected is not None:
            yield f"expected at {pair.expected.place}"
        if pair.came is not None:
            if pair.came.event_id:
                yield f"because of {self._event(pair.came.event_id)}"
            if pair.expected is None:
                yield f"says: {cell(pair.came.message)}"
            return
        assert pair.expected is not None
        contract = result.contract(pair.expected.contract)
        types = {each.type for each in self._scenario.happenings if not each.link}
        if contract.types and not any(pattern(wanted)(each) for wanted in contract.types for each in types):
            hint = did_you_mean(contract.types[0], sorted(types)) if types else "nothing happens"
            yield f"{contract.name} looks at events of type {', '.join(contract.types)}; {hint}"
            return
        yield from self._ends(result, pair.expected)

    def _ends(self, result: Result, expected: Expected) -> Iterator[str]:
        """How the contract stands in the end."""
        subject = expected.keys.subject
        ends = {each: found for (name, each), found in result.ends.items() if name == expected.contract}
        if subject is not None and subject not in ends:
            hint = did_you_mean(subject, sorted(ends)) if ends else "it has none"
            yield f"{expected.contract} has no subject {subject!r}; {hint}"
        for each in sorted(ends) if subject is None else [subject]:
            if each in ends:
                yield f"in the end {expected.contract} {each} is {self._state(ends[each])}"

    def _state(self, instance: Instance) -> str:
        due = due_at(instance)
        observed = instance.memory.observed
        seen = "" if observed is None else f", observed {cell(said_value(observed))}"
        return f"{shown(instance)}{seen}{'' if due is None else f', due at {self.time(due)}'}"

    def _event(self, event_id: int) -> str:
        happening = self._scenario.happenings[event_id - 1]
        data = "" if happening.data_json == "{}" else f" {cell(happening.data_json)}"
        what = f"{happening.type} {happening.subject}".rstrip()
        return f"{what} at {self.time(happening.at)}{data} ({happening.place})"

    def _verdict(self, at: int, what: str, contract: str, subject: str, values: dict[str, Any]) -> str:
        text = " ".join(filter(None, (self.time(at), what, contract, subject)))
        return "".join([text, *(f", {name} {_value(value)}" for name, value in values.items())])


def _value(value: Any) -> str:
    return str(value) if isinstance(value, Duration) else cell(said_value(value))


def _length(microseconds: int) -> str:
    """A length of time, exactly: `1h30m`, `0s`."""
    seconds, rest = divmod(abs(microseconds), MICROSECONDS)
    parts = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        parts += [f"{count}{unit}"] if count else []
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    parts += [f"{seconds}{fraction}s"] if seconds or fraction or not parts else []
    return ("-" if microseconds < 0 else "") + "".join(parts)
