"""The files of the status page: served as they are, kept by browsers, trusted to do little; and their colours."""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import AsyncIterator
from email.message import Message
from pathlib import Path

import pytest
from support.mosquitto import free_port

import edgeq.web
from edgeq.clock import Clock
from edgeq.testing import until
from edgeq.web.page import status_page
from edgeq.web.server import WebServer

STATIC = Path(edgeq.web.__file__).parent / "static"
SHEET = (STATIC / "palette.css").read_text()
LIGHT, DARK = SHEET.split("@media (prefers-color-scheme: dark)", 1)
TEXTS = ("ink", "soft", "accent", "ok", "warn", "bad", "info")
PAIRS = [
    *((text, ground) for text in TEXTS for ground in ("paper", "card", "sunk")),
    *((tone, f"{tone}-tint") for tone in ("ok", "warn", "bad", "info")),
    ("on-accent", "accent"), ("card", "bad"),
]  # fmt: skip


@pytest.fixture
async def port() -> AsyncIterator[int]:
    chosen = free_port()
    server = WebServer(f"127.0.0.1:{chosen}", Clock(), status_page())
    await server.start()
    await until(lambda: _listens(chosen), "the server to listen")
    yield chosen
    await server.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    def ask() -> tuple[int, Message, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def test_the_page_and_all_its_files_are_served_with_their_types(port: int) -> None:
    status, headers, body = await get(port, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    assert body == (STATIC / "index.html").read_bytes()
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html"}
    for file in STATIC.iterdir():
        status, headers, body = await get(port, f"/static/{file.name}")
        assert (status, body) == (200, file.read_bytes())
        assert headers["Content-Type"].partition(";")[0] == types[file.suffix]
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_a_file_that_a_browser_has_is_not_sent_again(port: int) -> None:
    _, first, _ = await get(port, "/static/app.js")
    status, headers, body = await get(port, "/static/app.js", If_None_Match=f'"other", {first["ETag"]}')
    assert (status, body, headers["ETag"]) == (304, b"", first["ETag"])
    assert (await get(port, "/static/app.js", If_None_Match='"other"'))[0] == 200


@pytest.mark.parametrize(
    "path", ["/static/", "/static/../page.py", "/static/..%2fpage.py", "/static/.", "/static/none.js", "/static/%00"]
)
async def test_nothing_else_is_served(port: int, path: str) -> None:
    assert (await get(port, path))[0] == 404


async def test_nobody_writes_to_the_page(port: int) -> None:
    assert (await get(port, "/", "POST"))[0] == 405
    status, _, body = await get(port, "/", "HEAD")
    assert (status, body) == (200, b"")


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    for file in STATIC.iterdir():
        text = file.read_text()
        found = set(re.findall(r"https?://[^\s\"'`<>)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not found, f"{file.name} names {found}"
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), (
            file.name
        )
    index = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\bstyle=|\bon\w+=|<script(?![^>]*\bsrc=)", index)


@pytest.mark.parametrize(("palette", "name"), [(LIGHT, "light"), (DARK, "dark")], ids=["light", "dark"])
def test_texts_stand_out_from_their_ground(palette: str, name: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", palette))
    for text, ground in PAIRS:
        ratio = contrast(colours[text], colours[ground])
        assert ratio >= 4.5, f"{name}: {text} on {ground} has {ratio:.2f}, and needs 4.5"
    for ground in ("paper", "card", "sunk"):
        assert contrast(colours["edge"], colours[ground]) >= 3, f"{name}: the edges of fields on {ground}"


def contrast(one: str, other: str) -> float:
    """As WCAG 2 counts it."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
