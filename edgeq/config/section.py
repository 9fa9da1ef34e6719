"""A part of the configuration whose keys depend on its `kind`, kept with the places it was read from.

The extension points (controllers, processors, channels, contracts) own the record of each of their kinds, and
configuration must not know them. So the loader hands such a part on as a `Section`, and the station reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Problem


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping from YAML, with values filled in from environment and files, and where each key stands.

    `path` is the dotted path (`contracts[2]`, `channels.phone`), `places` maps a dotted path below it (`""` for the
    section itself, `"clear.below"`) to `file:line`.
    """

    path: str
    data: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)

    def where(self, key: str = "") -> str:
        """`file:line` of `key` (a dotted path below this section), or of the nearest thing around it."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, "")

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A Problem about `key` of this section (`""`: about the section)."""
        return Problem(self.where(key), f"{self.path}.{key}" if key else self.path, message, hint)
