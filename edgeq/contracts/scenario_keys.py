"""The keys of unit tests of contracts; see `scenario`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from ..calendar import MomentKey, ZoneKey, local_zone, parse_moment
from ..config.schema import Severity
from ..config.section import Section
from ..units import Duration
from .instance import Shown
from .keys import Period


def _checks_when(text: str) -> None:
    try:
        Duration.parse(text)
    except ValueError:
        try:
            parse_moment(text, local_zone("UTC"))
        except ValueError:
            raise ValueError("must be a time since the start, such as 5m, or such as 2026-03-29T03:00") from None


When = Annotated[str, _checks_when]


class ScenarioFile(msgspec.Struct, frozen=True):
    """The keys of a file."""

    contracts: list[Section] = msgspec.field(default_factory=list)
    config: str = ""
    only: list[str] = msgspec.field(default_factory=list)
    timezone: ZoneKey = "UTC"
    tests: list[Section] = msgspec.field(default_factory=list)


class ScenarioKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a test."""

    name: str
    start: MomentKey = "2026-01-05"  # a Monday
    until: When = "0s"
    events: list[Section] = msgspec.field(default_factory=list)
    expect: list[Section] = msgspec.field(default_factory=list)
    states: list[Section] = msgspec.field(default_factory=list)
    complete: bool = True


class EventKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of what happens: one event, a series of them (`every`), or what becomes of the link."""

    at: When | None = None
    every: Period | None = None
    from_: When = msgspec.field(name="from", default="0s")
    until: When | None = None
    type: str = ""
    subject: str = ""
    data: Any = msgspec.UNSET
    values: list[Any] = msgspec.field(default_factory=list)
    occurred_at: When | None = None
    link: Literal["down", "up"] | None = None

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What doesn't go together."""
        if ("at" in given) == ("every" in given):
            yield "at" if "at" in given else "", "needs either at or every"
        if "link" in given:
            for key in sorted(given.keys() - {"at", "link"}):
                yield key, "isn't for what becomes of the link, which has at alone"
            return
        if "type" not in given:
            yield "type", "is missing"
        if "every" in given:
            if ("until" in given) == ("values" in given):
                yield "until" if "until" in given else "", "a series needs either until or values"
            if "occurred_at" in given:
                yield "occurred_at", "isn't for a series"
        else:
            for key in ("from", "until", "values"):
                if key in given:
                    yield key, "is for a series, which has every"
        if "values" in given and "data" in given:
            yield "data", "can't be given beside values: each of them is a value"


class ExpectedKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a verdict; those that are left out may be anything. `message` may hold * for any text."""

    at: When
    verdict: Literal["violated", "resolved", "unknown", "flapping"]
    contract: str = ""
    subject: str | None = None
    since: When | None = None
    severity: Severity | None = None
    message: str | None = None
    observed: Any = msgspec.UNSET
    reason: str | None = None
    episode: int | None = None
    reminder: int | None = None
    late_by: Duration | None = None
    lasted: Duration | None = None


class StateKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of how a contract stands, after all that happens at that time. `none`: it doesn't know the subject."""

    at: When
    contract: str = ""
    subject: str = ""
    state: Shown | Literal["none"]
