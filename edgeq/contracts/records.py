"""Instances as they stand in the table `contract_states`, and back."""

from __future__ import annotations

import msgspec

from ..config.schema import Severity
from ..events import NewEvent
from ..store.contract_states import ContractState
from .contract import Contract
from .instance import Instance, State, Verdict
from .verdict_event import build


class _Detail(msgspec.Struct):
    """What stands in `detail`. Kind and severity are there to close a violation when its contract is gone."""

    kind: str = ""
    severity: Severity = "warning"
    memory: msgspec.Raw = msgspec.Raw(b"{}")


_detail = msgspec.json.Decoder(_Detail)
_encode = msgspec.json.Encoder().encode


def to_row(contract: Contract, instance: Instance) -> ContractState:
    """The row for an instance."""
    detail = _Detail(contract.kind, contract.keys.severity, msgspec.Raw(_encode(instance.memory)))
    return ContractState(
        contract.name,
        instance.subject,
        instance.state,
        instance.since,
        instance.deadline_at,
        instance.episode,
        _encode(detail).decode(),
    )


def from_row(contract: Contract, row: ContractState) -> Instance | None:
    """The instance that a row holds, or None when that isn't one of the contract as it is now."""
    try:
        detail = _detail.decode(row.detail)
        memory = msgspec.json.decode(detail.memory, type=contract.memory_type)
        state: State = msgspec.convert(row.state, type=State)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    if detail.kind != contract.kind:
        return None
    instance = Instance(
        subject=row.subject, state=state, since=row.since, deadline_at=row.deadline_at, episode=row.episode,
        memory=memory,
    )  # fmt: skip
    return instance if contract.keeps(instance) else None


def closing_event(row: ContractState, reason: str, now: int) -> NewEvent | None:
    """What tells that a violation ends because its contract was `removed` or `changed`; None when there is none."""
    if row.state != "violated":
        return None
    try:
        detail = _detail.decode(row.detail)
    except (msgspec.MsgspecError, UnicodeError):
        detail = _Detail()
    instance = Instance(subject=row.subject, state="ok", since=now, episode=row.episode)
    at = max(now, row.since)
    verdict = Verdict(what="resolved", at=at, since=row.since, episode=row.episode, reason=reason)
    message = f"{row.subject} no longer judged: the contract was {reason}".strip()
    return build(row.contract, detail.kind, detail.severity, instance, verdict, message, now)
