"""Channel `apprise`: any of the services that the library Apprise knows (https://appriseit.com), by its URL.

Needs the extra `apprise`. The library gets a process of its own for each notification: see `apprise_call`. The URL
holds passwords and tokens: no part of it is told.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import unquote

import msgspec

from ...config import checks
from ...config.origin import HIDDEN
from ...errors import MissingExtra
from ...events import from_json, to_json
from ...units import Duration, Size
from ..notification import Notification
from .channel import Channel, ChannelSettings, Links, Outcome, Retry, Sent
from .line import Timeout
from .program import Ended, run
from .shorten import shortened

_CALL = str(Path(__file__).with_name("apprise_call.py"))
_WORDS_CHARACTERS_MAX = 300
_SECRET_CHARACTERS_MIN = 4
_TYPES = {"debug": "info", "info": "info", "warning": "warning", "critical": "failure"}


def _url(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*://\S*", text) or not text.isprintable():
        raise ValueError("must be one URL as Apprise has them, such as tgram://TOKEN/CHAT")


class AppriseSettings(ChannelSettings, frozen=True, kw_only=True):
    """`channels.*` of kind `apprise`. `max_body` is the longest text that the service takes."""

    url: Annotated[str, _url]
    max_body: Annotated[Size, checks.between(Size(256), Size(16 * 1024))] = Size(1024)
    timeout: Timeout = Duration(60)

    secrets: ClassVar[tuple[str, ...]] = ("url",)


class AppriseChannel(Channel):
    """One message for each notification. The library says only whether it was sent; when it wasn't, and the target was
    there, it is tried again as often as any other."""

    kind = "apprise"
    settings = AppriseSettings
    digests = True

    def __init__(self, name: str, settings: AppriseSettings, links: Links) -> None:
        super().__init__(name, settings, links)
        if importlib.util.find_spec("apprise") is None:
            missing = MissingExtra("kind: apprise", "apprise")
            raise ValueError(f"{missing}: {missing.hint}")
        self.body_bytes_max = settings.max_body
        self._settings = settings

    async def send(self, notification: Notification) -> Outcome:
        """See Channel.send."""
        kind = "success" if notification.kind == "resolved" else _TYPES.get(notification.severity, "info")
        asked = {
            "url": self._settings.url,
            "title": notification.title,
            "body": shortened(notification.body or notification.title, self.body_bytes_max),
            "type": kind,
        }
        return await run(
            # Without this folder on the path: modules in it are called as those of Python.
            [sys.executable, "-P", _CALL],
            to_json(asked).encode(),
            self._outcome,
            timeout_seconds=self._settings.timeout,
            environment=dict(os.environ),
        )

    def _outcome(self, ended: Ended) -> Outcome:
        try:
            said = msgspec.convert(from_json(ended.out), _Answer)
        except ValueError:
            return Retry(self._safe(f"apprise ended with exit status {ended.status}: {ended.last_words}"))
        if said.sent:
            return Sent(answer="apprise has sent it")
        return Retry(self._safe(said.reason), said.after_seconds, said.target_down, said.unreachable)

    def _safe(self, text: str) -> str:
        for secret in _parts(self._settings.url):
            text = text.replace(secret, HIDDEN)
        return text[:_WORDS_CHARACTERS_MAX]


class _Answer(msgspec.Struct):
    sent: bool
    reason: str = ""
    target_down: bool = False
    unreachable: bool = False
    after_seconds: float | None = None


def _parts(url: str) -> Collection[str]:
    """The URL and whatever stands in it, the longest first, but for its scheme and what is too short to be secret."""
    rest = url.partition("://")[2]
    pieces = [url, rest, *re.split(r"[/?&=:@,;#]+", rest)]
    found = {piece for each in pieces for piece in (each, unquote(each)) if len(piece) >= _SECRET_CHARACTERS_MIN}
    return sorted(found, key=len, reverse=True)
