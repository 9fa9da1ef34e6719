"""Each kind at its edges: exactly at the limit, a microsecond before and after, nothing yet, twice, late, out
of order.
"""

from __future__ import annotations

import pytest
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, Story, contracts_of, event, micro

from edgeq.contracts.instance import Instance
from edgeq.contracts.judge import Judge
from edgeq.contracts.verdict_event import verdict_event
from edgeq.events import NewEvent
from edgeq.testing.clock import NOON

US = 1e-6


def only_event(story: Story) -> NewEvent:
    """The event for the last verdict of a story."""
    assert story.turn is not None
    ((contract, instance, verdict),) = story.turn.verdicts
    return verdict_event(contract, instance, verdict, micro(100))


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

    def test_known_subjects_count_and_are_watched_even_if_there_are_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edgeq.contracts.turn.INSTANCES_MAX", 2)
        (contract,) = contracts_of({**ABSENCE, "known": ["a", "b", "c"]})
        judge = Judge([contract])
        with judge.turn() as turn:
            for instance in contract.initial(NOON):
                turn.begin(contract, instance, NOON)
            turn.observe(event(1, subject="d"), trusted=True)
        assert [(skip.reason, skip.subject) for skip in turn.skipped] == [("too_many_subjects", "d")]
        assert [subject for _, subject in judge.instances] == ["a", "b", "c"]
