"""The text of a notification, made once from its event: what is queued is what is sent, at every attempt.

Whatever the event holds, there is a text: odd data is left out or made visible, never an error, and nothing of it can
act on a channel (no control characters, no half characters, no line break in a title, nothing without a bound).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..events import Event, from_json, to_json
from .notification import SEVERITIES

TITLE_CHARACTERS_MAX = 250
BODY_BYTES_MAX = 16 * 1024

# Control characters, the invisible ones that turn the direction of text, and lone halves of characters.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_SAID = ("severity", "title", "message")


class Text(msgspec.Struct, frozen=True):
    """What a notification says, and what it belongs to."""

    severity: str
    title: str
    body: str
    fingerprint: str


def render(event: Event) -> Text:
    """The text for `event`.

    The title is `data.title`, else the event's description, else `data.message`, else type and subject. The body is
    `data.body`, also an empty one; else `data.message` or the description, unless the title says that already; else
    type and subject, and a line for each field of the data. The severity is `data.severity` if it is one of
    `SEVERITIES`, else `info`.
    """
    data = _fields(event)
    name = f"{event.type} {event.subject}".strip()
    message = _text(data.get("message"))
    title = _first(_text(data.get("title")), event.description, message, name)
    body = data.get("body")
    if not isinstance(body, str):
        more = [text for text in (message, event.description) if text.strip() != title.strip()]
        body = _first(*more) or "\n".join([name, *_lines(event, data)])
    severity = data.get("severity")
    return Text(
        severity if isinstance(severity, str) and severity in SEVERITIES else "info",
        _title(title),
        _body(body),
        fingerprint(event, data),
    )


def fingerprint(event: Event, data: Mapping[str, Any]) -> str:
    """Equal for what belongs together: the events of one type and subject, and all those of a contract's episode."""
    parts = [event.type, event.subject]
    if event.type.startswith("contract.") and "contract" in data:
        parts = ["contract.", _text(data["contract"]), event.subject, _text(data.get("episode"))]
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _fields(event: Event) -> Mapping[str, Any]:
    try:
        data = from_json(event.data_json)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _text(value: object) -> str:
    """`value` as text if it is a text or a number, else nothing."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _first(*texts: str) -> str:
    return next((text for text in texts if text.strip()), "")


def _lines(event: Event, data: Mapping[str, Any]) -> list[str]:
    if not data:
        return [event.data_json] if event.data_json not in ("{}", "null", "") else []
    return [f"{key}: {_text(value) or to_json(value)}" for key, value in data.items() if key not in _SAID]


def _title(text: str) -> str:
    line = _UNSAFE.sub("\ufffd", " ".join(text.strip()[: 8 * TITLE_CHARACTERS_MAX].split()))
    return line if len(line) <= TITLE_CHARACTERS_MAX else line[: TITLE_CHARACTERS_MAX - 1] + "…"


def _body(text: str) -> str:
    text = text.strip()
    whole = len(text)
    # Cut first: cleaning all of what somebody sent could take long.
    cleaned = _UNSAFE.sub("\ufffd", text[:BODY_BYTES_MAX].replace("\r\n", "\n").replace("\r", "\n"))
    encoded = cleaned.encode()
    if whole <= BODY_BYTES_MAX and len(encoded) <= BODY_BYTES_MAX:
        return cleaned
    note = f"\n… (cut; {whole} characters in all)"
    return encoded[: BODY_BYTES_MAX - len(note.encode())].decode(errors="ignore") + note
