"""Contracts: where each stands for whom, and how it got there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from ...clock import MICROSECONDS, Clock
from ...contracts.contract import Contract
from ...contracts.overview import WORST_FIRST, data_of
from ...contracts.records import from_row
from ...contracts.verdict_event import key_prefix
from ...events import Event
from ...store import contract_states, events
from ...store.contract_states import ContractState
from ...store.store import Store
from ..operation import Call, Named, Nothing, Operation, Text, Time
from .common import missing

SUBJECTS_MAX = 200
CHANGES_MAX = 5000
DAY = 86_400 * MICROSECONDS

_STATES = {"violated": "violated", "resolved": "ok", "unknown": "unknown", "flapping": "violated"}


class Standing(TypedDict):
    """Where a contract stands for a subject. `detail` says why, as far as that can be said."""

    subject: str
    state: str
    since: int
    deadline_at: int | None
    episode: int
    detail: dict[str, Any]


class ShownContract(TypedDict):
    """A contract; SUBJECTS_MAX of its `states`, the worst first, and in `subjects` how many are in which."""

    name: str
    kind: str
    description: str
    severity: str
    configured: bool
    promise: str
    subjects: dict[str, int]
    states: list[Standing]


class Contracts(TypedDict):
    """Every contract that is configured, or has a state."""

    items: list[ShownContract]
    next: None


class Span(TypedDict):
    """For how long a contract was in a state for a subject; `to` is None for the present one."""

    subject: str
    state: str
    to: int | None


class TimeLine(TypedDict):
    """Spans by subject, in the order of time. `complete`: no change was left out because there were too many."""

    spans: list[dict[str, Any]]
    complete: bool


class Lines(Named, frozen=True, kw_only=True):
    """Of which contract, for which subject, and since when: default a day."""

    subject: Text | None = None
    since: Time | None = None


class ContractOperations:
    """Looks at the states of `contracts`, and at the events that tell of them."""

    def __init__(self, contracts: Sequence[Contract], store: Store, clock: Clock) -> None:
        self._contracts = {contract.name: contract for contract in contracts}
        self._store = store
        self._clock = clock

    def operations(self) -> list[Operation]:
        """See api."""
        return [
            Operation("GET", "/api/contracts", "Where each contract stands.", self._all, Contracts, Nothing),
            Operation(
                "GET", "/api/contracts/<name>/timeline", "How it stood over time.", self._line, TimeLine, Lines,
                refusals=(404,),
            ),
        ]  # fmt: skip

    async def _all(self, call: Call) -> Contracts:
        found: dict[str, dict[str, int]] = {name: {} for name in self._contracts}
        for standing in await contract_states.summary(self._store):
            found.setdefault(standing.contract, {})[standing.state] = standing.subjects
        rows: dict[str, list[ContractState]] = {}
        for row in await contract_states.first(self._store, SUBJECTS_MAX, WORST_FIRST):
            rows.setdefault(row.contract, []).append(row)
        return {
            "items": [self._shown(name, counts, rows.get(name, [])) for name, counts in found.items()],
            "next": None,
        }

    def _shown(self, name: str, counts: dict[str, int], rows: Sequence[ContractState]) -> ShownContract:
        contract = self._contracts.get(name)
        return {
            "name": name,
            "kind": contract.kind if contract else "",
            "description": contract.keys.description if contract else "",
            "severity": contract.keys.severity if contract else "",
            "configured": contract is not None,
            "promise": contract.promise() if contract else "",
            "subjects": counts,
            "states": [_standing(contract, row) for row in rows],
        }

    async def _line(self, call: Call) -> TimeLine:
        asked: Lines = call.asked
        since = self._clock.now() - DAY if asked.since is None else asked.since
        rows = await self._rows(asked)
        if not rows and asked.name not in self._contracts:
            raise missing(f"contract {asked.name!r}", "/api/contracts lists them")
        told = await events.keyed(self._store, _prefix(asked), limit=CHANGES_MAX)
        changes: dict[str, list[Event]] = {row.subject: [] for row in rows}
        for event in reversed(told):
            if event.type.removeprefix("contract.") in _STATES and _is_of(event, asked):
                changes.setdefault(event.subject, []).append(event)
        states = {row.subject: row for row in rows}
        spans = [span for subject in sorted(changes) for span in _spans(changes[subject], states.get(subject), since)]
        return {"spans": spans, "complete": len(told) < CHANGES_MAX}

    async def _rows(self, asked: Lines) -> list[ContractState]:
        if asked.subject is None:
            return await contract_states.find(self._store, limit=CHANGES_MAX, contract=asked.name)
        row = await contract_states.one(self._store, asked.name, asked.subject)
        return [] if row is None else [row]


def _prefix(asked: Lines) -> str:
    return key_prefix(asked.name) + ("" if asked.subject is None else f"{asked.subject}:")


def _is_of(event: Event, asked: Lines) -> bool:
    data = data_of(event)
    of_contract = isinstance(data, dict) and data.get("contract") == asked.name and not data.get("reminder")
    return of_contract and asked.subject in (None, event.subject)


def _spans(changes: list[Event], row: ContractState | None, since: int) -> list[dict[str, Any]]:
    """From the events that told of changes, and where it stands now, which not every event tells."""
    points = [(_begin(event), _STATES[event.type.removeprefix("contract.")]) for event in changes]
    if row is not None and (not points or points[-1][1] != row.state):
        points.append((row.since, row.state))
    spans: list[dict[str, Any]] = []
    for at, state in points:
        if spans and spans[-1]["state"] == state:
            continue
        if spans:
            spans[-1]["to"] = max(at, spans[-1]["from"])
        subject = changes[0].subject if changes else row.subject if row else ""
        spans.append({"subject": subject, "state": state, "from": at, "to": None})
    return [span for span in spans if span["to"] is None or span["to"] > since]


def _begin(event: Event) -> int:
    """When the state began of which an event tells: a violation is told when it is known."""
    data = data_of(event)
    since = data.get("since") if isinstance(data, dict) and event.type == "contract.violated" else None
    return since if isinstance(since, int) else event.occurred_at


def _standing(contract: Contract | None, row: ContractState) -> Standing:
    return {
        "subject": row.subject, "state": row.state, "since": row.since, "deadline_at": row.deadline_at,
        "episode": row.episode, "detail": _why(contract, row),
    }  # fmt: skip


def _why(contract: Contract | None, row: ContractState) -> dict[str, Any]:
    instance = None if contract is None else from_row(contract, row)
    if contract is None or instance is None:
        return {}
    observed = instance.memory.observed
    told: dict[str, Any] = {
        "judged": instance.state,
        "observed": observed,
        "cause_id": instance.memory.cause_id or None,
    }
    if instance.state == "violated":
        told["message"] = contract.complaint(observed)
        told["cure"] = contract.cure(instance)
    return told
