"""At most so many messages in a time, for each key: the token buckets behind `routes[].limit`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

KEYS_MAX = 10_000


class Limiter:
    """Token buckets of `burst` tokens that fill at `rate` a second. Remembers the `KEYS_MAX` keys used last.

    `monotonic` tells seconds and never goes back.
    """

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        # By the key's hash: the key itself comes from a message and may be as long as one.
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def allow(self, key: str) -> bool:
        """Take a token for `key`; False when there is none."""
        now = self._monotonic()
        place = hash(key)
        tokens, then = self._buckets.pop(place, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        allowed = tokens >= 1.0
        self._buckets[place] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > KEYS_MAX:
            self._buckets.popitem(last=False)
        return allowed
