"""Contracts that look at other contracts: by `suppressed_by`, or because their kind judges others' states.

None may look at itself, not through others either, so there is an order in which each comes after those it looks at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set

from ..config.suggest import did_you_mean
from .contract import Contract
from .instance import Instance, Shown
from .keys import LINK, at_index, listed
from .telling import shown

Key = tuple[str, str]  # contract, subject

NOT_KNOWN: frozenset[str] = frozenset(("unknown", "suppressed"))


def relation_faults(contracts: Sequence[Contract], names: Collection[str]) -> Iterator[tuple[Contract, str, str, str]]:
    """What is wrong between contracts: for each mistake the contract, the path of the key, a sentence and a hint.
    `names` are those of all contracts, also of those that could not be read."""
    for contract in contracts:
        for path, name in _references(contract):
            if name not in names:
                hint = did_you_mean(name, [each for each in names if each != contract.name])
                yield contract, path, f"there is no contract {name!r}", hint
    known = {contract.name: contract for contract in contracts}
    told: set[str] = set()
    for contract in contracts:
        circle = _circle(contract, known)
        if circle and not told.intersection(circle):
            told.update(circle)
            path = next(path for path, name in _references(contract) if name == circle[1])
            yield contract, path, f"must not look at itself: {' -> '.join(circle)}", ""


def ranks(contracts: Sequence[Contract]) -> dict[str, int]:
    """How many contracts, one looking at the other, stand below each. Those that are equal don't look at each other."""
    known = {contract.name: contract for contract in contracts}
    found: dict[str, int] = {}
    waiting = list(known)
    while waiting:
        below = [name for name in looked_at(known[waiting[-1]]) if name in known]
        if first := [name for name in below if name not in found]:
            waiting += first
        else:
            found[waiting.pop()] = max((found[name] + 1 for name in below), default=0)
    return found


def looked_at(contract: Contract) -> tuple[str, ...]:
    """The names of the contracts that it looks at."""
    return (*contract.of_contracts, *contract.suppressed_by)


def left_over(contracts: Sequence[Contract], keys: Iterable[Key], now: int) -> list[Key]:
    """Which of these instances judge the states of others of whose subject none of those has an instance any more, nor
    begins with one `now`."""
    subjects = {each.name: {instance.subject for instance in each.initial(now)} for each in contracts}
    for name, subject in keys:
        subjects[name].add(subject)
    found: list[Key] = []
    rank = ranks(contracts)
    for contract in sorted(contracts, key=lambda each: rank[each.name]):
        if contract.of_contracts and not contract.for_all:
            seen = set().union(*(subjects[name] for name in contract.of_contracts))
            found += [(contract.name, subject) for subject in sorted(subjects[contract.name] - seen)]
            subjects[contract.name] &= seen
    return found


def overall(states: Collection[str]) -> Shown:
    """How a contract stands as a whole, as seen from a subject that it doesn't have, by the states of those it has."""
    if "violated" in states:
        return "violated"
    return "ok" if states and not NOT_KNOWN.intersection(states) else "unknown"


class Standing:
    """Which subjects a contract has, which of them are violated, and of which it isn't known."""

    def __init__(self) -> None:
        self.subjects: set[str] = set()
        self.violated: set[str] = set()
        self.not_known: set[str] = set()

    @property
    def overall(self) -> Shown:
        """See `overall`, in no time."""
        if self.violated:
            return "violated"
        return "ok" if self.subjects and not self.not_known else "unknown"

    def note(self, subject: str, state: Shown) -> None:
        """Take note of how the contract stands for a subject."""
        self.subjects.add(subject)
        (self.violated.add if state == "violated" else self.violated.discard)(subject)
        (self.not_known.add if state in NOT_KNOWN else self.not_known.discard)(subject)


class Relations:
    """Who looks at whom among `contracts`, and how those stand that take part."""

    def __init__(self, contracts: Iterable[Contract]) -> None:
        self.dependents: dict[str, list[Contract]] = {}
        self._standings: dict[str, Standing] = {}
        for contract in contracts:
            for name in dict.fromkeys(looked_at(contract)):
                self.dependents.setdefault(name, []).append(contract)
                self._standings.setdefault(name, Standing())
                self._standings.setdefault(contract.name, Standing())

    @property
    def names(self) -> Set[str]:
        """The contracts that look at others, or are looked at."""
        return self._standings.keys()

    def load(self, instances: Mapping[Key, Instance]) -> None:
        """Forget everything but these."""
        for name in self._standings:
            self._standings[name] = Standing()
        if self._standings:
            for (name, _), instance in instances.items():
                if name in self._standings:
                    self.note(name, instance)

    def note(self, name: str, instance: Instance) -> bool:
        """Take note of how an instance stands. Whether that changes what those see that look at the contract from
        another subject."""
        standing = self._standings[name]
        before = standing.overall
        standing.note(instance.subject, shown(instance))
        return standing.overall != before

    def overall(self, name: str) -> Shown:
        """How contract `name` stands as seen from a subject that it doesn't have."""
        return self._standings[name].overall

    def only_of(self, dependent: Contract, name: str) -> list[str]:
        """The subjects of `dependent` that contract `name` doesn't have."""
        return sorted(self._standings[dependent.name].subjects - self._standings[name].subjects)

    def subjects(self, name: str) -> list[str]:
        """The subjects of contract `name`, which takes part."""
        return sorted(self._standings[name].subjects)


def _references(contract: Contract) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(listed(contract.keys.suppressed_by)):
        if name != LINK:
            yield at_index("suppressed_by", contract.keys.suppressed_by, index), name
    for name in contract.of_contracts:
        yield contract.place_of(name), name


def _circle(contract: Contract, known: Mapping[str, Contract]) -> list[str]:
    """The names on a way from the contract back to itself."""
    way, seen = [contract.name], {contract.name}
    to_see = [iter(looked_at(contract))]
    while to_see:
        name = next(to_see[-1], None)
        if name is None:
            to_see.pop()
            way.pop()
        elif name == contract.name:
            return [*way, name]
        elif name in known and name not in seen:
            seen.add(name)
            way.append(name)
            to_see.append(iter(looked_at(known[name])))
    return []
