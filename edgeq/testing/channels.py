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
from ..notifications.bucket import Limit
from ..notifications.channels import Channel, Links, Publish, Retry, Sent
from ..notifications.channels.channel import ChannelSettings
from ..notifications.notification import Notification
from .clock import NOON

KINDS = ("alert", "update", "reminder", "resolved", "digest")

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
# An app may choose them (`ctx.notify`), and a group is named by what stands in events.
ODD_FINGERPRINTS = ("digest:door.opened\r\nBcc: somebody@example.net", "冷凍庫 1", "<a@b>, <c@d>", "x" * 5000, "")
ODD_DETAILS = (
    '{"type":"door.opened","subject":"Tür =?utf-8?q?x?=","tags":["a,b","\\n","notification"],"data":{"a":[1,null]}}',
    '{"type":null,"tags":"none","data":"text","ack_url":5}',
    '{"type":"digest","count":3,"resolved":1}',
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
        assert issubclass(channel.settings, ChannelSettings)
        assert isinstance(channel.backoff, Backoff)

    def test_says_how_much_its_target_takes(self) -> None:
        channel = self.channel()
        assert channel.digests in (True, False)
        assert 256 <= channel.body_bytes_max <= 16 * 1024
        assert channel.limit is None or isinstance(channel.limit, Limit)
        if channel.limit is not None:
            assert channel.limit.rate > 0
            assert channel.limit.burst >= 1

    async def test_delivers(self) -> None:
        outcome = await self.channel().send(notification())
        assert outcome == Sent()
        assert len(self.received()) == 1
        assert outcome.answer.isprintable(), "what the target answered is one line"
        assert len(outcome.answer) <= 500

    async def test_the_same_may_come_twice(self) -> None:
        channel = self.channel()
        assert await channel.send(notification()) == Sent()
        later = notification(attempted_at=NOON + 3_600_000_000)
        assert await channel.send(later) == Sent(), "after a crash the same notification comes again"

    async def test_takes_every_kind_of_notification(self) -> None:
        channel = self.channel()
        for kind in KINDS:
            assert await channel.send(notification(kind=kind)) == Sent(), kind

    async def test_takes_bodies_as_long_as_it_says(self) -> None:
        channel = self.channel()
        line = "- warning: Kühlung 1 (opened 02:10, resolved 02:40 (30m))\n"
        lines = line * (channel.body_bytes_max // len(line.encode()))
        body = lines.ljust(channel.body_bytes_max - len(lines.encode()) + len(lines), "x")
        assert len(body.encode()) == channel.body_bytes_max
        assert await channel.send(notification(kind="digest", title="70 late notifications", body=body)) == Sent()
        assert len(self.received()) == 1

    async def test_takes_what_apps_and_events_put_into_it(self) -> None:
        channel = self.channel()
        for fingerprint in ODD_FINGERPRINTS:
            assert await channel.send(notification(fingerprint=fingerprint)) == Sent(), fingerprint
        for detail in ODD_DETAILS:
            assert await channel.send(notification(detail_json=detail)) == Sent(), detail

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
