"""Why a contract stands where it stands for a subject: the rule, the numbers, the events, and what happens next.

Read from the store beside whoever runs on it; nothing is written. Which events were skipped is found by judging the
latest ones again (see `replay`): of an instance that is older than these, some may have been skipped that aren't now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..clock import rfc3339
from ..events import Event
from ..patterns import pattern
from ..store import contract_states, events
from ..store.contract_states import ContractState
from ..store.store import Store
from .conditions import told
from .contract import Contract
from .instance import Instance
from .keys import LINK, listed
from .overview import data_of
from .records import from_row
from .relations import looked_at, overall
from .replay import Replay
from .telling import expanded, shown
from .verdict_event import key_prefix

EVENTS_MAX = 10_000
EVENTS_SHOWN = 10
HISTORY_SHOWN = 10

_KEYS_READ = 200

REASONS = {
    "failed": "skipped: it can't be read",
    "future_timestamp": "judged as of its arrival: it says later",
    "late": "skipped: it came too late for its place",
    "missing_field": "skipped: a field is missing",
    "no_clock": "judged as of its arrival: it was told without a clock",
    "not_a_number": "skipped: not a number",
    "not_a_scalar": "skipped: neither a text nor a number",
    "not_a_text": "skipped: not a text",
    "not_true_or_false": "skipped: neither true nor false",
    "too_late": "skipped: later than lateness allows",
    "too_long": "skipped: too long a text",
    "too_many_open": "skipped: too many deadlines are open",
    "too_many_periods": "skipped: too many periods aren't judged yet",
    "too_many_subjects": "skipped: there are too many subjects",
    "too_many_waiting": "skipped: too many events wait to be judged",
}


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the contract looked at. `reasons` are short words for why it was skipped, or not judged by the time
    that it claims; see `REASONS`."""

    id: int
    type: str
    subject: str
    occurred_at: int
    recorded_at: int
    data: Any
    reasons: list[str] = []


class Coming(msgspec.Struct, frozen=True, kw_only=True):
    """What happens by itself, `at` microseconds since 1970 UTC."""

    at: int
    what: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What was told: `what` it was, when, and in which words."""

    id: int
    what: str
    at: int
    episode: int
    message: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a contract stands for a subject, and why. Times are microseconds since 1970 UTC.

    `judged` is the state apart from what holds it back; `since` is that of this one. `cause_id` names the event to
    blame (0: none), `cause` is that event, if it is still stored. `looks_at` says where the contracts stand that this
    one looks at. `cure` is by what it is resolved, or else stays right.
    """

    subject: str
    state: str
    since: int
    episode: int
    judged: str = ""
    cause_id: int = 0
    cause: Looked | None = None
    observed: Any = None
    recalls: str = ""
    looks_at: dict[str, str] = {}
    held_back: list[str] = []
    coming: list[Coming] = []
    cure: str = ""
    events: list[Looked] = []
    history: list[Told] = []


def conditions(contract: Contract) -> list[str]:
    """When and to what the rule applies, as the keys say that all kinds share."""
    keys = contract.keys
    found = [] if keys.subject == "*" else [f"for subjects that fit {keys.subject}"]
    if keys.by != "subject":
        found.append(f"for each {keys.by} on its own")
    if keys.where:
        found.append(f"only {told('events', keys.where)}")
    if keys.active is not None:
        parts = [", ".join(listed(keys.active.days)), ", ".join(listed(keys.active.times)), keys.active.timezone]
        found.append(f"active {' '.join(part for part in parts if part)}")
    found += [] if keys.valid_from is None else [f"from {keys.valid_from}"]
    found += [] if keys.valid_until is None else [f"until {keys.valid_until}"]
    found += [
        "silent while there is no session to the broker" if name == LINK else f"silent while {name} is violated"
        for name in listed(keys.suppressed_by)
    ]
    return found


async def explain(store: Store, contract: Contract, row: ContractState) -> Explanation:
    """Why the contract stands as `row` says."""
    looks_at = {name: await _seen(store, contract, name, row.subject) for name in dict.fromkeys(looked_at(contract))}
    history = await _history(store, contract, row.subject)
    found = [each for each in await recent(store, contract) if each.subject == row.subject]
    instance = from_row(contract, row)
    shared: dict[str, Any] = {
        "subject": row.subject, "state": row.state, "since": row.since, "episode": row.episode, "looks_at": looks_at,
        "history": history, "events": [each.looked for each in found[:EVENTS_SHOWN]],
    }  # fmt: skip
    if instance is None:
        why = "stored under other keys, by which it meant something else: closed when edgeq reads these"
        return Explanation(held_back=[why], **shared)
    cause_id = instance.memory.cause_id if instance.state in ("violated", "pending") else 0
    cause = await events.one(store, cause_id) if cause_id else None
    return Explanation(
        judged=instance.state,
        cause_id=cause_id,
        cause=None if cause is None else _looked(cause),
        observed=instance.memory.observed,
        recalls=contract.recalls(instance),
        held_back=held_back(contract, instance, looks_at),
        coming=coming(instance),
        cure=contract.cure(instance),
        **shared,
    )


class Found(msgspec.Struct, frozen=True):
    """An event that the contract wants to see, and the subject that it belongs to (None: it can't be told)."""

    subject: str | None
    looked: Looked


async def recent(store: Store, contract: Contract) -> list[Found]:
    """The events that the contract looked at among the latest `EVENTS_MAX`, the newest first."""
    wanted = [pattern(each) for each in contract.types]
    stored = [
        event
        async for event in events.latest(store, EVENTS_MAX)
        if any(fits(event.type) for fits in wanted)
        and not event.type.startswith("contract.")
        and contract.fits_subject(event.subject)
    ]
    reasons = skipped(contract, stored[::-1])
    return [
        Found(None if "failed" in why else contract.subject_of(event), _looked(event, why))
        for event in stored
        if (why := reasons.get(event.id, [])) or contract.wants(event)
    ]


def skipped(contract: Contract, stored: Sequence[Event]) -> dict[int, list[str]]:
    """By the ids of events, which come in their order: why those are skipped that are."""
    found: dict[int, list[str]] = {}
    if stored:
        replay = Replay([contract])
        replay.begin(stored[0].recorded_at)
        for event in stored:
            for said in replay.observe(event):
                if said.what == "skipped":
                    found.setdefault(said.event_id, []).append(said.reason or "failed")
    return found


def held_back(contract: Contract, instance: Instance, looks_at: Mapping[str, str]) -> list[str]:
    """Why what stands isn't told, or isn't judged."""
    report, found = expanded(instance), []
    if report.inactive:
        until = "" if report.calendar_at is None else f" until {rfc3339(report.calendar_at)}"
        found.append(f"not in force{until}: nothing is judged")
    elif report.overtime:
        found.append("no longer in force: judged on until it is resolved")
    if report.unheard is not None:
        found.append(f"nothing can be heard since {rfc3339(report.unheard)}: there is no session to the broker")
    if report.suppressed:
        by = [name for name in contract.suppressed_by if looks_at.get(name) == "violated"]
        found.append(f"suppressed by {' and '.join(by) or 'another contract'}: judged, and not told")
    if report.flapping and report.wake_at is not None:
        found.append(f"flapping: told again when it was quiet until {rfc3339(report.wake_at)}")
    elif shown(instance) == "pending" and instance.state == "violated" and report.wake_at is not None:
        found.append(f"violated, and not told before the end of the cooldown, {rfc3339(report.wake_at)}")
    return found


def coming(instance: Instance) -> list[Coming]:
    """What happens by itself, the next thing first."""
    report, found = expanded(instance), []
    if instance.deadline_at is not None:
        found.append(Coming(at=instance.deadline_at, what="judged by what has come until then"))
    if report.wake_at is not None and report.told == "violated":
        found.append(Coming(at=report.wake_at, what="told again"))
    if report.calendar_at is not None:
        what = "in force again" if report.inactive or report.overtime else "no longer in force"
        found.append(Coming(at=report.calendar_at, what=what))
    return sorted(found, key=lambda each: each.at)


async def _seen(store: Store, contract: Contract, name: str, subject: str) -> str:
    """Where a contract stands, as seen from a subject of `contract`: see Contract.observe_state."""
    row = None if contract.for_all else await contract_states.one(store, name, subject)
    if row is not None:
        return row.state
    return overall([each.state for each in await contract_states.summary(store) if each.contract == name])


async def _history(store: Store, contract: Contract, subject: str) -> list[Told]:
    found = await events.keyed(store, f"{key_prefix(contract.name)}{subject}:", limit=_KEYS_READ)
    return [
        Told(
            id=event.id, what=event.type.removeprefix("contract."), at=event.occurred_at,
            episode=data.get("episode", 0), message=str(data.get("message", "")),
        )
        for event in found
        if event.subject == subject and event.type.startswith("contract.") and isinstance(data := data_of(event), dict)
    ][:HISTORY_SHOWN]  # fmt: skip


def _looked(event: Event, reasons: list[str] | None = None) -> Looked:
    return Looked(
        id=event.id, type=event.type, subject=event.subject, occurred_at=event.occurred_at,
        recorded_at=event.recorded_at, data=data_of(event), reasons=reasons or [],
    )  # fmt: skip
