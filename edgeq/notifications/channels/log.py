"""Channel `log`: a line in edgeq's own log, at the level of the severity."""

from __future__ import annotations

import logging

from ..notification import Notification
from .channel import Channel, ChannelSettings, Outcome, Sent

log = logging.getLogger("edgeq.notification")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "critical": logging.CRITICAL,
}


class LogSettings(ChannelSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `log`: only what every kind has."""


class LogChannel(Channel):
    """Always sent. A body of several lines is put on one; one that the title ends with isn't said again."""

    kind = "log"
    settings = LogSettings

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        body = " | ".join(line for line in notification.body.splitlines() if line.strip())
        said = not body or notification.title.endswith(body)
        text = notification.title if said else f"{notification.title}: {body}"
        log.log(_LEVELS.get(notification.severity, logging.INFO), "%s", text)
        return Sent()
