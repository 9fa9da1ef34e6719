"""The intake of routes with `ordered: true`, when several edgeq share one subscription (`mqtt.group`).

A broker hands the messages of a shared subscription to whichever member is free: two messages of one topic may be
handled side by side. Ordered routes have a session of their own instead, `edgeq-<group>-ordered`, which the broker
keeps for the group, not for a member. One member at a time connects to it. When that one dies, the next is given what
was not acknowledged, and all that came since, in the order in which it was published.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from msgspec.structs import replace

from .clock import Clock
from .config.schema import Mqtt
from .errors import StoreUnavailable
from .intake.intake import Intake
from .intake.table import RouteTable
from .mqtt.inbox import QOS0_ROOM, Inbox
from .mqtt.session import Session
from .mqtt.subscriptions import SubscriptionMemory
from .service import Service
from .store import meta
from .store.store import Store, Tx
from .telemetry.metrics import Metrics

_GRACE_SECONDS = 2.0


class OrderedIntake(Service):
    """Takes in what the routes of `table` want, while it runs. For the member whose turn it is.

    `mqtt` is the configuration's, with its `group`; `filters` gives a client id its memory. `session` and `intake` are
    there while it runs. One that stood still, and goes on when another has taken over, commits nothing any more.
    """

    def __init__(
        self,
        table: RouteTable,
        mqtt: Mqtt,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        *,
        packet_bytes_max: int,
        filters: Callable[[str], SubscriptionMemory],
    ) -> None:
        group = mqtt.group or ""
        super().__init__(f"ordered:{group}", clock)
        self.session: Session | None = None
        self.intake: Intake | None = None
        self._table = table
        self._gateway = f"{group}-ordered"
        self._key = f"intake_turn:{group}"
        status_topic = mqtt.status_topic if "{gateway}" in mqtt.status_topic else f"{mqtt.status_topic}-ordered"
        self._mqtt = replace(mqtt, group=None, client_id="", status_topic=status_topic)
        self._store = store
        self._metrics = metrics
        self._packet_bytes_max = packet_bytes_max
        self._known_filters = filters(f"edgeq-{self._gateway}")

    async def run(self) -> None:
        """See `Service`. What isn't acknowledged in the end is the next member's."""
        turn = uuid.uuid4().hex
        await self._store.write(lambda tx: meta.put(tx, self._key, turn))

        def fence(tx: Tx) -> None:
            if meta.value(tx, self._key) != turn:
                raise StoreUnavailable("another member has taken over the ordered routes")

        inbox = Inbox(self._mqtt.receive_maximum + QOS0_ROOM)
        self.session = Session(
            self._mqtt,
            self._gateway,
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
            try:
                await self.intake.stop(_GRACE_SECONDS)
            finally:  # it may be cancelled in the midst of that, and must leave nobody with the group's client id
                await self.intake.stop(0.0)
                await self.session.stop(_GRACE_SECONDS)
                self.session = self.intake = None
