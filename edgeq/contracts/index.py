"""Which contracts want to see an event, found without asking each of them: by its type, then by its subject, then by a
field that must be a certain value for `where` to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..events import DataError, Event
from ..patterns import pattern
from ..where import Path, choice, choice_key, lookup
from .contract import Contract
from .reporting import Reporter

_TYPES_REMEMBERED_MAX = 1000


class Entry(NamedTuple):
    """A contract that wants to see events of some type, if their data pass `where`, or, of a kind that has a mind of
    its own about that, if it `wants` them. Entries are sorted by `rank`, and by the contracts' order: `number`, which
    is another one for each contract."""

    rank: int
    number: int
    contract: Contract
    reporter: Reporter
    where: Callable[[Any], bool] | None
    wants: Callable[[Event], bool] | None


class _Route:
    """The entries for one type of events: those for `all`, and those that certain subjects or data are needed for."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.all: list[Entry] = []
        self.exact: dict[str, list[Entry]] = {}
        self.patterns: list[Entry] = []
        self.chosen: dict[Path, dict[Any, list[Entry]]] = {}
        self.any = bool(entries)
        for entry in entries:
            self._add(entry, entry.contract.subject)
        self.narrow = bool(self.exact or self.patterns or self.chosen)

    def _add(self, entry: Entry, subject: str) -> None:
        needed = None if entry.where is None else choice(entry.contract.keys.where)
        if "*" not in subject:
            self.exact.setdefault(subject, []).append(entry)
        elif subject != "*":
            self.patterns.append(entry)
        elif needed is None:
            self.all.append(entry)
        else:
            entries = self.chosen.setdefault(needed.path, {})
            for key in needed.keys:
                entries.setdefault(key, []).append(entry)

    def fitting(self, event: Event) -> Iterator[Entry]:
        """The entries of `chosen` for an event."""
        try:
            data = event.data
        except DataError:
            every = (entry for choices in self.chosen.values() for entries in choices.values() for entry in entries)
            yield from {entry.number: entry for entry in every}.values()
            return
        for path, entries in self.chosen.items():
            yield from entries.get(choice_key(lookup(data, path)), ())


class Index:
    """Finds the contracts for an event. None wants events of contracts (`contract.*`)."""

    def __init__(self, contracts: Sequence[Contract], reporters: Mapping[str, Reporter], rank: Mapping[str, int]):
        self._routes: dict[str, _Route] = {}
        self._patterns = []
        for number, contract in enumerate(contracts):
            own = type(contract).wants is not Contract.wants
            entry = Entry(
                rank[contract.name],
                number,
                contract,
                reporters[contract.name],
                None if own else contract.where,
                contract.wants if own else None,
            )
            self._patterns += [(pattern(wanted), entry) for wanted in dict.fromkeys(contract.types)]

    def cares(self, event_type: str) -> bool:
        """Whether any contract wants to see events of that type."""
        return self._route(event_type).any

    def entries(self, event: Event) -> Sequence[Entry]:
        """The contracts that may want to see `event`, in order. Nobody knows who wants one whose data isn't JSON: then
        they are all that look at it."""
        route = self._route(event.type)
        if not route.narrow:
            return route.all
        subject = event.subject
        fitting = [*route.exact.get(subject, ())]
        fitting += [entry for entry in route.patterns if entry.contract.fits_subject(subject)]
        if route.chosen:
            fitting += route.fitting(event)
        return sorted([*route.all, *fitting]) if fitting else route.all

    def _route(self, event_type: str) -> _Route:
        route = self._routes.get(event_type)
        if route is None:
            own = event_type.startswith("contract.")
            fitting = [entry for fits, entry in self._patterns if not own and fits(event_type)]
            if len(self._routes) >= _TYPES_REMEMBERED_MAX:
                self._routes.clear()
            unique = {entry.number: entry for entry in fitting}
            route = self._routes[event_type] = _Route(sorted(unique.values()))
        return route
