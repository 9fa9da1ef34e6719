"""What a contract is: a promise about events, judged for each instance (usually: for each subject) on its own.

The life of an instance: `ok`, `pending` (it will be violated at `deadline_at` unless something comes), `violated`, and
`ok` again; `unknown` until there was anything to judge by. Becoming violated begins a new episode.

A kind is a file with a record of its keys and a subclass of `Contract`, named in `kinds.KINDS`. It has two questions to
answer: what does an event make of an instance (`observe`), and what does it mean that its deadline has passed without
one (`elapse`). Both are pure: they look at nothing but their arguments and change nothing, so that the same events give
the same verdicts live, from a backlog, after a restart, and in a replay.

What a kind can rely on: events come in the order of their ids, none twice, none older (by event time) than the newest
one that the instance has seen; and the deadline was elapsed before if it lay before the event. So an event that comes
while a deadline is still open came in time.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec

from ..config import checks
from ..config.schema import Record, Severity
from ..events import Event
from ..patterns import pattern
from ..units import Duration
from .where import MISSING, compile_where, field_path, lookup, parse_path, where_faults

State = Literal["ok", "pending", "violated", "unknown"]

Period = Annotated[Duration, checks.positive]

_SUBJECT_CHARS_MAX = 255
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_PLACEHOLDERS = ("subject", "observed")


def event_type(text: str) -> None:
    """A type of events, or a pattern of types, other than the events that contracts make themselves."""
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("must be a type of events, such as door.opened")
    if f"{text.split('*')[0]}.".startswith("contract."):
        raise ValueError("must not be an event of a contract: a contract never judges contracts")


EventType = Annotated[str, event_type]


class Keys(Record, frozen=True, kw_only=True):
    """The keys that every kind understands.

    `subject` is a pattern for the event's subject, `where` a mapping of fields of its data to what they must be: a
    value, a list of values, or `{above: …, below: …}`. `by` says what makes an instance: the event's subject, or a
    field of its data. `message` may hold {subject} and {observed}.
    """

    name: Annotated[str, checks.word]
    description: str = ""
    severity: Severity = "warning"
    message: str = ""
    subject: str = "*"
    where: dict[str, Any] = msgspec.field(default_factory=dict)
    by: Annotated[str, field_path] = "subject"

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """What is wrong between keys: for each mistake the key's path and a sentence."""
        yield from where_faults(self.where)
        for name in _PLACEHOLDER.findall(self.message):
            if name not in _PLACEHOLDERS:
                yield "message", f"must hold no placeholder but {{subject}} and {{observed}}, not {{{name}}}"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of an instance: the time of the newest event (microseconds since 1970 UTC), the id of the
    last event that was judged, the id of the event to blame for the state, and what was observed last. 0 where there
    is none. A kind that must remember more extends it."""

    newest: int = 0
    event_id: int = 0
    cause_id: int = 0
    observed: Any = None


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a contract stands for one subject. Times are microseconds since 1970 UTC; `deadline_at` is None while
    nothing will happen by itself."""

    subject: str
    state: State
    since: int
    deadline_at: int | None = None
    episode: int = 0
    memory: Memory = Memory()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the world is told of.

    `at` is when it happened, `since` when the violation began, `cause_id` the event behind it (0: none). Of a resolved
    violation `late_by_seconds` says how long after its deadline something came, and `reason` why it ended if it ended
    otherwise than by events.
    """

    what: Literal["violated", "resolved", "unknown"]
    at: int
    since: int
    cause_id: int = 0
    observed: Any = None
    late_by_seconds: float | None = None
    reason: str | None = None


class Step(NamedTuple):
    """What becomes of an instance, and the verdict if there is one."""

    instance: Instance
    verdict: Verdict | None = None


class Skipped(NamedTuple):
    """The event can't be judged by this contract; `reason` is one short word from a fixed set."""

    reason: str


def violated(instance: Instance, at: int, memory: Memory) -> Step:
    """The step by which `instance` is violated from `at` on."""
    became = Instance(subject=instance.subject, state="violated", since=at, episode=instance.episode + 1, memory=memory)
    return Step(became, Verdict(what="violated", at=at, since=at, cause_id=memory.cause_id, observed=memory.observed))


def resolved(instance: Instance, at: int, memory: Memory, *, late_by_seconds: float | None = None) -> Step:
    """The step by which the violation of `instance` ends at `at`, or at its beginning if `at` lies before that."""
    at = max(at, instance.since)
    became = Instance(subject=instance.subject, state="ok", since=at, episode=instance.episode, memory=memory)
    verdict = Verdict(
        what="resolved", at=at, since=instance.since, cause_id=memory.event_id, observed=memory.observed,
        late_by_seconds=late_by_seconds,
    )  # fmt: skip
    return Step(became, verdict)


class Contract(ABC):
    """Base of all kinds. `types` are the types of events, or patterns of them, that it wants to see."""

    kind: ClassVar[str]
    keys_type: ClassVar[type[Keys]]
    memory_type: ClassVar[type[Memory]] = Memory

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.name = keys.name
        self.fits_subject = pattern(keys.subject)
        self._where = compile_where(keys.where)
        self._by = None if keys.by == "subject" else parse_path(keys.by)

    @property
    @abstractmethod
    def types(self) -> tuple[str, ...]:
        """The types of events that it wants to see; `*` stands for any text."""

    @property
    @abstractmethod
    def patience_microseconds(self) -> int:
        """The furthest that a deadline of it can lie ahead. One that lies further was set by a clock that was ahead."""

    @abstractmethod
    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """What `event`, which happened at `at`, makes of the instance (at the first event of its subject, `unknown`).

        Before `watermark` everything is over: what should have come by then, and hasn't, won't be waited for.
        """

    @abstractmethod
    def elapse(self, instance: Instance) -> Step:
        """What it means that `instance.deadline_at` has passed. The deadline must be gone or later after it."""

    @abstractmethod
    def complaint(self, observed: Any) -> str:
        """What is wrong with a violated instance, in words that follow the subject's name."""

    def wants(self, event: Event) -> bool:
        """Whether `event`, which is of one of `types`, is about this contract."""
        return self.fits_subject(event.subject) and self.fits_where(event)

    def fits_where(self, event: Event) -> bool:
        """Whether the event's data is as `where` says."""
        return self._where is None or self._where(event.data)

    def subject_of(self, event: Event) -> str | None:
        """The instance that `event` belongs to, or None when it lacks the field that says so."""
        if self._by is None:
            return event.subject
        value = lookup(event.data, self._by)
        if value is MISSING or not isinstance(value, str | int | float):
            return None
        text = str(value).lower() if isinstance(value, bool) else say(value)
        return text if len(text) <= _SUBJECT_CHARS_MAX and "\0" not in text else None

    def initial(self, now: int) -> Iterable[Instance]:
        """Instances that exist before any event."""
        return ()

    def keeps(self, instance: Instance) -> bool:
        """Whether an instance, stored by an earlier configuration, still belongs to the contract."""
        return self._by is not None or self.fits_subject(instance.subject)

    def message(self, subject: str, observed: Any) -> str:
        """The configured message with its placeholders filled in, or else the subject and the complaint."""
        if not self.keys.message:
            return f"{subject} {self.complaint(observed)}".strip()
        values: Mapping[str, str] = {"subject": subject, "observed": say(observed)}
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.keys.message)


def say(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return "nothing" if value is None else str(value)
