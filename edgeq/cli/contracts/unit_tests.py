"""`edgeq contracts test`: unit tests of contracts, and what is wrong when one fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ...clock import rfc3339
from ...contracts.rehearsal import Result, rehearse, told
from ...contracts.replay import Said
from ...contracts.scenario import Expected, Scenario, load_scenarios
from ...errors import ConfigError, Problem
from ...units import Duration
from ..common import as_json, configured
from ..printing import say, say_json
from .differences import differences, fault_text


@click.command("test")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@as_json
@configured
def test(files: tuple[str, ...], json_lines: bool) -> int:
    """Run unit tests of contracts.

    Each FILE is a YAML file with contracts, events with times, and the verdicts that are expected; of a folder all
    files below it that end in .yaml. The clock is a virtual one: a month is over at once. Ends with 0 if all tests
    have passed, with 1 if one has failed, and with 78 if something is wrong with a file.

    \b
    contracts:
      - {name: door-closes, kind: deadline, after: opened, expect: closed, within: 5m}
    tests:
      - name: left open
        events:
          - {at: 0s, type: opened, subject: north}
          - {every: 1m, until: 6m, type: noise}
          - {at: 7m, type: closed, subject: north}
        expect:
          - {at: 5m, verdict: violated, subject: north}
          - {at: 7m, verdict: resolved, late_by: 2m}
        states:
          - {at: 4m, subject: north, state: pending}

    A verdict that isn't expected fails the test (unless complete: false). There is more in config/examples/contracts.
    """
    scenarios: list[tuple[Path, list[Scenario]]] = []
    problems: list[Problem] = []
    paths = list(_paths(files, problems))
    for path in paths:
        try:
            scenarios.append((path, load_scenarios(path)))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    failed = count = 0
    for path, found in scenarios:
        for scenario in found:
            result = rehearse(scenario)
            count += 1
            failed += not result.passed
            if json_lines:
                say_json(_as_json(path, result))
            elif not result.passed:
                say("\n".join(differences(result)))
                say()
    if not json_lines:
        say(f"{count - failed} passed, {failed} failed ({len(paths)} file{'' if len(paths) == 1 else 's'})")
    return 1 if failed else 0


def _paths(files: Sequence[str], problems: list[Problem]) -> Iterator[Path]:
    for name in files:
        path = Path(name)
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.rglob("*.yaml"))
        if not found:
            problems.append(Problem(name, "", "has no files that end in .yaml in it"))
        yield from found


def _as_json(path: Path, result: Result) -> dict[str, Any]:
    return {
        "file": str(path), "test": result.scenario.name, "passed": result.passed,
        "differences": [
            {
                "expected": None if pair.expected is None else _expected_json(pair.expected),
                "got": None if pair.came is None else _came_json(pair.came),
                "fields": list(pair.wrong),
            }
            for pair in result.pairs if result.is_wrong(pair)
        ],
        "states": [fault_text(result.scenario, fault) for fault in result.faults],
        "skipped": [
            {"contract": said.contract, "reason": said.reason, "event": said.event_id} for said in result.skipped
        ],
    }  # fmt: skip


def _expected_json(expected: Expected) -> dict[str, Any]:
    keys = expected.keys
    given = {name: getattr(keys, name) for name in keys.__struct_fields__}
    kept = {name: value for name, value in given.items() if value is not None and value is not msgspec.UNSET}
    words = {name: str(value) if isinstance(value, Duration) else value for name, value in kept.items()}
    return {**words, "contract": expected.contract, "at": rfc3339(expected.at), "place": expected.place}


def _came_json(came: Said) -> dict[str, Any]:
    return {"at": rfc3339(came.at), "verdict": came.what, "subject": came.subject, **told(came)}
