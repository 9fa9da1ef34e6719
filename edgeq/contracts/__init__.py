"""Promises about events, and what becomes of them when they are broken.

`contract` says what a contract is, `kinds` which kinds there are and how they are read from the configuration, `judge`
runs them over events and time without touching anything. `processors.sentinel` connects the judge to the store.
"""

from .contract import Contract
from .kinds import KINDS, load_contracts
from .link import Link

__all__ = ["KINDS", "Contract", "Link", "load_contracts"]
