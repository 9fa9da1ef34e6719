"""Subjects that are watched before anything was heard of them: the key `known`, for kinds that judge silence."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..patterns import pattern
from .instance import Instance
from .keys import Keys


class KnownKeys(Keys, frozen=True, kw_only=True):
    """`known`: the subjects that are watched from when the contract is first loaded, and not only from their first
    event on."""

    known: list[str] = msgspec.field(default_factory=list)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        fits = pattern(self.subject)
        seen: set[str] = set()
        for index, subject in enumerate(self.known):
            if self.by == "subject" and not fits(subject):
                yield f"known[{index}]", f"{subject!r} doesn't fit subject: {self.subject}"
            elif subject in seen:
                yield f"known[{index}]", f"{subject!r} is there twice"
            seen.add(subject)


def is_watched(instance: Instance, keys: KnownKeys) -> bool:
    """Whether there is a reason to watch an instance that was stored by an earlier configuration."""
    return instance.memory.event_id > 0 or instance.subject in keys.known
