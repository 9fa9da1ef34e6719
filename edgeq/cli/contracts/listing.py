"""`edgeq contracts list`: where each contract stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click
import msgspec

from ...clock import Clock
from ...contracts.overview import WORST_FIRST, Overall, Single, overall, singles, unjudged
from ...errors import StoreMissing
from .. import completing
from ..common import as_json, configured, load_config, open_store
from ..printing import say_json, say_table
from .configured import configured_contracts, no_such_contract
from .times import ago, ahead

_TIMES = ("since", "next deadline", "today")


@click.command("list")
@click.argument("name", required=False, shell_complete=completing.contracts)
@click.option("--state", type=click.Choice(WORST_FIRST), default=None, help="Only subjects in this state.")
@click.option("--all", "every", is_flag=True, help="A line for each subject, instead of one for each contract.")
@as_json
@configured
def list_contracts(name: str | None, state: str | None, every: bool, json_lines: bool) -> None:
    """Where each contract stands, and since when.

    A line for each contract; with NAME, --state or --all, a line for each subject. The next deadline is when a state
    changes if nothing comes, and today is how many violations were told today, by the clocks of this machine.
    """
    loaded = load_config()
    contracts = configured_contracts(loaded)
    now = Clock().now()
    by_subject = bool(name or state or every)

    async def main() -> Sequence[Overall | Single]:
        async with open_store(loaded) as store:
            if by_subject:
                return await singles(store, now, contract=name or "", state=state or "")
            return await overall(store, contracts, now)

    try:
        found = asyncio.run(main())
    except StoreMissing:  # edgeq hasn't run yet
        found = [] if by_subject else unjudged(contracts)
    known = [contract.name for contract in contracts]
    if name and name not in known and not found:
        raise no_such_contract(name, known)
    if json_lines:
        for each in found:
            say_json(msgspec.structs.asdict(each))
        return
    if by_subject:
        empty = f"no subject {f'is {state}' if state else 'was seen yet'}"
        rows = [
            (each.contract, each.subject, each.state, *_times(each, now)) for each in found if isinstance(each, Single)
        ]
        say_table(("contract", "subject", "state", *_TIMES), rows, empty=empty)
    else:
        lines = [(each.contract, _states(each), *_times(each, now)) for each in found if isinstance(each, Overall)]
        say_table(("contract", "state", *_TIMES), lines, empty="no contracts")


def _states(each: Overall) -> str:
    if not each.states:
        return "nothing seen yet"
    (first, count), *others = each.states.items()
    text = ", ".join(f"{count} {state}" for state, count in each.states.items()) if others or count > 1 else first
    return text if each.configured else f"{text}, no longer configured"


def _times(each: Overall | Single, now: int) -> tuple[str, str, int]:
    return ago(each.since, now), ahead(each.deadline_at, now), each.violations_today
