"""What all channels that make HTTP requests do: redirects, what answers say, names that come and go, secrets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.targets import Answer, HttpTarget, certificate, closing

from edgeq.notifications.channels import Outcome, Rejected, Retry, Sent, http
from edgeq.notifications.channels.http import REDIRECTS_MAX, Endpoint, Request
from edgeq.testing.clock import NOON


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


@pytest.fixture
def other() -> Iterator[HttpTarget]:
    with closing(HttpTarget()) as server:
        yield server


async def ask(url: str, method: str = "POST", **more: Any) -> Outcome:
    body = None if method == "GET" else b"{}"
    return await Endpoint(url, **{"timeout_seconds": 5.0, **more}).ask(Request(method=method, body=body, now=NOON))


def to(place: str, status: int = 307) -> Answer:
    return Answer(status, (("Location", place),))


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("place", ["/moved?x=1", "moved?x=1", "{}/moved?x=1"])
async def test_a_redirect_to_the_same_host_is_followed_with_all_of_the_request(
    target: HttpTarget, status: int, place: str
) -> None:
    target.answers.append(to(place.format(target.url.removesuffix("/hook")), status))
    assert await ask(target.url, headers={"X-Token": "t"}) == Sent()
    first, second = target.requests
    assert (first.path, second.path) == ("/hook", "/moved?x=1")
    assert (second.method, second.body, second.headers["X-Token"]) == ("POST", b"{}", "t")


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_drops_the_body_is_followed_by_get_alone(target: HttpTarget, status: int) -> None:
    target.answers.append(to("/moved", status))
    outcome = await ask(target.url)
    assert isinstance(outcome, Retry)
    assert outcome.target_down
    assert str(status) in outcome.reason
    assert len(target.requests) == 1
    target.answers.append(to("/moved", status))
    assert await ask(target.url, "GET") == Sent()
    assert target.requests[-1].path == "/moved"


async def test_another_host_is_followed_to_only_if_it_is_named(target: HttpTarget, other: HttpTarget) -> None:
    target.answers.append(to(other.url))
    outcome = await ask(target.url)
    assert isinstance(outcome, Retry)
    assert outcome.target_down
    assert f"http://127.0.0.1:{other.port}" in outcome.reason
    assert not other.requests
    for named in (f"127.0.0.1:{other.port}", "127.0.0.1"):
        target.answers.append(to(other.url))
        assert await ask(target.url, redirects=[named]) == Sent()
    assert [request.body for request in other.requests] == [b"{}", b"{}"]


async def test_never_from_https_to_http(target: HttpTarget, tmp_path: Path) -> None:
    tls, ca = certificate(tmp_path)
    with closing(HttpTarget(tls)) as safe:
        safe.answers.append(to(target.url))
        outcome = await ask(safe.url, ca=ca, redirects=["127.0.0.1"])
        assert isinstance(outcome, Retry)
        assert "from https:// to http://" in outcome.reason
        assert not target.requests
        target.answers.append(to(safe.url))
        assert await ask(target.url, ca=ca, redirects=["127.0.0.1"]) == Sent()


async def test_from_http_to_https_on_the_usual_ports_is_the_same_host(
    target: HttpTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, ca = certificate(tmp_path)
    with closing(HttpTarget(tls)) as safe:
        monkeypatch.setattr(http, "_PORTS", {"http": target.port, "https": safe.port})
        target.answers.append(to("https://127.0.0.1/hook"))
        assert await ask("http://127.0.0.1/hook", ca=ca) == Sent()
        assert safe.requests[0].headers["Host"] == "127.0.0.1"
        monkeypatch.undo()
        target.answers.append(to(safe.url))
        assert isinstance(await ask(target.url, ca=ca), Retry), "another port is another server"


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: resolve("127.0.0.1", *more, **options))
    tls, ca = certificate(tmp_path)
    with closing(HttpTarget(tls)) as safe:
        outcome = await ask(f"https://hooks.example.net:{safe.port}/hook", ca=ca)
        assert isinstance(outcome, Retry)
        assert outcome.target_down
        assert "not valid for 'hooks.example.net'" in outcome.reason
        assert not safe.requests


async def test_a_redirect_without_end_is_left(target: HttpTarget) -> None:
    target.answers.append(to("/round"))
    target.stay = True
    outcome = await ask(target.url)
    assert isinstance(outcome, Retry)
    assert outcome.target_down
    assert len(target.requests) == REDIRECTS_MAX + 1


@pytest.mark.parametrize("place", ["", "ftp://127.0.0.1/", "http://[::1/", "http://:99999/", "//", "javascript:1"])
async def test_a_redirect_to_nowhere_is_not_followed(target: HttpTarget, place: str) -> None:
    target.answers.append(to(place))
    target.answers.append(to(place))
    target.stay = True
    outcome = await ask(target.url)
    assert isinstance(outcome, Retry)
    assert outcome.target_down
    assert len(target.requests) <= REDIRECTS_MAX + 1


async def test_a_redirect_to_a_host_that_is_away_is_not_the_notifications_fault(target: HttpTarget) -> None:
    with closing(HttpTarget()) as gone:
        url = gone.url
    target.answers.append(to(url))
    outcome = await ask(target.url, redirects=["127.0.0.1"])
    assert isinstance(outcome, Retry)
    assert outcome.target_down


async def test_an_answer_byte_by_byte_counts_when_it_is_whole(target: HttpTarget) -> None:
    target.answers.append(Answer(way="slow"))
    assert await ask(target.url) == Sent()


async def test_a_host_that_does_not_resolve_is_used_as_soon_as_it_does(
    target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = False
    resolve = socket.getaddrinfo

    def names(host: Any, *more: Any, **options: Any) -> Any:
        if host == "hooks.example.net" and not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1", *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", names)
    endpoint = Endpoint(f"http://hooks.example.net:{target.port}/hook", timeout_seconds=5.0)
    outcome = await endpoint.ask(Request(method="GET", now=NOON))
    assert isinstance(outcome, Retry)
    assert outcome.unreachable
    known = True
    assert await endpoint.ask(Request(method="GET", now=NOON)) == Sent()


async def test_what_the_target_says_is_told(target: HttpTarget) -> None:
    target.answers.append(Answer(400, body=b"invalid_payload\r\n\x1b[31m" + b"x" * 5_000_000))
    outcome = await ask(target.url)
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("400 Bad Request: invalid_payload [31mxxx")
    assert len(outcome.reason) <= 300
    sent = await ask(target.url)
    assert isinstance(sent, Sent)
    assert sent.answer == "200 OK"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><head><style>i{}</style><TITLE>No &amp; never</TITLE><h1>x", "404 Not Found: No & never"),
        (b"<html><body><h1>no</h1>", "404 Not Found"),
        (b"no_team", "404 Not Found: no_team"),
    ],
)
async def test_of_a_page_the_title_is_told(target: HttpTarget, body: bytes, said: str) -> None:
    target.answers.append(Answer(404, (("Content-Type", "text/html; charset=utf-8"),), body=body))
    outcome = await ask(target.url)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == said


async def test_an_answer_whose_body_never_comes_is_an_answer_all_the_same(
    target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_WORDS_SECONDS", 0.1)
    target.answers.append(Answer(400, way="mute"))
    assert await ask(target.url) == Rejected("400 Bad Request")


async def test_what_is_secret_is_taken_out_of_what_the_target_says(target: HttpTarget) -> None:
    secrets = ["T0K3N", "gw:p%40ss", "p@ss", "hook-id", "h00k-k3y", "k3y-v4lue", "tellnobody", "Z3c6cEBzcw=="]
    echo = "; ".join(["Bearer T0K3N", "/hook-id/h00k-k3y?key=k3y-v4lue", *secrets]).encode()
    url = f"http://gw:p%40ss@127.0.0.1:{target.port}/hook-id/h00k-k3y?key=k3y-v4lue"
    for status in (400, 401, 403, 429, 500, 503):
        target.answers.append(Answer(status, body=echo))
        outcome = await ask(url, headers={"X-Token": "Bearer T0K3N"}, secrets=["tellnobody"])
        assert not isinstance(outcome, Sent)
        assert not [secret for secret in secrets if secret in repr(outcome)]
    for place in ("https://hooks.example.net/hook-id/h00k-k3y", "http://gw:p%40ss@elsewhere.example/h00k-k3y"):
        target.answers.append(to(place))
        assert not [secret for secret in secrets if secret in repr(await ask(url))]
