"""Promises about events, and what becomes of them when they are broken.

`contract` says what a contract is, `kinds` which kinds there are and how they are read from the configuration. `judge`
runs them over events and time without touching anything, in turns (`turn`); `reporting` says what of it is told.
`watch` gives the judge a clock and a link, `processors.sentinel` a store, and `replay` a history.
"""

from .contract import Contract
from .kinds import KINDS, load_contracts
from .link import Link

__all__ = ["KINDS", "Contract", "Link", "load_contracts"]
