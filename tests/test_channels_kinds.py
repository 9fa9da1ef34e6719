"""Every kind of channel passes the suite that authors of channels use."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.programs import script
from support.targets import HttpTarget, MailTarget, certificate, closing

from edgeq.config.section import Section
from edgeq.errors import Problem
from edgeq.notifications.channels import KINDS, Channel, Outcome, Retry, Sent, build_channels
from edgeq.notifications.notification import Notification
from edgeq.testing.channels import ChannelSuite, links, notification


def build(publish: Any = None, **keys: Any) -> Channel:
    """The channel that the configuration would make of these keys."""
    problems: list[Problem] = []
    channels = build_channels({"it": Section("channels.it", keys)}, problems, publish=publish or links().publish)
    assert not problems
    return channels["it"]


class TestLog(ChannelSuite):
    breakable = False

    @pytest.fixture(autouse=True)
    def look(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "edgeq.notification")
        self.caplog = caplog

    def channel(self) -> Channel:
        return build(kind="log")

    def received(self) -> list[logging.LogRecord]:
        return self.caplog.records

    async def test_a_notification_is_one_line_at_the_level_of_its_severity(self) -> None:
        await self.channel().send(notification(severity="critical", title="Too warm", body="since noon\n\n-12 °C"))
        (record,) = self.caplog.records
        assert record.getMessage() == "Too warm: since noon | -12 °C"
        assert record.levelno == logging.CRITICAL

    async def test_what_the_title_says_already_is_not_said_again(self) -> None:
        await self.channel().send(notification(title="hot: value above 30", body="value above 30"))
        assert self.caplog.records[0].getMessage() == "hot: value above 30"


class TestMqtt(ChannelSuite):
    @pytest.fixture(autouse=True)
    def session(self) -> None:
        self.published: list[tuple[Any, ...]] = []
        self.connected = True

    def channel(self) -> Channel:
        return build(self.publish, kind="mqtt", topic="siren/set")

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        if not self.connected:
            raise ConnectionError("not connected to the broker")
        self.published.append((topic, payload, qos, retain))

    def received(self) -> list[tuple[Any, ...]]:
        return self.published

    def break_target(self) -> None:
        self.connected = False

    async def test_publishes_what_is_configured(self) -> None:
        channel = build(self.publish, kind="mqtt", topic="siren/set", payload="ON", qos=0, retain=True)
        assert await channel.send(notification()) == Sent()
        assert self.published == [("siren/set", b"ON", 0, True)]

    async def test_a_siren_stops_when_what_it_sounds_for_is_resolved(self) -> None:
        channel = build(self.publish, kind="mqtt", topic="siren/set", payload="ON", resolved_payload="OFF")
        for kind in ("alert", "reminder", "resolved"):
            assert await channel.send(notification(kind=kind)) == Sent()
        assert [payload for _, payload, *_ in self.published] == [b"ON", b"ON", b"OFF"]

    async def test_without_a_payload_for_it_the_siren_does_not_sound_for_the_all_clear(self) -> None:
        channel = build(self.publish, kind="mqtt", topic="siren/set", payload="ON")
        assert await channel.send(notification(kind="resolved")) == Sent()
        assert not self.published

    async def test_an_empty_payload_is_one_too(self) -> None:
        channel = build(self.publish, kind="mqtt", topic="alarm", payload="!", resolved_payload="", retain=True)
        await channel.send(notification(kind="resolved"))
        assert self.published == [("alarm", b"", 1, True)], "which takes a retained message away"

    async def test_without_a_payload_the_notification_is_published_as_json(self) -> None:
        await self.channel().send(notification())
        topic, payload, qos, retain = self.published[0]
        assert (topic, qos, retain) == ("siren/set", 1, False)
        assert payload == notification().as_json()

    async def test_says_why_the_broker_has_not_got_it(self) -> None:
        self.connected = False
        assert await self.channel().send(notification()) == Retry("not connected to the broker", target_down=True)


class TestWebhook(ChannelSuite):
    secrets = ("tok3n", "pa55", "s3cret-path", "cGE1NQ")

    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        with closing(HttpTarget()) as self.target:
            yield

    def channel(self) -> Channel:
        return build(
            kind="webhook",
            url=f"http://gw:pa55@127.0.0.1:{self.target.port}/s3cret-path",
            headers={"X-Token": "tok3n"},
        )

    def received(self) -> list[Any]:
        return self.target.requests

    def break_target(self) -> None:
        self.target.stop()


class TestNtfy(ChannelSuite):
    secrets = ("tk_s3cret", "s3cret-topic")

    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        with closing(HttpTarget()) as self.target:
            yield

    def channel(self) -> Channel:
        return build(kind="ntfy", url=f"http://127.0.0.1:{self.target.port}/s3cret-topic", token="tk_s3cret")

    def received(self) -> list[Any]:
        return self.target.requests

    def break_target(self) -> None:
        self.target.stop()


class TestSmtp(ChannelSuite):
    secrets = ("pa55word",)

    @pytest.fixture(autouse=True)
    def server(self, tmp_path: Path) -> Iterator[None]:
        tls, self.ca = certificate(tmp_path)
        with closing(MailTarget(user="gw", password="pa55word", tls=tls)) as self.target:
            yield

    def channel(self) -> Channel:
        return build(
            kind="smtp",
            host="127.0.0.1",
            port=self.target.port,
            ca=self.ca,
            username="gw",
            password="pa55word",
            to=["ops@example.net"],
            **{"from": "Gateway <gw@example.net>"},
        )

    def received(self) -> list[Any]:
        return self.target.mails

    def break_target(self) -> None:
        self.target.stop()


class TestExec(ChannelSuite):
    @pytest.fixture(autouse=True)
    def program(self, tmp_path: Path) -> None:
        self.file = tmp_path / "received"
        self.away = tmp_path / "away"
        self.script = script(tmp_path, f"[ -e {self.away} ] && exit 75; cat >> {self.file}; echo taken")

    def channel(self) -> Channel:
        return build(kind="exec", command=[str(self.script)])

    def received(self) -> list[Any]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def break_target(self) -> None:
        self.away.touch()


class TestInbox(ChannelSuite):
    breakable = False

    def channel(self) -> Channel:
        self.sent: list[Any] = []
        channel = build(kind="inbox")
        send = channel.send

        async def counted(told: Notification) -> Outcome:
            self.sent.append(told)
            return await send(told)

        channel.send = counted  # type: ignore[method-assign]
        return channel

    def received(self) -> list[Any]:
        return self.sent


class TestApprise(ChannelSuite):
    secrets = ("pa55word", "s3cret-path", "cGE1NXdvcmQ")

    @pytest.fixture(autouse=True)
    def server(self) -> Iterator[None]:
        with closing(HttpTarget()) as self.target:
            yield

    def channel(self) -> Channel:
        return build(kind="apprise", url=f"json://gw:pa55word@127.0.0.1:{self.target.port}/s3cret-path")

    def received(self) -> list[Any]:
        return self.target.requests

    def break_target(self) -> None:
        self.target.stop()


def test_every_kind_is_tested_here() -> None:
    tested = {suite.__name__.removeprefix("Test").lower() for suite in ChannelSuite.__subclasses__()}
    assert set(KINDS) <= tested
