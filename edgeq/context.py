"""`ctx`: what a controller, a processor and a job are given, and through which they decide.

Nothing happens when `ctx.emit` or `ctx.dispatch` is called; it is recorded, and committed together with whatever the
caller's station commits: the acknowledgement of the message, the processor's cursor, the job's completion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

from .clock import EPOCH, Clock, is_time
from .events import SEVERITIES, NewEvent, Severity, to_json
from .store.decisions import Decisions
from .store.jobs import NewJob
from .store.store import storable
from .units import Duration

if TYPE_CHECKING:
    from .jobs.keys import Unique

RECORDED_MAX = 10_000
RECORDED_CHARACTERS_MAX = 16 * 2**20
DELAY_SECONDS_MAX = 100 * 366 * 86400.0
_YEAR_US = 366 * 86_400_000_000


class How(TypedDict, total=False):
    """How one job is queued and run, where it differs from what its class says. None: as the class says.

    `queue`, `priority`, `max_attempts` and `expires` are as on the class. `unique_key` (at most 1 KiB) stands for the
    arguments by which the job is unique; without it, `unique` says which these are. `limit_key` stands for those by
    which the class's `limit` counts. `on_success` is added to its queue in the commit that completes the job,
    `on_failure` in the one that makes it dead for good; `ctx.parent` tells them what was.
    """

    queue: str | None
    priority: str | int | None
    max_attempts: int | None
    expires: str | None
    unique_key: str | None
    unique: Unique | str | tuple[str, ...] | bool | None
    limit_key: str | None
    on_success: Dispatchable | None
    on_failure: Dispatchable | None


class Dispatchable(Protocol):
    """A job with its arguments, ready to be queued."""

    def new_job(
        self, *, now: int, run_at: int | None = None, cause_id: int | None = None, **how: Unpack[How]
    ) -> NewJob:
        """The row to store. `now` and `run_at` (default: at once) are microseconds since 1970 UTC. Raises ValueError
        that names the job and what can't be stored."""


def delay_seconds(delay: str | float) -> float:
    """How many seconds `"5m"`, 300 or 300.0 are. Raises ValueError for anything else, and for what is negative or
    beyond a century."""
    if isinstance(delay, str):
        seconds = float(Duration.parse(delay))
    elif isinstance(delay, int | float) and not isinstance(delay, bool):
        seconds = float(delay)
    else:
        raise ValueError(f"a delay is written '10s', or as a number of seconds, not {delay!r:.80}")
    if not 0 <= seconds <= DELAY_SECONDS_MAX:
        raise ValueError(f"a delay must not be negative, or longer than a century: {delay!r:.80}")
    return seconds


def when(now: int, delay: str | float | None, run_at: int | datetime | None) -> int | None:
    """The `run_at` of a dispatch in microseconds since 1970 UTC, out of what its caller said of it; None: at once.

    Raises ValueError when both are given, for a negative or unreadable delay, and for a `run_at` that is neither whole
    microseconds nor a datetime with a time zone; also for one in seconds or milliseconds, which would be in 1970.
    """
    if delay is not None:
        if run_at is not None:
            raise ValueError("give either delay or run_at")
        return now + round(delay_seconds(delay) * 1e6)
    if run_at is None:
        return None
    if isinstance(run_at, datetime) and run_at.tzinfo is not None:
        return (run_at - EPOCH) // timedelta(microseconds=1)
    if isinstance(run_at, datetime) or not is_time(run_at):
        raise ValueError(
            f"run_at must be in microseconds since 1970 UTC, or a datetime with a time zone, not {run_at!r:.80}"
        )
    if 0 < run_at < _YEAR_US and now > 2 * _YEAR_US:
        raise ValueError(f"run_at must be in microseconds since 1970 UTC, and {run_at} looks like seconds")
    return run_at


def new_job(
    job: Dispatchable,
    *,
    now: int,
    delay: str | float | None = None,
    run_at: int | datetime | None = None,
    cause_id: int | None = None,
    **how: Unpack[How],
) -> NewJob:
    """The row to store for a dispatch of `job`. Raises ValueError and TypeError that name the job and what is wrong."""
    if isinstance(job, type) or not hasattr(job, "new_job"):
        raise TypeError(f"only a job can be dispatched, such as CloseValve(device='m1'), not {job!r:.80}")
    try:
        due = when(now, delay, run_at)
    except ValueError as error:
        raise ValueError(f"job {type(job).__qualname__}: {error}") from None
    return job.new_job(now=now, run_at=due, cause_id=cause_id, **how)


class Context:
    """Records decisions: at most RECORDED_MAX, of RECORDED_CHARACTERS_MAX in all, as they are held in memory until they
    are committed together. `cause_id` is the id of the event that is being handled, if it is one."""

    keep = 0
    """The priority of the events that it emits: see events.KEEP."""

    def __init__(
        self, clock: Clock, *, cause_id: int | None = None, now: int | None = None, decisions: Decisions | None = None
    ) -> None:
        self.clock = clock
        self.cause_id = cause_id
        self._now = clock.now() if now is None else now
        self.decisions = Decisions() if decisions is None else decisions
        self._recorded = self._characters = 0

    def take(self) -> Decisions:
        """What was recorded since the last call; there is room for as much again."""
        decisions, self.decisions = self.decisions, Decisions()
        self._recorded = self._characters = 0
        return decisions

    @property
    def now(self) -> int:
        """When it is handled, in microseconds since 1970 UTC: what `recorded_at` says, and a delay counts from."""
        return self._now

    def emit(
        self,
        type: str,  # noqa: A002 - the name of the column
        *,
        subject: str = "",
        data: Any = None,
        tags: Iterable[str] = (),
        description: str = "",
        occurred_at: int | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Record an event.

        `data` is anything that JSON can say (default: an empty object); a NaN or an infinity in it becomes null.
        `occurred_at` is microseconds since 1970 UTC (default: now, or the arrival of the message). Of two events with
        one `idempotency_key` the store keeps the first. Raises ValueError for an empty type, for data that JSON can't
        say, for an `occurred_at` of another form, for a text that not every database can keep (one with a null
        character or half of a surrogate pair), and when too much is recorded.
        """
        if not isinstance(type, str) or not type:
            raise ValueError("an event needs a type, such as 'door.opened'")
        tags = tuple(tags)
        texts = {"type": type, "subject": subject, "description": description, "idempotency_key": idempotency_key}
        for name, text in (*texts.items(), *(("tags", tag) for tag in tags)):
            _check_text(name, text)
        if occurred_at is not None and not is_time(occurred_at):
            raise ValueError(f"occurred_at must be in microseconds since 1970 UTC, not {occurred_at!r:.80}")
        now = self.now
        try:
            data_json = "{}" if data is None else to_json(data)
        except ValueError as error:
            raise ValueError(f"the data of event {type!r} can't be written as JSON: {error}") from None
        self._make_room(len(data_json) + len(description))
        self.decisions.events.append(
            NewEvent(
                type,
                subject=subject,
                topic=self.topic_of_event,
                data_json=data_json,
                tags=tags,
                description=description,
                occurred_at=now if occurred_at is None else occurred_at,
                recorded_at=now,
                idempotency_key=idempotency_key,
                cause_id=self.cause_id,
                keep=self.keep,
            )
        )

    def dispatch(
        self,
        job: Dispatchable,
        *,
        delay: str | float | None = None,
        run_at: int | datetime | None = None,
        **how: Unpack[How],
    ) -> None:
        """Record a job to run at once, after `delay` (`"10s"`, or seconds), or at `run_at` (microseconds since 1970
        UTC, or a datetime with a time zone).

        `how` is what is different for this one: see How. Raises ValueError that names the job and what is wrong, and
        when too much is recorded.
        """
        row = new_job(job, now=self.now, delay=delay, run_at=run_at, cause_id=self.cause_id, **how)
        self._make_room(len(row.args))
        self.decisions.jobs.append(row)

    def notify(
        self,
        title: str,
        body: str = "",
        *,
        severity: Severity = "info",
        subject: str = "",
        tags: Iterable[str] = (),
        channels: Iterable[str] | None = None,
    ) -> None:
        """Record a notification: an event of type `notification`, which the courier tells where the routes say; with
        `channels`, on the channels of these names and nowhere else.

        `severity` is debug, info, warning or critical. A title of more than 250 characters is cut when it is told, and
        so is a body of more than 16 KiB, which says how long it was; the event has them whole. Of a channel that the
        configuration doesn't have, the courier says so in the log, and tells it where the routes say as well. Raises
        ValueError for an empty title, another severity, what is no text, and `channels` that are no list of names; for
        the rest as `emit`.
        """
        if not isinstance(title, str) or not title.strip():
            raise ValueError(f"a notification needs a title, a text such as 'The tank is low', not {title!r:.80}")
        if not isinstance(body, str):
            raise ValueError(f"the body of a notification must be a text, not {body!r:.80}")
        if not isinstance(severity, str) or severity not in SEVERITIES:
            raise ValueError(f"the severity of a notification is {', '.join(SEVERITIES)}, not {severity!r:.80}")
        data: dict[str, Any] = {"title": title, "body": body, "severity": severity}
        if channels is not None:
            data["channels"] = _channel_names(channels)
        self.emit("notification", subject=subject, data=data, tags=("notification", *tags), description=title)

    def _make_room(self, characters: int) -> None:
        self._recorded += 1
        self._characters += characters
        if self._recorded > RECORDED_MAX or self._characters > RECORDED_CHARACTERS_MAX:
            raise ValueError(
                f"more than {RECORDED_MAX} events and jobs, or {RECORDED_CHARACTERS_MAX // 2**20} MiB of them, "
                "can't be recorded at once: leave the rest to a job of its own"
            )

    @property
    def topic_of_event(self) -> str | None:
        """The MQTT topic that events of this context come from."""
        return None


def _channel_names(channels: object) -> list[str]:
    """The names, each once."""
    listed = isinstance(channels, Iterable) and not isinstance(channels, str | bytes | Mapping)
    names = list(channels) if listed else []  # type: ignore[call-overload]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"channels must be a list of channels' names, such as ['phone'], not {channels!r:.80}")
    return list(dict.fromkeys(names))


def _check_text(name: str, text: object) -> None:
    """Refuse what no database takes as text."""
    if isinstance(text, str) and storable(text) != text:
        raise ValueError(f"{name} of an event can't be stored: {text!a:.80} has a null character or a lone surrogate")
