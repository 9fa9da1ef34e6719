"""An event: something that happened, written once, never changed, found again by its growing id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, get_args

import msgspec

Severity = Literal["debug", "info", "warning", "critical"]
SEVERITIES: tuple[str, ...] = get_args(Severity)
"""How much an event matters to people who are told of it, growing."""

KEEP = {"low": -1, "normal": 0, "high": 1}
"""What `keep` may be, and how the store writes it: when there is no room, events of low priority are deleted first."""

NESTING_MAX = 100
"""How many objects and lists JSON may hold inside each other. What was let in is decoded again by processors, commands
and other programs, and each of them has a limit of its own."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that isn't stored yet.

    `data_json` is a JSON text that the caller has checked to be valid; `tags` a tuple of words;
    `occurred_at` and `recorded_at` are microseconds since 1970 UTC. Of two events with the same
    `idempotency_key` the store keeps the first. `keep` says what goes first when there is no room: see KEEP.
    """

    type: str
    occurred_at: int
    recorded_at: int
    subject: str = ""
    topic: str | None = None
    data_json: str = "{}"
    tags: tuple[str, ...] = ()
    description: str = ""
    idempotency_key: str | None = None
    cause_id: int | None = None
    keep: int = 0


class DataError(msgspec.DecodeError):
    """An event's data isn't JSON: somebody else has written into the table."""


class Event:
    """A stored event. `data` is decoded when first asked for. Don't change what it holds."""

    def __init__(
        self,
        id: int,  # noqa: A002 - the name of the column
        type: str,  # noqa: A002
        subject: str,
        topic: str | None,
        data_json: str,
        tags_json: str,
        description: str,
        occurred_at: int,
        recorded_at: int,
        idempotency_key: str | None,
        cause_id: int | None,
    ) -> None:
        self.id = id
        self.type = type
        self.subject = subject
        self.topic = topic
        self.data_json = data_json
        self.tags_json = tags_json
        self.description = description
        self.occurred_at = occurred_at
        self.recorded_at = recorded_at
        self.idempotency_key = idempotency_key
        self.cause_id = cause_id

    @cached_property
    def data(self) -> Any:
        """The event's data, as decoded from JSON: usually a dict. Raises DataError."""
        try:
            return from_json(self.data_json)
        except ValueError as error:
            raise DataError(str(error)) from None

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The event's tags."""
        return tuple(_decode(self.tags_json))

    def as_dict(self) -> dict[str, Any]:
        """Every column by its name, with `data` and `tags` decoded: what `--json` prints."""
        return {
            "id": self.id, "type": self.type, "subject": self.subject, "topic": self.topic,
            "data": self.data, "tags": list(self.tags), "description": self.description,
            "occurred_at": self.occurred_at, "recorded_at": self.recorded_at,
            "idempotency_key": self.idempotency_key, "cause_id": self.cause_id,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"Event({self.id}, {self.type!r}, subject={self.subject!r}, data={self.data_json})"


def to_json(value: object) -> str:
    """`value` as JSON text. Raises ValueError for what JSON can't say: objects of one's own, lone surrogates, nesting
    without end."""
    try:
        return _encode(value).decode()
    except (TypeError, OverflowError, RecursionError, UnicodeError, msgspec.MsgspecError) as error:
        raise ValueError(str(error) or "nested too deeply") from None


def to_json_whole(value: object) -> str:
    """`to_json` of what must come back as it is. Raises ValueError for NaN and infinity too, which else become null."""
    text = to_json(value)
    if "null" in text and _has_nan(value):
        raise ValueError("it has no NaN and no infinity")
    return text


def _has_nan(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_has_nan, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_has_nan, value))


def from_json(text: str | bytes) -> Any:
    """What a JSON text holds. Raises ValueError, which NaN, Infinity and invalid UTF-8 are too."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ValueError(str(error) or "nested too deeply") from None


def deeper_than(most: int, text: bytes, value: Any) -> bool:
    """Whether something in `value`, which `text` says, lies inside more than `most` objects and lists."""
    if text.count(b"{") + text.count(b"[") <= most:
        return False
    level = [[value]]
    for _ in range(most + 1):
        level = [
            list(item.values()) if isinstance(item, dict) else item
            for items in level
            for item in items
            if isinstance(item, dict | list)
        ]
    return bool(level)
