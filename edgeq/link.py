"""Whether what the sensors say reaches us: connected, subscribed, and the backlog at the broker let in."""

from __future__ import annotations

from .clock import Clock
from .intake.intake import Intake
from .mqtt.inbox import Inbox
from .mqtt.session import Session, State


class Link:
    """Watches the session and the intake; asked, not told. See contracts.link."""

    def __init__(self, session: Session, inbox: Inbox, intake: Intake, clock: Clock) -> None:
        self._session = session
        self._inbox = inbox
        self._intake = intake
        self._clock = clock
        self._connection = 0
        self._settled_at: int | None = None

    def settled_at(self) -> int | None:
        """Since when (microseconds since 1970 UTC) nothing of this connection's backlog waits.

        None while some of it does, and while there is no connection.
        """
        if self._session.state is not State.CONNECTED or self._session.connected_since is None:
            self._settled_at = None
            return None
        if self._connection != self._session.connections:
            self._connection = self._session.connections
            self._settled_at = None
        if self._settled_at is None and not self._inbox and self._intake.in_flight() == 0:
            self._settled_at = max(self._clock.now(), self._session.connected_since)
        return self._settled_at
