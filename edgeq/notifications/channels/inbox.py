"""Channel `inbox`: the store itself. What is sent there is kept for `edgeq notifications list`, read or unread."""

from __future__ import annotations

from ..notification import Notification
from .channel import Channel, ChannelSettings, Outcome, Sent


class InboxSettings(ChannelSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `inbox`: only what every kind has."""


class InboxChannel(Channel):
    """Always sent, at once: the row of the notification is all that there is to it."""

    kind = "inbox"
    settings = InboxSettings

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        return Sent(answer="there is nothing to send: the store keeps what is queued for it")
