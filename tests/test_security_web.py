"""What whoever reaches the port of the interface can do: on this machine, through a proxy, with a link, with a form."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.interface import TOKEN, Interface
from support.stores import SqliteDatabase

from edgeq.notifications.acknowledge import Told
from edgeq.notifications.links import Links, signing_key


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Interface]:
    async with SqliteDatabase(tmp_path).opened() as store, Interface(tmp_path, store) as made:
        yield made


async def raw(web: Interface, octets: bytes) -> bytes:
    """What comes back for these bytes."""

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", web.port), timeout=60) as connection:
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    return await asyncio.to_thread(ask)


def status(answer: bytes) -> int:
    return int(answer.split()[1])


async def test_who_is_on_the_machine_reads_and_changes_nothing(web: Interface) -> None:
    """A proxy that says nothing of itself is on the machine as well: nobody can tell it from a person there."""
    assert (await web.ask("GET", "/api/events", token="")).status == 200
    for path in (
        "/api/queues/default/pause",
        "/api/dead-letters/1/redrive",
        "/api/dead-letters/1/discard",
        "/api/events",
    ):
        assert (await web.ask("POST", path, {"type": "a"}, token="")).status == 401, path
    assert (await web.get("/api/events"))["items"] == []


async def test_what_others_may_see_needs_no_token_and_holds_no_payload(web: Interface) -> None:
    await web.ask("POST", "/api/events", {"type": "a", "subject": "private-subject", "data": {"value": "private-data"}})
    far = {"X_Forwarded_For": "192.0.2.1"}
    for path in ("/api/status", "/api/events", "/api/openapi.json", "/metrics", "/ready", "/api/stream"):
        assert (await web.ask("GET", path, token="", **far)).status == 401, path
    for path in ("/", "/static/app.js", "/health"):
        answer = await web.ask("GET", path, token="", **far)
        assert answer.status == 200
        assert "private" not in str(answer.said)
    assert "private" not in (await web.ask("GET", "/metrics")).said


@pytest.mark.parametrize(
    "sent_as", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""]
)
async def test_a_form_of_another_site_does_nothing(web: Interface, sent_as: str) -> None:
    """What a browser sends across sites without asking first: no JSON, no header of ours, no cookie."""
    headers = {"Content_Type": sent_as, "Origin": "http://evil.example"}
    login = await web.ask("POST", "/api/login", b'{"token": "%s"}' % TOKEN.encode(), token="", **headers)
    assert login.status == 415
    assert "Set-Cookie" not in login.headers
    session = await web.ask("POST", "/api/login", {"token": TOKEN}, token="")
    cookie = session.headers["Set-Cookie"].partition(";")[0]
    assert "HttpOnly; SameSite=Strict" in session.headers["Set-Cookie"]
    for path in ("/api/events", "/api/queues/default/pause"):
        answer = await web.ask("POST", path, b'{"type": "a"}', token="", Cookie=cookie, X_Edgeq="1", **headers)
        assert answer.status == 403, "sent by a page of others"
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_who_has_a_link_has_nothing_else(web: Interface) -> None:
    link = Links("http://gw", await signing_key(web.store)).url(Told("fingerprint", 1), web.clock.now())
    token = link.rpartition("/")[2]
    assert (await web.ask("GET", f"/ack/{token}")).status == 200
    assert (await web.ask("GET", f"/ack/{token[:-1]}{'A' if token[-1] != 'A' else 'B'}")).status == 404
    for headers in ({"Authorization": f"Bearer {token}"}, {"Cookie": f"edgeq_session={token}", "X_Edgeq": "1"}):
        assert (await web.ask("POST", "/api/queues/default/pause", token="", **headers)).status == 401
    assert (await web.ask("POST", "/api/login", {"token": token}, token="")).status == 401


@pytest.mark.parametrize(
    "target",
    ["/static/../../../../etc/passwd", "/static/%2e%2e/page.py", "/static/%2e%2e%2fpage.py", "/static/..%252fpage.py",
     "/static//etc/passwd", "//etc/passwd", "/static/app.js/../../page.py", "/static/index.html%00.js",
     "/static/\\..\\page.py", "file:///etc/passwd", "http://evil.example/etc/passwd"],
)  # fmt: skip
async def test_no_path_leads_out_of_the_page_s_files(web: Interface, target: str) -> None:
    answer = await raw(web, f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status(answer) in (400, 404)
    assert b"root:" not in answer
    assert b"microdot" not in answer


async def test_a_second_request_on_a_connection_is_none(web: Interface) -> None:
    """What a proxy takes for the body of one, or for the next one, changes nothing either."""
    smuggled = f"POST /api/queues/default/pause HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    for head in (
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /api/logout HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"POST /api/logout HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/logout HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n",
    ):
        answer = await raw(web, head + smuggled)
        assert answer.count(b"HTTP/1.1 ") == 1
    assert not (await web.get("/api/queues"))["items"][0]["paused"]


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x=1", "a%0d%0aSet-Cookie:%20x=1", "\x00", "é", "<script>"])
async def test_what_is_sent_makes_no_header_and_no_markup(web: Interface, name: str) -> None:
    answer = await raw(web, f"GET /nothing/{name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("latin-1", "replace"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) in (400, 404)
    assert b"\nSet-Cookie" not in head
    assert b"<script>" not in body
