"""The keys that contracts of every kind understand, and the types of which kinds make their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import tzinfo
from typing import Annotated, Any, Literal

import msgspec

from ..calendar import DaysKey, MomentKey, TimesKey, ZoneKey, local_zone, parse_moment
from ..config import checks
from ..config.schema import Record, Severity
from ..placeholders import LoneBrace, line_and_column, split
from ..units import Duration
from ..where import field_path, parse_path, where_faults

LINK = "link"
CHANGES_MAX = 100
PLACEHOLDERS_MAX = 8

Period = Annotated[Duration, checks.positive]

_PLACEHOLDERS = ("subject", "observed", "since")


def event_type(text: str) -> None:
    """A type of events, or a pattern of types, other than the events that contracts make themselves."""
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("must be a type of events, such as door.opened")
    if f"{text.split('*')[0]}.".startswith("contract."):
        raise ValueError("must not be an event of a contract: a contract never judges contracts")


EventType = Annotated[str, event_type]


def contract_name(text: str) -> None:
    """A name by which other contracts may speak of it."""
    checks.word(text)
    if text == LINK:
        raise ValueError(f"must be another name: {LINK!r} is the session to the broker")


class Active(Record, frozen=True, kw_only=True):
    """`active`: the days and times of day at which the contract is in force, and what becomes at the end of what is
    violated: it is kept until something resolves it, or resolved."""

    days: list[DaysKey] | DaysKey = msgspec.field(default_factory=list)
    times: list[TimesKey] | TimesKey = msgspec.field(default_factory=list)
    timezone: ZoneKey = ""
    at_end: Literal["keep", "resolve"] = "keep"


class Flapping(Record, frozen=True, kw_only=True):
    """`flapping`: after so many changes within so long, nothing is told until it has been quiet for as long."""

    changes: Annotated[int, checks.between(2, CHANGES_MAX)]
    within: Period


class Keys(Record, frozen=True, kw_only=True):
    """The keys that every kind understands.

    `subject` is a pattern for the event's subject, `where` conditions on its data (see `where`). `by` says what makes
    an instance: the event's subject, or a field of its data. `message` may hold {subject}, {observed}, {since} and
    {data.FIELD} of the event to blame, `PLACEHOLDERS_MAX` in all. `lateness`: how much older than the newest event of
    its instance an event may be. `reporting` says what the others do: `active`, `valid_from`, `valid_until`,
    `suppressed_by` (names of contracts, or `link`), `cooldown`, `remind`, `flapping`.
    """

    name: Annotated[str, contract_name]
    description: str = ""
    severity: Severity = "warning"
    message: str = ""
    subject: str = "*"
    where: dict[str, Any] = msgspec.field(default_factory=dict)
    by: Annotated[str, field_path] = "subject"
    lateness: Duration = Duration(60)
    active: Active | None = None
    valid_from: MomentKey | None = None
    valid_until: MomentKey | None = None
    suppressed_by: list[str] | str = msgspec.field(default_factory=list)
    cooldown: Period | None = None
    remind: Period | None = None
    flapping: Flapping | None = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """What is wrong between keys: for each mistake the key's path and a sentence."""
        yield from where_faults(self.where)
        try:
            names = placeholders(self.message)
        except LoneBrace as error:
            names = []
            yield "message", f"{error} ({line_and_column(self.message, error.position)})"
        if len(names) > PLACEHOLDERS_MAX:
            yield "message", f"must hold at most {PLACEHOLDERS_MAX} placeholders, not {len(names)}"
        for name in names:
            if name not in _PLACEHOLDERS and not _is_field(name):
                known = ", ".join(f"{{{each}}}" for each in _PLACEHOLDERS)
                yield "message", f"must hold no placeholder but {known} and {{data.FIELD}}, not {{{name}}}"
        if self.valid_from is not None or self.valid_until is not None:
            yield from self._validity_faults(local_zone(self.active.timezone if self.active else ""))

    def _validity_faults(self, local: tzinfo) -> Iterator[tuple[str, str]]:
        """A time may be one that calendars have in UTC, and not in `local`."""
        moments = {"valid_from": self.valid_from, "valid_until": self.valid_until}
        found: dict[str, int] = {}
        for key, text in moments.items():
            try:
                found |= {} if text is None else {key: parse_moment(text, local, end=key == "valid_until")}
            except ValueError as error:
                yield key, str(error)
        if len(found) == 2 and found["valid_from"] >= found["valid_until"]:
            yield "valid_until", f"must be later than valid_from: {self.valid_from}"


def placeholders(message: str) -> list[str]:
    """The names in braces. Raises LoneBrace."""
    return [piece.text for piece in split(message) if not isinstance(piece, str)]


def fill(message: str, values: Mapping[str, str]) -> str:
    """The message with the values of its placeholders."""
    return "".join(piece if isinstance(piece, str) else values[piece.text] for piece in split(message))


def listed(value: list[str] | str) -> tuple[str, ...]:
    """What may be written as a list or, if there is one thing in it, without."""
    return (value,) if isinstance(value, str) else tuple(value)


def at_index(key: str, value: list[str] | str, index: int) -> str:
    """The path of the item of a value that may be a list."""
    return key if isinstance(value, str) else f"{key}[{index}]"


def _is_field(name: str) -> bool:
    try:
        return name.startswith("data.") and bool(parse_path(name))
    except ValueError:
        return False
