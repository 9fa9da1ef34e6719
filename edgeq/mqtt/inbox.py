"""The bounded waiting room between the session and the intake.

The session puts in what one read of the socket brought; the intake takes out batches. For one event loop, one
session and one taker: there are no locks, and no task or future for a message. When the inbox is full the
session stops reading (so that TCP holds the broker back) and begins again when there is room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .delivery import Delivery

QOS0_ROOM = 1000
"""How many messages of QoS 0, which no window holds back, may wait beside those of the session's window."""


class Inbox:
    """Deliveries that wait for the intake, in order of arrival.

    `full` becomes true with `capacity` deliveries or `bytes_max` bytes of payload waiting, and false
    again when less than half of both is left. What one read of the socket brings is always taken, so the
    inbox holds at most that much more.
    """

    def __init__(self, capacity: int = 2000, bytes_max: int = 16 * 2**20) -> None:
        self.capacity = capacity
        self.bytes_max = bytes_max
        self.full = False
        self._waiting: deque[Delivery] = deque()
        self._bytes = 0
        self._taker: asyncio.Future[None] | None = None
        self._closed = False
        self._on_room: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, deliveries: list[Delivery]) -> None:
        """Add what arrived together. Never refuses: look at `full` afterwards."""
        self._waiting.extend(deliveries)
        self._bytes += sum([len(delivery.payload) for delivery in deliveries])
        if len(self._waiting) >= self.capacity or self._bytes >= self.bytes_max:
            self.full = True
        self._wake()

    async def get_batch(self, most: int) -> list[Delivery]:
        """The oldest deliveries, at least one and up to `most`; waits for the first.

        Returns an empty list only when the inbox is closed and nothing is left.
        """
        waiting = self._waiting
        while not waiting:
            if self._closed:
                return []
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        if most >= len(waiting):
            batch = list(waiting)
            waiting.clear()
            self._bytes = 0
        else:
            take = waiting.popleft
            batch = [take() for _ in range(most)]
            self._bytes -= sum([len(delivery.payload) for delivery in batch])
        if self.full and len(waiting) < self.capacity / 2 and self._bytes < self.bytes_max / 2:
            self.full = False
            if self._on_room is not None:
                self._on_room()
        return batch

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time the inbox stops being full. One callback: the session's."""
        self._on_room = callback

    def close(self) -> None:
        """Nothing more will come: once what waits has been taken, `get_batch` returns an empty list."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        taker = self._taker
        if taker is not None and not taker.done():
            taker.set_result(None)
