"""`composite`: a promise about the states of other contracts. "One of the two pumps keeps running." "Never are two of
three freezers warm at once." "The door isn't open while the heating is on."

One of the keys says what must not be, of contracts by their names or of more such mappings: `any_of: [a, b]`,
`all_of: [a, b]`, `none_of: [a, b]`, `at_least: {count: 2, of: [a, b, c]}`, `not: a`. It is about being violated: with
`all_of: [a, b]` the contract is violated while both are. `for` says for how long it must have been so, without a break;
one that ends exactly then hasn't lasted as long.

A part that is `violated` is true, one that is `ok` or `pending` is false. One that is `unknown` or `suppressed` isn't
known, which is neither (see `logic`). What is true or false without it is so; otherwise the contract is `unknown`, or,
if it is violated, stays so until it is known not to be. That isn't told: the parts tell of themselves.

`over: subjects` (default): each subject that one of the parts has, and that fits `subject`, is judged on its own. A
part that doesn't have it counts as a whole: as violated if it is for any subject, as ok if it is `ok` or `pending` for
all that it has, and else as not known. This is for parts with the same subjects, and for parts that stand for all of
them. `over: all`: there is one instance, without a name, and each part counts as a whole, also if it has a subject
without a name.

A contract can't be made of itself, not through others either, nor of contracts that don't exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from ..config import checks
from ..config.schema import Record
from ..events import Event
from ..units import Duration
from .contract import Contract
from .instance import Change, Instance, Shown, Skipped, Step, resolved, violated
from .keys import Keys, contract_name
from .logic import AtLeast, Fact, Not, Term, Truth

_FORMS = ("any_of", "all_of", "none_of", "at_least", "not")
_TRUTHS: Mapping[Shown, Truth] = {"violated": True, "ok": False, "pending": False, "unknown": None, "suppressed": None}


def _one_form(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """One of the forms, not two and not none."""
    forms = [key for key in _FORMS if key in given]
    if not forms:
        yield "", f"needs one of: {', '.join(_FORMS)}"
    for key in forms[1:]:
        yield key, f"can't stand beside {forms[0]}: both can be parts of all_of"


class Some(Record, frozen=True, kw_only=True):
    """`at_least`: so many of these."""

    count: Annotated[int, checks.at_least(1)]
    of: Parts

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """It must be possible."""
        count, parts = given.get("count"), given.get("of")
        if count is not None and parts and count > len(parts):
            yield "count", f"must be at most {len(parts)}: there are no more"


class Combination(Record, frozen=True, kw_only=True):
    """A mapping below the contract's own."""

    any_of: Parts | None = None
    all_of: Parts | None = None
    none_of: Parts | None = None
    at_least: Some | None = None
    not_: Part | None = msgspec.field(name="not", default=None)

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See the module's text."""
        yield from _one_form(given)


Part = Annotated[str, contract_name] | Combination
Parts = Annotated[list[Part], checks.some]


class CompositeKeys(Keys, frozen=True, kw_only=True):
    """The keys of `kind: composite`."""

    any_of: Parts | None = None
    all_of: Parts | None = None
    none_of: Parts | None = None
    at_least: Some | None = None
    not_: Part | None = msgspec.field(name="not", default=None)
    for_: Duration = msgspec.field(name="for", default=Duration(0))
    over: Literal["subjects", "all"] = "subjects"

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See the module's text; no key that is about events."""
        yield from _one_form(given)
        for key in ("where", "by", "lateness"):
            if key in given:
                yield key, "is about events: a composite judges contracts"
        if given.get("over") == "all" and "subject" in given:
            yield "subject", "can't stand beside over: all"


class Composite(Contract):
    """See the module's text."""

    kind = "composite"
    keys_type = CompositeKeys
    keys: CompositeKeys

    def __init__(self, keys: CompositeKeys) -> None:
        self.for_all = keys.over == "all"
        super().__init__(keys)
        self._places: dict[str, str] = {}
        self._form = self._read(keys, "")
        self._names = tuple(self._places)
        self._term = self._compile(self._form)

    @property
    def types(self) -> tuple[str, ...]:
        """See Contract."""
        return ()

    @property
    def of_contracts(self) -> tuple[str, ...]:
        """See Contract."""
        return self._names

    def place_of(self, name: str) -> str:
        """See Contract."""
        return self._places[name]

    @property
    def patience_microseconds(self) -> int:
        """See Contract."""
        return self.keys.for_.microseconds

    @property
    def meaning(self) -> tuple[object, ...]:
        """See Contract."""
        return (*super().meaning, self._form, self.keys.over)

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        """See Contract."""
        raise NotImplementedError("a composite judges contracts")

    def observe_state(self, instance: Instance, change: Change, states: Mapping[str, Shown]) -> Step:
        """See Contract."""
        facts = [_TRUTHS[states[name]] for name in self._names]
        value = self._term.value(facts)
        at, state = change.at, instance.state
        memory = replace(instance.memory, newest=at, event_id=change.cause_id)
        if value is None:
            if state in ("violated", "unknown"):
                return Step(instance)
            return Step(replace(instance, state="unknown", since=at, deadline_at=None, memory=memory))
        if value is False:
            if state == "violated":
                return resolved(instance, at, replace(memory, observed=self._why(facts)))
            if state == "ok":
                return Step(instance)
            return Step(replace(instance, state="ok", since=at, deadline_at=None, memory=memory))
        if state in ("violated", "pending"):
            return Step(instance)
        memory = replace(memory, cause_id=change.cause_id, observed=self._why(facts))
        if not self.keys.for_:
            return violated(instance, at, memory)
        deadline_at = at + self.patience_microseconds
        return Step(replace(instance, state="pending", since=at, deadline_at=deadline_at, memory=memory))

    def elapse(self, instance: Instance) -> Step:
        """See Contract."""
        assert instance.deadline_at is not None
        return violated(instance, instance.deadline_at, instance.memory)

    def adapted(self, instance: Instance) -> Instance:
        """See Contract."""
        if instance.deadline_at is None:
            return instance
        return replace(instance, deadline_at=instance.since + self.patience_microseconds)

    def complaint(self, observed: Any) -> str:
        """See Contract."""
        return f"{observed} for {self.keys.for_}" if self.keys.for_ else str(observed)

    def promise(self) -> str:
        """See Contract."""
        lasting = f" for {self.keys.for_}" if self.keys.for_ else ""
        return f"it is never so{lasting} that {_described(self._form)}"

    def cure(self, instance: Instance) -> str:
        """See Contract."""
        return f"a change of {' or '.join(self._names)} by which that isn't so"

    def _why(self, facts: list[Truth]) -> str:
        def words(index: int) -> str:
            return f"{self._names[index]} is {'violated' if facts[index] else 'not violated'}"

        return self._term.reasons(facts, words)

    def _read(self, keys: CompositeKeys | Combination, path: str) -> list[Any]:
        """The combination as JSON can say it, with each name's place noted."""
        if keys.not_ is not None:
            return ["not", 1, self._read_part(keys.not_, f"{path}not")]
        if keys.at_least is not None:
            parts, key, count = keys.at_least.of, "at_least.of", keys.at_least.count
            form = "at_least"
        else:
            lists = {"any_of": keys.any_of, "all_of": keys.all_of, "none_of": keys.none_of}
            form, parts = next((form, parts) for form, parts in lists.items() if parts)
            key, count = form, len(parts) if form == "all_of" else 1
        return [form, count, *(self._read_part(part, f"{path}{key}[{index}]") for index, part in enumerate(parts))]

    def _read_part(self, part: Part, path: str) -> Any:
        if isinstance(part, Combination):
            return self._read(part, f"{path}.")
        self._places.setdefault(part, path)
        return part

    def _compile(self, form: Any) -> Term:
        if isinstance(form, str):
            return Fact(self._names.index(form))
        name, count, *parts = form
        terms = [self._compile(part) for part in parts]
        term = terms[0] if name == "not" else AtLeast(count, terms)
        return Not(term) if name in ("not", "none_of") else term


def _described(form: Any) -> str:
    """The combination in words."""
    if isinstance(form, str):
        return f"{form} is violated"
    name, count, *parts = form
    if name == "not":
        return f"not ({_described(parts[0])})"
    words = {"any_of": "any of", "all_of": "all of", "none_of": "none of"}.get(name, f"at least {count} of")
    if all(isinstance(part, str) for part in parts):
        return f"{words} {', '.join(parts)} {'is' if name == 'any_of' or count == 1 else 'are'} violated"
    return f"{words} these hold: {'; '.join(f'({_described(part)})' for part in parts)}"
