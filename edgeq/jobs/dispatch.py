"""From a job to the row that is stored: its arguments as JSON, its keys, its callbacks, and how it is to be run.

Whatever can't be stored is refused here, with an error that names the job and the argument, and not when it is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..clock import is_time
from ..config.suggest import did_you_mean
from ..context import How
from ..store import jobs
from ..store.jobs import NewJob
from . import settings
from .definition import ARGS_BYTES_MAX, Definition
from .keys import Limit, Unique, check_key

if TYPE_CHECKING:
    from .job import Job

CALLBACK_LEVELS_MAX = 3
_HOW = tuple(How.__annotations__)
_NOTHING: Mapping[str, Any] = {}


def row(
    job: Job,
    made: Definition,
    *,
    now: int,
    run_at: int | None = None,
    cause_id: int | None = None,
    how: Mapping[str, Any] = _NOTHING,
) -> NewJob:
    """The row for `job`; what `how` says, where it isn't None, counts more than the class. Raises ValueError, and
    TypeError for a word in `how` that How doesn't have."""
    own = made.settings
    if not how and run_at is None and own.unique is None and own.limit is None:  # as the class says, and at once
        return NewJob(
            queue=own.queue, kind=made.kind, args=made.encode(job), run_at=now, created_at=now, priority=own.priority,
            max_attempts=own.max_attempts, needs=own.needs, expires_us=own.expires_us, cause_id=cause_id,
        )  # fmt: skip
    given = {name: value for name, value in how.items() if value is not None}
    for name in given:
        if name not in _HOW:
            raise TypeError(f"job {made.name}: a dispatch knows no {name!r} ({did_you_mean(name, _HOW)})")
    args = made.encode(job)

    def chosen(name: str, parse: Callable[[Any], Any], otherwise: Any) -> Any:
        if name not in given:
            return otherwise
        try:
            return parse(given[name])
        except ValueError as error:
            raise ValueError(f"{name} = {given[name]!r:.80}: {error}") from None

    def callback(name: str) -> NewJob | None:
        asked = given.get(name)
        if asked is None:
            return None
        if isinstance(asked, type) or not hasattr(asked, "new_job"):
            raise ValueError(f"{name} must be a job, such as CloseValve(device='m1'), not {asked!r:.80}")
        try:
            return asked.new_job(now=now, cause_id=cause_id)  # type: ignore[no-any-return]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    try:
        if run_at is not None and not is_time(run_at):
            raise ValueError(f"run_at must be in microseconds since 1970 UTC, not {run_at!r:.80}")
        unique = chosen("unique", settings.unique, own.unique)
        if "unique" in given:
            settings.check_arguments("unique", unique, made.arguments)
        key, rule = _unique(given.get("unique_key"), unique, job, made)
        new = NewJob(
            queue=chosen("queue", settings.queue, own.queue),
            kind=made.kind,
            args=args,
            run_at=now if run_at is None else run_at,
            created_at=now,
            priority=chosen("priority", settings.priority, own.priority),
            max_attempts=chosen("max_attempts", settings.max_attempts, own.max_attempts),
            unique_key=key,
            unique=rule,
            limit=_limit(given.get("limit_key"), own.limit, job, made),
            needs=own.needs,
            expires_us=chosen("expires", settings.expires_us, own.expires_us),
            on_success=callback("on_success"),
            on_failure=callback("on_failure"),
            cause_id=cause_id,
        )
        _check_callbacks(new)
    except ValueError as error:
        raise made.error(error) from None
    return new


def _unique(key: object, unique: Unique | None, job: Job, made: Definition) -> tuple[str | None, jobs.Unique]:
    rule = jobs.Unique() if unique is None else unique.rule
    if key is not None:
        return check_key("unique_key", key), rule
    return (None if unique is None else unique.key(made.values(job))), rule


def _limit(key: object, limit: Limit | None, job: Job, made: Definition) -> jobs.Limit | None:
    if limit is None:
        if key is not None:
            raise ValueError(f"limit_key = {key!r:.80}: the job has no limit that it could be for")
        return None
    if key is not None:
        return limit.of(made.kind, {}, check_key("limit_key", key))
    return limit.of(made.kind, made.values(job) if limit.by else {})


def _check_callbacks(new: NewJob) -> None:
    if new.on_success is None and new.on_failure is None:
        return
    if _levels(new) > CALLBACK_LEVELS_MAX:
        raise ValueError(f"callbacks of callbacks go at most {CALLBACK_LEVELS_MAX} levels deep")
    if _args_bytes(new) > ARGS_BYTES_MAX:
        raise ValueError(
            f"its arguments and those of its callbacks take more than {ARGS_BYTES_MAX // 1024} KiB of JSON together"
        )


def _callbacks(new: NewJob) -> list[NewJob]:
    return [each for each in (new.on_success, new.on_failure) if each is not None]


def _levels(new: NewJob) -> int:
    return max((1 + _levels(each) for each in _callbacks(new)), default=0)


def _args_bytes(new: NewJob) -> int:
    return len(new.args.encode()) + sum(_args_bytes(each) for each in _callbacks(new))
