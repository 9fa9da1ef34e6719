"""Channels: the ways to the outside. `channel` is the interface, `KINDS` lists the kinds, one file for each."""

from __future__ import annotations

from collections.abc import Mapping

from ...config.section import Section
from ...errors import Problem
from ...imports import load_class, plugged_in
from .channel import Channel, Links, Outcome, Publish, Rejected, Retry, Sent

__all__ = ["KINDS", "Channel", "Links", "Outcome", "Publish", "Rejected", "Retry", "Sent", "build_channels"]

# Imported when used: mail and HTTP cost memory that a gateway without them shouldn't pay.
KINDS = {
    "apprise": "edgeq.notifications.channels.apprise:AppriseChannel",
    "exec": "edgeq.notifications.channels.exec:ExecChannel",
    "inbox": "edgeq.notifications.channels.inbox:InboxChannel",
    "log": "edgeq.notifications.channels.log:LogChannel",
    "mqtt": "edgeq.notifications.channels.mqtt:MqttChannel",
    "ntfy": "edgeq.notifications.channels.ntfy:NtfyChannel",
    "smtp": "edgeq.notifications.channels.smtp:SmtpChannel",
    "webhook": "edgeq.notifications.channels.webhook:WebhookChannel",
}
ENTRY_POINTS = "edgeq.channels"


def build_channels(sections: Mapping[str, Section], problems: list[Problem], *, publish: Publish) -> dict[str, Channel]:
    """The channels of the configuration by name. What is wrong is appended to `problems`, and its channel left out."""
    channels = {}
    for name, section in sections.items():
        channel = _build(name, section, problems, Links(publish))
        if channel is not None:
            channels[name] = channel
    return channels


def _build(name: str, section: Section, problems: list[Problem], links: Links) -> Channel | None:
    kind = _kind(section, problems)
    settings = kind and section.read(kind.settings, problems)
    if kind is None or settings is None:
        return None
    try:
        return kind(name, settings, links)
    except ValueError as error:
        problems.append(section.problem("", str(error)))
        return None


def _kind(section: Section, problems: list[Problem]) -> type[Channel] | None:
    word = section.data.get("kind")
    if not isinstance(word, str):
        problems.append(section.problem("kind", "is missing" if word is None else "must be text", _choices()))
        return None
    try:
        if word in KINDS:
            return load_class(KINDS[word], Channel)  # type: ignore[type-abstract]
        return plugged_in(word, Channel, ENTRY_POINTS, KINDS)  # type: ignore[type-abstract]
    except ValueError as error:
        problems.append(section.problem("kind", str(error)))
        return None


def _choices() -> str:
    return f"there is: {', '.join(KINDS)}"
