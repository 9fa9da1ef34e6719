"""Gives dead letters another chance, where they came from, when somebody asked for it (`edgeq dead-letters redrive`).

The request stands in the table, so it may come from another process and outlives a restart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from .clock import Clock
from .errors import EdgeqError, StoreUnavailable
from .intake.redrive import MessageRedrive
from .processors.runner import ProcessorRunner
from .service import Service
from .store import dead_letters, events, jobs, notifications
from .store.dead_letters import DeadLetter
from .store.store import Store, Tx

_PAGE = 50
_LOOK_SECONDS = 2.0

Handler = Callable[[DeadLetter], Awaitable[None]]


class Redriver(Service):
    """Hands each requested dead letter to the handler for its source.

    `handlers` maps a source (`intake`) or the part of it before the colon (`processor`) to a function that does the
    work again and, in the commit of what comes of it, marks the letter redriven; it raises when that fails, and then
    the request is taken back and the reason kept. Letters that aren't `mine` are left to another process, or to a time
    when they are.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        store: Store,
        clock: Clock,
        *,
        mine: Callable[[DeadLetter], bool] = lambda letter: True,
    ) -> None:
        super().__init__("redrive", clock)
        self._handlers = handlers
        self._store = store
        self._mine = mine

    async def run(self) -> None:
        """Works until it is stopped."""
        while not self.stopping.is_set():
            seen = self._store.signal.version("dead_letters")
            left = await self._all()
            await self._store.signal.wait("dead_letters", seen, _LOOK_SECONDS if left else None, unless=self.stopping)

    async def _all(self) -> int:
        """How many were left to others."""
        after_id = left = 0
        while letters := await dead_letters.redrive_requests(self._store, after_id, _PAGE):
            for letter in letters:
                if self.stopping.is_set():
                    return left
                after_id = letter.id
                if self._mine(letter):
                    await self._one(letter)
                else:
                    left += 1
        return left

    async def _one(self, letter: DeadLetter) -> None:
        handler = self._handlers.get(letter.source) or self._handlers.get(letter.source.partition(":")[0])
        try:
            if handler is None:
                raise EdgeqError(f"nothing in this configuration takes back what came from {letter.source}")
            await handler(letter)
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001 - the handler runs the user's code
            text = str(error) if isinstance(error, EdgeqError) else f"{type(error).__name__}: {error}"
            self.log.warning("redrive of dead letter %d failed: %s", letter.id, text)
            await self._store.write(lambda tx: dead_letters.refuse_redrive(tx, letter.id, text))
        else:
            self.log.info("dead letter %d from %s was redriven", letter.id, letter.source)


def handlers(
    messages: MessageRedrive, runners: Mapping[str, ProcessorRunner], store: Store, clock: Clock
) -> dict[str, Handler]:
    """What takes back dead letters of each source."""

    async def event(letter: DeadLetter) -> None:
        name = letter.source.partition(":")[2]
        runner = runners.get(name)
        if runner is None:
            raise EdgeqError(f"there is no processor {name!r} in this configuration")
        found = await events.one(store, letter.event_id or 0)
        if found is None:
            raise EdgeqError(f"event {letter.event_id} is no longer stored")
        await runner.redrive(found, lambda tx: dead_letters.mark_redriven(tx, letter.id, clock.now()))

    async def job(letter: DeadLetter) -> None:
        now = clock.now()

        def unit(tx: Tx) -> None:
            if not jobs.retry(tx, [letter.job_id or 0], now):
                raise EdgeqError(f"job {letter.job_id} is no longer there, or not dead")
            dead_letters.mark_redriven(tx, letter.id, now)

        await store.write(unit)

    async def notification(letter: DeadLetter) -> None:
        now = clock.now()
        notification_id = int(letter.detail.get("notification_id", 0))

        def unit(tx: Tx) -> None:
            if not notifications.requeue(tx, [notification_id], now):
                raise EdgeqError(f"notification {notification_id} is no longer there, or not dead")
            dead_letters.mark_redriven(tx, letter.id, now)

        await store.write(unit)

    return {"intake": messages.redrive, "processor": event, "job": job, "channel": notification}
