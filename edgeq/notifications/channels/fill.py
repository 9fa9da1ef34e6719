"""JSON of one's own making with a notification's fields in it: `{"text": "{title}", "value": "{detail.data.value}"}`.

`{name}` is a field of the notification as programs get it (see Notification.as_dict), `{detail.a.b}` what it is about;
`{{` and `}}` are braces. A text that is a single placeholder becomes what stands there, whatever its type. What a
notification lacks is null there, and `[no detail.a.b]` within a text: a notification is never lost for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...config.suggest import did_you_mean
from ...events import to_json

NAMES = (
    "id", "event_id", "kind", "severity", "title", "body", "fingerprint", "raised_at", "idempotency_key", "detail",
)  # fmt: skip

_PIECES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Fields = Mapping[str, Any]
Fill = Callable[[Fields], Any]


def compile_value(value: Any) -> Fill:
    """A function that fills in a mapping, a list or a text; anything else stays as it is. Raises ValueError for an
    unknown name or a lone brace."""
    if isinstance(value, Mapping):
        items = {str(key): compile_value(item) for key, item in value.items()}
        return lambda fields: {key: fill(fields) for key, fill in items.items()}
    if isinstance(value, list):
        fills = [compile_value(item) for item in value]
        return lambda fields: [fill(fields) for fill in fills]
    if not isinstance(value, str):
        return lambda fields: value
    pieces = _split(value)
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        path = pieces[0]
        return lambda fields: _get(fields, path)
    return _joined(pieces)


def compile_text(text: str) -> Callable[[Fields], str]:
    """A function that fills in a text. Raises as `compile_value`."""
    return _joined(_split(text))


def template(value: Any) -> None:
    """What `compile_value` understands."""
    compile_value(value)


_Path = tuple[str, ...]


def _joined(pieces: list[str | _Path]) -> Callable[[Fields], str]:
    return lambda fields: "".join(piece if isinstance(piece, str) else _text(fields, piece) for piece in pieces)


def _split(text: str) -> list[str | _Path]:
    pieces: list[str | _Path] = []
    position = 0
    for match in _PIECES.finditer(text):
        if match.start() > position:
            pieces.append(text[position : match.start()])
        position = match.end()
        if match[0] in ("{{", "}}"):
            pieces.append(match[0][0])
        elif match[1] is None:
            raise ValueError(f"must have braces in pairs, and {match[0]!r} twice to mean itself")
        else:
            pieces.append(_path(match[1]))
    if position < len(text):
        pieces.append(text[position:])
    return pieces


def _path(expression: str) -> _Path:
    path = tuple(expression.split("."))
    if path[0] not in NAMES or not all(path) or (len(path) > 1 and path[0] != "detail"):
        hint = did_you_mean(path[0], NAMES)
        raise ValueError(f"must name fields of a notification, which {{{expression}}} is not ({hint})")
    return path


def _get(fields: Fields, path: _Path) -> Any:
    value: Any = fields
    for name in path:
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _text(fields: Fields, path: _Path) -> str:
    value = _get(fields, path)
    if isinstance(value, str):
        return value
    return f"[no {'.'.join(path)}]" if value is None else to_json(value)
