"""A small program that adds events and has a processor on them, to be killed at any moment.

`-m support.killable DATABASE` runs until it is killed; with `drain` it adds nothing, and ends when all is
processed.
"""

from __future__ import annotations

import asyncio
import random
import sys

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.config.schema import OnError
from edgeq.events import Event, NewEvent
from edgeq.processors import progress
from edgeq.processors.processor import ProcessorContext, QueueProcessor
from edgeq.processors.runner import ProcessorRunner
from edgeq.processors.settings import ProcessorSettings
from edgeq.store import events
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until

from .stores import at


class Doubler(QueueProcessor):
    """One `out` for each `in`; but every 7th leads to nothing, every 50th fails, and some take their time."""

    types = ("in",)

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        if event.data["n"] % 50 == 0:
            raise ValueError("one of those")
        if event.data["n"] % 7:
            ctx.emit("out", data={"of": event.id})
        if random.random() < 0.05:
            await asyncio.sleep(0.004)


async def feed(store: Store, clock: Clock) -> None:
    n = await events.head(store)
    while True:
        new = []
        for _ in range(random.randint(1, 5)):
            n += 1
            new.append(NewEvent("in", data_json=f'{{"n": {n}}}', occurred_at=clock.now(), recorded_at=clock.now()))
        await store.write(lambda tx, new=tuple(new): events.append(tx, new))


async def main(where: str, drain: bool) -> None:
    progress.DECIDED_SECONDS = 0.002
    progress.LAZY_SECONDS = 0.01
    clock, metrics = Clock(), Metrics()
    store = at(where).store(metrics=metrics, clock=clock)
    await store.open()
    settings = ProcessorSettings(start="beginning", on_error=OnError(attempts=2, backoff=Backoff(0.0, 0.0)))
    runner = ProcessorRunner("double", Doubler(), settings, store, metrics, clock)
    await runner.start()
    print("ready", flush=True)
    if not drain:
        await feed(store, clock)

    async def done() -> bool:
        return runner.position >= await events.head(store)

    await until(done, "the rest to be processed", store=store, deadline_seconds=120)
    await runner.stop()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:] == ["drain"]))
