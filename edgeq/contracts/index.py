"""Which contracts want to see an event, found without asking each of them: by its type, then by its subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..events import Event
from ..patterns import pattern
from .contract import Contract
from .reporting import Reporter

_TYPES_REMEMBERED_MAX = 1000


class Entry(NamedTuple):
    """A contract that wants to see events of some type, if their data pass `where`, or, of a kind that has a mind of
    its own about that, if it `wants` them. Entries are sorted by `rank`, and by the contracts' order."""

    rank: int
    number: int
    contract: Contract
    reporter: Reporter
    where: Callable[[Any], bool] | None
    wants: Callable[[Event], bool] | None


class _Route:
    """The entries for one type of events."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.always = [entry for entry in entries if entry.contract.keys.subject == "*"]
        self.exact: dict[str, list[Entry]] = {}
        self.patterns: list[Entry] = []
        for entry in entries:
            subject = entry.contract.keys.subject
            if subject != "*":
                (self.patterns if "*" in subject else self.exact.setdefault(subject, [])).append(entry)
        self.any = bool(entries)


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

    def entries(self, event_type: str, subject: str) -> Sequence[Entry]:
        """The contracts that may want to see events of that type and subject, in order."""
        route = self._route(event_type)
        if not route.exact and not route.patterns:
            return route.always
        exact = route.exact.get(subject, ())
        fitting = [entry for entry in route.patterns if entry.contract.fits_subject(subject)]
        return sorted([*route.always, *exact, *fitting], key=_order) if exact or fitting else route.always

    def _route(self, event_type: str) -> _Route:
        route = self._routes.get(event_type)
        if route is None:
            own = event_type.startswith("contract.")
            fitting = [entry for fits, entry in self._patterns if not own and fits(event_type)]
            if len(self._routes) >= _TYPES_REMEMBERED_MAX:
                self._routes.clear()
            unique = {entry.number: entry for entry in fitting}
            route = self._routes[event_type] = _Route(sorted(unique.values(), key=_order))
        return route


def _order(entry: Entry) -> tuple[int, int]:
    return entry.rank, entry.number
