"""Contracts of kind `absence` at their edges: exactly at the limit, a microsecond before and after, nothing yet, twice,
late, out of order."""

from __future__ import annotations

from typing import Any

import pytest
from support.contracts import ABSENCE, Story, contracts_of, event, micro, problems_of
from support.plays import scenes, told

from edgeq.events import from_json

US = 1e-6
KNOWN = {**ABSENCE, "known": ["a", "b"]}


@pytest.mark.parametrize(
    ("mapping", "happened", "until", "expected"),
    [
        (ABSENCE, [], 1000, []),
        (ABSENCE, ["reading 0", "reading 9.999999"], 10, []),
        (ABSENCE, ["reading 0", "reading 10"], 10, []),
        (ABSENCE, ["reading 0", "reading 10.000001"], 10, [("violated", 10, 10), ("resolved", 10, 10.000001)]),
        (ABSENCE, ["reading 0"], 10, []),
        (ABSENCE, ["reading 0"], 10 + US, [("violated", 10, 10)]),
        (ABSENCE, ["reading 0", "reading 0", "reading 0"], 1000, [("violated", 10, 10)]),
        (ABSENCE, ["reading 8", "reading 1 recorded 9"], 18, []),
        (ABSENCE, ["reading 8", "reading 1 recorded 9"], 18 + US, [("violated", 18, 18)]),
        (
            ABSENCE, ["reading 0", "reading 21", "reading 22"], 40,
            [("violated", 10, 10), ("resolved", 10, 21), ("violated", 32, 32)],
        ),
        ({**ABSENCE, "grace": "5s"}, ["reading 0", "reading 15"], 25, []),
        ({**ABSENCE, "grace": "5s"}, ["reading 0"], 15 + US, [("violated", 15, 15)]),
    ],
)  # fmt: skip
def test_what_it_says_with_and_without_restarts(
    mapping: dict[str, Any], happened: list[str], until: float, expected: list[Any]
) -> None:
    assert told(mapping, scenes(*happened), until) == expected


class TestAbsence:
    """`every: 10s`."""

    def test_each_time_is_an_episode_of_its_own(self) -> None:
        story = Story(ABSENCE).reading(0).wait(20).reading(21).wait(40)
        assert [verdict.episode for _, _, verdict in story.verdicts] == [1, 1, 2]

    def test_subjects_are_judged_apart_and_each_others_events_prove_that_time_passed(self) -> None:
        story = Story(ABSENCE).reading(0, subject="a").reading(9, subject="b").reading(10.2, subject="b")
        assert story.told == []  # an event of `a` may still be on its way into the store
        story.reading(10.5, subject="b")
        assert story.told == [("violated", "a", 10, 10)]

    def test_what_was_judged_already_changes_nothing(self) -> None:
        story = Story(ABSENCE).reading(0)
        with story.judge.turn() as turn:
            turn.observe(event(1, recorded=0), trusted=True)
        assert turn.changed == {}

    @pytest.mark.parametrize(
        ("lateness", "reasons"), [("1m", ["late"]), ("7s", ["late"]), ("6999999us", ["too_late"]), ("0s", ["too_late"])]
    )
    def test_an_older_event_is_passed_over_and_counted(self, lateness: str, reasons: list[str]) -> None:
        story = Story({**ABSENCE, "lateness": lateness}).reading(8).reading(9, occurred=1)
        assert story.skipped == reasons

    def test_one_that_was_old_when_it_came_does_not_resolve(self) -> None:
        story = Story(ABSENCE).reading(0).wait(60)
        story.reading(60, occurred=10).reading(60.1, occurred=30).reading(60.2, occurred=49)
        story.reading(60.3, occurred=50 - US)
        assert story.told == [("violated", "a", 10, 10)]
        assert Story(ABSENCE).reading(0).wait(60).reading(60.3, occurred=50).told[1:] == [("resolved", "a", 10, 50)]
        story.reading(60.3, occurred=55)
        assert story.told[1:] == [("resolved", "a", 10, 55)]
        assert story.wait(65).told[2:] == []
        assert story.wait(65 + US).told[2:] == [("violated", "a", 65, 65)]

    def test_the_contract_ends_a_silence_only_with_an_event_that_counts(self) -> None:
        story = Story({**ABSENCE, "where": {"ok": True}}).event("reading", 0, data={"ok": True})
        story.event("reading", 9, data={"ok": False}).event("reading", 9.5, data={}).wait(11)
        assert story.told == [("violated", "a", 10, 10)]

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
    def test_a_step_of_the_clock_leaves_what_was_left_also_under_new_keys(self, step: int) -> None:
        story = Story(ABSENCE).reading(0)
        with story.judge.turn() as turn:
            turn.set_clock(micro(4 + step), step * 1_000_000)
        assert story.wait(step + 10).told == []
        story.start(step + 10, {**ABSENCE, "every": "12s"})
        assert story.wait(step + 12).told == []
        assert story.wait(step + 12 + US).told == [("violated", "a", step + 12, step + 12)]

    @pytest.mark.parametrize(("keys", "limit"), [({"every": "20s"}, 20), ({"grace": "3s"}, 13), ({"every": "5s"}, 5)])
    def test_under_new_keys_the_deadline_lies_where_it_belongs(self, keys: dict[str, Any], limit: float) -> None:
        story = Story(ABSENCE).reading(0).start(4, {**ABSENCE, **keys})
        assert story.wait(limit).told == []
        assert story.wait(limit + US).told == [("violated", "a", limit, limit)]

    def test_under_new_keys_a_violation_stands_until_the_next_event(self) -> None:
        story = Story(ABSENCE).reading(0).wait(11).start(12, {**ABSENCE, "every": "1h"})
        assert (story.state(), len(story.told)) == ("violated", 1)
        assert story.reading(13).told[1:] == [("resolved", "a", 10, 13)]
        assert story.wait(13 + 3600).told[2:] == []

    def test_what_it_says(self) -> None:
        story = Story({**ABSENCE, "severity": "critical"}).reading(0).wait(20)
        event_ = story.events[-1]
        assert (event_.type, event_.subject, event_.tags) == ("contract.violated", "a", ("contract", "notification"))
        assert (event_.cause_id, event_.occurred_at) == (1, micro(10))
        assert event_.description == "reports: a no reading for 10s (last 2026-01-01T12:00:00.000Z)"
        assert from_json(event_.data_json) == {
            "contract": "reports", "kind": "absence", "severity": "critical",
            "message": "a no reading for 10s (last 2026-01-01T12:00:00.000Z)", "episode": 1, "since": micro(10),
            "cause": 1, "observed": "2026-01-01T12:00:00.000Z",
        }  # fmt: skip
        event_ = story.reading(85).events[-1]
        assert (event_.type, event_.cause_id) == ("contract.resolved", 2)
        assert event_.description == "reports: a resolved after 1m 15s (observed 2026-01-01T12:01:25.000Z)"
        assert from_json(event_.data_json)["duration_seconds"] == 75


class TestKnown:
    """`known: [a, b]`, loaded at 0."""

    @pytest.mark.parametrize(("until", "silent"), [(10, []), (10 + US, ["a", "b"])])
    def test_of_what_nothing_was_ever_heard_is_violated_after_one_period(self, until: float, silent: list[str]) -> None:
        story = Story(KNOWN)
        assert [story.state(subject=subject) for subject in "ab"] == ["unknown", "unknown"]
        assert [subject for _, subject, _, _ in story.wait(until).told] == silent

    @pytest.mark.parametrize("gap", [10 - US, 10])
    def test_the_first_event_comes_in_time(self, gap: float) -> None:
        story = Story({**KNOWN, "known": ["a"]}).reading(gap)
        assert (story.told, story.state()) == ([], "ok")

    def test_a_restart_does_not_begin_the_period_anew(self) -> None:
        story = Story(KNOWN).wait(4).restart(5).restart(9).wait(10.1)
        assert story.told == [("violated", "a", 10, 10), ("violated", "b", 10, 10)]
        assert len(story.restart(20).wait(40).told) == 2

    def test_what_is_added_has_a_period_of_its_own(self) -> None:
        story = Story(ABSENCE).start(5, KNOWN).wait(15)
        assert story.told == []
        assert story.wait(15 + US).told == [("violated", "a", 15, 15), ("violated", "b", 15, 15)]

    def test_under_new_keys_the_deadline_lies_where_it_belongs(self) -> None:
        story = Story(KNOWN).start(5, {**KNOWN, "every": "20s"}).wait(20)
        assert story.told == []
        assert len(story.wait(20 + US).told) == 2

    def test_what_is_heard_of_an_earlier_time_does_not_shorten_the_first_period(self) -> None:
        story = Story({**KNOWN, "known": ["a"]}).reading(3, occurred=-8).restart(4).wait(10)
        assert (story.told, story.state()) == ([], "ok")
        assert story.wait(10 + US).told == [("violated", "a", 10, 10)]

    def test_others_are_watched_from_their_first_event_on(self) -> None:
        story = Story({**KNOWN, "known": ["a"]}).reading(4, subject="c").wait(14 + US)
        assert story.told == [("violated", "a", 10, 10), ("violated", "c", 14, 14)]

    def test_silence_while_the_link_was_down_does_not_count(self) -> None:
        story = Story({**KNOWN, "known": ["a"], "suppressed_by": "link"})
        with story.judge.turn() as turn:
            turn.lose_link(micro(5))
            turn.regain_link(micro(1000))
        story.reading(1000.1, occurred=500)
        story.start(1001, {**KNOWN, "known": ["a"], "suppressed_by": "link", "every": "12s"})
        assert story.wait(1012).told == []
        assert story.wait(1012 + US).told == [("violated", "a", 1012, 1012)]

    def test_what_was_violated_before_the_link_was_down_is_still(self) -> None:
        story = Story({**KNOWN, "known": ["a"], "suppressed_by": "link"}).wait(11)
        with story.judge.turn() as turn:
            turn.lose_link(micro(20))
            turn.regain_link(micro(1000))
        assert (story.state(), story.judge.earliest()) == ("violated", None)
        assert story.wait(2000).told == [("violated", "a", 10, 10)]

    def test_what_it_says(self) -> None:
        story = Story({**KNOWN, "known": ["a"]}).wait(11)
        assert story.events[-1].cause_id is None
        assert story.events[-1].description == "reports: a no reading for 10s (never seen)"

    def test_ten_thousand_that_are_never_heard_of(self) -> None:
        names = [f"s-{number}" for number in range(10_000)]
        story = Story({**ABSENCE, "known": names}).restart(5)
        assert story.wait(10).told == []
        assert sorted(subject for _, subject, _, _ in story.wait(10.1).told) == sorted(names)
        assert len(story.wait(1000).told) == 10_000


@pytest.mark.parametrize(
    ("mapping", "path", "message"),
    [
        ({**ABSENCE, "every": "0s"}, "every", "must be more than 0"),
        ({**ABSENCE, "every": "soon"}, "every", "is not a duration"),
        ({**ABSENCE, "grace": "-1s"}, "grace", "is not a duration"),
        ({**ABSENCE, "of": "contract.violated"}, "of", "never judges contracts"),
        ({**ABSENCE, "known": "a"}, "known", "must be a list"),
        ({**ABSENCE, "known": ["a", "b", "a"]}, "known[2]", "'a' is there twice"),
        ({**ABSENCE, "subject": "f-*", "known": ["f-1", "g-1"]}, "known[1]", "'g-1' doesn't fit subject: f-*"),
        ({**ABSENCE, "knwon": ["a"]}, "knwon", "did you mean 'known'?"),
        ({key: value for key, value in ABSENCE.items() if key != "every"}, "every", "is missing"),
    ],
)
def test_a_mistake_is_named_with_its_key(mapping: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(mapping)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}"]
    assert message in str(problems[0])


def test_a_state_means_the_same_under_another_period() -> None:
    (contract, *others) = contracts_of(
        ABSENCE, {**ABSENCE, "name": "e", "every": "1h"}, {**ABSENCE, "name": "g", "grace": "1h"},
        {**ABSENCE, "name": "k", "known": ["a"]}, {**ABSENCE, "name": "o", "of": "other"},
        {**ABSENCE, "name": "w", "where": {"ok": True}}, {**ABSENCE, "name": "b", "by": "data.id"},
    )  # fmt: skip
    assert [other.name for other in others if other.meaning == contract.meaning] == ["e", "g", "k"]
