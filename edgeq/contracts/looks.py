"""Which instances are to look at another contract again, because of a change of it, and what they then see."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from typing import NamedTuple

from .contract import Contract
from .instance import Change, Instance, Shown
from .relations import Key, Relations
from .telling import shown

LAST_RANK = 2**31


class Look(NamedTuple):
    """The instance `key` is to look at contract `name`. Sorted by the rank of the instance's contract."""

    rank: int
    key: Key
    name: str


class Looks:
    """Those that are `waiting`, the first of which is the first. An instance stands as the first of `instances` has it
    in which it is."""

    def __init__(self, relations: Relations, rank: Mapping[str, int], *instances: Mapping[Key, Instance]) -> None:
        self._relations = relations
        self._rank = rank
        self._instances = instances
        self.waiting: list[Look] = []
        self._changes: dict[tuple[Key, str], Change] = {}

    def note(self, name: str, instance: Instance, at: int) -> None:
        """An instance of contract `name` is new, or seen to be in another state: those that see it are to look."""
        wide = self._relations.note(name, instance)
        change = Change(name, instance.subject, shown(instance), at, _cause_id(instance))
        for dependent in self._relations.dependents.get(name, ()):
            own = (dependent.name, "" if dependent.for_all else change.subject)
            if self._find(own) is not None:
                self.add(own, change)
            elif name in dependent.of_contracts and (subject := dependent.subject_of_state(change)) is not None:
                self.add((dependent.name, subject), change)
            if wide:
                for subject in self._relations.only_of(dependent, name):
                    self.add((dependent.name, subject), change)

    def add(self, key: Key, change: Change) -> None:
        """Have an instance look, because of `change`."""
        if (key, change.contract) not in self._changes:
            heappush(self.waiting, Look(self._rank[key[0]], key, change.contract))
        self._changes[(key, change.contract)] = change

    def pop(self, rank: int) -> tuple[Look, Change] | None:
        """The first of those of contracts up to that rank; None when there is none."""
        if not self.waiting or self.waiting[0].rank > rank:
            return None
        look = heappop(self.waiting)
        return look, self._changes.pop((look.key, look.name))

    def put_back(self, look: Look, change: Change) -> None:
        """Have it wait again, unless it waits because of a later change."""
        if (look.key, look.name) not in self._changes:
            self.add(look.key, change)

    def is_suppressed(self, contract: Contract, subject: str) -> bool:
        """Whether a contract in its `suppressed_by` is violated."""
        return any(self._standing(contract, name, subject)[0] == "violated" for name in contract.suppressed_by)

    def states(self, contract: Contract, subject: str) -> Mapping[str, Shown]:
        """How those of its `of_contracts` stand as seen from an instance of `contract`."""
        return {name: self._standing(contract, name, subject)[0] for name in contract.of_contracts}

    def standing(self, contract: Contract, name: str, subject: str, at: int) -> Change:
        """How one of them does, as if that had just come about at `at`."""
        state, cause_id = self._standing(contract, name, subject)
        return Change(name, subject, state, at, cause_id)

    def _standing(self, contract: Contract, name: str, subject: str) -> tuple[Shown, int]:
        instance = None if contract.for_all else self._find((name, subject))
        return (self._relations.overall(name), 0) if instance is None else (shown(instance), _cause_id(instance))

    def _find(self, key: Key) -> Instance | None:
        return next((found[key] for found in self._instances if key in found), None)


def _cause_id(instance: Instance) -> int:
    """The event by which the instance stands as it does."""
    memory = instance.memory
    return memory.cause_id if instance.state in ("violated", "pending") else memory.event_id
