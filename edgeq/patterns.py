"""Patterns in which `*` stands for any text, also none: `pump.*`, `freezer-*`, `*.reading`. All else means itself.

Matching takes time in proportion to the text, whatever the pattern: texts come from strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

_REMEMBERED_MAX = 1000


def pattern(text: str) -> Callable[[str], bool]:
    """A function that says whether a text fits the pattern `text`, as a whole."""
    first, *middle = text.split("*")
    if not middle:
        return text.__eq__
    last = middle.pop()
    between = [part for part in middle if part]
    length = len(first) + sum(map(len, between)) + len(last)

    def fits(candidate: str) -> bool:
        if len(candidate) < length or not candidate.startswith(first) or not candidate.endswith(last):
            return False
        position, end = len(first), len(candidate) - len(last)
        for part in between:
            found = candidate.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True

    return fits


def overlap(one: str, other: str) -> bool:
    """Whether there is a text that fits both patterns. Takes time in proportion to the product of their lengths."""
    waiting, seen = [(0, 0)], set()
    while waiting:
        place = first, second = waiting.pop()
        signs = one[first : first + 1], other[second : second + 1]
        if signs == ("", ""):
            return True
        if place in seen:
            continue
        seen.add(place)
        if "*" in signs:  # it ends, or stands for one more sign of the other
            waiting += [(first + 1, second)] if signs[0] else []
            waiting += [(first, second + 1)] if signs[1] else []
        elif signs[0] == signs[1]:
            waiting.append((first + 1, second + 1))
    return False


class AnyOf:
    """Whether a text fits one of several patterns. Remembers the answers: for texts that come again and again."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [pattern(text) for text in patterns]
        self._known: dict[str, bool] = {}

    def __call__(self, text: str) -> bool:
        """Whether `text` fits."""
        known = self._known.get(text)
        if known is None:
            known = any(fits(text) for fits in self._patterns)
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[text] = known
        return known
