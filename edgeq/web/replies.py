"""What the server answers by itself, or on behalf of the interface: JSON to programs, a page to people."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus

from microdot import Response

from ..events import to_json
from .html import html_page

JSON = "application/json"
JSON_HEADERS = {
    "Content-Type": JSON,
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Connection": "close",
}

_OF_PROGRAMS = ("/api/", "/health", "/ready", "/metrics")


class Refusal(Exception):
    """A request that is answered by an error: `text` says what is wrong, where, and what to do, to whoever asked."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})


class Stream(Response):
    """Server-sent events: an answer that goes on until `pieces` end, or nobody listens any more."""

    def __init__(self, pieces: AsyncGenerator[bytes]) -> None:
        # Proxies such as nginx are told to pass on each event as it comes.
        headers = {**JSON_HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        super().__init__(b"", 200, headers, "OK")
        self.pieces = pieces

    def complete(self) -> None:
        """See Response: its length isn't known."""


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON, on one line. Raises ValueError for what JSON can't say."""
    return Response(to_json(value) + "\n", status, {**JSON_HEADERS, **(headers or {})}, HTTPStatus(status).phrase)


def refused(path: str, refusal: Refusal, title: str = "Not understood") -> Response:
    """The refusal of a request for `path`: JSON to programs, a page that is called `title` to people."""
    if path.startswith(_OF_PROGRAMS):
        return json_reply({"error": refusal.text}, refusal.status, refusal.headers)
    return html_page(refusal.status, title, refusal.text, headers=refusal.headers)
