"""Pages as plain HTML: no scripts, nothing from elsewhere, and every text of others' in it escaped.

All of them tell the browser so: nothing is run or loaded but the one style sheet, nothing may frame the page, it isn't
kept, and where a link on it leads doesn't get to know its address, which may be a secret.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from http import HTTPStatus

from microdot import Response

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:2rem auto;padding:0 1rem}"
    "h1{font-size:1.4rem;overflow-wrap:anywhere}"
    "p{overflow-wrap:anywhere}"
    ".about{white-space:pre-line}"
    "input,button{font:inherit;padding:.6rem;width:100%;box-sizing:border-box;margin:.3rem 0 1rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Type": "text/html; charset=UTF-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Connection": "close",
}


def html_page(
    status: int, title: str, *paragraphs: str, form: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """A page of plain texts, and a `form`, which is HTML."""
    texts = "".join(f'<p class="about">{html.escape(text)}</p>' for text in paragraphs if text)
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{texts}{form}</main></body></html>\n"
    )
    return Response(body, status, {**HEADERS, **(headers or {})}, HTTPStatus(status).phrase)
