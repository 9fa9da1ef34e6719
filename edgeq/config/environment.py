"""The part that the environment and the command line have in a configuration.

`EDGEQ_MQTT__URL=…` sets `mqtt.url` (`__` steps down, `_` also stands for `-`); `${NAME}` and `${NAME:-default}` in a
text are filled in, `$${` stands for `${`. What is filled in is a value and nothing else: it is never read as YAML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import Problem
from .tree import Fill, Map, Scalar

NOT_KEYS = frozenset({"EDGEQ_BOOT_ID", "EDGEQ_CONFIG", "EDGEQ_FAILPOINT"})
"""Variables that begin like a key and aren't one: the configuration's file, and the place where tests crash edgeq."""

_PREFIX = "EDGEQ_"
_LEVELS_MAX = 16
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def filler(environ: Mapping[str, str]) -> Fill:
    """A function that fills in the references of a text; see `flatten`."""

    def fill(text: str) -> tuple[str, bool]:
        used = False

        def reference(match: re.Match[str]) -> str:
            nonlocal used
            if match[0] == "$${":
                return "${"
            name, has_default, default = match[1].partition(":-")
            if not match[2] or not _NAME.fullmatch(name):
                raise ValueError("${ must be followed by a name and }; write $${ for ${ itself")
            value = environ.get(name)
            if has_default and not value:
                return default
            if value is None:
                raise ValueError(f"there is no {name} in the environment: set it, or write ${{{name}:-default}}")
            used = True
            return _text(value, name)

        return _REFERENCE.sub(reference, text), used

    return fill


def from_environment(environ: Mapping[str, str], problems: list[Problem]) -> Map:
    """The settings in `EDGEQ_…` variables. A name that can't be a key's is a mistake."""
    settings = Map("environment")
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(_PREFIX) or name in NOT_KEYS:
            continue
        place = printable(name)
        keys = name[len(_PREFIX) :].lower().split("__")
        try:
            _put(settings, keys, Scalar(_text(value, place), place, final=True))
        except ValueError as error:
            problems.append(Problem(place, "", str(error)))
    return settings


def from_command_line(overrides: Mapping[str, str], problems: list[Problem]) -> Map:
    """The settings given by dotted path."""
    settings = Map("command line")
    for path, value in overrides.items():
        try:
            _put(settings, path.split("."), Scalar(_text(value, "it"), "command line", final=True))
        except ValueError as error:
            problems.append(Problem("command line", printable(path), str(error)))
    return settings


def printable(text: str) -> str:
    """`text` with what no terminal takes written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _put(settings: Map, keys: list[str], value: Scalar) -> None:
    if not all(keys) or len(keys) > _LEVELS_MAX:
        raise ValueError("isn't the name of a key")
    for key in keys[:-1]:
        node = settings.entries.setdefault(key, (value.place, Map(value.place)))[1]
        if not isinstance(node, Map):
            raise ValueError(f"{key} can't be set both as a whole and in part")
        settings = node
    if keys[-1] in settings.entries:
        raise ValueError(f"{keys[-1]} is set twice, also by {settings.entries[keys[-1]][0]}")
    settings.entries[keys[-1]] = (value.place, value)


def _text(value: str, name: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"what {name} holds is not UTF-8") from None
    return value
