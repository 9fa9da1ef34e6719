"""Channel `ntfy`: a message on a phone, through ntfy.sh or a server of one's own.

Published as JSON to the server's root, which takes any text, where headers don't. The key of the notification is the
message's sequence id: one that comes twice takes the place of the first. A server that refuses us (address, token,
topic) makes the channel wait; only what it says of the message itself (400, 413) makes a dead letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from ...config.checks import between
from ...config.schema import Severity
from ...events import to_json
from ..bucket import Limit
from ..notification import Notification
from .channel import Channel, Links, Outcome
from .http import Endpoint, HttpSettings, Request, Url, header_value
from .shorten import shortened

# Longer messages become attachments, which vanish after hours; the JSON may be twice as long as a message; more of tags
# is refused.
MESSAGE_BYTES_MAX = 4096
JSON_BYTES_MAX = 8000
TAGS_BYTES_MAX = 500
LIMIT = Limit(12 / 60, 60)

_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_PRIORITIES = {"debug": 2, "info": 3, "warning": 4, "critical": 5}
_SIGNS = {"critical": "rotating_light", "warning": "warning"}
_RESOLVED_SIGN = "white_check_mark"
_ABOUT_THE_MESSAGE = (400, 413)


def _topic(url: str) -> None:
    parts = urlsplit(url)
    if not _TOPIC.fullmatch(parts.path.rpartition("/")[2]) or parts.query or parts.fragment:
        raise ValueError("must end with the topic, such as https://ntfy.sh/my-topic")


class NtfySettings(HttpSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `ntfy`. `priority` says which priority (1 to 5) a severity has, where it isn't the usual."""

    url: Annotated[Url, _topic]
    token: Annotated[str, header_value] | None = None
    priority: dict[Severity, Annotated[int, between(1, 5)]] = msgspec.field(default_factory=dict)
    click: Url | None = None

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Two ways to log in."""
        if given.get("token") and urlsplit(given.get("url") or "").username is not None:
            yield "token", "is one way to log in, and the user in url another: one is enough"


class NtfyChannel(Channel):
    """One message for each notification, with the severity as its priority."""

    kind = "ntfy"
    settings = NtfySettings
    digests = True
    body_bytes_max = MESSAGE_BYTES_MAX
    limit = LIMIT

    def __init__(self, name: str, settings: NtfySettings, links: Links) -> None:
        super().__init__(name, settings, links)
        root, _, self._topic = urlsplit(settings.url).path.rpartition("/")
        self._root = f"{root}/"
        self._priorities = _PRIORITIES | {str(severity): number for severity, number in settings.priority.items()}
        self._click = settings.click
        headers = {"Content-Type": "application/json"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        self._endpoint = Endpoint(
            settings.url,
            timeout_seconds=settings.timeout,
            ca=settings.ca,
            redirects=settings.redirects,
            headers=headers,
        )

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        request = Request(
            method="POST",
            target=self._root,
            body=self._json(notification),
            now=notification.attempted_at,
            refusals=_ABOUT_THE_MESSAGE,
        )
        return await self._endpoint.ask(request)

    def _json(self, notification: Notification) -> bytes:
        detail = notification.detail
        fields: dict[str, Any] = {
            "topic": self._topic,
            "priority": self._priorities.get(notification.severity, _PRIORITIES["info"]),
            "tags": _tags(notification, detail),
            "sequence_id": notification.idempotency_key,
        }
        if notification.body:
            fields["title"] = _plain(notification.title)
        if self._click is not None:
            fields["click"] = self._click
        ack_url = detail.get("ack_url")
        if isinstance(ack_url, str) and ack_url:
            fields["actions"] = [{"action": "view", "label": "Acknowledge", "url": ack_url}]
        made = b""
        for bytes_max in (MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX * 3 // 4, MESSAGE_BYTES_MAX // 2):
            message = shortened(notification.body or notification.title, bytes_max)
            made = to_json({**fields, "message": message}).encode()
            if len(made) <= JSON_BYTES_MAX:  # a quote or a line break takes two bytes of it
                break
        return made


def _tags(notification: Notification, detail: Mapping[str, Any]) -> list[str]:
    """A sign for the severity, and the tags of the event but that which every notification has."""
    sign = _RESOLVED_SIGN if notification.kind == "resolved" else _SIGNS.get(notification.severity)
    tags = [] if sign is None else [sign]
    given = detail.get("tags")
    room = TAGS_BYTES_MAX - len("".join(tags))
    for tag in given if isinstance(given, list) else []:
        word = _plain(" ".join(tag.replace(",", " ").split())) if isinstance(tag, str) else ""
        room -= len(word.encode()) + 1
        if room < 0:
            break
        if word and word not in ("notification", *tags):
            tags.append(word)
    return tags


def _plain(text: str) -> str:
    """What looks like an encoded word would be decoded."""
    return text.replace("=?", "= ?")
