"""What the types of records' fields ask for, in shapes and in words."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from .scalars import as_text
from .section import Section

_NAMES = {str: "text", int: "a whole number", float: "a number"}


def takes_text(target: Any) -> bool:
    """Whether text as it stands is a value of type `target`."""
    if get_origin(target) in (Union, types.UnionType, Annotated):
        return any(takes_text(member) for member in get_args(target))
    return target is str


def describe(target: Any) -> str:
    """What a value of type `target` is called in a message: `a whole number`, `full or normal`."""
    words = _choices(target)
    return " or ".join(([", ".join(words[:-1])] if words[1:] else []) + words[-1:])


def _choices(target: Any) -> list[str]:
    kind = get_origin(target)
    if kind is Annotated:
        return _choices(get_args(target)[0])
    if kind is Literal:
        return [as_text(choice) for choice in get_args(target)]
    if kind is Union or kind is types.UnionType:
        return [word for member in get_args(target) if member is not types.NoneType for word in _choices(member)]
    if target is bool:
        return ["true", "false"]
    if shape(target) is not str:
        return [{dict: "a mapping", list: "a list"}.get(shape(target), "a value")]
    return [_NAMES.get(target) or f"a {target.__name__.lower()}"]


def shape(target: Any) -> Any:
    """What a value of type `target` looks like in YAML: `dict`, `list`, `Any`, or `str` for every scalar."""
    kind = get_origin(target) or target
    if kind is Annotated:
        return shape(get_args(target)[0])
    if kind is Any or kind is list or not isinstance(kind, type):
        return kind if kind is Any or kind is list else str
    return dict if issubclass(kind, Mapping | msgspec.Struct | Section) else str
