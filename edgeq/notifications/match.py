"""What a `match` is about: of a route, and of a silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ..config.convert import Converter
from ..config.origin import Origin
from ..config.schema import NotificationMatch
from ..errors import Problem
from ..events import Event, from_json
from ..patterns import pattern
from ..where import compile_where, where_faults


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What an event is, as far as a match may ask. `contract` and `episode` are empty unless it tells of a contract."""

    type: str
    subject: str
    severity: str
    tags: tuple[str, ...] = ()
    data: Any = None
    contract: str = ""
    episode: str = ""

    @classmethod
    def of(cls, event: Event, severity: str) -> Facts:
        """Those of an event. Odd data is no data."""
        try:
            data = from_json(event.data_json)
        except ValueError:
            data = None
        contract = episode = ""
        if event.type.startswith("contract.") and isinstance(data, dict):
            contract, episode = _word(data.get("contract")), _word(data.get("episode"))
        return cls(
            type=event.type, subject=event.subject, severity=severity, tags=event.tags, data=data,
            contract=contract, episode=episode,
        )  # fmt: skip


Matcher = Callable[[Facts], bool]


def compile_match(match: NotificationMatch) -> Matcher:
    """Whether facts fulfil all of `match`, which `match_faults` found nothing wrong with."""
    types = [pattern(text) for text in match.types]
    tags = frozenset(match.tags)
    severities = [match.severity] if isinstance(match.severity, str) else match.severity
    subject = pattern("*" if match.subject is None else match.subject)
    contract = None if match.contract is None else pattern(match.contract)
    where = compile_where(match.data)

    def matches(facts: Facts) -> bool:
        return (
            (not types or any(fits(facts.type) for fits in types))
            and (not severities or facts.severity in severities)
            and subject(facts.subject)
            and tags.issubset(facts.tags)
            and (contract is None or (facts.contract != "" and contract(facts.contract)))
            and (where is None or where(facts.data))
        )

    return matches


def match_faults(match: NotificationMatch, key: str = "match") -> Iterator[tuple[str, str]]:
    """What is wrong with the conditions of a match at `key`: for each mistake its path and a sentence."""
    return where_faults(match.data, f"{key}.data")


def given(match: NotificationMatch) -> dict[str, Any]:
    """What `match` asks for, as plain values; a single severity is a list of one."""
    values = msgspec.to_builtins(match)
    if isinstance(match.severity, str):
        values["severity"] = [match.severity]
    default = msgspec.to_builtins(NotificationMatch())
    return {name: value for name, value in values.items() if value != default[name]}


def read_match(values: Any, problems: list[Problem], key: str = "match") -> NotificationMatch | None:
    """A match from plain values that stand at `key`; None, with each mistake in `problems`, when it is wrong."""
    before = len(problems)
    values = {} if values == {} else values or "nothing"  # no value is a mistake, and not a match of everything
    match = Converter("", Origin(), problems).convert(NotificationMatch, values, key)
    if len(problems) == before:
        problems += [Problem("", path, message) for path, message in match_faults(match, key)]
    return match if len(problems) == before else None


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
