"""What the world is told of contracts: in force or not, suppressed, cooldowns, reminders, flapping, unknown; and that a
restart at any moment changes none of it.

Times are seconds after NOON, a Thursday, in UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.contracts import ABSENCE, DEADLINE, THRESHOLD, Story, micro

from edgeq.contracts.contract import Contract
from edgeq.contracts.instance import Change, Instance, Shown, Skipped, Step, resolved, unknown, violated
from edgeq.contracts.keys import EventType, Keys
from edgeq.contracts.kinds import KINDS
from edgeq.contracts.telling import Teller
from edgeq.events import Event, from_json
from edgeq.testing.clock import NOON

US = 1e-6
COLD = {**THRESHOLD, "above": 5}


class GaugeKeys(Keys, frozen=True, kw_only=True):
    of: EventType


class Gauge(Contract):
    """Is what its events say: `{"state": "violated"}`."""

    kind = "gauge"
    keys_type = GaugeKeys
    keys: GaugeKeys

    @property
    def types(self) -> tuple[str, ...]:
        return (self.keys.of,)

    @property
    def patience_microseconds(self) -> int:
        return 0

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        state = event.data["state"]
        memory = replace(instance.memory, newest=at, event_id=event.id, cause_id=event.id, observed=state)
        if state == "violated" and instance.state != "violated":
            return violated(instance, at, memory)
        if state == "ok" and instance.state == "violated":
            return resolved(instance, at, memory)
        if state == "unknown" and instance.state != "unknown":
            return unknown(instance, at, memory)
        return Step(replace(instance, state=state, memory=memory))

    def elapse(self, instance: Instance) -> Step:
        raise AssertionError

    def complaint(self, observed: Any) -> str:
        return "is bad"


class BothKeys(Keys, frozen=True, kw_only=True):
    all: list[str]


class Both(Contract):
    """Violated while all of its contracts are."""

    kind = "both"
    keys_type = BothKeys
    keys: BothKeys

    @property
    def types(self) -> tuple[str, ...]:
        return ()

    @property
    def patience_microseconds(self) -> int:
        return 0

    @property
    def of_contracts(self) -> tuple[str, ...]:
        return tuple(self.keys.all)

    def place_of(self, name: str) -> str:
        return f"all[{self.keys.all.index(name)}]"

    def observe(self, instance: Instance, event: Event, at: int, watermark: int) -> Step | Skipped:
        raise AssertionError

    def observe_state(self, instance: Instance, change: Change, states: Mapping[str, Shown]) -> Step:
        memory = replace(instance.memory, newest=change.at, cause_id=change.cause_id, observed=dict(states))
        bad = all(state == "violated" for state in states.values())
        if bad and instance.state != "violated":
            return violated(instance, change.at, memory)
        if not bad and instance.state == "violated":
            return resolved(instance, change.at, memory)
        return Step(replace(instance, state="violated" if bad else "ok"))

    def elapse(self, instance: Instance) -> Step:
        raise AssertionError

    def complaint(self, observed: Any) -> str:
        return "has everything against it"


@pytest.fixture(autouse=True, scope="module")
def _kinds() -> Iterator[None]:
    KINDS.update(gauge=f"{__name__}:Gauge", both=f"{__name__}:Both")
    yield
    del KINDS["gauge"], KINDS["both"]


GAUGE = {"name": "gauge", "kind": "gauge", "of": "gauge"}


class Told(Story):
    """A story of gauges."""

    def gauge(self, at: float, state: str, subject: str = "a", **rest: Any) -> Told:
        self.event("gauge", at, data={"state": state}, subject=subject, **rest)
        return self

    def bad(self, *times: float, subject: str = "a") -> Told:
        """Violated at each of these times, until right after."""
        for at in times:
            self.gauge(at, "violated", subject).gauge(at + 1, "ok", subject)
        return self

    def words(self, subject: str | None = None) -> list[tuple[Any, ...]]:
        """What was told, as (what, since, at, episode, and whatever else there is to say)."""
        return [
            (v.what, seconds(v.since), seconds(v.at), v.episode, *filter(None, (v.reason, v.reminder)))
            for _, whose, v in self.verdicts
            if subject in (None, whose)
        ]


def seconds(at: int) -> float:
    return (at - micro(0)) / 1e6


def what(verdicts: Iterable[tuple[Any, ...]]) -> list[str]:
    return [verdict[0] for verdict in verdicts]


class TestCooldown:
    """`cooldown: 10s`."""

    COOL: ClassVar = {**GAUGE, "cooldown": "10s"}

    def test_a_violation_within_it_that_does_not_stand_is_not_told(self) -> None:
        story = Told(self.COOL).bad(0, 5, 8)
        story.wait(100)
        assert story.words() == [("violated", 0, 0, 1), ("resolved", 0, 1, 1)]

    def test_a_violation_that_still_stands_is_told_when_it_is_over(self) -> None:
        story = Told(self.COOL).bad(0).gauge(5, "violated")
        assert (story.shown(), story.state()) == ("pending", "violated")
        assert story.rows()[0].deadline_at == micro(11)
        story.wait(11)
        assert len(story.words()) == 2
        story.wait(11 + US)
        assert story.words()[2:] == [("violated", 5, 11, 2)]
        assert story.shown() == "violated"
        story.gauge(20, "ok")
        assert story.words()[3:] == [("resolved", 5, 20, 2)]

    @pytest.mark.parametrize(("end", "told"), [(11 - US, False), (11, False), (11 + US, True)])
    def test_one_that_ends_with_it(self, end: float, told: bool) -> None:
        story = Told(self.COOL).bad(0).gauge(5, "violated").gauge(end, "ok").wait(60)
        assert isinstance(story, Told)
        assert (len(story.words()) == 4) is told

    @pytest.mark.parametrize(("begin", "at_once"), [(11 - US, False), (11, True), (11 + US, True)])
    def test_one_that_begins_with_its_end(self, begin: float, at_once: bool) -> None:
        story = Told(self.COOL).bad(0).gauge(begin, "violated")
        assert (len(story.words()) == 3) is at_once

    def test_it_counts_from_the_last_one_that_was_told(self) -> None:
        story = Told(self.COOL).bad(0, 5, 9.5).bad(12)
        assert what(story.words()) == ["violated", "resolved"] * 2

    def test_subjects_cool_down_apart(self) -> None:
        story = Told(self.COOL).bad(0).bad(3, subject="b")
        assert what(story.words("b")) == ["violated", "resolved"]

    def test_what_follows_on_unknown_is_told_at_once(self) -> None:
        story = Told(self.COOL).bad(0).gauge(3, "unknown").gauge(5, "violated")
        assert story.words()[2:] == [("unknown", 3, 3, 1, "gap"), ("violated", 5, 5, 2)]
        assert story.shown() == "violated"

    def test_what_follows_on_flapping_is_told_at_once(self) -> None:
        flap = {**GAUGE, "cooldown": "1h", "flapping": {"changes": 3, "within": "10s"}}
        story = Told(flap).bad(0).gauge(3, "violated").wait(14)
        assert isinstance(story, Told)
        assert story.words()[2:] == [("flapping", 0, 3, 2), ("violated", 3, 13, 2)]

    def test_without_it_any_more_what_was_held_back_is_told(self) -> None:
        story = Told(self.COOL).bad(0).gauge(5, "violated")
        story.start(7, GAUGE)
        assert story.words()[2:] == [("violated", 5, 7, 2)]

    def test_a_longer_one_counts_from_the_same_moment(self) -> None:
        story = Told(self.COOL).bad(0).gauge(5, "violated")
        story.start(7, {**GAUGE, "cooldown": "20s"}).wait(21)
        assert len(story.words()) == 2
        story.wait(22)
        assert story.words()[2:] == [("violated", 5, 21, 2)]


class TestRemind:
    """`remind: 10s`."""

    REMIND: ClassVar = {**GAUGE, "remind": "10s"}

    def test_it_is_told_again_until_it_is_resolved(self) -> None:
        story = Told(self.REMIND).gauge(0, "violated").gauge(4, "violated")
        for second in range(1, 26):
            story.wait(second)
        story.gauge(30, "ok").wait(99)
        assert story.words() == [
            ("violated", 0, 0, 1), ("violated", 0, 10, 1, 1), ("violated", 0, 20, 1, 2), ("resolved", 0, 30, 1),
        ]  # fmt: skip
        assert [each.data_json.count('"reminder":') for each in story.events] == [0, 1, 1, 0]
        assert story.events[2].description == "gauge: a is bad (reminder 2, for 20s)"
        assert len({each.idempotency_key for each in story.events}) == 4

    def test_only_the_last_of_those_that_nobody_told_is(self) -> None:
        story = Told(self.REMIND).gauge(0, "violated").restart(3600).wait(3605).wait(3610).wait(3611)
        assert isinstance(story, Told)
        assert story.words()[1:] == [("violated", 0, 3600, 1, 360), ("violated", 0, 3610, 1, 361)]

    def test_a_backlog_is_reminded_of_in_its_own_time(self) -> None:
        story = Told(self.REMIND).gauge(0, "violated").gauge(15, "violated").gauge(35, "ok")
        assert story.words()[1:] == [("violated", 0, 10, 1, 1), ("violated", 0, 30, 1, 3), ("resolved", 0, 35, 1)]

    def test_not_after_the_violation_is_over_by_itself(self) -> None:
        warm = {**COLD, "remind": "4s", "clear": {"below": 3, "for": "10s"}}
        story = Told(warm).reading(0, 7).reading(1, 2).wait(60)
        assert isinstance(story, Told)
        assert story.words() == [("violated", 0, 0, 1), ("violated", 0, 8, 1, 2), ("resolved", 0, 11, 1)]

    def test_reminders_of_another_period_begin_with_the_start(self) -> None:
        story = Told(GAUGE).gauge(0, "violated")
        story.start(5, self.REMIND).wait(16)
        assert story.words()[1:] == [("violated", 0, 15, 1, 1)]
        story.start(17, {**GAUGE, "remind": "4s"}).wait(22)
        assert story.words()[2:] == [("violated", 0, 21, 1, 4)]


class TestFlapping:
    """`changes: 4` within 10s."""

    FLAP: ClassVar = {**GAUGE, "flapping": {"changes": 4, "within": "10s"}}

    def test_the_last_of_so_many_changes_is_told_to_flap(self) -> None:
        story = Told(self.FLAP).bad(0, 4)
        assert story.words() == [
            ("violated", 0, 0, 1), ("resolved", 0, 1, 1), ("violated", 4, 4, 2), ("flapping", 0, 5, 2),
        ]  # fmt: skip
        assert story.shown() == "suppressed"
        assert story.events[-1].type == "contract.flapping"
        assert story.events[-1].description == "gauge: a flapping: 4 changes within 5s"

    @pytest.mark.parametrize(("last", "flaps"), [(10 - US, True), (10, True), (10 + US, False)])
    def test_within_is_from_the_first_to_the_last(self, last: float, flaps: bool) -> None:
        story = Told(self.FLAP).bad(0).gauge(4, "violated").gauge(last, "ok")
        assert ("flapping" in what(story.words())) is flaps

    def test_then_nothing_is_told_until_it_was_quiet_for_as_long(self) -> None:
        story = Told(self.FLAP).bad(0, 4, 8, 12, 22).wait(33)
        assert isinstance(story, Told)
        assert len(story.words()) == 4
        story.wait(33 + US)
        assert story.words()[4:] == [("resolved", 4, 33, 2)]
        assert story.shown() == "ok"
        assert story.verdicts[-1][2].ended_at == micro(23)

    @pytest.mark.parametrize(("change", "told"), [(15, False), (15 + US, True)])
    def test_a_change_exactly_then_is_a_change(self, change: float, told: bool) -> None:
        story = Told(self.FLAP).bad(0, 4).gauge(change, "violated")
        assert (len(story.words()) > 4) is told

    def test_what_stands_then_is_told_if_it_is_violated(self) -> None:
        story = Told(self.FLAP).bad(0, 4).gauge(6, "violated").wait(60)
        assert isinstance(story, Told)
        assert story.words()[4:] == [("violated", 4, 16, 2)]  # the episode that was told and never resolved
        story.gauge(70, "ok")
        assert story.words()[5:] == [("resolved", 4, 70, 2)]

    def test_an_end_without_an_open_episode(self) -> None:
        flap = {**GAUGE, "flapping": {"changes": 3, "within": "10s"}}
        story = Told(flap).bad(0).gauge(3, "violated")
        assert story.words()[2:] == [("flapping", 0, 3, 2)]
        story.gauge(4, "ok").wait(60)
        assert story.words()[3:] == [("resolved", 3, 14, 2, "steady")]
        assert story.events[-1].description == "gauge: a steady again"
        story = Told(flap).bad(0).gauge(3, "violated").wait(60)  # type: ignore[assignment]
        assert story.words()[3:] == [("violated", 3, 13, 2)]

    def test_changes_that_a_cooldown_holds_back_count(self) -> None:
        story = Told({**self.FLAP, "cooldown": "1h"}).bad(0, 2)
        assert what(story.words()) == ["violated", "resolved", "flapping"]

    def test_without_it_any_more_what_stands_is_told(self) -> None:
        story = Told(self.FLAP).bad(0, 4)
        story.start(7, GAUGE)
        assert story.words()[4:] == [("resolved", 4, 7, 2)]
        assert story.rows()[0].state == "ok"


class TestUnknown:
    """A kind that says that it doesn't know."""

    def test_it_is_told_once_and_its_end_too(self) -> None:
        story = Told(GAUGE).gauge(0, "ok").gauge(5, "unknown").gauge(6, "unknown").gauge(9, "ok")
        assert story.words() == [("unknown", 5, 5, 0, "gap"), ("resolved", 5, 9, 0, "known")]
        assert [each.description for each in story.events] == [
            "gauge: a unknown: there is nothing to judge by", "gauge: a known again",
        ]  # fmt: skip

    def test_an_open_violation_goes_on_or_ends_after_it(self) -> None:
        story = Told(GAUGE).gauge(0, "violated").gauge(5, "unknown").gauge(9, "violated").gauge(12, "ok")
        assert story.words() == [
            ("violated", 0, 0, 1), ("unknown", 5, 5, 1, "gap"), ("violated", 0, 9, 1), ("resolved", 0, 12, 1),
        ]  # fmt: skip
        assert len({each.idempotency_key for each in story.events}) == 4
        story = Told(GAUGE).gauge(0, "violated").gauge(5, "unknown").gauge(9, "ok")
        assert story.words()[2:] == [("resolved", 0, 9, 1)]

    def test_it_may_become_violated(self) -> None:
        story = Told(GAUGE).gauge(0, "ok").gauge(5, "unknown").gauge(9, "violated").gauge(12, "ok")
        assert story.words()[1:] == [("violated", 9, 9, 1), ("resolved", 9, 12, 1)]

    def test_nothing_to_judge_by_yet_is_not_told(self) -> None:
        story = Told({**ABSENCE, "known": ["a"]}).reading(1)
        assert story.verdicts == []


class TestOtherKeys:
    """A kind that says what becomes of an instance under other values of its keys."""

    @pytest.mark.parametrize("before", ["violated", "ok"])
    def test_what_follows_is_told(self, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
        story = Told({**GAUGE, "of": "gauge"}).gauge(0, before)
        after = "ok" if before == "violated" else "violated"
        monkeypatch.setattr(Gauge, "adapted", lambda self, instance: replace(instance, state=after, since=micro(3)))
        story.restart(4)
        assert story.state() == before, "the keys are the same"
        monkeypatch.setattr(Gauge, "keys_id", 7)
        story.restart(5)
        assert story.state() == after
        assert story.words()[-1][:3] == (("resolved", 0, 5) if before == "violated" else ("violated", 3, 5))
        count = len(story.words())
        story.restart(6)
        assert len(story.words()) == count


def hours(begin: int, end: int, **more: Any) -> dict[str, Any]:
    """In force from so many minutes after NOON until so many."""
    times = f"{12 + begin // 60}:{begin % 60:02}-{12 + end // 60}:{end % 60:02}"
    return {"active": {"times": times, "timezone": "UTC", **more}}


class TestActive:
    """In force from a minute to two minutes after NOON."""

    KEEP: ClassVar = {**GAUGE, **hours(1, 2)}
    RESOLVE: ClassVar = {**GAUGE, **hours(1, 2, at_end="resolve")}

    @pytest.mark.parametrize(
        ("at", "judged"),
        [(0, False), (60 - US, False), (60, True), (120 - US, True), (120, False), (200, False), (86460, True)],
    )
    def test_only_what_happens_then_is_judged(self, at: float, judged: bool) -> None:
        story = Told(self.KEEP).gauge(at, "violated")
        assert (story.words() == [("violated", at, at, 1)]) is judged
        if not judged:
            assert story.judge.instances == {}

    def test_what_happened_is_judged_by_its_own_time(self) -> None:
        story = Told(self.KEEP).gauge(300, "violated", occurred=100)
        assert story.words() == [("violated", 100, 100, 1)]

    def test_what_is_not_violated_is_suppressed_at_the_end(self) -> None:
        story = Told(self.KEEP).gauge(70, "ok").wait(120)
        assert story.shown() == "ok"
        story.wait(120 + US)
        assert story.shown() == "suppressed"
        assert (story.rows()[0].state, story.rows()[0].deadline_at) == ("suppressed", micro(86460))
        story.gauge(130, "violated").wait(86460 + US)
        assert story.words() == []
        assert story.shown() == "unknown"
        assert story.gauge(86470, "violated").words() == [("violated", 86470, 86470, 1)]

    def test_kept_it_is_judged_until_it_is_resolved(self) -> None:
        story = Told(self.KEEP).gauge(70, "violated").wait(130)
        assert isinstance(story, Told)
        assert story.shown() == "violated"
        story.gauge(140, "ok").gauge(150, "violated")
        assert story.words() == [("violated", 70, 70, 1), ("resolved", 70, 140, 1)]
        assert story.shown() == "suppressed"

    def test_kept_until_it_is_in_force_again_nothing_has_happened(self) -> None:
        story = Told(self.KEEP).gauge(70, "violated").wait(90000).gauge(90001, "ok").gauge(90002, "violated")
        assert isinstance(story, Told)
        assert story.words() == [("violated", 70, 70, 1), ("resolved", 70, 90001, 1)]
        story = Told(self.KEEP).gauge(70, "violated").wait(86465).gauge(86466, "ok").gauge(86467, "violated")
        assert isinstance(story, Told)
        assert len(story.words()) == 3

    def test_resolved_it_is_over(self) -> None:
        story = Told(self.RESOLVE).gauge(70, "violated").wait(130)
        assert isinstance(story, Told)
        assert story.words() == [("violated", 70, 70, 1), ("resolved", 70, 120, 1, "inactive")]
        assert story.events[-1].description == "gauge: a no longer judged: the contract is not in force"
        assert from_json(story.events[-1].data_json)["duration_seconds"] == 50
        story.gauge(131, "ok").gauge(86461, "ok")
        assert len(story.words()) == 2

    def test_what_was_not_told_is_dropped(self) -> None:
        story = Told({**self.KEEP, "cooldown": "10m"}).bad(61).gauge(70, "violated").wait(900)
        assert isinstance(story, Told)
        assert len(story.words()) == 2
        assert story.shown() == "suppressed"

    def test_a_late_event_from_before_the_beginning_is_not_judged(self) -> None:
        story = Told(self.KEEP).gauge(70, "ok").wait(86461).gauge(86462, "violated", occurred=90)
        assert isinstance(story, Told)
        assert story.words() == []
        assert story.gauge(86463, "violated", occurred=86459.9).words() == []
        assert story.gauge(86464, "violated").words() != []

    def test_an_absence_gets_a_period_from_the_beginning(self) -> None:
        night = {**ABSENCE, **hours(1, 2)}
        story = Told(night).reading(65).wait(300)
        assert isinstance(story, Told)
        assert story.words() == [("violated", 75, 75, 1)]
        story.reading(301).wait(86460 + 10)
        assert what(story.words()) == ["violated", "resolved"]
        story.wait(86470 + US)
        assert story.words()[2:] == [("violated", 86470, 86470, 2)]

    def test_a_known_subject_is_suppressed_before_the_beginning(self) -> None:
        story = Told({**ABSENCE, "known": ["a"], **hours(1, 2)})
        assert story.shown() == "suppressed"
        story.wait(70)
        assert story.words() == []
        story.wait(71)
        assert story.words() == [("violated", 70, 70, 1)]

    def test_a_deadline_exactly_at_the_end_is_outside(self) -> None:
        door = {**DEADLINE, "within": "10s", **hours(1, 2)}
        assert Told(door).event("opened", 110).wait(200).told == []
        assert Told(door).event("opened", 110 - US).wait(200).told != []

    def test_validity(self) -> None:
        valid = {**GAUGE, "valid_from": "2026-01-01T12:01:00Z", "valid_until": "2026-01-01T12:02:00Z"}
        story = Told(valid).gauge(59, "violated").gauge(60, "violated").wait(999)
        assert isinstance(story, Told)
        assert story.words() == [("violated", 60, 60, 1)]
        assert story.shown() == "violated"
        story.gauge(1000, "ok")
        assert (len(story.words()), story.shown(), story.rows()[0].deadline_at) == (2, "suppressed", None)

    @pytest.mark.parametrize(
        ("waits", "changed"),
        [
            ({"kind": "sequence", "steps": ["opened", "closed"], "within": "30s"}, {"within": "31s"}),
            ({"kind": "requires", "of": "opened", "if": {"of": "closed", "after": "30s"}}, {"clear_after": "1h"}),
        ],
    )
    @pytest.mark.parametrize("by_the_clock", [False, True])
    def test_what_waited_at_the_end_waits_for_nothing_more(
        self, waits: dict[str, Any], changed: dict[str, Any], by_the_clock: bool
    ) -> None:
        waits = {"name": "waits", **waits, **hours(1, 2)}
        story = Told(waits).event("opened", 110).wait(121)
        if by_the_clock:
            with story.judge.turn() as turn:
                turn.set_clock(micro(131), 5_000_000)
        else:
            story.start(126, {**waits, **changed})
        story.wait(300)
        assert (story.told, story.state(), story.rows()[0].episode) == ([], "unknown", 0)

    def test_reminders_go_on_for_what_is_kept(self) -> None:
        story = Told({**self.KEEP, "remind": "1m"}).gauge(110, "violated").wait(120.1).wait(171).wait(231)
        assert isinstance(story, Told)
        assert what(story.words()) == ["violated"] * 3

    @pytest.mark.parametrize(
        ("times", "moment", "until"),
        [
            ("01:00-02:30", "2026-10-25T02:15+01:00", "2026-10-25T02:30+01:00"),  # clocks show 02:15 twice
            ("01:00-02:30", "2026-10-25T02:45+02:00", "2026-10-25T02:30+01:00"),
            ("01:00-02:30", "2026-10-25T02:30+01:00", None),
            ("22:00-06:00", "2026-10-25T05:59+01:00", "2026-10-25T06:00+01:00"),
            ("22:00-06:00", "2026-03-29T05:59+02:00", "2026-03-29T06:00+02:00"),
            ("22:00-06:00", "2026-03-29T06:00+02:00", None),
            ("02:15-02:45", "2026-03-29T03:20+02:00", None),  # clocks never show it
            ("02:15-03:15", "2026-03-29T03:00+02:00", "2026-03-29T03:15+02:00"),
            ("02:15-03:15", "2026-03-29T01:59:59+01:00", None),
        ],
    )
    def test_when_the_clocks_are_changed(self, times: str, moment: str, until: str | None) -> None:
        active = {"times": times, "timezone": "Europe/Berlin", "at_end": "resolve"}
        at, end = (datetime.fromisoformat(each or moment).timestamp() - NOON / 1e6 for each in (moment, until))
        story = Told({**GAUGE, "active": active}).gauge(at, "violated").wait(end + 1)
        assert isinstance(story, Told)
        told = [("violated", at, at, 1), ("resolved", at, end, 1, "inactive")]
        assert story.words() == (told if until else [])

    @pytest.mark.parametrize(
        ("before", "after", "shown"),
        [
            (hours(0, 2), {}, "unknown"),  # suppressed since 120
            ({}, hours(0, 2), "suppressed"),
            (hours(0, 2), hours(0, 10), "unknown"),
            (hours(0, 10), hours(0, 2), "suppressed"),
            ({}, {"valid_until": "2025-01-01"}, "suppressed"),
        ],
    )
    def test_another_calendar_counts_from_the_start(
        self, before: dict[str, Any], after: dict[str, Any], shown: str
    ) -> None:
        story = Told({**GAUGE, **before}).gauge(70, "ok").wait(180)
        story.start(200, {**GAUGE, **after}).wait(201)
        assert story.shown() == shown

    def test_a_calendar_says_nothing_to_a_machine_without_a_clock(self) -> None:
        story = Told(self.RESOLVE).gauge(70, "violated")
        boot = 70 - micro(70) / 1e6 + 12 * 3600
        story.restart(boot)  # 1970, at noon
        with story.judge.turn() as turn:
            turn.elapse(micro(boot + 3600))
        assert turn.verdicts == []
        assert story.shown() == "violated"
        with story.judge.turn() as turn:
            turn.set_clock(micro(100), round((100 - boot) * 1e6))
        story._heard(turn)
        assert story.wait(130).told[1:] == [("resolved", "a", 70, 120)]

    def test_what_was_left_out_by_a_step_of_the_clock_has_not_passed(self) -> None:
        story = Told({**ABSENCE, "known": ["a"], **hours(1, 2)}).wait(5)
        with story.judge.turn() as turn:
            turn.set_clock(micro(5 + 90), 90_000_000)
        assert isinstance(story._heard(turn).wait(105), Told)
        assert (story.words(), story.shown()) == ([], "unknown")
        assert story.wait(105 + US).told == [("violated", "a", 105, 105)]

    @pytest.mark.parametrize(("to", "shown"), [(6 * 3600, "suppressed"), (-14 * 86400, "ok"), (86400, "ok")])
    def test_the_calendar_goes_by_the_clock_that_was_set(self, to: float, shown: str) -> None:
        story = Told(self.RESOLVE).gauge(70, "ok")
        with story.judge.turn() as turn:
            turn.set_clock(micro(75 + to), round(to * 1e6))
        story._heard(turn).wait(75 + to + 1)
        assert story.shown() == shown
        day = 86400 * (to // 86400 + (1 if to == 6 * 3600 else 0))
        assert story.judge.earliest() == micro(day + (60 if shown == "suppressed" else 120))


class TestSuppressedBy:
    """`gauge` says nothing while `power` is violated."""

    POWER: ClassVar = {"name": "power", "kind": "gauge", "of": "power"}
    GAUGE: ClassVar = {**GAUGE, "suppressed_by": ["power"]}

    def told(self, *mappings: dict[str, Any]) -> Power:
        return Power(*(mappings or (self.GAUGE, self.POWER)))

    def test_nothing_is_told_while_it_lasts_and_what_stands_after(self) -> None:
        story = self.told().power(0, "violated").gauge(5, "violated")
        assert story.of("gauge") == []
        assert (story.shown("gauge"), story.rows()[0].state) == ("suppressed", "suppressed")
        story.power(9, "ok")
        assert story.of("gauge") == [("violated", 5, 9, 1)]
        story.gauge(12, "ok")
        assert story.of("gauge")[1:] == [("resolved", 5, 12, 1)]

    def test_what_has_passed_by_then_was_nothing(self) -> None:
        story = self.told().power(0, "violated").gauge(5, "violated").gauge(6, "ok").power(9, "ok")
        assert story.of("gauge") == []
        assert story.shown("gauge") == "ok"

    def test_an_open_episode_is_resolved_after_it(self) -> None:
        story = self.told().gauge(0, "violated").power(5, "violated").gauge(6, "ok")
        assert story.of("gauge") == [("violated", 0, 0, 1)]
        story.power(9, "ok")
        assert story.of("gauge")[1:] == [("resolved", 0, 9, 1)]
        assert from_json(story.events[-1].data_json)["duration_seconds"] == 6

    def test_an_open_episode_that_stands_goes_on(self) -> None:
        story = self.told().gauge(0, "violated").power(5, "violated").gauge(6, "ok").gauge(7, "violated").power(9, "ok")
        assert story.of("gauge") == [("violated", 0, 0, 1)]
        assert story.gauge(12, "ok").of("gauge")[1:] == [("resolved", 0, 12, 1)]

    def test_one_event_may_do_both(self) -> None:
        both = {**self.POWER, "of": "gauge"}
        story = self.told(self.GAUGE, both).gauge(0, "violated")
        assert story.of("gauge") == []
        story = self.told(both, self.GAUGE).gauge(0, "violated").gauge(3, "ok")
        assert story.of("gauge") == []

    def test_one_moment_may_do_both(self) -> None:
        mappings = [{**ABSENCE, "suppressed_by": ["z"]}, {**ABSENCE, "name": "z"}]
        story = self.told(*mappings).reading(0).wait(60)
        assert [each[0] for each in story.verdicts] == ["z"]

    def test_for_the_same_subject_if_it_has_it_else_for_any(self) -> None:
        story = self.told().power(0, "ok", subject="a").power(0, "violated", subject="b")
        story.gauge(1, "violated", subject="a").gauge(1, "violated", subject="b").gauge(1, "violated", subject="c")
        assert [subject for name, subject, _ in story.verdicts if name == "gauge"] == ["a"]
        story.power(2, "violated", subject="x").power(3, "ok", subject="b")
        assert [subject for name, subject, _ in story.verdicts if name == "gauge"] == ["a", "b"]
        story.power(4, "ok", subject="c")
        assert [subject for name, subject, _ in story.verdicts if name == "gauge"] == ["a", "b", "c"]
        story.gauge(5, "violated", subject="d").power(6, "ok", subject="x")
        assert [subject for name, subject, _ in story.verdicts if name == "gauge"] == ["a", "b", "c", "d"]

    def test_a_new_configuration_frees_or_holds_at_once(self) -> None:
        story = self.told().power(0, "violated").gauge(5, "violated")
        story.start(7, self.POWER, {**self.GAUGE, "suppressed_by": []})
        assert story.of("gauge") == [("violated", 5, 7, 1)]
        story.start(8, self.POWER, self.GAUGE)
        assert story.shown("gauge") == "suppressed"
        assert len(story.of("gauge")) == 1

    def test_one_that_is_suppressed_suppresses_nothing(self) -> None:
        third = {"name": "third", "kind": "gauge", "of": "gauge", "suppressed_by": ["gauge"]}
        story = self.told(third, self.GAUGE, self.POWER).power(0, "violated").gauge(5, "violated")
        assert story.of("third") == [("violated", 5, 5, 1)]
        story.power(9, "ok")
        assert story.shown("third") == "suppressed"

    def test_no_reminders_while_it_lasts(self) -> None:
        story = self.told({**self.GAUGE, "remind": "10s"}, self.POWER).gauge(0, "violated").power(5, "violated")
        story.wait(22)
        story.power(25, "ok").wait(31)
        assert story.of("gauge")[1:] == [("violated", 0, 30, 1, 3)]

    def test_reminders_of_a_year_without_power_cost_no_more_than_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        woken = []
        wake = Teller.wake
        monkeypatch.setattr(Teller, "wake", lambda *args: woken.append(args[-2]) or wake(*args))
        story = self.told({**self.GAUGE, "remind": "10s"}, self.POWER).gauge(0, "violated")
        story.power(3_000_005, "violated").power(31_000_001, "ok").wait(31_000_015)
        assert [each[-1] for each in story.of("gauge")[1:]] == [300_000, 3_100_001]
        assert len(woken) < 10


class Power(Told):
    """A story of gauges and the power."""

    def power(self, at: float, state: str, subject: str = "p") -> Power:
        self.event("power", at, data={"state": state}, subject=subject)
        return self

    def gauge(self, at: float, state: str, subject: str = "a", **rest: Any) -> Power:
        super().gauge(at, state, subject, **rest)
        return self

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """What was told of one contract."""
        return [each for (whose, _, _), each in zip(self.verdicts, self.words(), strict=True) if whose == name]


class TestOfContracts:
    """A contract of `gauge` and `power`, and of what they do together."""

    BOTH: ClassVar = {"name": "both", "kind": "both", "all": ["gauge", "power"]}
    MAPPINGS: ClassVar = ({**BOTH, "subject": "a"}, GAUGE, TestSuppressedBy.POWER)

    def test_it_follows_in_the_same_turn(self) -> None:
        story = Power(*self.MAPPINGS).gauge(0, "violated").power(5, "violated").gauge(9, "ok")
        assert story.of("both") == [("violated", 5, 5, 1), ("resolved", 5, 9, 1)]

    def test_it_sees_no_state_that_never_stood(self) -> None:
        # One event by which one contract begins to be violated and the other ceases to be.
        odd = [{**GAUGE, "where": {"state": "violated"}}, {**TestSuppressedBy.POWER, "of": "gauge"}]
        story = Power(self.BOTH, *odd)
        story.power(0, "violated")
        assert story.of("both") == []

    def test_those_of_one_moment_are_seen_together(self) -> None:
        watch = [{**ABSENCE, "name": "gauge"}, {**COLD, "name": "power", "clear": {"below": 3, "for": "10s"}}]
        story = Power(self.BOTH, *watch).reading(-5, 9).reading(0, 2).wait(60)
        assert isinstance(story, Power)
        assert story.of("gauge") == [("violated", 10, 10, 1)]
        assert story.of("power")[1:] == [("resolved", -5, 10, 1)]
        assert story.of("both") == []

    def test_it_has_subjects_of_its_own(self) -> None:
        story = (
            Power(self.BOTH, *self.MAPPINGS[1:])
            .power(0, "violated", subject="p")
            .gauge(1, "violated", "a")
            .gauge(1, "ok", "b")
        )
        assert {key for key in story.judge.instances if key[0] == "both"} == {
            ("both", "a"), ("both", "b"), ("both", "p"),
        }  # fmt: skip
        assert (story.shown("both", "a"), story.shown("both", "b")) == ("violated", "ok")
        story.power(2, "ok", subject="p")
        assert story.shown("both", "a") == "ok"

    def test_contracts_of_contracts_of_contracts(self) -> None:
        top = {"name": "top", "kind": "both", "all": ["both", "power"], "subject": "a"}
        story = Power(top, *self.MAPPINGS).gauge(0, "violated").power(5, "violated").restart(6)
        assert isinstance(story, Power)
        story.power(9, "ok")
        assert story.of("top") == [("violated", 5, 5, 1), ("resolved", 5, 9, 1)]

    def test_a_new_one_looks_at_what_stands(self) -> None:
        story = Power(*self.MAPPINGS[1:]).gauge(0, "violated").power(5, "violated")
        story.start(8, *self.MAPPINGS)
        assert story.of("both") == [("violated", 8, 8, 1)]
        before = list(story.verdicts)
        assert story.restart(9).restart(10).verdicts == before

    @pytest.mark.parametrize("restart", [False, True])
    def test_it_looks_when_it_comes_into_force(self, restart: bool) -> None:
        story = Power({**self.BOTH, "subject": "a", **hours(1, 2)}, *self.MAPPINGS[1:])
        story.gauge(0, "violated").power(5, "violated")
        assert (story.of("both"), story.shown("both")) == ([], "suppressed")
        if restart:
            story.restart(30)
        story.wait(61)
        assert story.of("both") == [("violated", 60, 60, 1)]

    def test_it_looks_when_the_clock_is_set_to_when_it_is_in_force(self) -> None:
        story = Power({**self.BOTH, "subject": "a", **hours(1, 2)}, *self.MAPPINGS[1:])
        story.gauge(130, "violated").power(135, "violated")
        with story.judge.turn() as turn:
            turn.set_clock(micro(75), -60_000_000)
        story._heard(turn)
        assert story.of("both") == [("violated", 75, 75, 1)]


class TestLink:
    """`suppressed_by: link`."""

    MAPPING: ClassVar = {**ABSENCE, "suppressed_by": "link"}

    def lose(self, story: Told, at: float, regain: bool = False) -> Told:
        with story.judge.turn() as turn:
            (turn.regain_link if regain else turn.lose_link)(micro(at))
        story._heard(turn)
        return story

    def test_it_is_told_once_for_the_contract(self) -> None:
        story = Told(self.MAPPING, GAUGE)
        story.reading(0).reading(0, subject="b")
        self.lose(story, 5)
        assert [(name, subject) for name, subject, _ in story.verdicts] == [("reports", "")]
        assert story.words() == [("unknown", 5, 5, 0, "link")]
        assert [row.state for row in story.rows()] == ["unknown", "unknown"]
        assert story.events[-1].description == "reports: unknown: there is no session to the broker"
        self.lose(story, 65, regain=True)
        assert story.words()[1:] == [("resolved", 5, 65, 0, "link")]
        assert story.events[-1].description == "reports: judged again: there is a session to the broker"
        assert story.shown() == "ok"

    def test_the_silence_until_then_does_not_count(self) -> None:
        story = Told(self.MAPPING)
        story.reading(0)
        self.lose(self.lose(story, 5), 65, regain=True)
        story.wait(75)
        assert len(story.words()) == 2
        story.wait(76)
        assert story.words()[2:] == [("violated", 75, 75, 1)]

    def test_a_restart_in_between(self) -> None:
        story = Told(self.MAPPING)
        story.reading(0)
        self.lose(story, 5).restart(20)
        assert story.judge.unheard_since == micro(5)
        assert story.shown() == "unknown"
        self.lose(story, 65, regain=True)
        assert what(story.words()) == ["unknown", "resolved"]

    def test_nothing_is_told_of_a_contract_without_instances(self) -> None:
        assert self.lose(Told(self.MAPPING), 5).verdicts == []

    def test_a_violation_stands_until_it_is_seen_to_be_over(self) -> None:
        story = Told(self.MAPPING)
        story.reading(0).wait(12)
        self.lose(self.lose(story, 15), 65, regain=True)
        assert story.shown() == "violated"
        story.reading(66)
        assert story.words()[-1] == ("resolved", 10, 66, 1)


class TestLate:
    """`lateness: 1m`, the default."""

    def test_a_kind_that_can_not_take_it(self) -> None:
        story = Told(GAUGE).gauge(100, "ok").gauge(101, "violated", occurred=99)
        assert (story.skipped, story.words()) == (["late"], [])
        story.gauge(102, "violated", occurred=40 - US)
        assert story.skipped == ["too_late"]
        assert story.gauge(103, "violated", occurred=100).skipped == []

    def test_a_kind_that_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Gauge, "takes_late", True)
        assert Told(GAUGE).gauge(100, "ok").gauge(101, "violated", occurred=40).words() == [("violated", 40, 40, 1)]
        assert Told(GAUGE).gauge(100, "ok").gauge(101, "violated", occurred=40 - US).skipped == ["too_late"]
        longer = {**GAUGE, "lateness": "2m"}
        assert Told(longer).gauge(100, "ok").gauge(101, "violated", occurred=-20).skipped == []
        assert Told({**GAUGE, "lateness": 0}).gauge(100, "ok").gauge(101, "ok", occurred=99).skipped == ["too_late"]


class TestMessage:
    def test_placeholders(self) -> None:
        message = "{subject} {observed} {since} in {data.room.name}, {data.n}, {data.gone}"
        story = Told({**COLD, "message": message})
        story.event("reading", 0, data={"value": 7.0, "n": 3, "room": {"name": "{subject}"}})
        assert story.events[0].description == "cold: a 7 2026-01-01T12:00:00.000Z in {subject}, 3, [no data.gone]"
        story = Told({**COLD, "message": "{data.n}", "remind": "10s"})
        story.event("reading", 0, data={"value": 7, "n": "x" * 1000}).reading(5, 8).restart(6).wait(11)
        assert [each.description for each in story.events] == [
            f"cold: {'x' * 200}", f"cold: {'x' * 200} (reminder 1, for 10s)",
        ]  # fmt: skip

    def test_without_an_event_to_blame(self) -> None:
        story = Told({**ABSENCE, "known": ["k"], "message": "{data.room}"}).wait(20)
        assert story.events[0].description == "reports: [no data.room]"


# Restarts at any moment change nothing, nor does when somebody looks at the clock.

ODD = [
    {"cooldown": "7s"},
    {"remind": "6s"},
    {"flapping": {"changes": 3, "within": "9s"}},
    {"cooldown": "7s", "remind": "6s", "flapping": {"changes": 4, "within": "20s"}},
    {"suppressed_by": ["power"], "remind": "6s"},
    {"suppressed_by": ["power"], "cooldown": "10s", "flapping": {"changes": 3, "within": "9s"}},
    {**hours(0, 1), "remind": "6s"},
    {**hours(0, 1, at_end="resolve"), "cooldown": "7s"},
    {**hours(0, 1), "flapping": {"changes": 3, "within": "9s"}, "suppressed_by": ["power"]},
    {"valid_from": "2026-01-01T12:00:20Z", "valid_until": "2026-01-01T12:00:50Z"},
]
Happening = tuple[str, str, str, float, float]  # type, state, subject, seconds after the one before, how late
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["gauge", "gauge", "power", "reading", "noise"]),
        st.sampled_from(["ok", "violated", "violated", "unknown"]),
        st.sampled_from("ab"),
        st.sampled_from([0, 0.2, 1, 3, 3 - US, 6, 7, 9, 10, 20]),
        st.sampled_from([0, 0, 0, 0.2, 2, 30]),
    ),
    max_size=25,
)


def told_of(
    mappings: list[dict[str, Any]], steps: list[Happening], restarts: Collection[int], asleep: Collection[int]
) -> Any:
    """What was told of a history, and what stands at the end. It was started anew at the steps `restarts`, and nobody
    looked at the clock before those in `asleep`. Reminders are left out: which are told hangs on who is there."""
    story, now = Power(*mappings), 0.0
    for number, (type_, state, subject, gap, late) in enumerate(steps):
        now = round(now + gap, 6)
        if number not in asleep:
            story.wait(now - 0.3)
        if number in restarts:
            story.restart(now)
        data = {"state": state, "value": 9 if state == "violated" else 1}
        story.event(type_, now, occurred=now - late, subject=subject, data=data)
    story.wait(now + 100)
    return [each for each in story.verdicts if not each[2].reminder], story.rows()


@settings(max_examples=150)
@given(st.sampled_from(ODD), STEPS, st.sets(st.integers(0, 24)), st.sets(st.integers(0, 24)))
def test_restarts_and_who_looked_at_the_clock_change_nothing(
    odd: dict[str, Any], steps: list[Happening], restarts: set[int], asleep: set[int]
) -> None:
    mappings = [
        {**GAUGE, **odd},
        {"name": "power", "kind": "gauge", "of": "power", "remind": "5s"},
        {**ABSENCE, **odd, "known": ["k"]},
        {**COLD, **odd, "for": "3s"},
        {**DEADLINE, **odd, "after": "gauge", "expect": "reading", "where": {"state": "violated"}},
        {"name": "both", "kind": "both", "all": ["gauge", "cold"], **odd},
    ]
    assert told_of(mappings, steps, restarts, asleep) == told_of(mappings, steps, (), ())
