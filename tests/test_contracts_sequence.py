"""Contracts of kind `sequence`: at their edges, and against a slow model in which every run is on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Story, contracts_of, event, micro, problems_of
from support.histories import chances
from support.plays import IN_FLIGHT, Said, Scene, play, proven, scenes, told, told_event

from edgeq.contracts.instance import Instance
from edgeq.contracts.records import from_row
from edgeq.events import from_json

KEPT = {"name": "delivery", "kind": "sequence", "steps": ["a", "b", "c"], "within": "10s"}
BANNED = {**KEPT, "must": "not_happen"}
WITHIN = 10_000_000

violated_at_10 = ("violated", 10, 10)


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([], []),
        (["a 0", "b 3", "c 9.999999"], []),
        (["a 0", "b 3", "c 10"], []),
        (["a 0", "b 3", "c 10.000001"], [violated_at_10, ("resolved", 10, 10.000001)]),
        (["a 0", "b 10", "c 10"], []),
        (["a 0", "b 3"], [violated_at_10]),
        (["a 0"], [violated_at_10]),
        (["b 0", "c 1"], []),
        (["a 0", "c 1", "b 2"], [violated_at_10]),
        (["a 0", "c 1", "b 2", "c 3"], []),
        (["a 0", "b 0", "c 0"], []),
        (["c 0", "b 0", "a 0"], [violated_at_10]),
        (["a 0", "x 1", "b 2", "b 3", "x 4", "c 5", "c 6"], []),
        # runs that overlap
        (["a 0", "a 5", "b 6", "c 7"], []),
        (["a 0", "b 1", "a 5", "c 9", "b 12", "c 15"], []),
        (["a 0", "b 1", "a 5", "c 9", "b 12", "c 15.000001"], [("violated", 15, 15), ("resolved", 15, 15.000001)]),
        (["a 0", "a 5", "b 6", "c 12"], [violated_at_10, ("resolved", 10, 12)]),
        # one that is late ends with all that are late
        (["a 0", "b 1", "a 5", "c 16", "b 18", "c 20"], [violated_at_10, ("resolved", 10, 20)]),
        (["a 0", "b 1", "a 5", "c 14", "b 14", "c 14"], [violated_at_10, ("resolved", 10, 14)]),
        # each time is an episode of its own
        (
            ["a 0", "b 1", "c 12", "a 20", "b 31", "c 32"],
            [violated_at_10, ("resolved", 10, 12), ("violated", 30, 30), ("resolved", 30, 32)],
        ),
    ],
)
def test_what_must_happen(history: list[str], said: list[Any]) -> None:
    assert told(KEPT, scenes(*history), 100) == said


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([], []),
        (["a 0", "b 3", "c 9.999999"], [("violated", 9.999999, 9.999999), ("resolved", 9.999999, 19.999999)]),
        (["a 0", "b 3", "c 10"], [violated_at_10, ("resolved", 10, 20)]),
        (["a 0", "b 3", "c 10.000001"], []),
        (["a 0", "c 1", "b 2"], []),
        (["a 0", "b 0", "c 0"], [("violated", 0, 0), ("resolved", 0, 10)]),
        (["b 0", "a 0", "c 0"], []),
        # the newest run counts, wherever it waits
        (["a 0", "a 5", "b 6", "c 12"], [("violated", 12, 12), ("resolved", 12, 22)]),
        (["a 0", "b 1", "a 5", "b 6", "c 12"], [("violated", 12, 12), ("resolved", 12, 22)]),
        (["a 0", "b 1", "a 5", "c 12"], []),
        # what completes a run ends it
        (["a 0", "b 1", "c 2", "c 3"], [("violated", 2, 2), ("resolved", 2, 12)]),
        # another belongs to the same episode, exactly at its end too
        (["a 0", "b 1", "c 2", "a 3", "b 4", "c 12"], [("violated", 2, 2), ("resolved", 2, 22)]),
        (
            ["a 0", "b 1", "c 2", "a 3", "b 4", "c 12.000001"],
            [("violated", 2, 2), ("resolved", 2, 12), ("violated", 12.000001, 12.000001),
             ("resolved", 12.000001, 22.000001)],
        ),
    ],
)  # fmt: skip
def test_what_must_not_happen(history: list[str], said: list[Any]) -> None:
    assert told(BANNED, scenes(*history), 100) == said


def test_clear_after_is_a_time_of_its_own() -> None:
    history = scenes("a 0", "b 1", "c 2")
    assert told({**BANNED, "clear_after": "3s"}, history, 100) == [("violated", 2, 2), ("resolved", 2, 5)]


@pytest.mark.parametrize(
    ("steps", "history", "said"),
    [
        (["p", "p", "p"], ["p 0", "p 5", "p 10"], [violated_at_10]),
        (["p", "p", "p"], ["p 0", "p 5", "p 10.000001"], []),
        (["p", "p", "p"], ["p 0", "p 5", "p 10.000001", "p 15"], [("violated", 15, 15)]),
        (["p", "q", "p"], ["p 0", "q 1", "p 2", "q 3", "p 4"], [("violated", 2, 2)]),
        (["door.*", "alarm"], ["door.left 0", "alarm 1"], [("violated", 1, 1)]),
        (["1", "2", "3", "4", "5"], ["1 0", "2 0", "3 0", "4 0", "5 0"], [("violated", 0, 0)]),
    ],
)
def test_an_event_may_be_of_many_steps_but_is_one(steps: list[str], history: list[str], said: list[Any]) -> None:
    assert told({**BANNED, "steps": steps, "clear_after": "100s"}, scenes(*history), 20) == said


def test_each_step_may_have_conditions_and_all_have_those_of_the_contract() -> None:
    contract = {
        **KEPT, "where": {"line": 1}, "steps": ["a", {"of": "b", "where": {"weight": {"above": 5}}}],
    }  # fmt: skip

    def said(*data: dict[str, Any]) -> list[Any]:
        history = [Scene("a", 0, data={"line": 1}), *(Scene("b", 1, data=each) for each in data)]
        return told(contract, history, 100)

    assert said({"line": 1, "weight": 6}) == []
    assert said({"line": 2, "weight": 6}) == said({"line": 1, "weight": 5}) == [violated_at_10]
    assert said({"line": 2, "weight": 6}, {"line": 1, "weight": 6}) == []


def test_instances_by_a_field() -> None:
    history = [
        Scene("a", 0, data={"order": 1}), Scene("a", 1, data={"order": 2}),
        Scene("b", 2, data={"order": 1}, subject="elsewhere"), Scene("c", 3, data={"order": 1}),
    ]  # fmt: skip
    contract = {**KEPT, "by": "order"}
    (said,) = play([contract], history, 100, iter(lambda: True, None))
    assert (said.what, said.subject, said.at) == ("violated", "2", micro(11))
    assert Story(contract).event("a", 0).skipped == ["missing_field"]


def test_a_duplicate_changes_nothing() -> None:
    story = Story(KEPT).event("a", 0).event("b", 1)
    before = dict(story.judge.instances)
    with story.judge.turn() as turn:
        turn.observe(event(2, "b", 1), trusted=True)
    assert story.judge.instances == before


def test_what_is_late_is_skipped() -> None:
    story = Story(KEPT).event("a", 5).event("c", 8).event("b", 8, occurred=7)
    assert story.skipped == ["late"]
    assert story.event("b", 100, occurred=30).wait(101).told == [("violated", "a", 15, 15)]
    assert story.event("c", 102, occurred=20).skipped == ["late"]
    assert story.event("c", 102, occurred=-40).skipped == ["too_late"]


def test_states() -> None:
    story = Story(KEPT)
    assert story.event("b", 0).state() == "ok"
    assert story.event("a", 1).state() == "pending"
    assert story.judge.earliest() == micro(11)
    assert story.event("a", 2).judge.earliest() == micro(11)
    assert story.judge.instances[("delivery", "a")].since == micro(1)
    assert story.event("b", 3).event("c", 4).state() == "ok"
    assert story.event("a", 5).event("b", 6).event("a", 7).event("c", 8).state() == "pending"
    assert story.judge.earliest() == micro(17)
    assert story.wait(18).state() == "violated"
    assert story.event("a", 20).event("b", 21).event("a", 22).event("c", 23).state() == "pending"
    assert story.judge.earliest() == micro(32)


def test_what_it_says() -> None:
    contract = {**KEPT, "steps": ["announced", {"of": "weighed", "where": {"kg": {"above": 0}}}, "signed"]}
    story = Story(contract).event("announced", 0).wait(20)
    event_ = told_event(story)
    assert event_.description == "delivery: a announced, but no weighed (kg above 0), then signed within 10s"
    assert (event_.cause_id, from_json(event_.data_json)["observed"]) == (1, "announced")
    event_ = told_event(story.event("weighed", 21, data={"kg": 3}).event("signed", 22.5))
    assert (event_.description, event_.cause_id) == ("delivery: a resolved, 12.5s late", 3)
    assert from_json(event_.data_json)["late_by_seconds"] == 12.5
    assert from_json(event_.data_json)["observed"] == "signed"

    story = Story({**BANNED, "name": "break-in"}).event("a", 0).event("b", 1).event("c", 3.5)
    event_ = told_event(story)
    assert event_.description == "break-in: a a, then b, then c in 3.5s, which must not happen within 10s"
    assert event_.cause_id == 3
    event_ = told_event(story.wait(20))
    assert event_.description == "break-in: a resolved after 10s (observed nothing)"


@pytest.mark.parametrize("restarted", [False, True])
def test_the_message_quotes_the_event_that_began_what_is_late(restarted: bool) -> None:
    story = Story({**KEPT, "message": "order {data.order}: {observed}"})
    story.event("a", 0, data={"order": 1}).event("b", 1).event("a", 5, data={"order": 2}).event("c", 6)
    if restarted:
        story.restart(7)
    assert told_event(story.wait(20)).description == "delivery: order 2: a"
    story = Story({**BANNED, "message": "by {data.who}"})
    story.event("a", 0, data={"who": 1}).event("b", 1, data={"who": 2}).event("c", 2, data={"who": 3})
    assert told_event(story).description == "delivery: by 3"


def test_what_waited_at_the_broker_proves_no_silence() -> None:
    story = Story(KEPT).event("a", 0).event("b", 3600, trusted=False).event("c", 3600, trusted=False)
    assert (story.told, story.state()) == ([], "ok")


@pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
def test_a_step_of_the_clock_leaves_what_was_left(step: float) -> None:
    def stepped(story: Story) -> Story:
        with story.judge.turn() as turn:
            turn.set_clock(micro(4 + step), round(step * 1e6))
        return story

    story = stepped(Story(KEPT).event("a", 0).event("b", 3).event("a", 4)).restart(4 + step)
    assert story.wait(step + 10).told == []
    assert story.wait(step + 10.1).told == [("violated", "a", step + 10, step + 10)]
    assert story.event("c", step + 11).state() == "pending"
    assert story.judge.earliest() == micro(step + 14)
    story = stepped(Story(BANNED).event("a", 0).event("b", 3)).event("c", step + 10)
    assert story.told == [("violated", "a", step + 10, step + 10)]
    story = stepped(Story(BANNED).event("a", 0).event("b", 0).event("c", 3)).event("a", 4 + step)
    assert story.wait(step + 14).told[1:] == [("resolved", "a", step + 3, step + 13)]


def test_silence_while_nothing_could_be_heard_does_not_count() -> None:
    story = Story({**KEPT, "suppressed_by": "link"}).event("a", 0).event("b", 1)
    with story.judge.turn() as turn:
        turn.lose_link(micro(5))
    with story.judge.turn() as turn:
        turn.regain_link(micro(60))
    assert story.wait(70).told == []
    assert story.wait(70.1).told == [("violated", "a", 70, 70)]


def test_another_within_holds_for_what_is_under_way_and_other_steps_are_another_promise() -> None:
    story = Story(KEPT).event("a", 0).start(1, {**KEPT, "within": "20s"})
    assert story.wait(20).told == []
    assert story.wait(20.1).told == [("violated", "a", 20, 20)]
    (row,) = story.rows()
    for changed in ({"steps": ["a", "b", "d"]}, {"must": "not_happen"}, {"where": {"x": 1}}):
        (contract,) = contracts_of({**KEPT, **changed})
        assert from_row(contract, row) is None


def test_another_clear_after_holds_for_what_is_violated() -> None:
    story = Story({**BANNED, "clear_after": "20s"})
    for index, type_ in enumerate("abc"):
        story.event(type_, index)
    assert story.start(5, {**BANNED, "clear_after": "50s"}).wait(51.9).state() == "violated"
    assert story.start(51.9, {**BANNED, "clear_after": "60s"}).wait(70).told == [
        ("violated", "a", 2, 2), ("resolved", "a", 2, 62),
    ]  # fmt: skip


def test_a_stored_deadline_without_anything_under_way_passes_without_harm() -> None:
    (contract,) = contracts_of(KEPT)
    step = contract.elapse(Instance(subject="a", state="pending", since=micro(0), deadline_at=micro(1)))
    assert (step.verdict, step.instance.state, step.instance.deadline_at) == (None, "ok", None)


@pytest.mark.parametrize(
    ("changed", "path", "message"),
    [
        ({"steps": ["a"]}, "steps", "must be two to five steps"),
        ({"steps": ["a"] * 6}, "steps", "must be two to five steps"),
        ({"steps": "a"}, "steps", "must be a list"),
        ({"steps": None}, "steps", "must be two to five steps"),
        ({"steps": ["a", ["b"]]}, "steps[1]", "must be a mapping or text"),
        ({"steps": ["a", {"off": "b"}]}, "steps[1].off", "did you mean 'of'?"),
        ({"steps": ["a", "contract.violated"]}, "steps[1]", "never judges contracts"),
        ({"steps": ["a", {"of": "b", "where": {"x": {"above": "1"}}}]}, "steps[1].where.x.above", "must be a number"),
        ({"within": "0s"}, "within", "must be more than 0"),
        ({"must": "not happen"}, "must", "did you mean 'not_happen'?"),
        ({"clear_after": "1m"}, "clear_after", "belongs to must: not_happen"),
    ],
)
def test_a_mistake_is_named_with_its_key(changed: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of({**KEPT, **changed})
    assert path in [problem.path.removeprefix("contracts[0].") for problem in problems]
    assert message in " ".join(str(problem) for problem in problems)


def completions(steps: Sequence[str], history: Sequence[Scene], kept: Sequence[bool]) -> list[tuple[int, int | None]]:
    """For each event of the first step, the event that completes its run: the first of each step after the one before
    it."""
    found: list[tuple[int, int | None]] = []
    for first, scene in enumerate(history):
        if not kept[first] or scene.type != steps[0]:
            continue
        place: int | None = first
        for step in steps[1:]:
            after = range(place + 1, len(history)) if place is not None else range(0)
            place = next((each for each in after if kept[each] and history[each].type == step), None)
        found.append((first, place))
    return found


def judged(steps: Sequence[str], history: Sequence[Scene]) -> list[bool]:
    """Which events are of the steps, and not older than such a one before them."""
    return [
        scene.type in steps and all(each.at <= scene.at for each in history[:place] if each.type in steps)
        for place, scene in enumerate(history)
    ]


def kept_model(steps: Sequence[str], history: Sequence[Scene], until: int) -> Iterator[Said]:
    """Which runs are late, after everything that happens?"""
    kept = judged(steps, history)
    runs = completions(steps, history, kept)
    late: set[int] = set()
    since = 0
    for place in range(len(history) + 1):
        end = place == len(history)
        over = until if end else proven(history[place], kept=kept[place])
        for first, last in runs:
            due = history[first].at + WITHIN
            if first < place and (last is None or last >= place) and due < over and first not in late:
                if not late:
                    since = due
                    yield Said("violated", due, due)
                late.add(first)
        done = {first for first, last in runs if last == place}
        if late and late <= done:
            yield Said("resolved", since, max(since, history[place].at))
        late -= done


def banned_model(steps: Sequence[str], history: Sequence[Scene], until: int) -> Iterator[Said]:
    """At which events is a run complete in time?"""
    kept = judged(steps, history)
    runs = completions(steps, history, kept)
    ends = {last for first, last in runs if last is not None and history[last].at - history[first].at <= WITHIN}
    since, clear_at = None, 0
    for place in range(len(history) + 1):
        over = until if place == len(history) else proven(history[place], kept=kept[place])
        if since is not None and clear_at < over:
            yield Said("resolved", since, clear_at)
            since = None
        if place in ends:
            at = history[place].at
            clear_at = at + WITHIN
            if since is None:
                since = at
                yield Said("violated", at, at)


def scene_lists() -> st.SearchStrategy[list[Scene]]:
    """Random histories with times at and around the edges."""
    gaps = st.sampled_from([0, 0, 0.1, 1, 2, 5, 9, 9.999999, 10, 10.000001, 10.2, 10.3, 10.300001, 15])
    drawn = st.tuples(st.sampled_from("abcx"), gaps, st.sampled_from([0, 0, 0, 0, 0.2, 0.3, 5, 12]))

    def build(steps: list[tuple[str, float, float]]) -> list[Scene]:
        recorded, built = 0.0, []
        for type_, gap, late in steps:
            recorded = round(recorded + gap, 6)
            built.append(Scene(type_, recorded, round(recorded - late, 6)))
        return built

    return st.lists(drawn, max_size=25).map(build)


@settings(max_examples=200)
@given(
    scene_lists(),
    st.sampled_from([["a", "b"], ["a", "b", "c"], ["a", "a", "b"], ["a", "b", "a", "c"], ["a", "a", "a"]]),
    st.sampled_from([0.1, 10, 10.000001, 60]),
    chances(),
    st.booleans(),
)
def test_against_the_model(
    history: list[Scene], steps: list[str], after: float, chance: Iterator[bool], banned: bool
) -> None:
    until = round((history[-1].recorded if history else 0) + after, 6)
    contract = {**(BANNED if banned else KEPT), "steps": steps}
    said = [Said(each.what, each.since, each.at) for each in play([contract], history, until, chance)]
    model = banned_model if banned else kept_model
    assert said == list(model(steps, history, micro(until)))


def test_the_models_see_what_they_are_for() -> None:
    history = scenes("a 0", "b 1", "c 12")
    assert [each.seconds for each in kept_model(["a", "b", "c"], history, micro(100))] == [
        violated_at_10, ("resolved", 10, 12),
    ]  # fmt: skip
    assert [each.seconds for each in banned_model(["b", "c"], scenes("b 1", "c 11"), micro(11) + IN_FLIGHT)] == [
        ("violated", 11, 11)
    ]
