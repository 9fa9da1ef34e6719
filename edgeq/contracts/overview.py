"""Where contracts stand, as the store says it: for each contract, or for each of its subjects. Read only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..calendar import local_zone, period
from ..errors import EdgeqError
from ..events import Event, from_json
from ..store import contract_states, events
from ..store.contract_states import ContractState, Standing
from ..store.store import Store
from .contract import Contract
from .verdict_event import key_prefix

WORST_FIRST = ("violated", "pending", "unknown", "suppressed", "ok")
ROWS_MAX = 1_000_000


class Overall(msgspec.Struct, frozen=True, kw_only=True):
    """A contract: how many of its subjects are in which of the `states`, the worst of which is first. `since` is when
    the first of them came to be in that one, `deadline_at` when the next of all changes if nothing comes (microseconds
    since 1970 UTC). `configured`: False for one that is gone from the configuration, and not closed yet."""

    contract: str
    kind: str
    severity: str
    states: Mapping[str, int]
    since: int | None
    deadline_at: int | None
    violations_today: int
    configured: bool


class Single(msgspec.Struct, frozen=True, kw_only=True):
    """A contract's state for one subject. Times are microseconds since 1970 UTC."""

    contract: str
    subject: str
    state: str
    since: int
    deadline_at: int | None
    episode: int
    violations_today: int


async def overall(store: Store, contracts: Sequence[Contract], now: int) -> list[Overall]:
    """Every contract that is configured, or has a state."""
    violations = Counter(name for name, _ in await _violations(store, now))
    found: dict[str, list[Standing]] = {contract.name: [] for contract in contracts}
    for standing in await contract_states.summary(store):
        found.setdefault(standing.contract, []).append(standing)
    known = {contract.name: contract for contract in contracts}
    return [_overall(name, standings, known.get(name), violations[name]) for name, standings in found.items()]


def unjudged(contracts: Sequence[Contract]) -> list[Overall]:
    """The contracts as they stand where there is no store yet."""
    return [_overall(contract.name, [], contract, 0) for contract in contracts]


async def singles(store: Store, now: int, *, contract: str = "", state: str = "") -> list[Single]:
    """The states of that contract (of all, if it is empty), and of those the ones in that state; the worst first."""
    violations = Counter(await _violations(store, now, contract))
    rows = await contract_states.find(store, limit=ROWS_MAX, contract=contract, state=state)
    return [
        Single(
            contract=row.contract, subject=row.subject, state=row.state, since=row.since, deadline_at=row.deadline_at,
            episode=row.episode, violations_today=violations[(row.contract, row.subject)],
        )
        for row in sorted(rows, key=rank)
    ]  # fmt: skip


def rank(row: ContractState) -> tuple[str, int, str]:
    """For sorting: by contract, the worst state first."""
    place = WORST_FIRST.index(row.state) if row.state in WORST_FIRST else len(WORST_FIRST)
    return row.contract, place, row.subject


def data_of(event: Event) -> Any:
    """The event's data; as they stand in the table, if they aren't JSON because somebody else has written there."""
    try:
        return from_json(event.data_json)
    except ValueError:
        return event.data_json


def _overall(name: str, standings: Sequence[Standing], contract: Contract | None, violations: int) -> Overall:
    counts = {standing.state: standing for standing in standings}
    states = {state: counts[state].subjects for state in WORST_FIRST if state in counts}
    return Overall(
        contract=name,
        kind="" if contract is None else contract.kind,
        severity="" if contract is None else contract.keys.severity,
        states=states,
        since=counts[next(iter(states))].since if states else None,
        deadline_at=min((each.deadline_at for each in standings if each.deadline_at is not None), default=None),
        violations_today=violations,
        configured=contract is not None,
    )


async def _violations(store: Store, now: int, contract: str = "") -> list[tuple[str, str]]:
    """The contract and subject of each violation that was told today, by the clocks of this machine."""
    try:
        local = local_zone("")
    except ValueError as error:
        raise EdgeqError(str(error), hint="set TZ to a name such as Europe/Berlin") from None
    midnight, _ = period("day", now, local)
    after_id = await events.id_before(store, midnight)
    found = await events.keyed(store, key_prefix(contract), limit=ROWS_MAX, after_id=after_id)
    told = [(event.subject, data_of(event)) for event in found if event.type == "contract.violated"]
    return [
        (str(data.get("contract")), subject)
        for subject, data in told
        if isinstance(data, dict) and not data.get("reminder")
    ]
