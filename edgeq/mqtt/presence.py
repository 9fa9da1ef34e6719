"""What others see of this gateway on the broker: a retained `online` or `offline`, which is the will too. Pure."""

from __future__ import annotations

from .topics import check_topic

ONLINE = b"online"
OFFLINE = b"offline"


def state_topic(status_topic: str, gateway: str) -> str:
    """The topic of the retained state. Raises ValueError when it isn't one to publish to."""
    topic = status_topic.replace("{gateway}", gateway) + "/state"
    check_topic(topic)
    return topic
