"""The status page: its files as they lie in `static/`, read when somebody asks for them.

Browsers may keep a file, but ask each time whether it is still the same, so that after an upgrade nobody sees old and
new mixed. The page runs and loads what comes from this address alone, and may not be framed. The files hold no secret:
whoever reaches the address gets them; what they show, the interface guards.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from microdot import Request, Response

from .html import html_page
from .server import Page

_FOLDER = Path(__file__).parent / "static"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=UTF-8",
    ".css": "text/css; charset=UTF-8",
    ".js": "text/javascript; charset=UTF-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Connection": "close",
}


def status_page() -> list[Page]:
    """Where the page and its files stand on the server."""
    return [Page("/", ("GET",), _index), Page("/static/<name>", ("GET",), _file)]


async def _index(request: Request) -> Response:
    return await _file(request, _INDEX)


async def _file(request: Request, name: str) -> Response:
    # Looked for among those that are there: a name from outside never becomes a path.
    path = next((each for each in _FOLDER.iterdir() if each.name == name and each.suffix in _TYPES), None)
    if path is None:
        return html_page(404, "Not found", "There is no such page.")
    octets = await asyncio.to_thread(path.read_bytes)
    tag = f'"{hashlib.sha256(octets).hexdigest()[:20]}"'
    headers = {**_HEADERS, "Content-Type": _TYPES[path.suffix], "ETag": tag}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")]
    if tag in known or "*" in known:
        return Response(b"", 304, headers, "Not Modified")
    return Response(octets, 200, headers, "OK")
