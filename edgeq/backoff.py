"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .units import Duration


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waiting times from `first` to `most` seconds, each varied by ±`jitter` of itself.

    Written `1s..60s` in YAML and on job classes; a single duration `10s` waits the same each time.
    """

    first: float
    most: float
    jitter: float = 0.1

    @classmethod
    def parse(cls, value: object) -> Backoff:
        """`"1s..60s"` or `"10s"` as a Backoff. Raises ValueError for anything else, or when first > most."""
        if isinstance(value, Backoff):
            return value
        if not isinstance(value, str):
            raise ValueError("must be a waiting time such as 10s, or a range such as 1s..60s")
        first_text, dots, most_text = value.partition("..")
        first = Duration.parse(first_text)
        most = Duration.parse(most_text) if dots else first
        if most < first:
            raise ValueError(f"{value!r} ends below where it begins")
        return cls(float(first), float(most))

    def delay(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt` (counted from 1)."""
        doubled = min(self.most, self.first * 2.0 ** min(attempt - 1, 60))
        return doubled * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - jitter, not a secret

    def __str__(self) -> str:
        first, most = Duration(self.first), Duration(self.most)
        return str(first) if first == most else f"{first}..{most}"
