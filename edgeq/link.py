"""Whether what the sensors say reaches us: connected, subscribed, and the backlog at the broker let in."""

from __future__ import annotations

from .clock import Clock
from .intake.intake import Intake
from .mqtt.inbox import Inbox
from .mqtt.session import Session, State

QUIET_SECONDS = 1.0
BUSY_MESSAGES = 50


class Link:
    """Watches the session and the intake; asked, not told. See contracts.link.

    MQTT doesn't say when a backlog has been sent. While it comes in, the way from the broker to the acknowledgement is
    full: as many messages are under way as the broker may send. So the backlog counts as let in once each look, for
    `QUIET_SECONDS`, has found fewer than `BUSY_MESSAGES` under way.
    """

    def __init__(self, session: Session, inbox: Inbox, intake: Intake, clock: Clock) -> None:
        self._session = session
        self._inbox = inbox
        self._intake = intake
        self._clock = clock
        self._connection = 0
        self._quiet_since: float | None = None
        self._settled_at: int | None = None

    def settled_at(self) -> int | None:
        """Since when (microseconds since 1970 UTC) nothing of this connection's backlog waits.

        None while some of it does, and while there is no connection.
        """
        if self._session.state is not State.CONNECTED or self._session.connected_since is None:
            self._connection = 0
            self._settled_at = None
            return None
        if self._connection != self._session.connections:
            self._connection = self._session.connections
            self._quiet_since = self._settled_at = None
        if self._settled_at is None:
            self._look()
        return self._settled_at

    def _look(self) -> None:
        now = self._clock.monotonic()
        if len(self._inbox) + self._intake.in_flight() >= BUSY_MESSAGES:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= QUIET_SECONDS:
            self._settled_at = self._clock.now()
