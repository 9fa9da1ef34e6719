"""A part of the configuration whose keys depend on its `kind`, kept with the places it was read from.

The extension points (controllers, processors, channels, contracts) own the record of each of their kinds, and
configuration must not know them. So the loader hands such a part on as a `Section`, and the station reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import Problem
from .origin import HIDDEN, Origin, leaves, nearest, safe, show

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping from YAML, with values filled in from the environment, and where each key stands.

    `path` is the dotted path (`contracts[2]`, `channels.phone`), `places` maps a dotted path below it (`""` for the
    section itself, `"clear.below"`, `"steps[0].of"`) to `file:line`. `written` and `shown` are as in `Origin`, and
    `read_file` as in `Converter`: what it reads in `read` is taken out of problems.
    """

    path: str
    data: Mapping[str, Any] = field(repr=False)
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    written: Mapping[str, str] = field(default_factory=dict, repr=False)
    shown: Mapping[str, str] = field(default_factory=dict, repr=False)
    read_file: Callable[[str], str] | None = field(default=None, repr=False)
    _secrets: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def where(self, key: str = "") -> str:
        """`file:line` of `key` (a dotted path below this section), or of the nearest thing around it."""
        from_file = key not in self.places and f"{key}_file" in self.places
        return nearest(self.places, f"{key}_file" if from_file else key)

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A Problem about `key` of this section (`""`: about the section). Secrets of the section are taken out."""
        path = f"{self.path}.{key}" if key else self.path
        return Problem(self.where(key), path, self._clean(message), self._clean(hint))

    def read(self, record: type[T], problems: list[Problem], *, ignore: Collection[str] = ("kind",)) -> T | None:
        """The section as a `record` (a msgspec Struct; see `convert` for the types its fields may have).

        Every mistake is appended to `problems`: unknown and missing keys, wrong types, what the record's own checks
        refuse. None when there was one. Keys in `ignore` are passed over. The text of a field `password` may be in a
        file that `password_file` names, unless `password_file` is a field of its own.
        """
        from .convert import FAILED, Converter  # it knows Section

        hidden = getattr(record, "secrets", ())
        self._secrets.extend(str(self.data[key]) for key in hidden if key in self.data)
        origin = Origin(dict(self.places), dict(self.written), {**self.shown, **dict.fromkeys(hidden, HIDDEN)})
        read_file = self._read_file if self.read_file is not None else None
        result = Converter(self.path, origin, problems, read_file).record(record, self.data, "", ignore)
        return None if result is FAILED else result

    def _read_file(self, name: str) -> str:
        assert self.read_file is not None
        text = self.read_file(name)
        self._secrets.append(text)
        return text

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            if len(secret) > 2:
                text = text.replace(secret, HIDDEN).replace(repr(secret)[1:-1], HIDDEN)
        for path, value in leaves(self.data, ""):
            if isinstance(value, str) and len(value) > 2 and (visible := show(value, path, self.shown)) != value:
                text = text.replace(value, str(visible)).replace(repr(value)[1:-1], str(visible))
        return safe(text)
