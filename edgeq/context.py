"""`ctx`: what a controller, a processor and a job are given, and through which they decide.

Nothing happens when `ctx.emit` or `ctx.dispatch` is called; it is recorded, and committed together with whatever the
caller's station commits: the acknowledgement of the message, the processor's cursor, the job's completion.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from .clock import Clock, is_time
from .events import NewEvent, to_json
from .store.decisions import Decisions
from .store.jobs import NewJob
from .store.store import storable
from .units import Duration


class Dispatchable(Protocol):
    """A job with its arguments, ready to be queued."""

    def new_job(self, *, now: int, run_at: int | None = None, cause_id: int | None = None) -> NewJob:
        """The row to store. `now` and `run_at` are microseconds since 1970 UTC."""


class Context:
    """Records decisions. `cause_id` is the id of the event that is being handled, if it is one."""

    def __init__(
        self, clock: Clock, *, cause_id: int | None = None, now: int | None = None, decisions: Decisions | None = None
    ) -> None:
        self.clock = clock
        self.cause_id = cause_id
        self.now = clock.now() if now is None else now
        self.decisions = Decisions() if decisions is None else decisions

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
        say, for an `occurred_at` of another form, and for a text that not every database can keep: one with a null
        character or half of a surrogate pair.
        """
        if not isinstance(type, str) or not type:
            raise ValueError("an event needs a type, such as 'door.opened'")
        tags = tuple(tags)
        texts = {"type": type, "subject": subject, "description": description, "idempotency_key": idempotency_key}
        for name, text in (*texts.items(), *(("tags", tag) for tag in tags)):
            _check_text(name, text)
        if occurred_at is not None and not is_time(occurred_at):
            raise ValueError(f"occurred_at must be in microseconds since 1970 UTC, not {occurred_at!r:.80}")
        try:
            data_json = "{}" if data is None else to_json(data)
        except ValueError as error:
            raise ValueError(f"the data of event {type!r} can't be written as JSON: {error}") from None
        self.decisions.events.append(
            NewEvent(
                type,
                subject=subject,
                topic=self.topic_of_event,
                data_json=data_json,
                tags=tags,
                description=description,
                occurred_at=self.now if occurred_at is None else occurred_at,
                recorded_at=self.now,
                idempotency_key=idempotency_key,
                cause_id=self.cause_id,
            )
        )

    def dispatch(self, job: Dispatchable, *, delay: str | float | None = None, run_at: int | None = None) -> None:
        """Record a job to run at once, after `delay` (`"10s"`, or seconds), or at `run_at` (microseconds since 1970).

        Raises ValueError for a negative or unreadable delay.
        """
        if delay is not None:
            seconds = float(Duration.parse(delay)) if isinstance(delay, str) else float(delay)
            if not 0 <= seconds < 1e10:
                raise ValueError(f"a delay must not be negative or endless: {delay!r}")
            run_at = self.now + round(seconds * 1e6)
        self.decisions.jobs.append(job.new_job(now=self.now, run_at=run_at, cause_id=self.cause_id))

    def notify(
        self,
        title: str,
        body: str = "",
        *,
        severity: str = "info",
        subject: str = "",
        tags: Iterable[str] = (),
    ) -> None:
        """Record a notification: an event of type `notification`, which the courier sends where the routes say."""
        self.emit(
            "notification",
            subject=subject,
            data={"title": title, "body": body, "severity": severity},
            tags=("notification", *tags),
            description=title,
        )

    @property
    def topic_of_event(self) -> str | None:
        """The MQTT topic that events of this context come from."""
        return None


def _check_text(name: str, text: object) -> None:
    """Refuse what no database takes as text."""
    if isinstance(text, str) and storable(text) != text:
        raise ValueError(f"{name} of an event can't be stored: {text!a:.80} has a null character or a lone surrogate")
