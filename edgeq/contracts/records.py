"""Instances as they stand in the table `contract_states`, and back.

A row's `state` is the one that everybody sees (`telling.shown`), `deadline_at` when that changes by itself. `detail`
is JSON; it holds the memory of the kind and the report of what was told, and, where they differ from the row's, the
kind's own state and deadline.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from ..config.schema import Severity
from ..events import NewEvent
from ..store.contract_states import ContractState
from .contract import Contract
from .instance import Instance, Report, State, Verdict
from .telling import expanded, shown
from .verdict_event import build


class Detail(msgspec.Struct, omit_defaults=True):
    """What stands in `detail`. Kind and severity are there to close a violation when its contract is gone; `meaning`
    and `keys` are the contract's `meaning_id` and `keys_id` (0: not known)."""

    kind: str = ""
    severity: Severity = "warning"
    meaning: int = 0
    keys: int = 0
    state: State | None = None
    deadline_at: int | None = None
    quotes: tuple[str, ...] = ()
    report: Report | None = None
    memory: msgspec.Raw = msgspec.Raw(b"{}")


class _DetailKeys(msgspec.Struct):
    keys: int = 0


_detail = msgspec.json.Decoder(Detail)
_detail_keys = msgspec.json.Decoder(_DetailKeys)
_encode = msgspec.json.Encoder().encode


def to_row(contract: Contract, instance: Instance) -> ContractState:
    """The row for an instance."""
    state = shown(instance)
    deadline_at = instance.deadline_at
    detail = Detail(
        kind=contract.kind, severity=contract.keys.severity, meaning=contract.meaning_id, keys=contract.keys_id,
        quotes=instance.quotes, report=instance.report, memory=msgspec.Raw(_encode(instance.memory)),
    )  # fmt: skip
    if state != instance.state:
        assert instance.report is not None
        detail.state, detail.deadline_at = instance.state, deadline_at
        deadline_at = {"pending": instance.report.wake_at, "suppressed": instance.report.calendar_at}.get(state)
    return ContractState(
        contract.name,
        instance.subject,
        state,
        instance.since,
        deadline_at,
        instance.episode,
        _encode(detail).decode(),
    )


def from_row(contract: Contract, row: ContractState) -> Instance | None:
    """The instance that a row holds, or None when that isn't one of the contract as it is now."""
    try:
        detail = _detail.decode(row.detail)
        memory = msgspec.json.decode(detail.memory, type=contract.memory_type)
        state: State = detail.state or msgspec.convert(row.state, type=State)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    if detail.kind != contract.kind or detail.meaning not in (0, contract.meaning_id):
        return None
    instance = Instance(
        subject=row.subject, state=state, since=row.since, episode=row.episode, memory=memory, quotes=detail.quotes,
        deadline_at=row.deadline_at if detail.state is None else detail.deadline_at, report=detail.report,
    )  # fmt: skip
    if not contract.keeps(instance):
        return None
    is_resting = instance.report is not None and instance.report.inactive
    if is_resting or detail.keys in (0, contract.keys_id):
        return instance
    adapted = contract.adapted(instance)
    return adapted if adapted.state == state else replace(adapted, report=expanded(instance))


def is_adapted(contract: Contract, row: ContractState) -> bool:
    """Whether the row, of which `from_row` makes an instance, was stored under other values of the kind's own keys."""
    return _detail_keys.decode(row.detail).keys not in (0, contract.keys_id)


def open_episode(row: ContractState) -> int | None:
    """The number of the episode that was told and not yet resolved; None when there is none."""
    report = told_of(row)
    return None if report.told == "ok" else report.episode or row.episode


def told_of(row: ContractState) -> Report:
    """What the world was told of an instance."""
    return expanded(_as_told(row)[1])


def closing_event(row: ContractState, reason: str, now: int) -> NewEvent | None:
    """What tells that a violation ends because its contract was `removed` or `changed`; None when there is none."""
    detail, instance = _as_told(row)
    report = expanded(instance)
    if report.told == "ok":
        return None
    episode = report.episode or row.episode
    since = report.since if report.episode else report.told_at
    verdict = Verdict(what="resolved", at=max(now, since), since=since, episode=episode, reason=reason)
    message = f"{row.subject} no longer judged: the contract was {reason}".strip()
    return build(row.contract, detail.kind, detail.severity, row.subject, verdict, message, now)


def _as_told(row: ContractState) -> tuple[Detail, Instance]:
    """A row as far as it says what was told, whatever its contract has become."""
    try:
        detail = _detail.decode(row.detail)
    except (msgspec.MsgspecError, UnicodeError):
        detail = Detail()
    state: Any = detail.state or row.state
    return detail, Instance(
        subject=row.subject, state=state, since=row.since, episode=row.episode, report=detail.report
    )
