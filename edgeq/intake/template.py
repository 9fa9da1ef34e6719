"""Texts in a route that are filled in for each message: `"{device}:{payload.seq}"`. Compiled once, when loaded.

`{name}` is a parameter of the route's topic, `{payload.a.b}` a field of the decoded payload, `{payload}` the payload
itself, `{topic}` the topic name; `{{` and `}}` are braces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from .. import placeholders
from ..config.suggest import did_you_mean
from ..errors import RejectedMessage

if TYPE_CHECKING:
    from .context import MessageContext

Getter = Callable[["MessageContext"], Any]
Text = Callable[["MessageContext"], str]


def compile_text(text: str, names: Collection[str]) -> Text:
    """A function that fills in `text`. `names` are the topic's parameters.

    Raises ValueError for an unknown name or a lone brace. The function raises RejectedMessage: `missing_field` when
    the payload lacks a field, or holds an object or a list where a text is needed; `bad_text` for a text with a null
    character, which not every database can keep.
    """
    return _joined(_split(text, names))


def compile_value(value: Any, names: Collection[str]) -> Getter:
    """A function that builds a JSON value: texts in `value` are filled in, and one that is a single placeholder keeps
    the type of what it stands for (`"{payload.value}"` is a number if the payload's is).

    Here a bare `{field}` that is no parameter of the topic is a field of the payload. Raises as `compile_text`.
    """
    if isinstance(value, Mapping):
        getters = {check_constant(str(key)): compile_value(item, names) for key, item in value.items()}
        return lambda ctx: {key: getter(ctx) for key, getter in getters.items()}
    if isinstance(value, list):
        items = [compile_value(item, names) for item in value]
        return lambda ctx: [getter(ctx) for getter in items]
    if not isinstance(value, str):
        return lambda ctx: value
    pieces = _split(value, names, bare_fields=True)
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        return pieces[0][1]
    return _joined(pieces)


def check_constant(text: str) -> str:
    """`text`, if it can be stored. Raises ValueError for null characters and lone surrogates."""
    if "\0" in text:
        raise ValueError(f"{text!r} has a null character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} has a lone surrogate, which is no character") from None
    return text


_Piece = str | tuple[str, Getter]


def _joined(pieces: list[_Piece]) -> Text:
    if all(isinstance(piece, str) for piece in pieces):
        constant = "".join(str(piece) for piece in pieces)
        return lambda ctx: constant
    parts = [_part(piece) for piece in pieces]
    if len(parts) == 1:
        return parts[0]
    return lambda ctx: "".join([part(ctx) for part in parts])


def _part(piece: _Piece) -> Text:
    if isinstance(piece, str):
        return lambda ctx: piece
    expression, getter = piece
    return lambda ctx: _text(expression, getter(ctx))


def _split(text: str, names: Collection[str], *, bare_fields: bool = False) -> list[_Piece]:
    try:
        pieces = placeholders.split(text)
    except placeholders.LoneBrace as error:
        raise ValueError(f"{text!r} {error}") from None
    return [
        check_constant(piece) if isinstance(piece, str) else (piece.text, _getter(piece.text, names, bare_fields))
        for piece in pieces
    ]


def _getter(expression: str, names: Collection[str], bare_fields: bool) -> Getter:
    if expression in names:
        return lambda ctx: ctx.params[expression]
    if expression == "topic":
        return lambda ctx: ctx.topic
    if expression == "payload":
        return lambda ctx: ctx.value()
    if expression.startswith("payload."):
        return _field(expression, tuple(expression.split(".")[1:]))
    if bare_fields and all(expression.split(".")):
        return _field(expression, tuple(expression.split(".")))
    hint = did_you_mean(expression, [*names, "payload", "topic"])
    raise ValueError(
        f"{{{expression}}} is not a parameter of this topic; {hint}; fields of the payload are written {{payload.name}}"
    )


def _field(expression: str, path: tuple[str, ...]) -> Getter:
    if not all(path):
        raise ValueError(f"{{{expression}}} has an empty name in it")

    def get(ctx: MessageContext) -> Any:
        value = placeholders.find(ctx.value(), path)
        if value is placeholders.MISSING:
            raise RejectedMessage("missing_field", f"the payload has no field {'.'.join(path)!r}")
        return value

    return get


def _text(expression: str, value: Any) -> str:
    if type(value) is str:
        if "\0" in value:
            raise RejectedMessage("bad_text", f"{{{expression}}} has a null character")
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int or type(value) is float:
        return repr(value)
    if value is None:
        raise RejectedMessage("missing_field", f"{{{expression}}} is null")
    raise RejectedMessage("missing_field", f"{{{expression}}} is {type(value).__name__}, where a text is needed")
