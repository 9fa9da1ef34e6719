"""A small program in which doors are opened and mostly closed again, watched by a Sentinel, to be killed at any moment.

`-m support.watched_doors DATABASE` runs until it is killed; with `drain` it opens no more doors, and ends
when no deadline is open.
"""

from __future__ import annotations

import asyncio
import random
import sys

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.processors import progress
from edgeq.processors.runner import ProcessorRunner
from edgeq.processors.sentinel import Sentinel
from edgeq.processors.settings import ProcessorSettings
from edgeq.store import contract_states, events
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until

from .contracts import DEADLINE, contracts_of
from .stores import at

CONTRACT = {**DEADLINE, "within": "200ms"}


async def doors(store: Store, clock: Clock) -> None:
    door = await events.head(store)
    opened: list[str] = []
    while True:
        door += 1
        await happen(store, clock, "opened", str(door))
        opened.append(str(door))
        while len(opened) > 10:
            await happen(store, clock, "closed", opened.pop(random.randrange(len(opened))))
        await asyncio.sleep(0.01)


async def happen(store: Store, clock: Clock, what: str, door: str) -> None:
    now = clock.now()
    new = NewEvent(what, subject=door, occurred_at=now, recorded_at=now)
    await store.write(lambda tx: events.append(tx, [new]))


async def main(where: str, drain: bool) -> None:
    progress.LAZY_SECONDS = 0.02
    clock, metrics = Clock(), Metrics()
    store = at(where).store(metrics=metrics, clock=clock)
    await store.open()
    sentinel = Sentinel(contracts_of(CONTRACT), metrics, clock)
    runner = ProcessorRunner("sentinel", sentinel, ProcessorSettings(start="beginning"), store, metrics, clock)
    await runner.start()
    print("ready", flush=True)
    if not drain:
        await doors(store, clock)

    async def quiet() -> bool:
        return runner.position >= await events.head(store) and sentinel.due_at() is None

    await until(quiet, "all deadlines to pass", store=store, deadline_seconds=120)
    await runner.stop()
    pending = await contract_states.find(store, state="pending", limit=1)
    await store.close()
    assert not pending


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:] == ["drain"]))
