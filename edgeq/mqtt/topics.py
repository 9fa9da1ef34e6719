"""Topic names, topic filters and the templates of routes. Pure: text in, values out.

A template is a topic filter whose wildcards may have names: `{name}` and `+` stand for one level,
`{name:int}` for one level that is a whole number, `{rest:#}` and `#` (only at the end) for all remaining
levels, also for none. Every other character means itself. As MQTT says (4.7.2), a wildcard at the
beginning doesn't match topics that begin with `$`.

Brokers may deliver a message once for each subscription that matches it (MQTT 5, 3.3.4), so overlapping
filters would bring a message in twice. `merge` turns filters into ones that don't overlap; what those
bring in beyond the routes is counted as unrouted.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BYTES_MAX = 65535
"""The longest topic name or topic filter, in bytes of UTF-8 (MQTT 5, 1.5.4)."""

_PARAMETER = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
# What a broker may hang up at (MQTT 5, 1.5.4; mosquitto does): control characters, and what Unicode calls no character.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(p | 0xFFFE)}{chr(p | 0xFFFF)}" for p in range(0, 0x110000, 0x10000))
    + "]"
)


def check_topic(topic: str) -> None:
    """Raise ValueError, with the reason, unless one can publish to `topic`."""
    _check_text(topic)
    if "+" in topic or "#" in topic:
        raise ValueError(f"{topic!r} has a wildcard; a topic to publish to has none")


def check_filter(topic_filter: str) -> None:
    """Raise ValueError, with the reason, unless `topic_filter` is one that edgeq may subscribe to."""
    _check_text(topic_filter)
    levels = topic_filter.split("/")
    if levels[0] == "$share":
        raise ValueError(f"{topic_filter!r} is a shared subscription: set mqtt.group instead")
    for index, level in enumerate(levels):
        if "#" in level and level != "#":
            raise ValueError(f"'#' must be a whole level, not a part of {level!r}")
        if "+" in level and level != "+":
            raise ValueError(f"'+' must be a whole level, not a part of {level!r}")
        if level == "#" and index != len(levels) - 1:
            raise ValueError("'#' must be the last level")


def _check_text(text: str) -> None:
    if not text:
        raise ValueError("is empty")
    if forbidden := _FORBIDDEN.search(text):
        raise ValueError(f"has the character U+{ord(forbidden[0]):04X}, at which brokers may end the connection")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("has a character that UTF-8 can't carry (a lone surrogate)") from None
    if size > BYTES_MAX:
        raise ValueError(f"is {size} bytes long; MQTT allows {BYTES_MAX}")


@dataclass(frozen=True, slots=True)
class Template:
    """A route's topic, compiled: `filter` is what to subscribe to, `names` are those of its parameters."""

    text: str
    filter: str
    names: tuple[str, ...]
    _levels: tuple[str, ...]
    _parameters: tuple[tuple[int, str, bool], ...]
    _rest: str | None

    @classmethod
    def parse(cls, text: str) -> Template:
        """The template that `text` says. Raises ValueError with a reason that suits `topic: <reason>`."""
        levels: list[str] = []
        names: list[str] = []
        parameters: list[tuple[int, str, bool]] = []
        rest: str | None = None
        parts = text.split("/")
        for index, part in enumerate(parts):
            if "{" not in part and "}" not in part:
                levels.append(part)
                continue
            name, kind = _parameter(part)
            if name in names:
                raise ValueError(f"has two parameters named {name!r}")
            names.append(name)
            if kind == "#":
                if index != len(parts) - 1:
                    raise ValueError(f"{part} must be the last level")
                levels.append("#")
                rest = name
            else:
                levels.append("+")
                parameters.append((index, name, kind == "int"))
        topic_filter = "/".join(levels)
        check_filter(topic_filter)
        return cls(text, topic_filter, tuple(names), tuple(levels), tuple(parameters), rest)

    @classmethod
    def exact(cls, topic: str) -> Template:
        """The template that one topic matches, whatever characters are in its name."""
        return cls(topic, topic, (), tuple(topic.split("/")), (), None)

    @classmethod
    def one_below(cls, topic: str, name: str) -> Template:
        """The template that every topic one level below `topic` matches; that level is the parameter `name`."""
        levels = tuple(topic.split("/"))
        parameters = ((len(levels), name, False),)
        return cls(f"{topic}/{{{name}}}", f"{topic}/+", (name,), (*levels, "+"), parameters, None)

    def match(self, topic_levels: Sequence[str]) -> dict[str, str | int] | None:
        """The parameters' values for a topic name split at `/`, or None when it doesn't match.

        `{x:int}` matches whole numbers in decimal digits that fit in 64 bits. The rest of `a/{rest:#}` is
        `""` for the topic `a`.
        """
        levels = self._levels
        open_end = levels[-1] == "#"
        fixed = len(levels) - 1 if open_end else len(levels)
        if len(topic_levels) < fixed or (len(topic_levels) > fixed and not open_end):
            return None
        if topic_levels[0].startswith("$") and levels[0] in ("+", "#"):
            return None
        for index in range(fixed):
            if levels[index] not in ("+", topic_levels[index]):
                return None
        values: dict[str, str | int] = {}
        for index, name, is_integer in self._parameters:
            value = topic_levels[index]
            if is_integer:
                number = _integer(value)
                if number is None:
                    return None
                values[name] = number
            else:
                values[name] = value
        if self._rest is not None:
            values[self._rest] = "/".join(topic_levels[fixed:])
        return values


def _parameter(part: str) -> tuple[str, str]:
    found = _PARAMETER.fullmatch(part)
    if found is None:
        if _PARAMETER.search(part):
            raise ValueError(f"a parameter takes a whole level: {part!r} has other characters beside it")
        raise ValueError(f"{part!r} is not a parameter: write {{name}}, {{name:int}} or {{name:#}}")
    name, kind = found[1], found[2]
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} can't be the name of a parameter: use letters, digits and _")
    if kind not in (None, "int", "#"):
        raise ValueError(f"{part} has an unknown type: write {{{name}}}, {{{name}:int}} or {{{name}:#}}")
    return name, kind or ""


def _integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that the filter `narrow` matches is matched by `wide` too."""
    if wide == "+/#" and not narrow.startswith("$"):
        return True  # a topic has at least one level, so this is the same as "#"
    wide_levels, narrow_levels = wide.split("/"), narrow.split("/")
    if _apart_by_dollar(wide_levels[0], narrow_levels[0]):
        return False
    for index, level in enumerate(wide_levels):
        if level == "#":
            return True
        if index == len(narrow_levels) or narrow_levels[index] == "#":
            return False
        if level not in ("+", narrow_levels[index]):
            return False
    return len(wide_levels) == len(narrow_levels)


def overlaps(one: str, other: str) -> bool:
    """Whether some topic is matched by both filters."""
    ones, others = one.split("/"), other.split("/")
    if _apart_by_dollar(ones[0], others[0]) or _apart_by_dollar(others[0], ones[0]):
        return False
    for a, b in zip(ones, others, strict=False):
        if a == "#" or b == "#":
            return True
        if a != b and a != "+" and b != "+":
            return False
    longer = max(ones, others, key=len)
    return len(ones) == len(others) or longer[min(len(ones), len(others))] == "#"


def merge(filters: Mapping[str, int]) -> dict[str, int]:
    """Filters of which no two overlap, and which together match all that `filters` match (filter -> QoS).

    A filter that another covers is left out; two that overlap only partly become the narrowest filter that
    covers both (`a/+/c` and `a/b/#` become `a/+/#`), with the higher QoS. Nothing is widened without need, so
    the result doesn't depend on the order; a filter in it that wasn't given is one that was widened.
    """
    merged: dict[str, int] = {}
    waiting = list(filters.items())
    while waiting:
        topic_filter, qos = waiting.pop(0)
        other = next((known for known in merged if overlaps(known, topic_filter)), None)
        if other is None:
            merged[topic_filter] = qos
        else:
            waiting.append((_join(other, topic_filter), max(qos, merged.pop(other))))
    return merged


def _join(one: str, other: str) -> str:
    """The narrowest filter that covers two overlapping ones."""
    if covers(one, other):
        return one
    if covers(other, one):
        return other
    joined: list[str] = []
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if a == "#" or b == "#":
            return "/".join([*joined, "#"])
        joined.append(a if a == b else "+")
    if one.count("/") != other.count("/"):
        joined.append("#")
    return "/".join(joined)


def _apart_by_dollar(wide: str, narrow: str) -> bool:
    """Whether a filter beginning with the level `wide` matches nothing below the first level `narrow`."""
    return wide in ("+", "#") and narrow.startswith("$")
