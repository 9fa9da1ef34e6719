"""Contracts, events and histories for tests of the judge and the Sentinel. Times are seconds after `NOON`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.config.section import Section
from edgeq.contracts import Contract, load_contracts
from edgeq.contracts.instance import Verdict
from edgeq.contracts.judge import Judge
from edgeq.contracts.records import from_row, to_row
from edgeq.contracts.telling import shown
from edgeq.contracts.turn import Turn
from edgeq.contracts.verdict_event import verdict_event
from edgeq.errors import Problem
from edgeq.events import Event, NewEvent, to_json
from edgeq.store.contract_states import ContractState
from edgeq.testing.clock import NOON

ABSENCE = {"name": "reports", "kind": "absence", "of": "reading", "every": "10s"}
DEADLINE = {"name": "closes", "kind": "deadline", "after": "opened", "expect": "closed", "within": "10s"}
THRESHOLD = {"name": "cold", "kind": "threshold", "of": "reading", "above": 5}


def problems_of(*mappings: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with these contracts."""
    problems: list[Problem] = []
    load_contracts([Section(f"contracts[{index}]", each) for index, each in enumerate(mappings)], problems)
    return problems


def contracts_of(*mappings: Mapping[str, Any]) -> list[Contract]:
    """The contracts that these mappings describe."""
    problems: list[Problem] = []
    found = load_contracts([Section(f"contracts[{index}]", each) for index, each in enumerate(mappings)], problems)
    assert problems == []
    return found


def micro(seconds: float) -> int:
    """A time in microseconds since 1970 UTC."""
    return NOON + round(seconds * 1_000_000)


def event(
    id: int,  # noqa: A002 - the name of the column
    type: str = "reading",  # noqa: A002
    recorded: float = 0,
    *,
    occurred: float | None = None,
    subject: str = "a",
    data: Any = None,
) -> Event:
    """A stored event; one that doesn't say when it occurred occurred when it was recorded."""
    at = micro(recorded if occurred is None else occurred)
    return Event(
        id, type, subject, None, to_json({} if data is None else data), "[]", "", at, micro(recorded), None, None
    )


class Story:
    """A judge to tell a story to. `told` holds what it said, as (what, subject, since, at) with times in seconds;
    `verdicts` all of it, with the contract's name and the subject."""

    def __init__(self, *mappings: Mapping[str, Any]) -> None:
        self.told: list[tuple[str, str, float, float]] = []
        self.verdicts: list[tuple[str, str, Verdict]] = []
        self.events: list[NewEvent] = []
        self.turn: Turn | None = None
        self._id = 0
        self.judge = Judge([])
        self.start(0, *mappings)

    def start(self, now: float, *mappings: Mapping[str, Any]) -> Story:
        """A judge of these contracts takes over from the one before, as from the store."""
        rows = self.rows()
        contracts = {contract.name: contract for contract in contracts_of(*mappings)}
        self._mappings = mappings
        self.judge = Judge(list(contracts.values()))
        found = [(row.contract, from_row(contracts[row.contract], row)) for row in rows if row.contract in contracts]
        self.judge.load([(name, instance) for name, instance in found if instance is not None], micro(now))
        with self.judge.turn() as turn:
            for contract in contracts.values():
                for instance in contract.initial(micro(now)):
                    if (contract.name, instance.subject) not in self.judge.instances:
                        turn.begin(contract, instance, micro(now))
            turn.settle(micro(now))
        return self._heard(turn)

    def restart(self, now: float) -> Story:
        """The same, with the same contracts."""
        return self.start(now, *self._mappings)

    def rows(self) -> list[ContractState]:
        """What stands in the store."""
        return [to_row(self.judge.contracts[key[0]], each) for key, each in sorted(self.judge.instances.items())]

    def shown(self, contract: str = "", subject: str = "a") -> str:
        """The state that everybody sees."""
        return shown(self.judge.instances[(contract or next(iter(self.judge.contracts)), subject)])

    def event(
        self,
        type: str,  # noqa: A002
        recorded: float,
        *,
        trusted: bool = True,
        occurred: float | None = None,
        subject: str = "a",
        data: Any = None,
    ) -> Story:
        """Let an event happen."""
        self._id += 1
        happened = event(self._id, type, recorded, occurred=occurred, subject=subject, data=data)
        with self.judge.turn() as turn:
            turn.observe(happened, trusted=trusted)
        return self._heard(turn)

    def reading(self, recorded: float, value: Any = 0, **rest: Any) -> Story:
        """Let a reading come in."""
        return self.event("reading", recorded, data={"value": value}, **rest)

    def wait(self, until: float) -> Story:
        """Let time go on to `until`, with nothing in flight any more."""
        with self.judge.turn() as turn:
            turn.elapse(micro(until) + 300_000)
        return self._heard(turn)

    def state(self, contract: str = "", subject: str = "a") -> str:
        """Where the (only) contract stands."""
        name = contract or next(iter(self.judge.contracts))
        return self.judge.instances[(name, subject)].state

    @property
    def skipped(self) -> list[str]:
        """Why the last event was skipped."""
        assert self.turn is not None
        return [skip.reason for skip in self.turn.skipped]

    def _heard(self, turn: Turn) -> Story:
        self.turn = turn
        for contract, instance, verdict in turn.verdicts:
            self.verdicts.append((contract.name, instance.subject, verdict))
            self.events.append(verdict_event(contract, instance, verdict, NOON))
            since, at = (verdict.since - NOON) / 1e6, (verdict.at - NOON) / 1e6
            self.told.append((verdict.what, instance.subject, since, at))
        return self
