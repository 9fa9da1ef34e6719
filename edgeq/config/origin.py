"""Where the values of a configuration came from, and which of them may be shown.

Values are known by their dotted path: `mqtt.url`, `routes[2].topic`, `to."door.open"`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HIDDEN = "<hidden>"

_PLAIN_KEY = re.compile(r"[^\s.\[\]\"']+")
_SECRET_KEY = re.compile(
    r"passw|passphrase|secret|token|api_?-?key|private_?key|credential|authori[sz]ation|cookie", re.I
)
_USER_IN_URL = re.compile(r"(?<=://)[^\s]*@")
_SECRET_IN_URL = re.compile(r"(?i)([?&][^=&\s]*(?:token|secret|passw|key|auth)[^=&\s]*=)[^&#\s]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of values beside the values themselves, each by dotted path.

    `places` says `file:line`, `written` the text of a plain scalar that reads as something other than text
    (`1.10`, `yes` is text already), `shown` what to print instead of a value that came from a file or the environment.
    """

    places: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)


def child(path: str, key: str) -> str:
    """The dotted path of `key` in the mapping at `path`."""
    name = key if _PLAIN_KEY.fullmatch(key) and key.isprintable() else json.dumps(key)
    return f"{path}.{name}" if path else name


def nearest(places: Mapping[str, str], path: str) -> str:
    """The place of `path`, or of the nearest thing around it; `""` when nothing is known."""
    while path and path not in places:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return places.get(path, "")


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value in `value` that is neither mapping nor list, with its dotted path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, child(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def is_secret(path: str) -> bool:
    """Whether a key of `path` is called like a secret: `mqtt.password`, `headers.Authorization`."""
    return _SECRET_KEY.search(path) is not None and not path.endswith("_file")


def safe(text: str) -> str:
    """`text` without what stands for a user and password, or a token, in an address."""
    return _SECRET_IN_URL.sub(rf"\1{HIDDEN}", _USER_IN_URL.sub(f"{HIDDEN}@", text))


def show(value: Any, path: str, shown: Mapping[str, str]) -> Any:
    """What may be printed of the value at `path`: the value itself, or something in its place."""
    if value is None or value == "":
        return value
    if path in shown:
        return shown[path]
    if is_secret(path):
        return HIDDEN
    return safe(value) if isinstance(value, str) else value
