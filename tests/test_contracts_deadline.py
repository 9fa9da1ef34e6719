"""Contracts of kind `deadline` at their edges: exactly at the deadline, a microsecond before and after, nothing yet,
twice, late, out of order, several at once."""

from __future__ import annotations

from typing import Any

import pytest
from support.contracts import DEADLINE, Story, contracts_of, event, micro, problems_of
from support.plays import scenes, told

from edgeq.contracts.deadline import OPEN_MAX, DeadlineMemory
from edgeq.events import from_json

US = 1e-6
PING = {**DEADLINE, "after": "ping", "expect": "ping"}


def open_at(story: Story, subject: str = "a") -> list[float]:
    """When the deadlines were opened that are remembered, in seconds."""
    memory = story.judge.instances[("closes", subject)].memory
    assert isinstance(memory, DeadlineMemory)
    return [(each.at - micro(0)) / 1e6 for each in memory.open]


@pytest.mark.parametrize(
    ("happened", "until", "expected"),
    [
        ([], 999, []),
        (["closed 0", "closed 1"], 999, []),
        (["opened 0"], 10, []),
        (["opened 0"], 10 + US, [("violated", 10, 10)]),
        (["opened 0"], 999, [("violated", 10, 10)]),
        (["opened 0", "closed 9.999999"], 999, []),
        (["opened 0", "closed 10"], 999, []),
        (["opened 0", "closed 10.000001"], 999, [("violated", 10, 10), ("resolved", 10, 10.000001)]),
        (["opened 0", "opened 0", "closed 1", "closed 1"], 999, []),
        (["opened 0", "closed 0"], 999, []),
        (["closed 0", "opened 0"], 999, [("violated", 10, 10)]),
        # several at once
        (["opened 0", "opened 9", "closed 9.5"], 999, []),
        (["opened 0", "opened 9"], 999, [("violated", 10, 10)]),
        (["opened 0", "opened 9", "closed 18"], 999, [("violated", 10, 10), ("resolved", 10, 18)]),
        (["opened 0", "opened 15", "closed 16"], 999, [("violated", 10, 10), ("resolved", 10, 16)]),
        (["opened 0", "closed 12", "opened 13"], 999,
         [("violated", 10, 10), ("resolved", 10, 12), ("violated", 23, 23)]),
        # a late answer closes what was opened before its own time
        (["opened 0", "opened 8", "closed 5 recorded 9"], 18, []),
        (["opened 0", "opened 8", "closed 5 recorded 9"], 18 + US, [("violated", 18, 18)]),
        (["opened 0", "opened 5", "closed 5 recorded 6"], 999, []),
        (["opened 0", "opened 5", "closed 4.999999 recorded 6"], 999, [("violated", 15, 15)]),
        (["opened 0", "opened 8", "closed 5 recorded 9", "closed 8.5"], 999, []),
        # what was told is not taken back
        (["opened 0", "opened 11", "closed 5 recorded 12"], 21, [("violated", 10, 10), ("resolved", 10, 10)]),
        (["opened 0", "opened 11", "closed 5 recorded 12"], 22,
         [("violated", 10, 10), ("resolved", 10, 10), ("violated", 21, 21)]),
        # it stays violated while one that has passed is open
        (["opened 0", "opened 2", "closed 1 recorded 13"], 99, [("violated", 10, 10)]),
        (["opened 0", "opened 2", "closed 1 recorded 13", "closed 14"], 99,
         [("violated", 10, 10), ("resolved", 10, 14)]),
        (["opened 0", "opened 2", "closed 1 recorded 13", "closed 3 recorded 14"], 99,
         [("violated", 10, 10), ("resolved", 10, 10)]),
        # a late question
        (["closed 5", "opened 3 recorded 6"], 999, []),
        (["closed 5", "opened 5 recorded 6"], 15, []),
        (["closed 5", "opened 5 recorded 6"], 15 + US, [("violated", 15, 15)]),
        (["opened 6", "opened 3 recorded 7"], 13, []),
        (["opened 6", "opened 3 recorded 7"], 13 + US, [("violated", 13, 13)]),
        (["closed 2", "opened 6", "opened 3 recorded 7", "closed 7.5"], 999, []),
        (["closed 2", "opened 1 recorded 30"], 999, []),
        # a question of which nobody had heard before its deadline passed
        (["opened 0 recorded 60"], 119.7, []),
        (["opened 0 recorded 60"], 120, [("violated", 10, 10)]),
        (["opened 0 recorded 60", "closed 5 recorded 60.1"], 999, []),
        (["opened 0 recorded 60", "closed 10 recorded 60.1"], 999, []),
        (["opened 0 recorded 60", "closed 10.000001 recorded 60.1"], 999,
         [("violated", 10, 10), ("resolved", 10, 10.000001)]),
        (["opened 0 recorded 60", "opened 20 recorded 60.1", "closed 25 recorded 60.2"], 999,
         [("violated", 10, 10), ("resolved", 10, 25)]),
        (["opened 0 recorded 60", "opened 61", "closed 5 recorded 62"], 71, []),
        (["opened 0 recorded 60", "opened 61", "closed 5 recorded 62"], 71 + US, [("violated", 71, 71)]),
        (["opened 0 recorded 60", "opened 61", "closed 62"], 999, [("violated", 10, 10), ("resolved", 10, 62)]),
    ],
)  # fmt: skip
def test_what_it_says_with_and_without_restarts(happened: list[str], until: float, expected: list[Any]) -> None:
    assert told(DEADLINE, scenes(*happened), until) == expected


@pytest.mark.parametrize(
    ("happened", "until", "expected"),
    [
        (["ping 0", "ping 10", "ping 20"], 30, []),
        (["ping 0", "ping 5", "ping 14"], 24, []),
        (["ping 0", "ping 5", "ping 14", "ping 31"], 41, [("violated", 24, 24), ("resolved", 24, 31)]),
        (["ping 0", "ping 31"], 42, [("violated", 10, 10), ("resolved", 10, 31), ("violated", 41, 41)]),
        (["ping 0", "ping 8", "ping 4 recorded 9"], 18, []),
        (["ping 0 recorded 60", "ping 20 recorded 60.1"], 61, [("violated", 10, 10), ("resolved", 10, 20)]),
    ],
)
def test_one_event_may_be_both(happened: list[str], until: float, expected: list[Any]) -> None:
    assert told(PING, scenes(*happened), until) == expected


def test_patterns_may_overlap() -> None:
    mapping = {**DEADLINE, "after": "door.*", "expect": "door.closed"}
    assert told(mapping, scenes("door.opened 0", "door.closed 5"), 16) == [("violated", 15, 15)]


class TestDeadline:
    """`within: 10s`."""

    def test_the_state_is_seen(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("opened", 3)
        assert (story.state(), story.judge.earliest()) == ("pending", micro(10))
        story.event("closed", 3, occurred=2)
        assert (story.state(), story.judge.earliest()) == ("pending", micro(13))
        assert story.event("closed", 4).state() == "ok"
        assert story.judge.earliest() is None

    def test_each_request_has_its_own_response(self) -> None:
        story = Story({**DEADLINE, "by": "data.request"})
        for number in range(3):
            story.event("opened", number, data={"request": number})
        story.event("closed", 5, subject="elsewhere", data={"request": 1}).restart(6).wait(20)
        assert story.told == [("violated", "0", 10, 10), ("violated", "2", 12, 12)]
        assert story.event("opened", 20).skipped == ["missing_field"]

    def test_where_is_about_the_question(self) -> None:
        contract = {**DEADLINE, "where": {"side": "out"}}
        assert Story(contract).event("opened", 0, data={"side": "in"}).wait(100).told == []
        story = Story(contract).event("opened", 0, data={"side": "out"}).event("closed", 5)
        assert story.wait(100).told == []

    def test_what_was_judged_already_changes_nothing(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("closed", 1)
        with story.judge.turn() as turn:
            turn.observe(event(1, "opened", recorded=0), trusted=True)
        assert turn.changed == {}

    @pytest.mark.parametrize(("occurred", "skipped", "left"), [(10, [], [15]), (10 - US, ["too_late"], [9, 15])])
    def test_how_late_an_answer_may_be(self, occurred: float, skipped: list[str], left: list[float]) -> None:
        story = Story({**DEADLINE, "within": "1h", "lateness": "5s"}).event("opened", 9).event("opened", 15)
        story.event("closed", 16, occurred=occurred)
        assert (story.skipped, open_at(story)) == (skipped, left)

    def test_it_says_how_late_from_the_first_on(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("opened", 2).wait(20)
        story.event("closed", 20, occurred=1).event("closed", 25.5)
        data = from_json(story.events[-1].data_json)
        assert (data["late_by_seconds"], data["duration_seconds"], data["observed"]) == (15.5, 15.5, "closed")
        assert story.events[-1].description == "closes: a resolved, 15.5s late"

    def test_the_event_to_blame_is_the_first_whose_deadline_passes(self) -> None:
        story = Story({**DEADLINE, "message": "door {data.door}", "lateness": "1m"})
        for second, door in ((0, 1), (2, 2), (3, 3)):
            story.event("opened", second, data={"door": door})
        story.event("closed", 4, occurred=1).restart(5).wait(13)
        assert story.told == [("violated", "a", 12, 12)]
        assert (story.events[-1].description, story.events[-1].cause_id) == ("closes: door 2", 2)
        story = Story({**DEADLINE, "message": "door {data.door}"}).event("opened", 5, data={"door": 1})
        story.event("opened", 6, occurred=3, data={"door": 2}).wait(14)
        assert (story.events[-1].description, story.events[-1].cause_id) == ("closes: door 2", 2)
        story = Story({**DEADLINE, "message": "door {data.door}"}).event("opened", 60, occurred=0, data={"door": 1})
        story.event("opened", 60, occurred=58, data={"door": 2}).wait(69)
        assert (story.events[-1].description, story.events[-1].cause_id) == ("closes: door 2", 2)

    def test_while_nothing_is_violated_the_first_is_to_blame(self) -> None:
        story = Story(DEADLINE).event("opened", 3).event("opened", 4).event("opened", 5, occurred=1)
        memories = [story.judge.instances[("closes", "a")].memory]
        memories.append(story.event("closed", 6, occurred=3).judge.instances[("closes", "a")].memory)
        assert [memory.cause_id for memory in memories] == [3, 2]

    def test_what_was_heard_of_late_does_not_hide_what_passes_before(self) -> None:
        story = Story({**DEADLINE, "within": "100s"}).event("opened", 150, occurred=0)
        story.event("opened", 150.1, occurred=60).event("opened", 150.2, occurred=130).wait(160 + US)
        assert story.told == [("violated", "a", 160, 160)]

    def test_each_violation_is_an_episode_of_its_own(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("closed", 12).event("opened", 13).event("closed", 30)
        assert [verdict.episode for _, _, verdict in story.verdicts] == [1, 1, 2, 2]

    def test_what_waited_at_the_broker_proves_no_silence(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("closed", 3600, trusted=False)
        assert story.told == []
        story.event("opened", 3600, occurred=20, trusted=False).event("closed", 3600, trusted=False)
        assert (story.told, story.wait(9999).told) == ([], [])
        story = Story(DEADLINE).event("opened", 60, occurred=0).event("closed", 3600, trusted=False)
        assert (story.told, story.state()) == ([], "ok")

    def test_what_it_says(self) -> None:
        story = Story({**DEADLINE, "message": "{subject} stands open"}).event("opened", 0).wait(20)
        assert (story.events[-1].description, story.events[-1].cause_id) == ("closes: a stands open", 1)
        assert from_json(story.events[-1].data_json)["message"] == "a stands open"
        data = from_json(story.event("closed", 25.5).events[-1].data_json)
        assert (data["cause"], data["since"]) == (2, micro(10))
        story = Story(DEADLINE).event("opened", 0).wait(20)
        assert story.events[-1].description == "closes: a no closed within 10s of opened"

    def test_it_recalls_what_is_open(self) -> None:
        story = Story(DEADLINE).event("opened", 0)
        contract, key = story.judge.contracts["closes"], ("closes", "a")
        story.event("opened", 3)
        assert contract.recalls(story.judge.instances[key]) == "opened without an answer since 2026-01-01T12:00:00.000Z"
        assert contract.recalls(story.event("closed", 5).judge.instances[key]) == ""

    @pytest.mark.parametrize("step", [6 * 3600, -14 * 86400, 56 * 365 * 86400])
    def test_a_step_of_the_clock_leaves_what_was_left_of_each(self, step: int) -> None:
        story = Story(DEADLINE).event("opened", 0).event("opened", 3).event("opened", 3.5, occurred=-3)
        with story.judge.turn() as turn:
            turn.set_clock(micro(4 + step), step * 1_000_000)
        story.event("closed", 4.5 + step, occurred=1 + step).restart(5 + step)
        assert open_at(story) == [3 + step]
        assert story.wait(13 + step).told == []
        assert story.wait(13 + step + US).told == [("violated", "a", 13 + step, 13 + step)]

    def test_after_a_step_of_the_clock_what_was_answered_stays_so(self) -> None:
        story = Story(DEADLINE).event("opened", 0).event("closed", 5)
        with story.judge.turn() as turn:
            turn.set_clock(micro(6 + 3600), 3600_000_000)
        assert story.event("opened", 3607, occurred=3603).wait(3700).told == []

    def test_a_clock_that_is_behind_after_a_start(self) -> None:
        story = Story(DEADLINE).event("opened", 1000).restart(50).wait(60)
        assert story.told == []
        assert story.wait(60 + US).told == [("violated", "a", 60, 60)]

    def test_what_happened_while_the_link_was_down_has_its_full_time_afterwards(self) -> None:
        story = Story({**DEADLINE, "suppressed_by": "link", "lateness": "1h"}).event("opened", 0).event("opened", 4)
        with story.judge.turn() as turn:
            turn.lose_link(micro(5))
            turn.regain_link(micro(1000))
        story.event("closed", 1001, occurred=3).restart(1002)
        assert open_at(story) == [4]
        assert story.wait(1010).told == []
        assert story.wait(1010 + US).told == [("violated", "a", 1010, 1010)]

    def test_what_was_heard_of_late_waits_for_the_link_too(self) -> None:
        story = Story({**DEADLINE, "suppressed_by": "link"}).event("opened", 60, occurred=0)
        with story.judge.turn() as turn:
            turn.lose_link(micro(70))
            turn.regain_link(micro(1000))
        assert story.wait(1060).told == []
        assert story.wait(1060 + US).told == [("violated", "a", 1010, 1010)]

    def test_out_of_force_what_is_open_is_dropped(self) -> None:
        story = Story({**DEADLINE, "active": {"times": "12:00-12:01", "timezone": "UTC"}}).event("opened", 55)
        story.event("opened", 70).restart(80).wait(86400 + 30)
        assert story.told == []
        assert story.event("opened", 86400 + 31).wait(86400 + 42).told == [("violated", "a", 86441, 86441)]


class TestMany:
    """What is remembered of many, and what isn't."""

    def test_only_what_a_late_answer_may_leave_open_is_remembered(self) -> None:
        story = Story({**DEADLINE, "lateness": "5s", "within": "1h"})
        for second in range(100):
            story.event("opened", second)
            assert len(open_at(story)) <= 6
        assert open_at(story) == [0, 95, 96, 97, 98, 99]
        assert open_at(story.event("closed", 99, occurred=94)) == [95, 96, 97, 98, 99]
        assert open_at(story.event("closed", 99.5, occurred=96)) == [97, 98, 99]

    @pytest.mark.parametrize("late", [True, False])
    def test_there_is_a_most(self, late: bool) -> None:
        story = Story(DEADLINE)
        for number in range(OPEN_MAX):
            story.event("opened", number / 1000)
        assert story.skipped == []
        assert story.event("opened", 2, occurred=-1 if late else 2).skipped == ["too_many_open"]
        assert len(open_at(story)) == OPEN_MAX
        assert story.wait(10 + US).told == [("violated", "a", 10, 10)]
        assert story.event("closed", 11).told[1:] == [("resolved", "a", 10, 11)]
        assert (story.event("opened", 12).skipped, open_at(story)) == ([], [12])

    def test_ten_thousand_subjects(self) -> None:
        story = Story(DEADLINE)
        for number in range(10_000):
            story.event("opened", number / 10_000, subject=str(number))
        story.restart(5).event("closed", 6, subject="7777")
        assert story.wait(10).told == []
        late = [str(number) for number in range(9999) if number != 7777]
        assert [subject for _, subject, _, _ in story.wait(10.9999).told] == late
        assert story.told[5000] == ("violated", "5000", 10.5, 10.5)
        assert len(story.restart(12).wait(13).told) == 9999
        assert story.judge.earliest() is None


class TestOtherKeys:
    """What becomes of the state when the contract is loaded with other keys."""

    @pytest.mark.parametrize(("within", "at"), [("20s", 20), ("5s", 5), ("1s", 1)])
    def test_the_deadline_lies_where_it_belongs(self, within: str, at: float) -> None:
        story = Story(DEADLINE).event("opened", 0).event("opened", 3).start(4, {**DEADLINE, "within": within})
        assert story.wait(at).told == []
        assert story.wait(at + US).wait(99).told == [("violated", "a", at, at)]

    def test_what_is_violated_stays_so(self) -> None:
        story = Story(DEADLINE).event("opened", 0).wait(11).start(12, {**DEADLINE, "within": "1h"}).wait(13)
        assert (story.state(), len(story.told)) == ("violated", 1)
        assert story.event("closed", 14).told[1:] == [("resolved", "a", 10, 14)]

    def test_what_means_something_else(self) -> None:
        (contract, *others) = contracts_of(
            DEADLINE, {**DEADLINE, "name": "within", "within": "1h"}, {**DEADLINE, "name": "late", "lateness": "1h"},
            {**DEADLINE, "name": "after", "after": "x"}, {**DEADLINE, "name": "expect", "expect": "x"},
            {**DEADLINE, "name": "by", "by": "data.x"}, {**DEADLINE, "name": "where", "where": {"x": 1}},
        )  # fmt: skip
        assert [other.name for other in others if other.meaning == contract.meaning] == ["within", "late"]


@pytest.mark.parametrize(
    ("mapping", "path", "message"),
    [
        ({**DEADLINE, "within": "0s"}, "within", "must be more than 0"),
        ({**DEADLINE, "within": "soon"}, "within", "is not a duration"),
        ({**DEADLINE, "within": 10}, "within", "no unit"),
        ({**DEADLINE, "after": "contract.violated"}, "after", "never judges contracts"),
        ({**DEADLINE, "expect": "contract.*"}, "expect", "never judges contracts"),
        ({**DEADLINE, "expect": ["a", "b"]}, "expect", "must be text"),
        ({**DEADLINE, "expct": "a"}, "expct", "did you mean 'expect'?"),
        ({key: value for key, value in DEADLINE.items() if key != "within"}, "within", "is missing"),
    ],
)
def test_a_mistake_is_named_with_its_key(mapping: dict[str, Any], path: str, message: str) -> None:
    problems = problems_of(mapping)
    assert [problem.path for problem in problems] == [f"contracts[0].{path}"]
    assert message in str(problems[0])
