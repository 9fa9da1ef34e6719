"""`edgeq contracts`: what stands, why, what would have been said, and tests of contracts. A file for each verb."""

from __future__ import annotations

import click

from .explain import explain_contract
from .listing import list_contracts
from .replay import replay
from .unit_tests import test


@click.group()
def contracts() -> None:
    """Promises about events: where they stand, and what they would have said."""


contracts.add_command(explain_contract)
contracts.add_command(list_contracts)
contracts.add_command(replay)
contracts.add_command(test)
