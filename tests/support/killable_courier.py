"""A small program that adds events and has a courier on them, to be killed at any moment.

`-m support.killable_courier DATABASE` runs until it is killed, and says how many events there are; with `drain` it adds
nothing, and ends when all is told and nothing is due any more.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from edgeq import failpoints
from edgeq.clock import Clock
from edgeq.config.schema import NotificationRoute
from edgeq.events import NewEvent, to_json
from edgeq.notifications.policy import Policy
from edgeq.processors import progress
from edgeq.processors.courier import Courier
from edgeq.processors.runner import ProcessorRunner
from edgeq.processors.settings import ProcessorSettings
from edgeq.store import events, outbox, threads
from edgeq.store.store import Store, Tx
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until
from edgeq.units import Duration

from .stores import at

ROUTE = NotificationRoute(channels=["phone", "mail"], repeat=[Duration(0.02), Duration(0.05)])


async def feed(store: Store, clock: Clock) -> None:
    n = await events.head(store)
    while True:
        new = []
        for _ in range(random.randint(1, 5)):
            n += 1
            now = clock.now()
            data = to_json({"contract": "c", "episode": n // 2})
            what = ("resolved", "violated", "thing")[n % 2 if n % 5 else 2]
            name = f"contract.{what}" if what != "thing" else what
            new.append(NewEvent(name, now, now, subject=str(n), data_json=data, tags=("notification",)))
        await store.write(lambda tx, new=tuple(new): events.append(tx, new))
        await store.write(lambda tx: send(tx, clock.now()))
        print(n, flush=True)
        await asyncio.sleep(0.002)


def send(tx: Tx, now: int) -> None:
    """All that waits is sent: reminders are made only then."""
    for channel in ROUTE.channels:
        while (row := outbox.head(tx, channel, now, critical=False, again=False)) is not None:
            outbox.mark_sent(tx, row.id, attempt=1, now=now)


async def main(where: str, drain: bool) -> None:
    failpoints.arm(os.environ)
    progress.DECIDED_SECONDS = 0.002
    clock, metrics = Clock(), Metrics()
    store = at(where).store(metrics=metrics, clock=clock)
    await store.open()
    courier = Courier(Policy([ROUTE], ROUTE.channels), metrics, clock)
    runner = ProcessorRunner("courier", courier, ProcessorSettings(start="beginning"), store, metrics, clock)
    await runner.start()
    print("ready", flush=True)
    if not drain:
        await feed(store, clock)

    async def done() -> bool:
        await store.write(lambda tx: send(tx, clock.now()))
        every = await threads.every(store, 100_000)
        over = all(thread.endless for thread in every)
        return over and runner.position >= await events.head(store)

    await until(done, "the rest to be told", store=store, deadline_seconds=120)
    await runner.stop()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:] == ["drain"]))
