"""`ctx` of a controller: the message, and through `Context` what to make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..clock import Clock
from ..context import Context
from ..errors import RejectedMessage
from ..events import NESTING_MAX, deeper_than, from_json
from ..mqtt.delivery import Delivery
from ..mqtt.properties import Properties, decode
from ..store.decisions import Decisions

_UNSET: Any = object()


class MessageContext(Context):
    """One message for one route.

    `topic`, `params` (the values of the route's parameters), `payload` (bytes), `qos`, `retain`, `dup`, `received_at`
    (microseconds since 1970 UTC) and `route` (its name in status and metrics: the topic as configured) describe it.
    Events that it emits have the message's topic, and happened when it arrived unless told otherwise.
    """

    _json: Any = _UNSET

    def __init__(
        self,
        clock: Clock,
        delivery: Delivery,
        route: str,
        params: Mapping[str, Any],
        payload_kind: str = "json",
        decisions: Decisions | None = None,
        keep: int = 0,
    ) -> None:
        super().__init__(clock, now=delivery.received_at, decisions=decisions)
        self.keep = keep
        self.delivery = delivery
        self.route = route
        self.params = params
        self.payload_kind = payload_kind

    @property
    def topic(self) -> str:
        """The topic name the message was published to."""
        return self.delivery.topic

    @property
    def payload(self) -> bytes:
        """The payload as it came."""
        return self.delivery.payload

    @property
    def qos(self) -> int:
        """0 or 1: the lower of what it was published with and what the route asks for."""
        return self.delivery.qos

    @property
    def retain(self) -> bool:
        """Whether the broker had kept it and sent it because edgeq subscribed."""
        return self.delivery.retain

    @property
    def dup(self) -> bool:
        """Whether the broker says it has sent it before. Not a proof that it was seen: don't skip by it."""
        return self.delivery.dup

    @property
    def received_at(self) -> int:
        """When it came, in microseconds since 1970 UTC."""
        return self.delivery.received_at

    @property
    def properties(self) -> Properties:
        """The MQTT 5 properties; on 3.1.1 there are none. Raises RejectedMessage when they are malformed."""
        try:
            return decode(self.delivery.properties_raw)
        except ValueError as error:
            raise RejectedMessage("undecodable", f"the message's properties are malformed: {error}") from None

    @property
    def topic_of_event(self) -> str | None:
        """See Context."""
        return self.delivery.topic

    def json(self) -> Any:
        """The payload decoded from JSON.

        Raises RejectedMessage (`undecodable`), which makes it a dead letter, for what isn't JSON (NaN and Infinity
        aren't) and for what is nested more than `NESTING_MAX` deep.
        """
        if self._json is _UNSET:
            payload = self.delivery.payload
            try:
                value = from_json(payload)
            except ValueError as error:
                raise RejectedMessage("undecodable", f"the payload is not JSON: {error}") from None
            if deeper_than(NESTING_MAX, payload, value):
                raise RejectedMessage("undecodable", f"the payload is nested more than {NESTING_MAX} deep")
            self._json = value
        return self._json

    def text(self) -> str:
        """The payload as text. Raises RejectedMessage (`undecodable`) when it isn't UTF-8."""
        try:
            return self.delivery.payload.decode()
        except UnicodeDecodeError as error:
            raise RejectedMessage("undecodable", f"the payload is not UTF-8: {error}") from None

    def value(self) -> Any:
        """The payload as the route's `payload` says: decoded JSON, text, or bytes."""
        if self.payload_kind == "json":
            return self.json()
        return self.text() if self.payload_kind == "text" else self.delivery.payload
