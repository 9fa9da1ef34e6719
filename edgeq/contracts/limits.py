"""What a value may not be: above or below a limit, within a range, or equal to something. Compiled at load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from ..config.schema import Record
from ..units import Duration
from ..where import MISSING, is_number
from .contract import say
from .keys import Keys

TEXT_CHARS_MAX = 1000

Test = Callable[[Any], bool]


def _two_numbers(numbers: list[float]) -> None:
    if len(numbers) != 2:
        raise ValueError("must be two numbers, such as [2, 8]")
    low, high = numbers
    if low >= high:
        raise ValueError(f"must be a low number and a higher one, not {say(low)} and {say(high)}")


def _scalar(value: Any) -> None:
    if not isinstance(value, str | bool) and not is_number(value):
        raise ValueError("must be a number, a text, true or false")
    if isinstance(value, str) and len(value) > TEXT_CHARS_MAX:
        raise ValueError(f"must be at most {TEXT_CHARS_MAX} characters")


class Clear(Record, frozen=True, kw_only=True):
    """`clear`: the limits on the good side, and for how long the value must be beyond them."""

    above: float | None = None
    below: float | None = None
    for_: Duration = msgspec.field(name="for", default=Duration(0))


class LimitKeys(Keys, frozen=True, kw_only=True):
    """The keys that say what violates (`above` and `below`, of which either will do, `between`, or `equals`), and
    `clear`."""

    above: float | None = None
    below: float | None = None
    between: Annotated[list[float], _two_numbers] | None = None
    equals: Annotated[Any, _scalar] | None = None
    clear: Clear = Clear()

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """One form of limit, not two and not none."""
        forms = [key for key in ("between", "equals") if key in given]
        forms += ["above" if "above" in given else "below"] if "above" in given or "below" in given else []
        if not forms:
            yield "", "needs above, below (or both), between or equals"
        elif len(forms) > 1:
            yield forms[0], f"can't stand beside {forms[1]}"

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """See Keys."""
        yield from super().mistakes()
        if self.equals is not None:
            yield from self._without_limits("equals")
        elif self.between is not None:
            low, high = self.between
            yield from self._out_of_place(low, high)
        elif self.above is not None and self.below is not None and self.above <= self.below:
            yield "above", f"must be more than below, {say(self.below)}; for values within a range there is between"
        else:
            yield from self._one_sided()
            yield from self._out_of_place(self.above, self.below)

    def _without_limits(self, form: str) -> Iterator[tuple[str, str]]:
        for key in ("above", "below"):
            if getattr(self.clear, key) is not None:
                yield f"clear.{key}", f"can't stand beside {form}: whatever else the value is, is clear"

    def _out_of_place(self, highest: float | None, lowest: float | None) -> Iterator[tuple[str, str]]:
        """`clear.below` must be at most `highest`, `clear.above` at least `lowest`."""
        below, above = self.clear.below, self.clear.above
        if below is not None and highest is not None and below > highest:
            yield "clear.below", f"must be at most {say(highest)}, where the contract isn't violated"
        if above is not None and lowest is not None and above < lowest:
            yield "clear.above", f"must be at least {say(lowest)}, where the contract isn't violated"

    def _one_sided(self) -> Iterator[tuple[str, str]]:
        """There is no good side beyond a limit that isn't there, and there must be some room between two."""
        below, above = self.clear.below, self.clear.above
        if above is not None and self.below is None:
            yield "clear.above", "must be clear.below: the contract is violated above its limit"
        elif below is not None and self.above is None:
            yield "clear.below", "must be clear.above: the contract is violated below its limit"
        elif self.above is not None and self.below is not None:
            low = self.below if above is None else above
            high = self.above if below is None else below
            if low >= high:
                key = "below" if above is None else "above"
                yield f"clear.{key}", f"leaves no room: nothing is above {say(low)} and below {say(high)}"


def value_fault(equals: Any) -> Callable[[Any], str | None]:
    """A function that says why a value can't be compared (one short word), if it can't."""
    if isinstance(equals, bool):
        return lambda value: (
            None if isinstance(value, bool) else "missing_field" if value is MISSING else "not_true_or_false"
        )
    if isinstance(equals, str):
        return _text_fault
    return lambda value: None if is_number(value) else "missing_field" if value is MISSING else "not_a_number"


def compile_beyond(keys: LimitKeys) -> Test:
    """Whether a value violates; of one that can be compared."""
    above, below = keys.above, keys.below
    if keys.equals is not None:
        return lambda value: bool(value == keys.equals)
    if keys.between is not None:
        low, high = keys.between
        return lambda value: low <= value <= high
    if below is None:
        return lambda value: value > above
    if above is None:
        return lambda value: value < below
    return lambda value: value > above or value < below


def compile_clear(keys: LimitKeys, is_beyond: Test) -> Test:
    """Whether a value ends a violation; of one that can be compared."""
    above, below = keys.clear.above, keys.clear.below
    if above is None and below is None:
        return lambda value: not is_beyond(value)
    if keys.between is not None:
        low, high = keys.between
        least = low if below is None else below
        most = high if above is None else above
        return lambda value: value < least or value > most
    return lambda value: (above is None or value > above) and (below is None or value < below) and not is_beyond(value)


def words(keys: LimitKeys, observed: Any) -> str:
    """What is wrong with a value that violates: `above 5`."""
    above, below = keys.above, keys.below
    if keys.equals is not None:
        return f"equal to {say(keys.equals)}"
    if keys.between is not None:
        low, high = keys.between
        return f"between {say(low)} and {say(high)}"
    if below is not None and is_number(observed) and observed < below:
        return f"below {say(below)}"
    return f"below {say(below)}" if above is None else f"above {say(above)}"


def violating(keys: LimitKeys) -> str:
    """All that violates: `above 5 or below 2`."""
    if keys.equals is not None or keys.between is not None:
        return words(keys, None)
    return _either(keys.above, keys.below)


def clearing(keys: LimitKeys) -> str:
    """What ends a violation: `below 4`."""
    if keys.clear.above is None and keys.clear.below is None:
        return f"that isn't {violating(keys)}"
    return _either(keys.clear.above, keys.clear.below, " or " if keys.between is not None else " and ")


def _either(above: float | None, below: float | None, joint: str = " or ") -> str:
    given = (("above", above), ("below", below))
    return joint.join(f"{word} {say(limit)}" for word, limit in given if limit is not None)


def _text_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "missing_field" if value is MISSING else "not_a_text"
    return "too_long" if len(value) > TEXT_CHARS_MAX else None
