"""Which kinds of contracts there are, and how contracts are read from the configuration.

Kinds of other packages are found by the entry-point group `edgeq.contracts`: the entry's name is the kind, its value
the subclass of `Contract`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config.section import Section
from ..config.suggest import did_you_mean
from ..errors import Problem
from ..imports import load_class, plugged_in
from .contract import Contract
from .relations import relation_faults

# Imported when used, as most gateways have contracts of a few kinds.
KINDS = {
    "absence": "edgeq.contracts.absence:Absence",
    "composite": "edgeq.contracts.composite:Composite",
    "count": "edgeq.contracts.count:Count",
    "deadline": "edgeq.contracts.deadline:Deadline",
    "rate": "edgeq.contracts.rate:Rate",
    "requires": "edgeq.contracts.requires:Requires",
    "sequence": "edgeq.contracts.sequence:EventSequence",
    "stuck": "edgeq.contracts.stuck:Stuck",
    "threshold": "edgeq.contracts.threshold:Threshold",
}
ENTRY_POINTS = "edgeq.contracts"


def load_contracts(sections: Sequence[Section], problems: list[Problem]) -> list[Contract]:
    """The contracts that `sections` describe; every mistake is appended to `problems`."""
    contracts: list[Contract] = []
    named: dict[str, Section] = {}
    for section in sections:
        contract = _load(section, problems)
        name = section.data.get("name") if contract is None else contract.name
        if isinstance(name, str) and name in named:
            first = named[name].where("name")
            problems.append(section.problem("name", f"there is another contract {name!r}", f"at {first}"))
            continue
        if isinstance(name, str):
            named[name] = section
        if contract is not None:
            contracts.append(contract)
    for contract, key, message, hint in relation_faults(contracts, named):
        problems.append(named[contract.name].problem(key, message, hint))
    return contracts


def _load(section: Section, problems: list[Problem]) -> Contract | None:
    name = section.data.get("kind")
    if not isinstance(name, str):
        message = "is missing" if name is None else "must be the name of a kind"
        problems.append(section.problem("kind", message, did_you_mean("", KINDS)))
        return None
    try:
        kind = (
            load_class(KINDS[name], Contract)  # type: ignore[type-abstract]
            if name in KINDS
            else plugged_in(name, Contract, ENTRY_POINTS, KINDS)  # type: ignore[type-abstract]
        )
    except ValueError as error:
        problems.append(section.problem("kind", str(error)))
        return None
    keys = section.read(kind.keys_type, problems)
    if keys is None:
        return None
    try:
        mistakes = [section.problem(key, message) for key, message in keys.mistakes()]
        problems.extend(mistakes)
        return None if mistakes else kind(keys)
    except ValueError as error:  # what only shows on this machine, such as its time zone
        problems.append(section.problem("", str(error)))
        return None
