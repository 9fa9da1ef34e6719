"""JSON of one's own making with a notification's fields in it: `{"text": "{title}", "value": "{detail.data.value}"}`.

Templates as in `..template`, with the fields of the notification as programs get it (see Notification.as_dict):
`{detail.a.b}` is what it is about. A text that is a single name becomes what stands there, whatever its type. What a
notification lacks is null there, and a gap such as `[no detail.a.b]` within a text: nothing is ever lost for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...config.suggest import did_you_mean
from ...moments import moment
from ...placeholders import MISSING, find
from ..functions import Now
from ..template import Get, Path, Template, TemplateError
from ..words import here

NAMES = (
    "id", "event_id", "kind", "severity", "title", "body", "fingerprint", "raised_at", "idempotency_key", "detail",
)  # fmt: skip

_SHOWN_CHARACTERS_MAX = 60

Fields = Mapping[str, Any]
Fill = Callable[[Fields], Any]


def compile_value(value: Any) -> Fill:
    """A function that fills in a mapping, a list or a text; anything else stays as it is. Raises ValueError for what is
    no template."""
    if isinstance(value, Mapping):
        items = {str(key): compile_value(item) for key, item in value.items()}
        return lambda fields: {key: fill(fields) for key, fill in items.items()}
    if isinstance(value, list):
        fills = [compile_value(item) for item in value]
        return lambda fields: [fill(fields) for fill in fills]
    if not isinstance(value, str):
        return lambda fields: value
    pieces = _read(value).pieces
    if len(pieces) == 1 and not isinstance(pieces[0], str) and not pieces[0].calls:
        path = pieces[0].path
        return lambda fields: _get(fields, path)
    return compile_text(value)


def compile_text(text: str) -> Callable[[Fields], str]:
    """A function that fills in a text. Raises as `compile_value`."""
    template, place = _read(text), here()
    return lambda fields: template.fill(_getter(fields), Now(moment(fields["raised_at"]), place))[0]


def template(value: Any) -> None:
    """What `compile_value` understands."""
    compile_value(value)


def _read(text: str) -> Template:
    try:
        return Template(text, _path)
    except TemplateError as error:
        shown = repr(text[:_SHOWN_CHARACTERS_MAX])
        raise ValueError(f"must be a template, which {shown} is not: {error}") from None


def _path(name: str) -> Path:
    path = tuple(name.split("."))
    if path[0] not in NAMES or not all(path) or (len(path) > 1 and path[0] != "detail"):
        raise TemplateError(f"a notification has no {name!r}", did_you_mean(path[0], NAMES))
    return path


def _getter(fields: Fields) -> Get:
    return lambda path: _get(fields, path)


def _get(fields: Fields, path: Path) -> Any:
    value = find(fields, path)
    return None if value is MISSING else value
