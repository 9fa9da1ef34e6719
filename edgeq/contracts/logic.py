"""And, or and not of facts of which some are not known: true, false, or None. Pure.

What isn't known is neither true nor false, and makes a term unknown unless the rest of it decides:

| its parts are               | `all_of` | `any_of` | `none_of` |
|-----------------------------|----------|----------|-----------|
| true                        | true     | true     | false     |
| true and not known          | None     | true     | false     |
| true and false              | false    | true     | false     |
| true, false and not known   | false    | true     | false     |
| not known                   | None     | None     | None      |
| false and not known         | false    | None     | None      |
| false                       | false    | false    | true      |

`at_least` n: true when n parts are, false when there aren't n even with those that aren't
known, else None. `not` of None is None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

Truth = bool | None
Words = Callable[[int], str]


class Term(ABC):
    """A statement about facts, each known by its index."""

    @abstractmethod
    def value(self, facts: Sequence[Truth]) -> Truth:
        """Whether it is true."""

    @abstractmethod
    def reasons(self, facts: Sequence[Truth], words: Words, any_would_do: str = "") -> str:
        """The facts by which it is true, or false, each in `words`. `any_would_do` is said after those of which not all
        would have to be otherwise to make it otherwise."""


class Fact(Term):
    """One of the facts."""

    def __init__(self, index: int) -> None:
        self._index = index

    def value(self, facts: Sequence[Truth]) -> Truth:
        """See Term."""
        return facts[self._index]

    def reasons(self, facts: Sequence[Truth], words: Words, any_would_do: str = "") -> str:
        """See Term."""
        return words(self._index)


class Not(Term):
    """The opposite."""

    def __init__(self, part: Term) -> None:
        self._part = part

    def value(self, facts: Sequence[Truth]) -> Truth:
        """See Term."""
        value = self._part.value(facts)
        return None if value is None else not value

    def reasons(self, facts: Sequence[Truth], words: Words, any_would_do: str = "") -> str:
        """See Term."""
        return self._part.reasons(facts, words, any_would_do)


class AtLeast(Term):
    """At least `count` of the parts."""

    def __init__(self, count: int, parts: Sequence[Term]) -> None:
        self._count = count
        self._parts = parts

    def value(self, facts: Sequence[Truth]) -> Truth:
        """See Term."""
        values = [part.value(facts) for part in self._parts]
        found = values.count(True)
        if found >= self._count:
            return True
        return None if found + values.count(None) >= self._count else False

    def reasons(self, facts: Sequence[Truth], words: Words, any_would_do: str = "") -> str:
        """See Term."""
        value = self.value(facts)
        values = [part.value(facts) for part in self._parts]
        to_blame = [part for part, truth in zip(self._parts, values, strict=True) if truth is value]
        told = [part.reasons(facts, words, any_would_do) for part in to_blame]
        if len(told) == 1:
            return told[0]
        if any_would_do:
            told = [f"({each})" if each.endswith(any_would_do) else each for each in told]
        must_all_change = self._count == (1 if value else len(self._parts))
        return "; ".join(told) + ("" if must_all_change else any_would_do)


def all_of(parts: Sequence[Term]) -> Term:
    """All of the parts, of which there are some."""
    return AtLeast(len(parts), parts)


def any_of(parts: Sequence[Term]) -> Term:
    """Any of the parts, of which there are some."""
    return AtLeast(1, parts)
