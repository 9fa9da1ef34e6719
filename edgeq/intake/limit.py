"""At most so many messages in a time, for each key: the token buckets behind `routes[].limit`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..units import Duration

_KEYS_MAX = 10_000


def parse_rate(text: str) -> float:
    """Messages per second that `"100/s"`, `"5/m"`, `"20/h"` or `"1/10s"` says. Raises ValueError for anything else."""
    count_text, slash, per = text.partition("/")
    try:
        count = float(count_text)
        period = Duration.parse(per.strip() if per.strip()[:1].isdigit() else f"1{per.strip()}")
    except ValueError:
        raise ValueError(f"{text!r} is not a rate such as 100/s, 5/m or 1/10s") from None
    if not slash or count <= 0 or period <= 0 or count == float("inf"):
        raise ValueError(f"{text!r} is not a rate such as 100/s, 5/m or 1/10s")
    return count / period


class Limiter:
    """Token buckets of `burst` tokens that fill at `rate` a second. Remembers the 10,000 keys used last."""

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, key: str) -> bool:
        """Take a token for `key`; False when there is none."""
        now = self._monotonic()
        tokens, then = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        allowed = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > _KEYS_MAX:
            self._buckets.popitem(last=False)
        return allowed
