"""What a contract is: a promise about events, judged for each instance (usually: for each subject) on its own.

A kind is a file with a record of its keys and a subclass of `Contract`, named in `kinds.KINDS`. It has two questions to
answer: what does an event make of an instance (`observe`), and what does it mean that its deadline has passed without
one (`elapse`). Both are pure: they look at nothing but their arguments and change nothing, so that the same events give
the same verdicts live, from a backlog, after a restart, and in a replay. A kind of other contracts' states (its
`of_contracts`) answers `observe_state` instead of `observe`.

What a kind can rely on:

- Events come in the order of their ids, none twice, none of the contract's own kind (`contract.*`). One whose data
  isn't JSON is skipped (`failed`) when the kind looks at its data, and judged when it doesn't.
- By event time (`at`), none is older than the newest one that the instance has seen, unless the kind says with
  `takes_late` that it can take these. Then one that is late by up to the contract's `lateness` comes with
  `at < instance.memory.newest`, and the kind puts it where it belongs in time. It never takes back a verdict; and
  `memory.newest` stays what it is.
- The deadline was elapsed before, if it lay before the event: an event that comes while a deadline is still open came
  in time. Exactly at the deadline is in time. Several deadlines, one after the other, are elapsed one by one.
- Nothing comes while the contract isn't in force (`active`, `valid_from`, `valid_until`), and nothing that happened
  before the instance was resumed. What else the world isn't told (`suppressed_by`, `cooldown`, `flapping`) makes no
  difference to a kind: it goes on judging.

What a kind must see to: each step keeps `memory.event_id` (the id of the event, also of a late one) and
`memory.newest` (the greater of what it was and `at`) right; `violated`, `resolved` and `unknown` make steps with
verdicts, `replace` all others; memory is bounded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar
from zlib import crc32

import msgspec
from msgspec.structs import replace

from ..calendar import Calendar, Windows, local_zone, parse_moment
from ..clock import rfc3339
from ..events import DataError, Event
from ..patterns import pattern
from ..placeholders import gap
from ..where import MISSING, compile_where, lookup, parse_path
from .instance import Change, Instance, Memory, Shown, Skipped, Step, Verdict
from .keys import LINK, Keys, fill, listed, placeholders

_SUBJECT_CHARS_MAX = 255
_QUOTE_CHARS_MAX = 200


class Contract(ABC):
    """Base of all kinds. `types` are the types of events that it wants to see, and `subject` their subject, or patterns
    of them.

    `takes_late`: `observe` may be called with an event that is older than the newest of its instance. `for_all`: there
    is one instance, without a name, for all subjects, and it looks at other contracts as a whole; to be set before
    `Contract.__init__`. `by_calendar`: its deadlines are moments of the calendar, however long it has waited for them.
    """

    kind: ClassVar[str]
    keys_type: ClassVar[type[Keys]]
    memory_type: ClassVar[type[Memory]] = Memory
    takes_late: ClassVar[bool] = False
    by_calendar: ClassVar[bool] = False
    for_all = False

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.name = keys.name
        self.subject = "*" if self.for_all else keys.subject
        self.fits_subject = pattern(self.subject)
        self.calendar = _calendar(keys)
        self.lateness_microseconds = keys.lateness.microseconds
        self.suppressed_by = tuple(name for name in listed(keys.suppressed_by) if name != LINK)
        self.suppressed_by_link = LINK in listed(keys.suppressed_by)
        self.where = compile_where(keys.where)
        self._by = None if keys.by == "subject" else parse_path(keys.by)
        self.by_subject = self._by is None and not self.for_all
        self._quoted = [name for name in dict.fromkeys(placeholders(keys.message)) if name.startswith("data.")]
        self.quotes = bool(self._quoted)

    # What a kind answers

    @property
    @abstractmethod
    def types(self) -> tuple[str, ...]:
        """The types of events that it wants to see; `*` stands for any text."""

    @property
    @abstractmethod
    def patience_microseconds(self) -> int:
        """The furthest that a deadline of it can lie ahead. One that lies further was set by a clock that was ahead."""

    @property
    def of_contracts(self) -> tuple[str, ...]:
        """The names of the contracts whose states it judges."""
        return ()

    def place_of(self, name: str) -> str:
        """The path of the key at which `name`, one of `of_contracts`, stands."""
        return ""

    @property
    def meaning(self) -> tuple[object, ...]:
        """What a stored state means: values of keys (what JSON can say). Under other values it would mean something
        else, and an instance that was stored under others is closed; under the same it is kept. (Whether an instance of
        subjects fits `subject` is for `keeps` to say; of which subjects one of a field was made, nobody knows.)"""
        subject = () if self._by is None else (self.keys.subject,)
        return (self.types, self.of_contracts, self.keys.by, self.keys.where, *subject)

    @abstractmethod
    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """What `event`, which happened at `at`, makes of the instance (at the first event of its subject, `unknown`).

        Before `watermark` everything is over: what should have come by then, and hasn't, won't be waited for.
        """

    def observe_state(self, instance: Instance, change: Change, states: Mapping[str, Shown]) -> Step:
        """What a change of another contract's state makes of the instance.

        `states` holds, for each name in `of_contracts`, where that contract stands as seen from the instance: its state
        for the same subject, if it has that instance; else, or seen from one `for_all`, `violated` if it is violated
        for any subject, `ok` if it is `ok` or `pending` for all that it has, and else, or if it has none, `unknown`. It
        holds the states of all contracts after what happened at `change.at`, so nobody sees a state that never stood.
        `change.at` isn't before `memory.newest`.

        Called once more after a start for every subject, with states that may be the same as before: an instance that
        stands right already must come out as it is, and without a verdict.
        """
        raise NotImplementedError(f"{self.kind} contracts judge events")

    @abstractmethod
    def elapse(self, instance: Instance) -> Step:
        """What it means that `instance.deadline_at` has passed. The deadline must be gone or later after it."""

    @abstractmethod
    def complaint(self, observed: Any) -> str:
        """What is wrong with a violated instance, in words that follow the subject's name."""

    # What a kind may have another answer to

    def promise(self) -> str:
        """What is promised, as a sentence without its end; what all kinds share (`where`, `active`) is said beside."""
        return f"{self.kind} of {', '.join(self.types)}"

    def cure(self, instance: Instance) -> str:
        """By what a violated instance is resolved, or another one stays right: words that follow "by"."""
        return ""

    def recalls(self, instance: Instance) -> str:
        """What is remembered of an instance beside what was observed last, in words; empty if there is nothing."""
        return ""

    def initial(self, now: int) -> Iterable[Instance]:
        """Instances that exist before any event."""
        return ()

    def keeps(self, instance: Instance) -> bool:
        """Whether an instance, stored by an earlier configuration, still belongs to the contract."""
        return self._by is not None or self.fits_subject(instance.subject)

    def adapted(self, instance: Instance) -> Instance:
        """An instance that was stored under other values of keys, but of the same `meaning`, as it stands with these:
        such as with its deadline where it now belongs. The reporting layer tells what follows for `violated`."""
        return instance

    def resume(self, instance: Instance, at: int) -> Instance:
        """How an instance that wasn't judged for a while stands when it is in force again, at `at`: as after a first
        load. It isn't violated."""
        memory = self.memory_type(newest=instance.memory.newest, event_id=instance.memory.event_id)
        return replace(instance, state="unknown", since=at, deadline_at=None, memory=memory)

    def heard_again(self, instance: Instance, at: int) -> Instance:
        """How an instance stands when it can be heard again, at `at`, after the session to the broker was down (with
        `suppressed_by: link` only): silence until then must not count against it."""
        return instance

    def stepped(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """The instance after the clock was set from `now - step_microseconds` to `now` (0: at a load, when nobody knows
        whether it was). What was left of its deadline is left still, and nothing lies in the future that can't. A kind
        that remembers more times moves them along; one whose deadlines hang on the calendar finds them anew. `since` is
        moved for it, after this."""
        memory, deadline_at = instance.memory, instance.deadline_at
        if memory.newest > now:
            newest = min(memory.newest + step_microseconds, now)
            instance = replace(instance, memory=replace(memory, newest=newest))
        if deadline_at is not None:
            reachable = min(deadline_at + step_microseconds, now + self.patience_microseconds)
            if reachable != deadline_at:
                instance = replace(instance, deadline_at=reachable)
        return instance

    # What all kinds share

    @cached_property
    def meaning_id(self) -> int:
        """A number for the kind and `meaning`."""
        return _number((self.kind, self.meaning))

    @cached_property
    def keys_id(self) -> int:
        """A number for the values of the kind's own keys."""
        common = set(Keys.__struct_fields__)
        own = [name for name in self.keys.__struct_fields__ if name not in common]
        return _number({name: getattr(self.keys, name) for name in own})

    def wants(self, event: Event) -> bool:
        """Whether `event`, which is of one of `types` and whose subject fits, is about this contract: whether its data
        is as `where` says."""
        return self.fits_where(event)

    def fits_where(self, event: Event) -> bool:
        """Whether the event's data is as `where` says."""
        return self.where is None or self.where(event.data)

    def subject_of(self, event: Event) -> str | None:
        """The instance that `event` belongs to, or None when it lacks the field that says so."""
        if self.for_all:
            return ""
        if self._by is None:
            return event.subject
        value = lookup(event.data, self._by)
        if value is MISSING or not isinstance(value, str | int | float):
            return None
        text = say(value)
        return text if len(text) <= _SUBJECT_CHARS_MAX and "\0" not in text else None

    def subject_of_state(self, change: Change) -> str | None:
        """The instance that begins with a change of another contract's state, if it isn't there yet; None: none does,
        and only those that are there see the change."""
        if self.for_all:
            return ""
        return change.subject if self.fits_subject(change.subject) else None

    def whose(self, instance: Instance) -> str:
        """Which events belong to an instance, in words that follow their type: ` of door-1`."""
        if not instance.subject:
            return ""
        return f" of {instance.subject}" if self._by is None else f" with {self.keys.by} {instance.subject}"

    def quote(self, event: Event) -> tuple[str, ...]:
        """What the message needs of `event`; nothing, if its data isn't JSON."""
        try:
            values = {name: lookup(event.data, parse_path(name)) for name in self._quoted}
        except DataError:
            return ()
        return tuple(gap(name) if value is MISSING else say(value)[:_QUOTE_CHARS_MAX] for name, value in values.items())

    def message(self, instance: Instance, verdict: Verdict) -> str:
        """The configured message with its placeholders filled in, or else the subject and the complaint."""
        if not self.keys.message:
            return f"{instance.subject} {self.complaint(verdict.observed)}".strip()
        quotes = instance.quotes or map(gap, self._quoted)
        values = dict(zip(self._quoted, quotes, strict=False))
        values |= {"subject": instance.subject, "observed": say(verdict.observed), "since": rfc3339(verdict.since)}
        return fill(self.keys.message, values)


def say(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{name} {say(each)}" for name, each in value.items())
    return "nothing" if value is None else str(value)


def _number(value: object) -> int:
    """The same number for the same value, in whatever order its mappings are written."""
    return crc32(msgspec.json.encode(value, enc_hook=repr, order="sorted"))


def _calendar(keys: Keys) -> Calendar | None:
    if keys.active is None and keys.valid_from is None and keys.valid_until is None:
        return None
    local = local_zone(keys.active.timezone if keys.active else "")
    windows = None
    if keys.active is not None:
        windows = Windows(listed(keys.active.days), listed(keys.active.times), local)
    return Calendar(
        windows,
        None if keys.valid_from is None else parse_moment(keys.valid_from, local),
        None if keys.valid_until is None else parse_moment(keys.valid_until, local, end=True),
    )
