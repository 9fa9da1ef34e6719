"""Channel `ntfy` against a server that takes and refuses what ntfy documents that it does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.targets import Answer, HttpTarget, closing
from test_channels_kinds import build

from edgeq.events import Event
from edgeq.notifications.channels import Channel, Rejected, Retry, Sent
from edgeq.notifications.notification import Notification
from edgeq.notifications.text import render
from edgeq.testing.channels import notification
from edgeq.testing.clock import NOON


class NtfyTarget(HttpTarget):
    """Publishes JSON that is posted to `root`, within ntfy's documented limits; else answers as ntfy does."""

    def __init__(self, root: str = "/") -> None:
        super().__init__()
        self.root = root
        self.published: list[dict[str, Any]] = []

    def answer(self, request: Any) -> Answer:
        code, words = self._fault(request)
        if code:
            said = {"code": code, "http": code // 100, "error": words, "link": "https://ntfy.sh/docs/publish/"}
            return Answer(code // 100, body=json.dumps(said).encode())
        message = json.loads(request.body)
        self.published.append({**message, "message": message.get("message") or "triggered"})
        return Answer(body=json.dumps({"id": "xE73Iyuabi", "event": "message"}).encode())

    def _fault(self, request: Any) -> tuple[int, str]:
        if request.method not in ("POST", "PUT") or request.path != self.root:
            return 40401, "page not found"
        if len(request.body) > 2 * 4096:
            return 41303, "JSON body too large"
        message = json.loads(request.body)
        if not re.fullmatch("[-_A-Za-z0-9]{1,64}", message["topic"]):
            return 40009, "invalid request: topic invalid"
        if message.get("priority") not in (None, 1, 2, 3, 4, 5):
            return 40007, "invalid request: priority invalid"
        if not re.fullmatch("[-_A-Za-z0-9]{1,64}", message.get("sequence_id", "x")):
            return 40049, "invalid request: sequence ID invalid"
        if len(message.get("title", "").encode()) > 1024 or len(",".join(message.get("tags", [])).encode()) > 512:
            return 40052, "invalid request: title or tags too long"
        if len(message.get("message", "").encode()) > 4096:
            return 40014, "invalid request: attachments not allowed"
        if len(message.get("actions", [])) > 3:
            return 40018, "invalid request: actions invalid"
        return 0, ""


@pytest.fixture
def target() -> Iterator[NtfyTarget]:
    with closing(NtfyTarget()) as server:
        yield server


def phone(target: HttpTarget, **keys: Any) -> Channel:
    return build(kind="ntfy", **{"url": f"http://127.0.0.1:{target.port}/my-topic", "timeout": "5s", **keys})


def about(**detail: Any) -> Notification:
    return notification(detail_json=json.dumps(detail))


async def test_a_message_is_published_as_json_to_the_root(target: NtfyTarget) -> None:
    outcome = await phone(target, token="tk_s3cret").send(notification(title="Gefrierschrank 1: zu warm 冷凍庫"))
    assert outcome == Sent()
    assert target.published == [
        {
            "topic": "my-topic",
            "title": "Gefrierschrank 1: zu warm 冷凍庫",
            "message": "-12 °C since noon",
            "priority": 4,
            "tags": ["warning"],
            "sequence_id": "5e7f-7",
        }
    ]
    assert target.requests[0].headers["Authorization"] == "Bearer tk_s3cret"


async def test_a_server_below_a_path_and_a_user_in_the_url() -> None:
    with closing(NtfyTarget("/ntfy/")) as target:
        url = f"http://gw:p%40ss@127.0.0.1:{target.port}/ntfy/my-topic"
        assert await phone(target, url=url).send(notification()) == Sent()
        assert target.published[0]["topic"] == "my-topic"
        assert target.requests[0].headers["Authorization"] == "Basic Z3c6cEBzcw=="


async def test_without_a_body_the_title_is_the_message(target: NtfyTarget) -> None:
    assert await phone(target).send(notification(body="")) == Sent()
    (published,) = target.published
    assert published["message"] == "Freezer 1 is too warm"
    assert "title" not in published


@pytest.mark.parametrize(
    ("severity", "priority", "tags"),
    [
        ("debug", 2, []),
        ("info", 3, []),
        ("warning", 4, ["warning"]),
        ("critical", 5, ["rotating_light"]),
        ("of tomorrow", 3, []),
    ],
)
async def test_the_severity_is_priority_and_sign(
    target: NtfyTarget, severity: str, priority: int, tags: list[str]
) -> None:
    await phone(target).send(notification(severity=severity))
    assert (target.published[0]["priority"], target.published[0]["tags"]) == (priority, tags)


async def test_priorities_are_what_the_configuration_says(target: NtfyTarget) -> None:
    channel = phone(target, priority={"warning": 1})
    await channel.send(notification(severity="warning"))
    await channel.send(notification(severity="critical"))
    assert [published["priority"] for published in target.published] == [1, 5]


async def test_what_is_resolved_looks_so(target: NtfyTarget) -> None:
    await phone(target).send(notification(kind="resolved", severity="critical"))
    assert target.published[0]["tags"] == ["white_check_mark"]


async def test_tags_of_the_event_come_along(target: NtfyTarget) -> None:
    tags = ["notification", "cold chain", "a,b", "warning", 7, None, "", "=?utf-8?q?x?="]
    await phone(target).send(about(tags=tags))
    assert target.published[0]["tags"] == ["warning", "cold chain", "a b", "= ?utf-8?q?x?="]
    assert await phone(target).send(about(tags=[f"tag-{n}-ü" for n in range(1000)])) == Sent()
    assert len(target.published[1]["tags"]) > 20


async def test_links_are_buttons(target: NtfyTarget) -> None:
    channel = phone(target, click="https://gw.example.net/")
    await channel.send(about(ack_url="https://gw.example.net/ack/abc"))
    (published,) = target.published
    assert published["click"] == "https://gw.example.net/"
    (action,) = published["actions"]
    assert (action["action"], action["url"]) == ("view", "https://gw.example.net/ack/abc")


@pytest.mark.parametrize("detail", ["[]", "{", '{"tags": 5, "ack_url": {}}', "null", ""])
async def test_an_odd_detail_is_left_out(target: NtfyTarget, detail: str) -> None:
    assert await phone(target).send(notification(detail_json=detail)) == Sent()


@pytest.mark.parametrize("sign", ["x", '"', "a\n", "é", "🚪", "\\", '"🚪'])
async def test_a_body_of_megabytes_is_cut_to_what_ntfy_takes(target: NtfyTarget, sign: str) -> None:
    data = json.dumps({"title": sign * 300, "body": sign * 5_000_000})
    text = render(Event(1, "door.opened", "door", None, data, "[]", "", NOON, NOON, None, None))
    late = "raised at 2026-01-01 12:00"
    told = notification(
        title=text.title,
        body=f"{text.body}\n\n{late}",
        detail_json=json.dumps({"tags": [sign * 40] * 50, "ack_url": "https://gw.example.net/" + "a" * 300}),
    )
    assert await phone(target).send(told) == Sent()
    message = target.published[0]["message"]
    assert "cut" in message
    assert message.endswith(late)
    assert len(message.encode()) > 1800


async def test_as_many_at_once_as_ntfy_takes(target: NtfyTarget) -> None:
    channel = phone(target)
    assert channel.limit is not None
    assert (channel.limit.burst, channel.limit.rate * 60) == (60, 12)
    assert channel.digests
    assert channel.body_bytes_max == 4096
    own = phone(target, rate="2/s", burst=5, digest=False)
    assert own.limit is not None
    assert (own.limit.burst, own.limit.rate, own.digests) == (5, 2.0, False)


async def test_too_many_requests_make_the_channel_wait(target: NtfyTarget) -> None:
    target.answers.append(Answer(429, body=b'{"code":42908,"error":"limit reached: daily message quota reached"}'))
    outcome = await phone(target).send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.target_down
    assert "daily message quota" in outcome.reason
    target.answers.append(Answer(429, (("Retry-After", "7"),)))
    outcome = await phone(target).send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.after_seconds == 7.0


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410])
async def test_a_wrong_token_or_server_loses_nothing(target: NtfyTarget, status: int) -> None:
    target.answers.append(Answer(status))
    outcome = await phone(target).send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.target_down


@pytest.mark.parametrize("status", [400, 413])
async def test_only_a_message_that_is_refused_is_given_up(target: NtfyTarget, status: int) -> None:
    target.answers.append(Answer(status, body=b'{"code":40009,"error":"invalid request: topic invalid"}'))
    outcome = await phone(target).send(notification())
    assert isinstance(outcome, Rejected)
    assert "topic invalid" in outcome.reason
