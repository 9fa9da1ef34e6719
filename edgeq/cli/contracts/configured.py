"""The contracts of the configuration, for commands that look at them. The app isn't imported for that."""

from __future__ import annotations

from collections.abc import Sequence

from ...config.files import in_order
from ...config.schema import LoadedConfig
from ...config.suggest import did_you_mean
from ...contracts import Contract, load_contracts
from ...errors import ConfigError, EdgeqError, Problem


def configured_contracts(loaded: LoadedConfig) -> list[Contract]:
    """The contracts. Raises ConfigError."""
    problems: list[Problem] = []
    contracts = load_contracts(loaded.config.contracts, problems)
    if problems:
        raise ConfigError(in_order(problems, loaded.files))
    return contracts


def no_such_contract(name: str, known: Sequence[str]) -> EdgeqError:
    """What to raise for a name that no contract has."""
    return EdgeqError(f"there is no contract {name!r}", hint=did_you_mean(name, known))
