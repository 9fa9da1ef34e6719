"""`edgeq run --once`: do what there is to do now, and say when it is done.

Schedules that are due are dispatched, sources are asked once, and what the broker has kept for the session is taken in;
then nothing more is read. Processors catch up, senders send what is due, workers run what is ready, and all of that
again for what comes of it. What has its time later stays for later: scheduled jobs, retries, notifications whose
channel waits, contracts whose deadlines are to come. So does what can't go on now: paused queues and processors, parts
that crashed, queues whose context can't be made; and what another process on the same store does.
"""

from __future__ import annotations

import asyncio
import contextlib

from .clock import Clock
from .contracts.watch import SETTLE_SECONDS
from .mqtt.session import State
from .parts import DRAIN_SECONDS, Parts
from .store import dead_letters, events, outlook
from .store.store import TOPICS, Store

BROKER_SECONDS = 30.0
_LOOK_SECONDS = 0.1
# The sentinel waits so long after the backlog was let in before silence counts, and looks up a moment later.
_SILENCE_SECONDS = SETTLE_SECONDS + 1.0


async def do_all(parts: Parts, store: Store, clock: Clock) -> str:
    """Return when all is done. `parts` were started for once. When the broker could not be reached within
    BROKER_SECONDS, and so what it has stays there, the answer says so: `within 30s: …`."""
    if parts.scheduler is not None:
        await parts.scheduler.adopt()
        await parts.scheduler.look()
    await asyncio.gather(*(source.look() for source in parts.sources))
    unreached = await _backlog(parts, clock)
    judged_at = clock.monotonic() + (0.0 if unreached else _SILENCE_SECONDS)
    parts.session.stop_reading()
    await parts.intake.stop(DRAIN_SECONDS)
    woken = asyncio.Event()
    with store.signal.watch(woken, *TOPICS):
        while True:
            woken.clear()
            if await _is_done(parts, store, clock, judged_at - clock.monotonic()) and not woken.is_set():
                return unreached
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), _LOOK_SECONDS)


async def _backlog(parts: Parts, clock: Clock) -> str:
    """Return when the session has let in what the broker had for it, or why it can't."""
    last = clock.monotonic()
    while parts.link.settled_at() is None:
        now = clock.monotonic()
        if parts.session.state is State.CONNECTED:
            last = now
        elif now - last >= BROKER_SECONDS:
            return f"within {BROKER_SECONDS:g}s: {parts.session.reason or 'no answer'}"
        await asyncio.sleep(_LOOK_SECONDS)
    return ""


async def _is_done(parts: Parts, store: Store, clock: Clock, soon_seconds: float) -> bool:
    """Whether no part has anything to do now, nor a processor within `soon_seconds`."""
    head = await events.head(store)
    others = await _others(parts, store)
    for name, runner in parts.runners.items():
        if f"processor:{name}" not in others and not (runner.crashes or runner.idle(head, max(0.0, soon_seconds))):
            return False
    if not all(worker.crashes or worker.idle or worker.stuck for worker in parts.workers.values()):
        return False
    for name, sender in parts.senders.items():
        if f"channel:{name}" in others or sender.crashes or sender.waiting_until is not None:
            continue
        due_at = (await outlook.outlook(store, name)).due_at
        if due_at is not None and due_at <= clock.now():
            return False
    if parts.redriver.crashes or "leader" in others:
        return True
    return not await dead_letters.redrive_requests(store, 0, 1)


async def _others(parts: Parts, store: Store) -> set[str]:
    """What other processes on the store have to do, and this one has not."""
    names = ["leader", *(f"processor:{name}" for name in parts.runners), *(f"channel:{name}" for name in parts.senders)]
    owners = await store.ownership.owner_of(names)
    return {name for name in owners if not store.ownership.holds(name)}
