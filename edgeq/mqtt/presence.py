"""The topics by which a gateway shows itself on the broker, below `mqtt.status_topic`. Pure.

`state` (`online`, or `offline`, which is the will too), `info`, `health` and `contracts/ID` are retained; requests and
responses are not.
"""

from __future__ import annotations

from .topics import check_topic

ONLINE = b"online"
OFFLINE = b"offline"


def below(status_topic: str, gateway: str, rest: str) -> str:
    """The topic `rest` below the gateway's status topic. Raises ValueError when it isn't one to publish to."""
    topic = f"{status_topic.replace('{gateway}', gateway)}/{rest}"
    check_topic(topic)
    return topic


def state_topic(status_topic: str, gateway: str) -> str:
    """The topic of the retained state. Raises ValueError as `below` does."""
    return below(status_topic, gateway, "state")
