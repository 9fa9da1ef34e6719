"""Channel `webhook` against a real HTTP server in all its moods."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.targets import Answer, DripTarget, HttpTarget, certificate, closing
from test_channels_kinds import build

from edgeq.clock import MICROSECONDS
from edgeq.events import Event
from edgeq.notifications.channels import Channel, Outcome, Rejected, Retry, Sent
from edgeq.notifications.text import render
from edgeq.testing.channels import notification
from edgeq.testing.clock import NOON


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


def hook(target: Any, **keys: Any) -> Channel:
    return build(kind="webhook", **{"url": target.url, "timeout": "60s", **keys})


async def answered(target: HttpTarget, *answers: Answer, **keys: Any) -> Outcome:
    target.answers.extend(answers)
    return await hook(target, **keys).send(notification())


async def test_the_request_holds_the_notification_and_its_key(target: HttpTarget) -> None:
    assert await hook(target).send(notification()) == Sent()
    (request,) = target.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["Idempotency-Key"] == "5e7f-7"
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {
        "id": 7,
        "event_id": 42,
        "kind": "alert",
        "severity": "warning",
        "title": "Freezer 1 is too warm",
        "body": "-12 °C since noon",
        "fingerprint": "0123456789abcdef0123456789abcdef",
        "raised_at": "2026-01-01T12:00:00.000Z",
        "idempotency_key": "5e7f-7",
        "detail": {},
    }


async def test_method_headers_query_and_user_are_sent(target: HttpTarget) -> None:
    url = f"http://gw:p%40ss@127.0.0.1:{target.port}/a b/ü?x=1&y=%20".replace(" ", "%20")
    headers = {"X-Site": "Gewächshaus", "content-type": "application/vnd.example+json"}
    assert await hook(target, url=url, method="PUT", headers=headers).send(notification()) == Sent()
    (request,) = target.requests
    assert (request.method, request.path) == ("PUT", "/a%20b/%C3%BC?x=1&y=%20")
    assert request.headers["Authorization"] == "Basic Z3c6cEBzcw=="
    assert request.headers["X-Site"] == "Gewächshaus"
    assert [value for name, value in request.headers.items() if name.lower() == "content-type"] == [
        "application/vnd.example+json"
    ]
    assert request.headers["Host"] == f"127.0.0.1:{target.port}"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_sent(target: HttpTarget, status: int) -> None:
    assert await answered(target, Answer(status)) == Sent()


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422])
async def test_what_is_refused_is_given_up(target: HttpTarget, status: int) -> None:
    outcome = await answered(target, Answer(status))
    assert isinstance(outcome, Rejected)
    assert str(status) in outcome.reason


@pytest.mark.parametrize("status", [408, 425, 500, 501, 507])
async def test_what_may_be_the_notifications_fault_is_tried_again(target: HttpTarget, status: int) -> None:
    outcome = await answered(target, Answer(status))
    assert isinstance(outcome, Retry)
    assert str(status) in outcome.reason
    assert not outcome.target_down


@pytest.mark.parametrize("status", [401, 407, 429, 502, 503, 504])
async def test_what_is_not_about_the_notification_makes_the_channel_wait(target: HttpTarget, status: int) -> None:
    outcome = await answered(target, Answer(status))
    assert isinstance(outcome, Retry)
    assert str(status) in outcome.reason
    assert outcome.target_down


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "86400"}, 3600.0),
        ({"Retry-After": "9" * 400}, 3600.0),
        ({"Retry-After": "Thu, 01 Jan 2026 12:02:00 GMT"}, 120.0),
        ({"Retry-After": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "Fri, 01 Jan 2027 12:00:00 GMT"}, 3600.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured_within_bounds(
    target: HttpTarget, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    target.date = "Thu, 01 Jan 2026 12:00:00 GMT"
    outcome = await answered(target, Answer(status, tuple(headers.items())))
    assert isinstance(outcome, Retry)
    assert outcome.after_seconds == seconds


async def test_a_retry_date_counts_from_the_servers_clock_not_from_ours(target: HttpTarget) -> None:
    target.date = "Thu, 01 Jan 2026 12:00:00 GMT"
    target.answers.append(Answer(429, (("Retry-After", "Thu, 01 Jan 2026 12:01:00 GMT"),)))
    years_behind = notification(attempted_at=NOON - 20 * 365 * 86400 * MICROSECONDS)
    outcome = await hook(target).send(years_behind)
    assert isinstance(outcome, Retry)
    assert outcome.after_seconds == 60.0


@pytest.mark.parametrize("way", ["cut", "hang", "drip"])
async def test_an_answer_that_does_not_come_is_waited_for_so_long_and_no_longer(target: HttpTarget, way: str) -> None:
    target.answers.append(Answer(way=way))
    target.stay = True
    while not target.requests:  # once, but on a busy machine the time may be over before the request is handed over
        outcome = await answered(target, timeout="300ms")
        assert isinstance(outcome, Retry)
    assert not outcome.target_down, "the request was handed over: it may be to blame"


async def test_a_server_that_only_drips_is_cut_off() -> None:
    with closing(DripTarget()) as drip:
        for scheme in ("http", "https"):
            outcome = await build(kind="webhook", url=f"{scheme}://127.0.0.1:{drip.port}/", timeout="300ms").send(
                notification()
            )
            assert isinstance(outcome, Retry)
        await_threads_gone()


def await_threads_gone() -> None:
    """No thread stays behind with a server that never ends."""
    for thread in threading.enumerate():
        if thread.name == "edgeq-channel":
            thread.join(60)
            assert not thread.is_alive()


async def test_a_body_without_end_does_not_undo_a_decided_answer(target: HttpTarget) -> None:
    assert await answered(target, Answer(way="endless"), timeout="30s") == Sent()


async def test_what_is_no_http_is_tried_again(target: HttpTarget) -> None:
    outcome = await answered(target, Answer(way="garbage"))
    assert isinstance(outcome, Retry)


async def test_a_host_that_does_not_resolve_is_away_not_wrong(target: HttpTarget) -> None:
    outcome = await hook(target, url="http://nowhere.invalid/").send(notification())
    assert isinstance(outcome, Retry)
    assert outcome.target_down


async def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    tls, ca = certificate(tmp_path)
    with closing(HttpTarget(tls)) as target:
        assert await hook(target, ca=ca).send(notification()) == Sent()
        outcome = await hook(target).send(notification())
        assert isinstance(outcome, Retry)
        assert outcome.target_down
        assert "certificate" in outcome.reason
        assert len(target.requests) == 1


async def sent_with(target: HttpTarget, **keys: Any) -> Any:
    detail = {
        "type": "door.opened",
        "subject": "door-1",
        "tags": ["a"],
        "data": {"value": 7.5, "list": [1, {"x": None}]},
    }
    told = notification(detail_json=json.dumps(detail))
    assert await hook(target, **keys).send(told) == Sent()
    return json.loads(target.requests[-1].body)


async def test_the_body_is_made_of_the_notifications_fields(target: HttpTarget) -> None:
    body = {
        "text": "{title}: {body} ({detail.subject}, {detail.data.value})",
        "number": "{id}",
        "value": "{detail.data.value}",
        "tags": "{detail.tags}",
        "first": "{detail.data.list.0}",
        "constant": [1, True, None, {"{title}": "{{x}}"}],
        "missing": "{detail.data.nothing}",
        "gap": "at {detail.data.list.7} and {detail.type.x}",
        "null": "{detail.data.list.1.x}",
    }
    assert await sent_with(target, body=body) == {
        "text": "Freezer 1 is too warm: -12 °C since noon (door-1, 7.5)",
        "number": 7,
        "value": 7.5,
        "tags": ["a"],
        "first": 1,
        "constant": [1, True, None, {"{title}": "{x}"}],
        "missing": None,
        "gap": "at [no detail.data.list.7] and [no detail.type.x]",
        "null": None,
    }


async def test_bodies_of_well_known_services_can_be_made(target: HttpTarget) -> None:
    words = {"title": "Freezer 1 is too warm", "body": "-12 °C since noon"}
    slack = {"text": "{title}", "blocks": [{"type": "section", "text": {"type": "plain_text", "text": "{body}"}}]}
    assert (await sent_with(target, body=slack))["blocks"][0]["text"]["text"] == words["body"]
    discord = {"content": "{title}\n{body}", "allowed_mentions": {"parse": []}}
    assert await sent_with(target, body=discord) == {
        "content": "Freezer 1 is too warm\n-12 °C since noon",
        "allowed_mentions": {"parse": []},
    }
    card = {"type": "AdaptiveCard", "version": "1.2", "body": [{"type": "TextBlock", "text": "{body}", "wrap": True}]}
    teams = {
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
    }
    assert (await sent_with(target, body=teams))["attachments"][0]["content"]["body"][0] == {
        "type": "TextBlock",
        "text": words["body"],
        "wrap": True,
    }
    pushover = {"token": "abc", "user": "def", "title": "{title}", "message": "{body}", "priority": 1}
    assert await sent_with(target, body=pushover) == {
        "token": "abc",
        "user": "def",
        "title": words["title"],
        "message": words["body"],
        "priority": 1,
    }


async def test_hostile_texts_stay_texts(target: HttpTarget) -> None:
    title = '"}, {"injected": true} {body} {{ \\ <!channel>'
    channel = hook(target, body={"text": "{title}"}, query={"q": "{title}"})
    assert await channel.send(notification(title=title)) == Sent()
    (request,) = target.requests
    assert json.loads(request.body) == {"text": title}
    assert parse_qs(urlsplit(request.path).query) == {"q": [title]}


async def test_get_asks_with_a_query_and_without_a_body(target: HttpTarget) -> None:
    query = {"text": "{title} & {body}", "n": "{id}"}
    assert await hook(target, method="GET", url=f"{target.url}?user=gw", query=query).send(notification()) == Sent()
    (request,) = target.requests
    assert (request.method, request.body) == ("GET", b"")
    assert urlsplit(request.path).path == "/hook"
    assert parse_qs(urlsplit(request.path).query) == {
        "user": ["gw"],
        "text": ["Freezer 1 is too warm & -12 °C since noon"],
        "n": ["7"],
    }
    assert "Content-Type" not in request.headers
    assert request.headers["Idempotency-Key"] == "5e7f-7"


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WORDS = "plain words of some length"


def signature(key: bytes, webhook_id: str, timestamp: str, body: bytes) -> str:
    """As receivers compute it."""
    signed = hmac.new(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


def test_receivers_compute_the_signature_of_the_standards_own_example() -> None:
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}') == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize(
    ("secret", "key"), [(SECRET, base64.b64decode(SECRET.removeprefix("whsec_"))), (WORDS, WORDS.encode())]
)
async def test_a_signature_is_that_of_standard_webhooks(target: HttpTarget, secret: str, key: bytes) -> None:
    target.answers.append(Answer(307, (("Location", "/moved"),)))
    assert await hook(target, sign={"secret": secret}).send(notification()) == Sent()
    assert len(target.requests) == 2
    for request in target.requests:
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert headers["webhook-id"] == headers["idempotency-key"] == "5e7f-7"
        assert headers["webhook-timestamp"] == str(NOON // MICROSECONDS)
        assert headers["webhook-signature"] == signature(
            key, headers["webhook-id"], headers["webhook-timestamp"], request.body
        )


async def test_a_body_of_megabytes_is_cut_to_what_the_target_takes(target: HttpTarget) -> None:
    data = json.dumps({"title": "x", "body": "é" * 2_500_000})
    text = render(Event(1, "door.opened", "door", None, data, "[]", "", NOON, NOON, None, None))
    whole, cut = hook(target), hook(target, max_body="2000B", body={"content": "{body}"})
    for channel in (whole, cut):
        assert await channel.send(notification(body=text.body)) == Sent()
    first, second = (json.loads(request.body) for request in target.requests)
    assert first["body"] == text.body
    assert len(text.body.encode()) <= 16 * 1024
    assert 1900 < len(second["content"].encode()) <= 2000
    assert "cut" in second["content"]
    assert cut.body_bytes_max == 2000


async def test_people_read_it_unless_it_is_said_that_programs_do(target: HttpTarget) -> None:
    assert hook(target).digests
    assert not hook(target, digest=False).digests
    assert hook(target).limit is None
