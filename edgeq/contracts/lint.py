"""What `edgeq check` warns of: contracts that can be loaded, and won't do what they are meant to do.

Pure: whoever calls `warnings` has read what was seen. Each warning says where, what, and what to do, as a `Problem`; it
is no mistake. What can't be known isn't warned of: what one's own code emits, what was not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from msgspec.structs import replace

from ..clock import MICROSECONDS
from ..config.origin import leaves
from ..config.schema import EmitMap, Route
from ..config.section import Section
from ..config.suggest import did_you_mean
from ..errors import Problem
from ..events import DataError, Event
from ..patterns import overlap, pattern
from ..units import spoken
from .absence import Absence
from .contract import Contract
from .count import Count
from .deadline import Deadline
from .keys import Keys
from .rate import Rate
from .stuck import Stuck
from .threshold import Threshold

EVENTS_MAX = 10_000
GAPS_MIN = 5

_PIECES = re.compile(r"\{\{|\}\}|\{[^{}]*\}")
_SECONDS = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "month": 31 * 86400.0}
_SUBJECTS_SHOWN = 5


class Written(NamedTuple):
    """A contract, and where it is written."""

    contract: Contract
    section: Section


class Need(NamedTuple):
    """How often events must come to make sense of a key: one in each `seconds` (with another `rhythm`, within them), or
    else `outcome`."""

    key: str
    seconds: float
    outcome: str
    rhythm: str = "every "


class Seen:
    """What is in the store: the latest events, `EVENTS_MAX` of which are enough, and in `subjects`, for each contract,
    those that it has a state of."""

    def __init__(self, events: Iterable[Event] = (), subjects: Mapping[str, set[str]] | None = None) -> None:
        self.by_type: dict[str, list[Event]] = {}
        self.count = 0
        self.subjects = subjects or {}
        for event in events:
            self.count += 1
            self.by_type.setdefault(event.type, []).append(event)

    def of(self, types: Iterable[str]) -> list[Event]:
        """The events of these types or patterns of types."""
        tests = [pattern(each) for each in types]
        return [event for name, found in self.by_type.items() if any(fits(name) for fits in tests) for event in found]


def warnings(written: Sequence[Written], emitted: Sequence[str] | None, seen: Seen) -> Iterator[Problem]:
    """What to warn of. `emitted` are patterns of all types that something emits; None: that can't be known."""
    for each in written:
        if emitted is not None:
            yield from _never_emitted(each, emitted, seen)
        yield from _too_short(each, seen)
        yield from _nobody(each, seen)
    yield from _alike(written)


def emitted_by(route: Route) -> list[str]:
    """Patterns of the types that `emit` of a route makes: `*` stands for what is filled in."""
    if route.emit is None:
        return []
    if isinstance(route.emit, EmitMap):
        return list(route.emit.to.values())
    return [_PIECES.sub(lambda piece: piece[0][0] if piece[0] in ("{{", "}}") else "*", route.emit)]


def _never_emitted(written: Written, emitted: Sequence[str], seen: Seen) -> Iterator[Problem]:
    contract, section = written
    for wanted in dict.fromkeys(contract.types):
        if any(overlap(wanted, each) for each in emitted) or any(event.topic is None for event in seen.of([wanted])):
            continue
        known = did_you_mean(wanted, sorted(set(emitted)))
        hint = f"name a type that a route emits{f'; {known}' if known else ''}"
        yield section.problem(_place(section, wanted), f"no route, processor or job emits {wanted}", hint)


def _too_short(written: Written, seen: Seen) -> Iterator[Problem]:
    contract, section = written
    need = _need(contract)
    if need is None:
        return
    found: dict[str, list[Event]] = {}
    for event in seen.of(contract.types):
        subject = _judged_as(contract, event)
        if subject is not None:
            found.setdefault(subject, []).append(event)
    gaps = {subject: _gaps(contract, sorted(each, key=_when)) for subject, each in found.items()}
    known = {subject: median(each) / MICROSECONDS for subject, each in gaps.items() if len(each) >= GAPS_MIN}
    if not known:
        return
    subject, seconds = max(known.items(), key=lambda each: (each[1], each[0]))
    if seconds > need.seconds:
        told = f"{contract.types[-1]}{f' of {subject}' if subject else ''} comes {need.rhythm}{spoken(seconds)}"
        later = f" after {contract.types[0]}" if isinstance(contract, Deadline) else ""
        message = f"is too short: {told}{later} as a rule, so {need.outcome}"
        yield section.problem(need.key, message, "give it more time")


def _judged_as(contract: Contract, event: Event) -> str | None:
    """The instance that an event of one of the contract's types belongs to, or None if it isn't judged."""
    try:
        judged = contract.fits_subject(event.subject) and contract.wants(event)
        return contract.subject_of(event) if judged else None
    except DataError:
        return None


def _need(contract: Contract) -> Need | None:
    keys: Any = contract.keys
    if isinstance(contract, Absence):
        return Need("every", keys.every + keys.grace, "it is violated between any two")
    if isinstance(contract, Deadline):
        return Need("within", keys.within, "it is violated as a rule", "")
    if isinstance(contract, Rate) and keys.fewer_than is not None:
        return Need("within", keys.within / keys.fewer_than, f"there are never {keys.fewer_than} of them in that time")
    if isinstance(contract, Count) and keys.at_least is not None:
        return Need("per", _SECONDS[keys.per] / keys.at_least, f"there are never {keys.at_least} of them in that time")
    if isinstance(contract, Stuck):
        return Need("for", keys.for_, "it never sees a value stay the same for so long")
    if isinstance(contract, Threshold) and keys.for_:
        return Need("for", keys.for_, "a single value beyond the limit is enough to violate it")
    return None


def _gaps(contract: Contract, found: Sequence[Event]) -> list[int]:
    """What lies between each event and the next one, or, of a deadline, and what is expected after it, in
    microseconds."""
    if not isinstance(contract, Deadline):
        return [later.occurred_at - earlier.occurred_at for earlier, later in pairwise(found)]
    is_after, is_expected = pattern(contract.keys.after), pattern(contract.keys.expect)
    gaps, waits = [], None
    for event in found:
        if waits is not None and is_expected(event.type):
            gaps.append(event.occurred_at - waits)
            waits = None
        if waits is None and is_after(event.type):
            waits = event.occurred_at
    return gaps


def _when(event: Event) -> tuple[int, int]:
    return event.occurred_at, event.id


def _nobody(written: Written, seen: Seen) -> Iterator[Problem]:
    contract, section = written
    if contract.keys.subject == "*" or not contract.types:
        return
    wanted = contract.types[0]
    subjects = {event.subject for event in seen.of([wanted])}
    heard = seen.subjects.get(contract.name, set()) - set(getattr(contract.keys, "known", ()))
    fits = pattern(contract.keys.subject)
    if subjects and not any(map(fits, subjects | heard)):
        shown = sorted(subjects)[:_SUBJECTS_SHOWN]
        more = f" and {len(subjects) - len(shown)} more" if len(subjects) > len(shown) else ""
        message = f"{contract.keys.subject!r} fits no subject of {wanted} among the last {seen.count} events"
        yield section.problem("subject", message, f"seen: {', '.join(map(repr, shown))}{more}")


def _alike(written: Sequence[Written]) -> Iterator[Problem]:
    first: list[tuple[type[Contract], Keys, Written]] = []
    for each in written:
        bare = replace(each.contract.keys, name="", description="")
        for kind, keys, other in first:
            if kind is type(each.contract) and keys == bare:
                message = f"is the same as {other.contract.name} at {other.section.where('name')}, apart from the name"
                yield each.section.problem("name", message, "each violation is told twice: remove one of them")
                break
        else:
            first.append((type(each.contract), bare, each))


def _place(section: Section, wanted: str) -> str:
    """The path of the kind's own key at which a type of events stands."""
    common = Keys.__struct_fields__
    for path, value in leaves(section.data, ""):
        if value == wanted and re.split(r"[.\[]", path)[0] not in (*common, "kind"):
            return path
    return ""
