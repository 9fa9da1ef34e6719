"""Each kind at its edges: exactly at the limit, a microsecond before and after, nothing yet, twice, late, out
of order.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, Story, contracts_of, event, micro

from edgeq.contracts.instance import Instance
from edgeq.contracts.judge import Judge
from edgeq.contracts.verdict_event import verdict_event
from edgeq.events import NewEvent, from_json
from edgeq.testing.clock import NOON

US = 1e-6


def only_event(story: Story) -> NewEvent:
    """The event for the last verdict of a story."""
    assert story.turn is not None
    ((contract, instance, verdict),) = story.turn.verdicts
    return verdict_event(contract, instance, verdict, micro(100))


class TestAbsence:
    """`every: 10s`."""

    def test_nothing_ever_came_and_nothing_is_known(self) -> None:
        assert Story(ABSENCE).wait(1000).told == []

    @pytest.mark.parametrize(
        ("gap", "told"),
        [
            (10 - US, []),
            (10, []),
            (10 + US, [("violated", "a", 10, 10), ("resolved", "a", 10, 10 + US)]),
        ],
    )
    def test_the_next_one_comes_at_the_limit(self, gap: float, told: list[Any]) -> None:
        story = Story(ABSENCE).reading(0).reading(gap)
        assert story.told == [pytest.approx(each) for each in told]
        assert story.state() == "ok"

    def test_grace_counts_to_the_period(self) -> None:
        with_grace = {**ABSENCE, "grace": "5s"}
        assert Story(with_grace).reading(0).reading(15).told == []
        assert Story(with_grace).reading(0).wait(15 + US).told == [("violated", "a", 15, 15)]

    def test_the_clock_judges_when_nothing_comes(self) -> None:
        story = Story(ABSENCE).reading(0).wait(10)
        assert story.told == []
        story.wait(10 + US)
        assert story.told == [("violated", "a", 10, 10)]
        assert story.wait(1000).told[1:] == []

    def test_each_time_is_an_episode_of_its_own(self) -> None:
        story = Story(ABSENCE).reading(0).wait(20).reading(21).wait(40)
        assert story.told == [("violated", "a", 10, 10), ("resolved", "a", 10, 21), ("violated", "a", 31, 31)]
        assert story.judge.instances[("reports", "a")].episode == 2

    def test_subjects_are_judged_apart_and_each_others_events_prove_that_time_passed(self) -> None:
        story = Story(ABSENCE).reading(0, subject="a").reading(9, subject="b").reading(10.2, subject="b")
        assert story.told == []  # an event of `a` may still be on its way into the store
        story.reading(10.5, subject="b")
        assert story.told == [("violated", "a", 10, 10)]

    def test_a_duplicate_changes_nothing(self) -> None:
        story = Story(ABSENCE).reading(0)
        before = story.judge.instances[("reports", "a")]
        twice = event(1, recorded=0)
        with story.judge.turn() as turn:
            turn.observe(twice, trusted=True)
        assert turn.changed == {}
        story.reading(3, occurred=0)
        assert story.judge.instances[("reports", "a")].deadline_at == before.deadline_at

    def test_an_older_event_changes_nothing(self) -> None:
        story = Story(ABSENCE).reading(8).reading(9, occurred=1)
        assert story.skipped == ["late"]
        assert story.wait(18 + US).told == [("violated", "a", 18, 18)]

    def test_one_that_was_old_when_it_came_does_not_resolve(self) -> None:
        story = Story(ABSENCE).reading(0).wait(60)
        story.reading(60, occurred=10).reading(60.1, occurred=30).reading(60.2, occurred=49)
        assert story.told == [("violated", "a", 10, 10)]
        story.reading(60.3, occurred=55)
        assert story.told[1:] == [("resolved", "a", 10, 55)]
        assert story.wait(65).told[2:] == []
        assert story.wait(65 + US).told[2:] == [("violated", "a", 65, 65)]

    def test_known_subjects_are_watched_from_the_start(self) -> None:
        (contract,) = contracts_of({**ABSENCE, "known": ["a", "b"]})
        first, second = contract.initial(NOON)
        assert (first.state, first.since, first.deadline_at) == ("unknown", NOON, micro(10))
        judge = Judge([contract])
        judge.load([("reports", first), ("reports", second)], NOON)
        with judge.turn() as turn:
            turn.observe(event(1, recorded=4, subject="b"), trusted=True)
            turn.elapse(micro(11))
        ((_, instance, verdict),) = turn.verdicts
        assert (instance.subject, verdict.what, verdict.at) == ("a", "violated", micro(10))
        told = verdict_event(contract, instance, verdict, micro(11))
        assert told.cause_id is None
        assert told.description == "reports: a no reading for 10s (never seen)"

    def test_what_it_says(self) -> None:
        story = Story({**ABSENCE, "severity": "critical"}).reading(0).wait(20)
        told = only_event(story)
        assert told.type == "contract.violated"
        assert (told.subject, told.tags, told.cause_id) == ("a", ("contract", "notification"), 1)
        assert (told.occurred_at, told.recorded_at) == (micro(10), micro(100))
        assert told.description == "reports: a no reading for 10s (last 2026-01-01T12:00:00.000Z)"
        assert from_json(told.data_json) == {
            "contract": "reports", "kind": "absence", "severity": "critical",
            "message": "a no reading for 10s (last 2026-01-01T12:00:00.000Z)", "episode": 1, "since": micro(10),
            "cause": 1, "observed": "2026-01-01T12:00:00.000Z",
        }  # fmt: skip
        story.reading(85)
        told = only_event(story)
        assert (told.type, told.cause_id) == ("contract.resolved", 2)
        assert told.description == "reports: a resolved after 1m 15s (observed 2026-01-01T12:01:25.000Z)"
        assert from_json(told.data_json)["duration_seconds"] == 75


class TestDeadline:
    """`within: 10s`."""

    @pytest.mark.parametrize(
        ("gap", "told"),
        [
            (10 - US, []),
            (10, []),
            (10 + US, [("violated", "a", 10, 10), ("resolved", "a", 10, 10 + US)]),
        ],
    )
    def test_the_answer_comes_at_the_limit(self, gap: float, told: list[Any]) -> None:
        story = Story(DEADLINE).event("opened", 0).event("closed", gap)
        assert story.told == [pytest.approx(each) for each in told]
        assert story.state() == "ok"

    def test_no_answer_comes(self) -> None:
        story = Story(DEADLINE).event("opened", 0)
        assert story.state() == "pending"
        assert story.wait(10).told == []
        assert story.wait(10 + US).wait(1000).told == [("violated", "a", 10, 10)]

    def test_an_answer_without_a_question(self) -> None:
        assert Story(DEADLINE).event("closed", 0).event("closed", 1).wait(1000).told == []

    def test_the_question_again_does_not_put_the_deadline_off(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("opened", 9).wait(10 + US)
        assert story.told == [("violated", "a", 10, 10)]
        story.event("opened", 15).event("closed", 16)
        assert story.told[1:] == [("resolved", "a", 10, 16)]
        assert story.wait(1000).told[2:] == []

    def test_questions_and_answers_in_turn(self) -> None:
        story = Story(DEADLINE)
        for start in range(0, 100, 20):
            story.event("opened", start).event("closed", start + 5)
        assert story.told == []
        assert story.event("opened", 100).wait(120).event("closed", 121).event("opened", 130).wait(150).told == [
            ("violated", "a", 110, 110), ("resolved", "a", 110, 121), ("violated", "a", 140, 140),
        ]  # fmt: skip

    def test_answer_and_question_of_one_moment_go_by_their_order(self) -> None:
        assert Story(DEADLINE).event("opened", 0).event("closed", 0).state() == "ok"
        assert Story(DEADLINE).event("closed", 0).event("opened", 0).state() == "pending"

    def test_a_question_older_than_its_answer_opens_nothing(self) -> None:
        story = Story(DEADLINE).event("closed", 5, occurred=4).event("opened", 5.1, occurred=3)
        assert story.skipped == ["late"]
        assert story.wait(1000).told == []

    def test_where_is_about_the_question(self) -> None:
        contract = {**DEADLINE, "where": {"side": "out"}}
        assert Story(contract).event("opened", 0, data={"side": "in"}).wait(100).told == []
        story = Story(contract).event("opened", 0, data={"side": "out"}).event("closed", 5)
        assert story.wait(100).told == []

    def test_one_event_may_be_both(self) -> None:
        story = Story({**DEADLINE, "after": "ping", "expect": "ping"})
        story.event("ping", 0).event("ping", 5).event("ping", 14).wait(30).event("ping", 31).wait(50)
        assert story.told == [("violated", "a", 24, 24), ("resolved", "a", 24, 31), ("violated", "a", 41, 41)]

    def test_instances_by_a_field(self) -> None:
        story = Story({**DEADLINE, "by": "order"})
        story.event("opened", 0, data={"order": 1}).event("opened", 1, data={"order": 2})
        story.event("closed", 5, subject="elsewhere", data={"order": 1}).wait(20)
        assert story.told == [("violated", "2", 11, 11)]
        assert story.event("opened", 20).skipped == ["missing_field"]

    def test_what_it_says(self) -> None:
        story = Story({**DEADLINE, "message": "{subject} stands open"}).event("opened", 0).wait(20)
        told = only_event(story)
        assert (told.description, told.cause_id) == ("closes: a stands open", 1)
        assert from_json(told.data_json)["message"] == "a stands open"
        told = only_event(story.event("closed", 25.5))
        data = from_json(told.data_json)
        assert (data["late_by_seconds"], data["duration_seconds"]) == (15.5, 15.5)
        assert (data["cause"], data["since"]) == (2, micro(10))
        assert told.description == "closes: a resolved, 15.5s late"
        assert only_event(Story(DEADLINE).event("opened", 0).wait(20)).description == (
            "closes: a no closed within 10s of opened"
        )


class TestThreshold:
    """`above: 5`."""

    FOR: ClassVar = {**THRESHOLD, "for": "10s"}
    CLEAR: ClassVar = {**THRESHOLD, "clear": {"below": 3}}
    CLEAR_FOR: ClassVar = {**THRESHOLD, "clear": {"below": 3, "for": "10s"}}

    @pytest.mark.parametrize(("value", "violated"), [(5, False), (5.0000001, True), (4.9, False), (10**300, True)])
    def test_at_the_limit(self, value: float, violated: bool) -> None:
        assert (Story(THRESHOLD).reading(0, value).told != []) is violated

    def test_below_is_the_other_way_round(self) -> None:
        below = {"name": "cold", "kind": "threshold", "of": "reading", "below": 5, "clear": {"above": 6}}
        story = Story(below).reading(0, 5).reading(1, 4).reading(2, 6).reading(3, 6.1)
        assert story.told == [("violated", "a", 1, 1), ("resolved", "a", 1, 3)]

    def test_without_clear_it_is_over_at_the_limit(self) -> None:
        story = Story(THRESHOLD).reading(0, 6).reading(1, 7).reading(2, 5)
        assert story.told == [("violated", "a", 0, 0), ("resolved", "a", 0, 2)]

    @pytest.mark.parametrize(
        ("until", "told"),
        [(10 - US, []), (10, []), (10 + US, [("violated", "a", 10, 10), ("resolved", "a", 10, 10 + US)])],
    )
    def test_a_breach_ends_as_long_after_its_beginning_as_for(self, until: float, told: list[Any]) -> None:
        story = Story(self.FOR).reading(0, 6).reading(until, 5)
        assert story.told == [pytest.approx(each) for each in told]

    def test_a_value_holds_until_the_next(self) -> None:
        story = Story(self.FOR).reading(0, 6)
        assert story.state() == "pending"
        assert story.wait(10).told == []
        assert story.wait(10 + US).told == [("violated", "a", 10, 10)]

    def test_a_breach_goes_on_from_its_first_value(self) -> None:
        story = Story(self.FOR).reading(0, 6).reading(4, 9).reading(8, 6).wait(11)
        assert story.told == [("violated", "a", 10, 10)]

    def test_a_good_value_begins_it_anew(self) -> None:
        story = Story(self.FOR).reading(0, 6).reading(9, 5).reading(9.5, 6).wait(19)
        assert story.told == []
        assert story.wait(20).told == [("violated", "a", 19.5, 19.5)]

    @pytest.mark.parametrize(("value", "resolved"), [(5, False), (3, False), (2.99, True)])
    def test_clear_is_another_limit(self, value: float, resolved: bool) -> None:
        story = Story(self.CLEAR).reading(0, 6).reading(1, value)
        assert (story.state() == "ok") is resolved

    def test_clear_for_is_a_time_of_its_own(self) -> None:
        story = Story(self.CLEAR_FOR).reading(0, 6).reading(1, 2).reading(5, 1)
        assert story.wait(11).told == [("violated", "a", 0, 0)]
        assert story.wait(11 + US).told[1:] == [("resolved", "a", 0, 11)]

    @pytest.mark.parametrize("value", [6, 3, 4])
    def test_clear_for_begins_anew_with_a_value_that_is_not_clear(self, value: float) -> None:
        story = Story(self.CLEAR_FOR).reading(0, 6).reading(1, 2).reading(5, value).reading(6, 2)
        assert story.wait(16).told[1:] == []
        assert story.wait(17).told[1:] == [("resolved", "a", 0, 16)]

    def test_clear_with_only_a_time_means_not_beyond_the_limit(self) -> None:
        story = Story({**THRESHOLD, "clear": {"for": "10s"}}).reading(0, 6).reading(1, 5).wait(12)
        assert story.told == [("violated", "a", 0, 0), ("resolved", "a", 0, 11)]

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            ({}, "missing_field"),
            ([1], "missing_field"),
            ({"value": "6"}, "not_a_number"),
            ({"value": True}, "not_a_number"),
            ({"value": None}, "not_a_number"),
            ({"value": [6]}, "not_a_number"),
            ({"value": 10**400}, "not_a_number"),
        ],
    )
    def test_what_cannot_be_compared_is_skipped(self, data: Any, reason: str) -> None:
        story = Story(THRESHOLD).event("reading", 0, data=data)
        assert story.skipped == [reason]
        assert story.judge.instances == {}
        story.reading(1, 6).event("reading", 2, data=data)
        assert (story.skipped, story.state()) == ([reason], "violated")

    def test_a_field_further_down(self) -> None:
        story = Story({**THRESHOLD, "field": "data.probe.celsius"})
        assert story.event("reading", 0, data={"probe": {"celsius": 6}}).state() == "violated"

    def test_a_duplicate_changes_nothing(self) -> None:
        story = Story(THRESHOLD).reading(0, 6).reading(0, 6).reading(1, 4).reading(1, 4)
        assert story.told == [("violated", "a", 0, 0), ("resolved", "a", 0, 1)]

    def test_an_older_value_changes_nothing(self) -> None:
        story = Story(THRESHOLD).reading(5, 6).reading(6, 4, occurred=4.9)
        assert (story.skipped, story.state()) == (["late"], "violated")

    def test_what_it_says(self) -> None:
        contract = {**self.FOR, "above": -15, "clear": {"below": -16}}
        story = Story(contract).reading(0, -14).reading(5, -12.5).wait(11)
        told = only_event(story)
        assert told.description == "cold: a value above -15 for 10s (observed -12.5)"
        assert (told.cause_id, from_json(told.data_json)["observed"]) == (1, -12.5)
        told = only_event(story.reading(3611, -17.0))
        assert told.description == "cold: a resolved after 1h (observed -17)"
        told = only_event(Story({**THRESHOLD, "message": "{observed} degrees!"}).reading(0, 6.5))
        assert told.description == "cold: 6.5 degrees!"


class TestTime:
    """What the judge makes of the times of events."""

    def test_a_time_in_the_future_is_taken_as_now(self) -> None:
        story = Story(ABSENCE).reading(0, occurred=3600)
        assert story.skipped == ["future_timestamp"]
        assert story.wait(11).told == [("violated", "a", 10, 10)]

    def test_a_device_without_a_clock_is_taken_by_its_arrival(self) -> None:
        story = Story(ABSENCE).reading(0, occurred=-NOON / 1e6 + 30)
        assert story.skipped == ["no_clock"]
        assert story.wait(10).told == []

    def test_late_events_of_a_settled_link_are_judged_by_their_own_time(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("closed", 10.1, occurred=9)
        assert story.told == []

    def test_what_waited_at_the_broker_proves_no_silence(self) -> None:
        story = Story(ABSENCE).reading(0, subject="a").reading(0, subject="b")
        story.reading(3600, subject="a", trusted=False)
        assert story.told == []
        story.wait(3601)
        assert story.told == [("violated", "b", 10, 10)]

    def test_what_waited_at_the_broker_is_believed_when_it_says_when_it_happened(self) -> None:
        story = Story(DEADLINE).event("opened", 0)
        story.event("closed", 3600, occurred=12, trusted=False)
        assert story.told == [("violated", "a", 10, 10), ("resolved", "a", 10, 12)]
        story.event("opened", 3600.1, occurred=20, trusted=False)
        story.event("closed", 3600.2, occurred=30, trusted=False)
        assert story.told[2:] == []

    def test_a_turn_that_fails_has_not_happened(self) -> None:
        story = Story(ABSENCE).reading(0).reading(0, subject="b")
        before = dict(story.judge.instances)

        def fail() -> None:
            with story.judge.turn() as turn:
                turn.elapse(micro(10.4))
                turn.observe(event(3, recorded=12, subject="c"), trusted=True)
                assert len(turn.verdicts) == 2
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert story.judge.instances == before
        assert story.judge.earliest() == micro(10)
        assert len(story.wait(20).told) == 2

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
    def test_a_step_of_the_clock_leaves_what_was_left(self, step: float) -> None:
        story = Story(ABSENCE).reading(0)
        with story.judge.turn() as turn:
            turn.set_clock(micro(4 + step), round(step * 1e6))
        assert story.wait(step + 10).told == []
        assert story.wait(step + 10.1).told == [("violated", "a", step + 10, step + 10)]

    def test_after_a_step_back_new_events_count(self) -> None:
        story = Story(THRESHOLD).reading(0, 6)
        with story.judge.turn() as turn:
            turn.set_clock(micro(-3600), -3600_000_000)
        assert story.reading(-3599, 4).state() == "ok"

    def test_deadlines_out_of_reach_are_brought_back_at_load(self) -> None:
        (contract,) = contracts_of(ABSENCE)
        judge = Judge([contract])
        judge.load([("reports", Instance(subject="a", state="ok", since=NOON, deadline_at=micro(1e6)))], NOON)
        assert judge.earliest() == micro(10)

    def test_there_is_a_most_of_subjects(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edgeq.contracts.turn.INSTANCES_MAX", 2)
        story = Story(ABSENCE).reading(0, subject="a").reading(0, subject="b").reading(0, subject="c")
        assert story.skipped == ["too_many_subjects"]
        assert story.reading(1, subject="b").skipped == []
