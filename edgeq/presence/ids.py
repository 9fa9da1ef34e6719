"""Names as they may stand in a topic of Home Assistant: letters, digits, `_` and `-`. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEPT = 48
_HASH = 8


def safe(name: str, length: int = _HASH) -> str:
    """`name` itself, if it is safe and short; else what is safe of it, with so many digits of a hash behind it."""
    if _SAFE.fullmatch(name):
        return name
    digits = hashlib.sha256(name.encode()).hexdigest()[:length]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:_KEPT]}_{digits}"


def all_safe(names: Iterable[str]) -> dict[str, str]:
    """A safe id for each of these names, no two the same. Which one a name has doesn't depend on their order."""
    listed = sorted(names, key=lambda name: (safe(name) != name, name))  # who is safe already comes first
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in listed:
        length = _HASH
        while (made := safe(name, length)) in taken:
            length += _HASH
        found[name] = made
        taken.add(made)
    return found
