"""Channel `webhook` against a real HTTP server in all its moods."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.targets import Answer, DripTarget, HttpTarget, certificate, closing
from test_channels_kinds import build

from edgeq.clock import MICROSECONDS
from edgeq.notifications.channels import Channel, Outcome, Rejected, Retry, Sent
from edgeq.testing.channels import notification
from edgeq.testing.clock import NOON


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


def hook(target: Any, **keys: Any) -> Channel:
    return build(kind="webhook", **{"url": target.url, "timeout": "5s", **keys})


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


@pytest.mark.parametrize("status", [301, 302, 307, 401, 407, 429, 502, 503, 504])
async def test_what_is_not_about_the_notification_makes_the_channel_wait(target: HttpTarget, status: int) -> None:
    outcome = await answered(target, Answer(status, (("Location", f"{target.url}/elsewhere"),)))
    assert isinstance(outcome, Retry)
    assert str(status) in outcome.reason
    assert outcome.target_down
    assert len(target.requests) == 1, "a redirect was followed"


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
    outcome = await answered(target, Answer(way=way), timeout="300ms")
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
            thread.join(10)
            assert not thread.is_alive()


async def test_a_body_without_end_does_not_undo_a_decided_answer(target: HttpTarget) -> None:
    assert await answered(target, Answer(way="endless"), timeout="5s") == Sent()


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
