"""Whether what the sensors say reaches us at all. While it doesn't, silence proves nothing."""

from __future__ import annotations

from typing import Protocol


class Link(Protocol):
    """The way from the sensors to the store."""

    def settled_at(self) -> int | None:
        """Since when, in microseconds since 1970 UTC, the session has been connected and subscribed with the backlog at
        the broker let in; None while it isn't. Cheap: asked for each batch of events."""
