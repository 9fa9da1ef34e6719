"""Kinds of what comes after what (sequence, requires) and of what is so at once (composite) through the Sentinel and a
real store; see test_contracts_models_numbers.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import kind_models
from support.contracts import micro
from support.model_runs import IN_FLIGHT, Fate, Told, end_of, expected, fates, numbered, run, scene_lists, told
from support.plays import Said, Scene
from test_contracts_composite import forms, known_value, part
from test_contracts_requires import Condition, Model, asked_histories, requires
from test_contracts_sequence import BANNED, KEPT, banned_model, kept_model

US = 1e-6
S = 1_000_000
BOUNDED = settings(max_examples=80)
BATCHES = st.sampled_from([1, 2, 5, 100])
AFTER = st.sampled_from([0.4, 10, 10.3, 10.3 + US, 100])

GAPS = [0, 0.1, 1, 3, 5 - US, 5, 5 + US, 9.9, 10 - US, 10, 10 + US, 10.3, 10.3 + US, 15, 40]


@BOUNDED
@given(
    scene_lists("abcx", GAPS, [0, 0, 0, 0.2, 0.3, 5, 12]),
    st.sampled_from([["a", "b"], ["a", "b", "c"], ["a", "a", "b"], ["a", "b", "a", "c"]]),
    st.booleans(), AFTER, fates(), BATCHES,
)  # fmt: skip
def test_sequence(
    history: list[Scene], steps: list[str], banned: bool, after: float, fate: list[Fate], batch_size: int
) -> None:
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT
    model = banned_model if banned else kept_model
    found = run([{**(BANNED if banned else KEPT), "steps": steps}], history, until, fate, batch_size)
    assert told(found) == expected(history, steps, lambda mine: model(steps, mine, end))


@BOUNDED
@given(asked_histories(), st.lists(st.sampled_from("ab")), st.sampled_from([0, 5]), AFTER, fates(), BATCHES)
def test_requires(
    asked: tuple[Condition, list[Scene]],
    subjects: list[str],
    clear_after: int,
    after: float,
    fate: list[Fate],
    batch_size: int,
) -> None:
    condition, scenes = asked
    subjects += ["a"] * len(scenes)
    history = [
        Scene(scene.type, scene.recorded, scene.occurred, subject)
        for scene, subject in zip(scenes, subjects, strict=False)
    ]
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT

    def model(mine: list[Scene]) -> list[Said]:
        return Model(condition, mine, clear_after * S).run(end)

    keys = {"clear_after": f"{clear_after}s"} if clear_after else {}
    found = run([requires(condition, **keys)], history, until, fate, batch_size)
    assert told(found) == expected(history, "axy", model)


@BOUNDED
@given(
    forms(), st.sampled_from([0, 10]), st.booleans(), scene_lists("pqrs", GAPS, [0], [0, 1, 1]), AFTER, fates(),
    BATCHES,
)  # fmt: skip
def test_composite(
    form: Any, lasting: int, over_all: bool, history: list[Scene], after: float, fate: list[Fate], batch_size: int
) -> None:
    until = end_of(history, after)
    end = micro(until) - IN_FLIGHT

    def states(number: int, subject: str) -> dict[str, str]:
        """How the parts stand after so many events, as seen from a subject."""
        newest = {(scene.type, scene.subject): scene.data["value"] > 0 for scene in history[:number]}
        found = {}
        for name in "pqrs":
            seen = [bad for (type_, _), bad in newest.items() if type_ == name]
            own = None if over_all else newest.get((name, subject))
            bad = any(seen) if own is None else own
            found[name] = "violated" if bad else "ok" if seen else "unknown"
        return found

    used = {name for name in "pqrs" if f"'{name}'" in str([form])}

    def changes(subject: str) -> list[tuple[int, bool | None]]:
        there = [scene.type in used and (over_all or scene.subject == subject) for scene in history]
        numbers = range(there.index(True) + 1, len(history) + 1)
        return [(history[number - 1].at, known_value(form, states(number, subject))) for number in numbers]

    verdicts: list[Told] = []
    subjects = {"" if over_all else scene.subject for scene in history if scene.type in used}
    for subject in sorted(subjects):
        verdicts += numbered(subject, kind_models.true_for(changes(subject), lasting * S, end))
    whole = {"name": "whole", "kind": "composite", **form, "for": f"{lasting}s"}
    mappings = [{**whole, "over": "all"} if over_all else whole, *map(part, "pqrs")]
    found = run(mappings, history, until, fate, batch_size)
    assert told(each for each in found if each.data["contract"] == "whole") == verdicts
