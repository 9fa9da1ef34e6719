"""A store whose events were judged by the Sentinel, as a running appliance would have left it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.contracts import load_contracts
from edgeq.events import NewEvent, to_json
from edgeq.processors.processor import ProcessorContext
from edgeq.processors.sentinel import Sentinel
from edgeq.store import cursors, events
from edgeq.store.cursors import Cursor
from edgeq.store.decisions import record
from edgeq.store.store import Tx
from edgeq.telemetry.metrics import Metrics

from .commands import make_commands_store

_PAGE = 1000


def ago(minutes: float, type: str, subject: str = "", data: Any = None, *, late: float = 0) -> NewEvent:  # noqa: A002
    """An event that was recorded so many minutes ago, and happened `late` minutes before."""
    recorded_at = Clock().now() - round(minutes * 60e6)
    happened_at = recorded_at - round(late * 60e6)
    return NewEvent(type, happened_at, recorded_at, subject, f"in/{subject}", to_json({} if data is None else data))


def add(*new: NewEvent) -> None:
    """Store events in the database of the commands, which is made if it isn't there."""
    asyncio.run(_with_store(lambda tx: events.append(tx, new)))


def judge(*new: NewEvent, configuration: str = "edgeq.yaml", look: bool = True) -> Sentinel:
    """Store events, oldest first, and judge all that weren't judged yet by the contracts of the present folder. Unless
    told not to `look` at the clock, what is over by now is judged, too."""
    add(*sorted(new, key=lambda each: each.recorded_at))
    return asyncio.run(_judge(configuration, look))


async def _with_store(unit: Any) -> Any:
    store = make_commands_store()
    await store.open()
    try:
        return await store.write(unit)
    finally:
        await store.close()


async def _judge(configuration: str, look: bool) -> Sentinel:
    contracts = load_contracts(load(configuration).config.contracts, [])
    metrics, clock, store = Metrics(), Clock(), make_commands_store()
    sentinel = Sentinel(contracts, metrics, clock)
    await store.open()
    try:
        place = await store.write(lambda tx: cursors.take(tx, "sentinel", "beginning", clock.now()))
        last = place.last_consumed_id
        await sentinel.opened(store, last)
        while True:
            found = await events.after(store, last, _PAGE)
            ctx = ProcessorContext(clock, cause_id=None, idempotency_key="", attempt=1)
            wanted = [event for event in found if sentinel.filter_item(event)]
            if found:
                await sentinel.process_batch(wanted, ctx)
                last = found[-1].id
            elif look:
                await sentinel.on_time(ctx)
            await store.write(partial(_commit, ctx=ctx, place=place, last=last))
            if not found:
                return sentinel
    finally:
        await store.close()


def _commit(tx: Tx, ctx: ProcessorContext, place: Cursor, last: int) -> None:
    record(tx, ctx.decisions)
    cursors.move(tx, place, last, ctx.now)
