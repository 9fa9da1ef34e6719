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

from ..events import Event, from_json
from ..placeholders import MISSING, find
from .functions import Moment, Now, Place
from .notification import SEVERITIES
from .template import Get, Path, Template
from .words import body_of, duration, first, is_of_contract, since, title_of, word

TITLE_CHARACTERS_MAX = 250
BODY_BYTES_MAX = 16 * 1024

# Control characters, the invisible ones that turn the direction of text, and lone halves of characters.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_UTC = Place()


class Text(msgspec.Struct, frozen=True):
    """What a notification says, and what it belongs to. `gaps` are the names of what a template wanted and the event
    lacks."""

    severity: str
    title: str
    body: str
    fingerprint: str
    gaps: tuple[str, ...] = ()


def render(event: Event, title: Template | None = None, body: Template | None = None, *, place: Place = _UTC) -> Text:
    """The text for `event`, by the templates that are given, with times as clocks show them in `place`.

    Without a template, the title is `data.title`, else what the contract says of which it tells, else the event's
    description, `data.message`, or type and subject. The body is `data.body`, also an empty one; else the facts of the
    contract; else `data.message` or the description, unless the title says that already; else type and subject, and a
    line for each field of the data. The severity is `data.severity` if it is one of `SEVERITIES`, else `info`. Where a
    template comes to nothing, the title is as without it.
    """
    data = _fields(event)
    given, severity = data.get("body"), data.get("severity")
    own_title = first((word(data.get("title")), title_of(event, data)))
    own_body = given if isinstance(given, str) else body_of(event, data, own_title, place)
    severity = severity if isinstance(severity, str) and severity in SEVERITIES else "info"
    gaps: list[str] = []
    if title is not None or body is not None:
        get = _values(event, data, severity, own_title, place)
        now = Now(event.recorded_at, place)
        if title is not None:
            own_title = first((_filled(title, get, now, gaps), own_title))
        if body is not None:
            own_body = _filled(body, get, now, gaps)
    return Text(severity, _title(own_title), _body(own_body), fingerprint(event, data), tuple(gaps))


def fingerprint(event: Event, data: Mapping[str, Any]) -> str:
    """Equal for what belongs together: the events of one type and subject, and all those of a contract's episode."""
    if event.type.startswith("contract.") and "contract" in data:
        return episode_fingerprint(word(data["contract"]), event.subject, word(data.get("episode")))
    return _hashed(event.type, event.subject)


def episode_fingerprint(contract: str, subject: str, episode: str) -> str:
    """The fingerprint of all that is told of an episode."""
    return _hashed("contract.", contract, subject, episode)


def _hashed(*parts: str) -> str:
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _fields(event: Event) -> Mapping[str, Any]:
    try:
        data = from_json(event.data_json)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _filled(template: Template, get: Get, now: Now, gaps: list[str]) -> str:
    text, lacking = template.fill(get, now)
    gaps += lacking
    return text


def _values(event: Event, data: Mapping[str, Any], severity: str, title: str, place: Place) -> Get:
    """What templates call by the names of `template.NAMES`."""
    of_contract = is_of_contract(event, data)

    def get(path: Path) -> Any:
        match path[0]:
            case "data":
                value = find(data, path[1:])
                return None if value is MISSING else value
            case "type" | "subject" | "description" | "topic":
                return getattr(event, path[0]) or None
            case "tags":
                return ", ".join(event.tags) or None
            case "severity":
                return severity
            case "message":
                return first((word(data.get("message")), title))
            case "gateway":
                return place.gateway or None
            case "occurred_at":
                return Moment(event.occurred_at)
            case "since":
                return since(event, data)
            case "duration":
                return duration(event, data)
            case "number":
                return data.get("reminder") if of_contract else None
            case name:
                return data.get(name) if of_contract else None

    return get


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
