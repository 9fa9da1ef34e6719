"""Channel `mqtt`: a message over edgeq's own session with the broker."""

from __future__ import annotations

from typing import Annotated, Literal

from ...backoff import Backoff
from ...config import checks
from ...config.schema import Record
from ..notification import Notification
from .channel import Channel, Links, Outcome, Retry, Sent


class MqttSettings(Record, frozen=True):
    """`channels.*` of kind `mqtt`. Without `payload`, the notification as JSON is published."""

    topic: Annotated[str, checks.topic_name]
    payload: str | None = None
    qos: Literal[0, 1] = 1
    retain: bool = False


class MqttChannel(Channel):
    """Sent when the broker has acknowledged it (at QoS 0: when it is on its way). While the session is down, everything
    waits in the outbox."""

    kind = "mqtt"
    settings = MqttSettings
    backoff = Backoff(1.0, 15.0)  # to look whether our own session is up costs the broker nothing

    def __init__(self, name: str, settings: MqttSettings, links: Links) -> None:
        super().__init__(name, settings, links)
        self._settings = settings
        self._publish = links.publish

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        fixed = self._settings.payload
        payload = notification.as_json() if fixed is None else fixed.encode()
        try:
            await self._publish(self._settings.topic, payload, qos=self._settings.qos, retain=self._settings.retain)
        except Exception as error:  # noqa: BLE001 - whatever the session raises, the broker hasn't got it
            return Retry(str(error) or type(error).__name__, target_down=True)
        return Sent()
