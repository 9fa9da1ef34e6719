"""What others see of this gateway on the broker: a retained `online` or `offline`, which is the will too. Pure."""

from __future__ import annotations

from .topics import check_topic

ONLINE = b"online"
OFFLINE = b"offline"


def state_topic(status_topic: str, gateway: str) -> str:
    """The topic of the retained state. Raises ValueError when it isn't one to publish to."""
    return _below(status_topic, gateway, "state")


def request_topic(status_topic: str, gateway: str, name: str) -> str:
    """Where others publish a request. Raises ValueError as `state_topic` does."""
    return _below(status_topic, gateway, f"request/{name}")


def response_topic(status_topic: str, gateway: str, name: str) -> str:
    """Where the answer goes. Raises ValueError as `state_topic` does."""
    return _below(status_topic, gateway, f"response/{name}")


def _below(status_topic: str, gateway: str, rest: str) -> str:
    topic = f"{status_topic.replace('{gateway}', gateway)}/{rest}"
    check_topic(topic)
    return topic
