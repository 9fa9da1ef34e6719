"""Channel `mqtt`: a message over edgeq's own session with the broker.

What is queued stays in the store until the broker has acknowledged the message, over any outage and restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from ...backoff import Backoff
from ...config import checks
from ..notification import Notification
from .channel import Channel, ChannelSettings, Links, Outcome, Retry, Sent


class MqttSettings(ChannelSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `mqtt`. Without `payload`, the notification as JSON is published; with it, what is resolved
    is published as `resolved_payload`, and not at all without that."""

    topic: Annotated[str, checks.topic_name]
    payload: str | None = None
    resolved_payload: str | None = None
    qos: Literal[0, 1] = 1
    retain: bool = False

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What a fixed payload can't say, and what isn't needed without one."""
        if "resolved_payload" in given and "payload" not in given:
            yield "resolved_payload", "needs payload as well: the notification as JSON says itself what is resolved"
        if given.get("digest") and "payload" in given:
            yield "digest", "can't be had with payload, which is the same for all"


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
        payload = self._payload(notification)
        if payload is None:  # the same again would sound the siren for the all-clear
            return Sent(answer="nothing is published: there is no resolved_payload")
        settings = self._settings
        try:
            await self._publish(settings.topic, payload, qos=settings.qos, retain=settings.retain)
        except Exception as error:  # noqa: BLE001 - whatever the session raises, the broker hasn't got it
            return Retry(str(error) or type(error).__name__, target_down=True)
        return Sent(answer="the broker has acknowledged it" if settings.qos else "it is on its way: QoS 0")

    def _payload(self, notification: Notification) -> bytes | None:
        settings = self._settings
        if settings.payload is None:
            return notification.as_json()
        text = settings.resolved_payload if notification.kind == "resolved" else settings.payload
        return None if text is None else text.encode()
