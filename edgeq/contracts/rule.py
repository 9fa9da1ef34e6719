"""A condition applied to events: what it remembers, and whether it holds of an event, as far as that is certain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from ..events import Event
from .conditions import Condition
from .leaves import Counted, During, Leaf, Marks, Since
from .logic import Fact, Not, Term, Truth, all_of, any_of

REASONS_CHARS_MAX = 1000

Place = tuple[int, int]  # when an event happened, and its id


class Case(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event to be judged: its id, when it happened, from when on the waiting for what may follow counts, what has
    passed of that, and how many each leaf has found (-1: that can't be told). `subject` and `quotes` are for whoever
    tells of it. Times are microseconds since 1970 UTC."""

    id: int
    at: int
    since: int
    passed: int
    found: tuple[int, ...]
    subject: str = ""
    quotes: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """Where it stands among others."""
        return self.at, self.id


class Rule:
    """A compiled condition."""

    def __init__(self, keys: Condition) -> None:
        self.leaves: list[Leaf] = []
        self._condition = _compile(keys, self.leaves)
        self._form = _form(keys)
        self._none: Sequence[Marks] = ((),) * len(self.leaves)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of events that it counts."""
        return tuple(name for leaf in self.leaves for name in leaf.types)

    @property
    def meaning(self) -> tuple[object, ...]:
        """What marks and cases mean. How far back and ahead the leaves look doesn't matter for that."""
        return (self._form, [leaf.meaning for leaf in self.leaves])

    @property
    def after_microseconds(self) -> int:
        """How long after an event it may be certain at last whether it is allowed."""
        return max(leaf.after_microseconds or 0 for leaf in self.leaves)

    def counts(self, event: Event) -> bool:
        """Whether `event` is one of those that are counted."""
        return any(leaf.counts(event) for leaf in self.leaves)

    def marked(self, marks: Sequence[Marks], event: Event, at: int) -> tuple[Marks, ...]:
        """The leaves' marks after `event`, which happened at `at`. Empty `marks` are those before any event."""
        pairs = zip(self.leaves, marks or self._none, strict=True)
        return tuple(leaf.marked(each, event, at) for leaf, each in pairs)

    def moved(self, marks: Sequence[Marks], move: Callable[[int], int]) -> tuple[Marks, ...]:
        """The leaves' marks with their times moved."""
        return tuple(leaf.moved(each, move) for leaf, each in zip(self.leaves, marks, strict=False))

    def begun(self, marks: Sequence[Marks], event: Event, at: int, over: int) -> Case:
        """The case of an event that happened at `at`, after all in `marks`. What was to come before `over` has come."""
        pairs = zip(self.leaves, marks or self._none, strict=True)
        found = [leaf.found(each, at) for leaf, each in pairs]
        return Case(event.id, at, at, max(0, over - 1), tuple(-1 if each is None else each for each in found))

    def counted(self, case: Case, event: Event, at: int) -> Case:
        """The case, which isn't decided, after `event`."""
        pairs = zip(self.leaves, self._facts(case), case.found, strict=True)
        found = tuple(
            count + int(fact is None and leaf.counts(event) and leaf.reaches(case.at, at))
            for leaf, fact, count in pairs
        )
        return replace(case, found=found)

    def value(self, case: Case) -> Truth:
        """Whether the event is allowed; None while that isn't certain."""
        return self._condition.value(self._facts(case))

    def ends_at(self, case: Case) -> int | None:
        """When the next of the times is over in which more may be found, in microseconds since 1970 UTC; None when
        nothing that comes makes a difference."""
        ends = [
            self._ends_at(case, leaf) for leaf, fact in zip(self.leaves, self._facts(case), strict=True) if fact is None
        ]
        return min((end for end in ends if end is not None), default=None)

    def why(self, case: Case) -> str:
        """Why an event is allowed, or isn't."""

        def words(index: int) -> str:
            return self.leaves[index].words(case.found[index], case.at)

        text = self._condition.reasons(self._facts(case), words, ", one of which would do")
        return text if len(text) <= REASONS_CHARS_MAX else f"{text[:REASONS_CHARS_MAX]}…"

    def _facts(self, case: Case) -> list[Truth]:
        return [
            None if count < 0 else count >= leaf.wanted or (None if self._ends_at(case, leaf) else False)
            for leaf, count in zip(self.leaves, case.found, strict=True)
        ]

    def _ends_at(self, case: Case, leaf: Leaf) -> int | None:
        """Until when the leaf may find more, exactly then included."""
        if leaf.after_microseconds is None:
            return None
        ends_at = case.since + leaf.after_microseconds
        return ends_at if ends_at > case.passed else None


def _compile(keys: Condition, leaves: list[Leaf]) -> Term:
    """The condition as a term whose facts are those of `leaves`, to which its own are added."""
    if keys.not_ is not None:
        return Not(_compile(keys.not_, leaves))
    if keys.all_of is not None:
        return all_of([_compile(part, leaves) for part in keys.all_of])
    if keys.any_of is not None:
        return any_of([_compile(part, leaves) for part in keys.any_of])
    if keys.of is None:
        leaves.append(During(keys))
    else:
        leaves.append(Counted(keys) if keys.since is None else Since(keys))
    return Fact(len(leaves) - 1)


def _form(keys: Condition) -> object:
    """How the condition is made of others: what JSON can say."""
    parts = [_form(part) for _, part in keys.parts()]
    return ["not" if keys.not_ else "all_of" if keys.all_of else "any_of", *parts] if parts else "."
