"""The intake of routes with `ordered: true`, when several edgeq share one subscription (`mqtt.group`).

A broker hands the messages of a shared subscription to whichever member is free: two messages of one topic may be
handled side by side. Ordered routes have a session of their own instead, `edgeq-<group>-ordered`, which the broker
keeps for the group, not for a member. One member at a time connects to it. When that one dies, the next is given what
was not acknowledged, and all that came since, in the order in which it was published.
"""

from __future__ import annotations

import uuid

from msgspec.structs import replace

from .clock import Clock
from .config.schema import Mqtt
from .errors import StoreUnavailable
from .intake.intake import Intake
from .intake.table import RouteTable
from .mqtt.inbox import Inbox
from .mqtt.session import Session
from .mqtt.subscriptions import SubscriptionMemory
from .service import Service
from .store import meta
from .store.store import Store, Tx
from .telemetry.metrics import Metrics

_GRACE_SECONDS = 2.0


def ordered_name(group: str) -> str:
    """By which the group's session calls itself: in its client id and on its status topic."""
    return f"{group}-ordered"


class OrderedIntake(Service):
    """Takes in what the routes of `table` want, while it runs. For the member whose turn it is.

    `mqtt` is the configuration's, with its `group`. `session` and `intake` are there while it runs. One that stood
    still, and goes on when another has taken over, commits nothing any more.
    """

    def __init__(
        self,
        table: RouteTable,
        mqtt: Mqtt,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        *,
        room: int,
        packet_bytes_max: int,
        known_filters: SubscriptionMemory,
    ) -> None:
        super().__init__("ordered intake", clock)
        self.session: Session | None = None
        self.intake: Intake | None = None
        self._table = table
        self._name = ordered_name(mqtt.group or "")
        self._key = f"intake_turn:{self._name}"
        self._mqtt = replace(mqtt, group=None, client_id="")
        self._store = store
        self._metrics = metrics
        self._room = room
        self._packet_bytes_max = packet_bytes_max
        self._known_filters = known_filters

    async def run(self) -> None:
        """See `Service`. What isn't acknowledged in the end is the next member's."""
        turn = uuid.uuid4().hex
        await self._store.write(lambda tx: meta.put(tx, self._key, turn))

        def fence(tx: Tx) -> None:
            if meta.value(tx, self._key) != turn:
                raise StoreUnavailable("another member has taken over the ordered routes")

        inbox = Inbox(self._room)
        self.session = Session(
            self._mqtt,
            self._name,
            self._table.filters(),
            inbox,
            self._metrics,
            self.clock,
            packet_bytes_max=self._packet_bytes_max,
            known_filters=self._known_filters,
        )
        self.intake = Intake(
            self._table, inbox, self.session, self._store, self._metrics, self.clock,
            window=self._mqtt.receive_maximum, fence=fence,
        )  # fmt: skip
        try:
            await self.intake.start()
            await self.session.start()
            await self.stopping.wait()
        finally:
            self.session.stop_reading()
            await self.intake.stop(_GRACE_SECONDS)
            await self.session.stop(_GRACE_SECONDS)
            self.session = self.intake = None
