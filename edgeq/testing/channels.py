"""What every kind of channel must do, as tests: `ChannelSuite`. Needs pytest with pytest-asyncio in its automatic mode.

class TestPager(ChannelSuite):
    secrets = ("s3cret",)

    @pytest.fixture(autouse=True)
    def pager(self, pager_server):
        self.server = pager_server

    def channel(self):
        return PagerChannel("pager", PagerSettings(url=self.server.url, token="s3cret"), links())

    def received(self):
        return self.server.requests

    def break_target(self):
        self.server.stop()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Sized
from typing import Any, ClassVar

from ..backoff import Backoff
from ..config.schema import Record
from ..notifications.channels import Channel, Links, Publish, Retry, Sent
from ..notifications.notification import Notification
from .clock import NOON

ODD_TEXTS = (
    "",
    "Tür offen: 5 °C – 冷凍庫 🚪👩‍🚒",
    "quotes \" ' `, <b>tags</b> & entities &amp;, {braces}, %s, $HOME, \\backslash",
    "=?utf-8?q?hello=0ABcc:_somebody=40example.net?=",
    "one\ntwo\n\n.\n..\nBcc: somebody@example.net\n\nfour\ttabbed",
    "x" * 250,
    "word " * 3000,
    "é" * 8000,
)


async def _unreachable(*args: Any, **more: Any) -> None:
    raise ConnectionError("not connected to the broker")


def links(publish: Publish = _unreachable) -> Links:
    """What a channel's constructor gets; its MQTT session is down unless `publish` says otherwise."""
    return Links(publish)


def notification(**changes: Any) -> Notification:
    """A notification to send, with some fields changed."""
    fields: dict[str, Any] = {
        "id": 7, "event_id": 42, "severity": "warning", "title": "Freezer 1 is too warm", "body": "-12 °C since noon",
        "fingerprint": "0123456789abcdef0123456789abcdef", "idempotency_key": "5e7f-7", "raised_at": NOON,
        "attempted_at": NOON,
    }  # fmt: skip
    return Notification(**{**fields, **changes})


class ChannelSuite:
    """Subclass it, say how to get a channel and look at its target, and pytest runs what is here.

    `secrets` are texts of its settings that must appear nowhere. A kind without a target that could be away sets
    `breakable` to False.
    """

    secrets: ClassVar[Sequence[str]] = ()
    breakable: ClassVar[bool] = True

    def channel(self) -> Channel:
        """A channel whose target takes everything."""
        raise NotImplementedError

    def received(self) -> Sized:
        """What has arrived at the target so far, one item for each notification."""
        raise NotImplementedError

    def break_target(self) -> None:
        """From now on the target can't be reached."""
        raise NotImplementedError

    def test_names_its_kind_and_its_settings(self) -> None:
        channel = self.channel()
        assert channel.kind
        assert issubclass(channel.settings, Record)
        assert isinstance(channel.backoff, Backoff)

    async def test_delivers(self) -> None:
        assert await self.channel().send(notification()) == Sent()
        assert len(self.received()) == 1

    async def test_takes_any_text(self) -> None:
        channel = self.channel()
        for text in ODD_TEXTS:
            title = " ".join(text.split())[:250] or "untitled"
            assert await channel.send(notification(title=title, body=text)) == Sent(), text
        assert len(self.received()) == len(ODD_TEXTS)

    async def test_takes_every_severity_also_an_unknown_one(self) -> None:
        channel = self.channel()
        for severity in ("debug", "info", "warning", "critical", "of tomorrow"):
            assert await channel.send(notification(severity=severity)) == Sent()

    async def test_a_target_that_is_away_makes_it_wait(self) -> None:
        if not self.breakable:
            return
        channel = self.channel()
        self.break_target()
        outcome = await channel.send(notification())
        assert isinstance(outcome, Retry)
        assert outcome.reason
        assert outcome.target_down

    async def test_can_be_cancelled(self) -> None:
        task = asyncio.create_task(self.channel().send(notification()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.result() == Sent()

    async def test_tells_no_secrets(self) -> None:
        channel = self.channel()
        told = [repr(channel)]
        handler = logging.Handler(logging.DEBUG)
        handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("edgeq")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            told.append(repr(await channel.send(notification())))
            if self.breakable:
                self.break_target()
                told.append(repr(await channel.send(notification())))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        for secret in self.secrets:
            assert not [text for text in told if secret in text]
