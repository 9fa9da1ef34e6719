"""Schedules: jobs that are dispatched again and again, and what becomes of the times at which nobody could do it.

A run is missed when it could not be dispatched within LATE_SECONDS of its time, or before the next one was due.
`catch_up` says what then happens: with `skip`, only the last run takes place, and only if it isn't too late; with
`once`, the last run stands for all of them; with `all`, each takes place, but at most RUNS_MAX, the last ones.

The clock may be wrong, and be set right:

- Set forward, it has passed over times that nobody lived through: whatever `catch_up` says, there is at most one run
  for all of them, and none for a schedule that has never run, unless its time is just past.
- Set back, it comes by times again. The last run isn't repeated; but if the clock goes back beyond the run before that,
  it is the clock that counts, so that there is no gap of days.
- A period (`every`) counts the time that passes, and not what the clock is set to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ...clock import MICROSECONDS, rfc3339
from ...config import schema
from ...config.schema import LoadedConfig
from ...context import Dispatchable
from ...errors import Problem
from ...store.jobs import NewJob, Unique
from ...store.schedules import StoredSchedule
from ...zones import machine_zone, zone
from ..job import resolve

if TYPE_CHECKING:
    from .rule import Rule

LATE_SECONDS = 60.0
RUNS_MAX = 1000
NAME_CHARACTERS_MAX = 200

_NEVER = Unique(states=())
_LATE = round(LATE_SECONDS * MICROSECONDS)
_NEAR = 60 * MICROSECONDS


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule with its rule, and its job with the arguments that it is dispatched with."""

    name: str
    rule: Rule
    job: Dispatchable
    catch_up: str = "once"

    def begin(self, now: int) -> StoredSchedule:
        """How it stands when it has just come into use: it runs at its next time, not at once."""
        return StoredSchedule(self.name, None, self.rule.first(now), self.rule.spec)

    def new_job(self, run_at: int, now: int) -> NewJob:
        """The job for the run at `run_at`, to run at once. Its unique key says which run it is, and keeps out no other:
        that is not its task. A class with a key of its own keeps that. Raises whatever the class does about its
        arguments."""
        new = self.job.new_job(now=now)
        if new.unique_key is not None:
            return new
        return replace(new, unique_key=f"schedule:{self.name}:{rfc3339(run_at)}", unique=_NEVER)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done for a schedule: dispatch the job for each of `runs` (their times, in order) and go on at
    `next_run_at`. `missed_since`, if any, is the first run time that was missed."""

    next_run_at: int
    runs: Sequence[int] = ()
    missed_since: int | None = None


def decide(
    schedule: Schedule, row: StoredSchedule, *, now: int, since: int, step: int, unsure: bool, reached: int | None
) -> Decision | None:
    """What is to be done for a schedule that stands in the store as `row`; None: nothing.

    `step` is by how much the clock was set since the last look, which by the clock as it is now was at `since`;
    `unsure`: the row may have been changed after that. `reached` is the latest run time that is known to have been
    done. All in microseconds.
    """
    rule = schedule.rule
    due_at = row.next_run_at
    if step or unsure:
        due_at = rule.set_right(due_at, row.last_run_at, since, 0 if unsure else step)
    if due_at > now:
        return None if due_at == row.next_run_at else Decision(due_at)
    last = _newest(rule, due_at, now + 1, _NEAR)
    late = now - last > _LATE
    each = schedule.catch_up == "all" and not step
    if each:
        runs = _newest_ones(rule, due_at, last)
    elif late and (schedule.catch_up == "skip" or (step and row.last_run_at is None)):
        runs = []
    else:
        runs = [last]
    missed_since = due_at if not runs or runs[0] != due_at else None
    if rule.comes_again:
        done = max((run for run in (row.last_run_at, reached) if run is not None and run <= now), default=-1)
        runs = [run for run in runs if run > done]
    on_time = each or (last == due_at and not late)
    return Decision(rule.after(now, last if on_time else now), runs, missed_since)


def _newest(rule: Rule, floor: int, end: int, near: int) -> int:
    """The newest run time before `end`, looked for first where it is `near`. `floor` is a run time before `end`."""
    found, high = floor, end  # there is none from `high` to `end`
    while end - near > floor:
        first = rule.after(end - near - 1, floor)
        if first < end:
            found = first
            break
        near *= 2
    while (later := rule.after(found, floor)) < high:
        middle = (later + high) // 2
        first = rule.after(middle - 1, floor)
        if first < high:
            found = first
        else:
            found, high = later, middle
    return found


def _newest_ones(rule: Rule, floor: int, last: int) -> list[int]:
    """The last RUNS_MAX run times from `floor` to `last`, in order. Both are run times."""
    runs, near = [last], _NEAR
    while runs[-1] > floor and len(runs) < RUNS_MAX:
        runs.append(_newest(rule, floor, runs[-1], near))
        near = runs[-2] - runs[-1]
    return runs[::-1]


def load_schedules(loaded: LoadedConfig, problems: list[Problem]) -> list[Schedule]:
    """The schedules of a configuration; every mistake is appended to `problems`. Imports the modules of their jobs."""
    schedules = []
    for index, (config, rule) in enumerate(zip(loaded.config.schedules, load_rules(loaded, problems), strict=True)):
        job = _job(loaded, f"schedules[{index}]", config, problems)
        if rule is not None and job is not None:
            schedules.append(Schedule(config.name, rule, job, config.catch_up))
    return schedules


def load_rules(loaded: LoadedConfig, problems: list[Problem]) -> list[Rule | None]:
    """The rule of each configured schedule; None for one with mistakes, which are appended to `problems`."""
    rules: list[Rule | None] = []
    places: dict[str, str] = {}
    for index, config in enumerate(loaded.config.schedules):
        path, before = f"schedules[{index}]", len(problems)
        if config.name in places:
            message, hint = f"there is another schedule {config.name!r}", f"at {places[config.name]}"
            problems.append(_problem(loaded, f"{path}.name", message, hint))
        elif len(config.name) > NAME_CHARACTERS_MAX:
            problems.append(_problem(loaded, f"{path}.name", f"must be at most {NAME_CHARACTERS_MAX} characters"))
        places.setdefault(config.name, loaded.where(f"{path}.name"))
        rule = _rule(loaded, path, config, problems)
        rules.append(rule if len(problems) == before else None)
    return rules


def _rule(loaded: LoadedConfig, path: str, config: schema.Schedule, problems: list[Problem]) -> Rule | None:
    from .rule import Cron, Every  # a gateway without schedules doesn't pay for it

    if config.every is not None:
        return Every(config.every)
    try:
        found, name = (zone(config.timezone), config.timezone) if config.timezone else machine_zone(os.environ)
    except ValueError as error:
        instead = "" if config.timezone else "is needed, as the machine's own can't be used: "
        problems.append(_problem(loaded, f"{path}.timezone", f"{instead}{error}"))
        return None
    try:
        return Cron(config.cron or "", found, name)
    except ValueError as error:
        problems.append(_problem(loaded, f"{path}.cron", str(error)))
        return None


def _job(loaded: LoadedConfig, path: str, config: schema.Schedule, problems: list[Problem]) -> Dispatchable | None:
    try:
        job_class = resolve(config.job)
    except ValueError as error:
        problems.append(_problem(loaded, f"{path}.job", str(error)))
        return None
    try:
        job = job_class.from_args(config.args)
        job.new_job(now=0)
    except (TypeError, ValueError) as error:
        problems.append(_problem(loaded, f"{path}.args", str(error)))
        return None
    return job


def _problem(loaded: LoadedConfig, path: str, message: str, hint: str = "") -> Problem:
    return Problem(loaded.where(path), path, message, hint)
