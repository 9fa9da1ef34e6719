"""Each kind at its edges: exactly at the limit, a microsecond before and after, nothing yet, twice, late, out
of order.
"""

from __future__ import annotations

from typing import Any

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
