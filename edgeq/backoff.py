"""How long to wait before trying again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from .units import Duration

STEPS_MAX = 100


@dataclass(frozen=True, slots=True, init=False)
class Backoff:
    """Waiting times between attempts, each varied by ±`jitter` of itself (0.1 is ±10 %).

    `Backoff("1s..60s")` doubles from 1 s to 60 s, `Backoff("10s")` waits the same each time, and
    `Backoff(["1s", "5s", "30s"])` goes through the list and repeats its last entry; `Backoff(1.0, 60.0)` is the first
    form in seconds. Written in these ways in YAML (but for the list) and on job classes.
    """

    steps: tuple[float, ...]
    ceiling: float
    jitter: float

    @overload
    def __init__(self, waits: str | Sequence[str | float], *, jitter: float = 0.1) -> None: ...
    @overload
    def __init__(self, waits: float, most: float, *, jitter: float = 0.1) -> None: ...
    def __init__(
        self, waits: float | str | Sequence[str | float], most: float | None = None, *, jitter: float = 0.1
    ) -> None:
        """Raises ValueError for what isn't a waiting time, a range that ends below where it begins, and a jitter that
        isn't between 0 and 1."""
        if isinstance(waits, str):
            steps, ceiling = _range(waits)
        elif isinstance(waits, Sequence):
            steps = tuple(_seconds(wait) for wait in waits[: STEPS_MAX + 1])
            if not 1 <= len(steps) <= STEPS_MAX:
                raise ValueError(f"must list from 1 to {STEPS_MAX} waiting times")
            ceiling = steps[-1]
        else:
            steps, ceiling = (float(waits),), float(waits if most is None else most)
        if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be a number from 0 to 1, not {jitter!r:.80}")
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "ceiling", ceiling)
        object.__setattr__(self, "jitter", float(jitter))

    @classmethod
    def parse(cls, value: object) -> Backoff:
        """`"1s..60s"`, `"10s"` or a list of waiting times as a Backoff. Raises ValueError for anything else."""
        if isinstance(value, Backoff):
            return value
        if isinstance(value, str | list | tuple):
            return cls(value)
        raise ValueError("must be a waiting time such as 10s, or a range such as 1s..60s")

    @property
    def first(self) -> float:
        """The first wait, in seconds, but for the jitter."""
        return self.steps[0]

    @property
    def most(self) -> float:
        """The longest wait, in seconds, but for the jitter."""
        return max(self.ceiling, *self.steps)

    def delay(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt` (counted from 1)."""
        beyond = attempt - len(self.steps)
        wait = self.steps[attempt - 1] if beyond <= 0 else min(self.ceiling, self.steps[-1] * 2.0 ** min(beyond, 60))
        return wait * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - jitter, not a secret

    def __str__(self) -> str:
        waits = [str(Duration(step)) for step in self.steps]
        return f"{waits[0]}..{Duration(self.ceiling)}" if self.ceiling != self.steps[-1] else ", ".join(waits)


def _range(text: str) -> tuple[tuple[float, ...], float]:
    first_text, dots, most_text = text.partition("..")
    first = _seconds(first_text)
    most = _seconds(most_text) if dots else first
    if most < first:
        raise ValueError(f"{text!r} ends below where it begins")
    return (first,), most


def _seconds(wait: object) -> float:
    if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= 1e10:
        return float(wait)
    return float(Duration.parse(wait))
