"""Verbs of the table `contract_states`: where each contract stands for each subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

import msgspec
import peewee as pw

from .store import Row, Statement, Store, Tx
from .tables import ContractStates

T = TypeVar("T")

_KEY = (ContractStates.contract, ContractStates.subject)
_REST = (
    ContractStates.state, ContractStates.since, ContractStates.deadline_at, ContractStates.episode,
    ContractStates.detail,
)  # fmt: skip
_ALL = (*_KEY, *_REST)

_EVERY = Statement(lambda p: ContractStates.select(*_ALL).order_by(*_KEY))
_ONE = Statement(
    lambda p: ContractStates.select(*_ALL).where((ContractStates.contract == p) & (ContractStates.subject == p))
)
_SUMMARY = Statement(
    lambda p: (
        ContractStates.select(
            ContractStates.contract,
            ContractStates.state,
            pw.fn.COUNT(ContractStates.subject),
            pw.fn.MIN(ContractStates.since),
            pw.fn.MIN(ContractStates.deadline_at),
            pw.fn.MIN(ContractStates.subject),
        )
        .group_by(ContractStates.contract, ContractStates.state)
        .order_by(ContractStates.contract, ContractStates.state)
    )
)
_DELETE = Statement(
    lambda p: ContractStates.delete().where((ContractStates.contract == p) & (ContractStates.subject == p))
)


def _put_rows(count: int) -> Statement:
    return Statement(
        lambda p: ContractStates.insert_many([(p,) * len(_ALL)] * count, fields=_ALL).on_conflict(
            conflict_target=_KEY, preserve=_REST
        )
    )


# Many rows in one statement, for the reason that SqliteTx.insert gives.
_PUT = {count: _put_rows(count) for count in (100, 25, 5, 1)}
_AT_ONCE = max(_PUT)


class ContractState(msgspec.Struct, frozen=True):
    """Where `contract` stands for `subject`. Times are microseconds since 1970 UTC; `deadline_at` is when the state
    changes if nothing comes; `detail` is JSON that belongs to the contracts."""

    contract: str
    subject: str
    state: str
    since: int
    deadline_at: int | None
    episode: int
    detail: str


class Standing(msgspec.Struct, frozen=True):
    """How many subjects of a contract are in a state: `since` is when the first of them came to be, `deadline_at` the
    next time at which one changes if nothing comes, `subject` the first of them by name."""

    contract: str
    state: str
    subjects: int
    since: int
    deadline_at: int | None
    subject: str


class LatestStates(Generic[T]):
    """A unit that stores states, for each contract and subject what `as_row` makes of it. Of several such units, one
    after the other, only the last state of each is stored, and is made a row only then."""

    def __init__(self, things: dict[tuple[str, str], T], as_row: Callable[[str, T], ContractState]) -> None:
        self._things = things
        self._as_row = as_row

    def __call__(self, tx: Tx) -> None:
        """See Unit."""
        put(tx, (self._as_row(contract, thing) for (contract, _), thing in self._things.items()))

    def absorb(self, later: object) -> bool:
        """See decisions.Absorbing."""
        if not isinstance(later, LatestStates) or later._as_row != self._as_row:
            return False
        self._things.update(later._things)
        return True


def put(tx: Tx, states: Iterable[ContractState]) -> None:
    """Store states, in place of those of the same contract and subject. They are made when they are needed: a row may
    have many kilobytes, and there may be tens of thousands."""
    waiting = iter(states)
    while rows := [msgspec.structs.astuple(state) for state in islice(waiting, _AT_ONCE)]:
        position = 0
        for count, statement in _PUT.items():
            while len(rows) - position >= count:
                chunk = rows[position : position + count]
                tx.run(statement, [value for row in chunk for value in row])
                position += count


def delete(tx: Tx, keys: Iterable[tuple[str, str]]) -> None:
    """Forget states, each by its contract and subject."""
    for key in keys:
        tx.run(_DELETE, key)


async def every(store: Store) -> list[ContractState]:
    """All states, by contract and subject."""
    return [_state(row) for row in await store.read(_EVERY)]


async def find(store: Store, *, limit: int, contract: str = "", state: str = "") -> list[ContractState]:
    """Up to `limit` states that fit, by contract and subject."""
    query = ContractStates.select(*_ALL).order_by(*_KEY).limit(limit)
    if contract:
        query = query.where(ContractStates.contract == contract)
    if state:
        query = query.where(ContractStates.state == state)
    return [_state(row) for row in await store.read(query)]


async def first(store: Store, limit: int, states: Sequence[str]) -> list[ContractState]:
    """Up to `limit` states of each contract: by contract, in the order of `states`, by subject."""
    place = pw.Case(ContractStates.state, [(state, number) for number, state in enumerate(states)], len(states))
    order = pw.fn.ROW_NUMBER().over(partition_by=[ContractStates.contract], order_by=[place, ContractStates.subject])
    numbered = ContractStates.select(*_ALL, order.alias("number")).alias("numbered")
    query = (
        pw.Select([numbered], [numbered.c[column.name] for column in _ALL])
        .where(numbered.c.number <= limit)
        .order_by(numbered.c.contract, numbered.c.number)
    )
    return [_state(row) for row in await store.read(query)]


async def counts(store: Store) -> list[dict[str, Any]]:
    """For each contract its name as `contract`, and for each state how many of its subjects are in it; of those that
    are violated since when the first of them is (`violated_at`), and one of them by name (`violated_subject`)."""
    found: dict[str, dict[str, Any]] = {}
    for each in await summary(store):
        counted = found.setdefault(each.contract, {"contract": each.contract})
        counted[each.state] = each.subjects
        if each.state == "violated":
            counted |= {"violated_at": each.since, "violated_subject": each.subject}
    return list(found.values())


async def summary(store: Store) -> list[Standing]:
    """How each contract stands, by contract and state."""
    return [Standing(*row) for row in await store.read(_SUMMARY)]


async def one(store: Store, contract: str, subject: str) -> ContractState | None:
    """The state of a contract for a subject, or None."""
    rows = await store.read(_ONE, (contract, subject))
    return _state(rows[0]) if rows else None


def _state(row: Row) -> ContractState:
    return ContractState(*row)
