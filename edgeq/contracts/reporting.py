"""What stands between what a kind says of an instance and what the world is told. Pure.

A kind judges; the keys that all kinds share decide what is told of it, and when. Of a contract without any of these
keys every verdict is told as it comes. Times are event time, as the judge lets it pass; "at" a time means exactly then.

- `active`, `valid_from`, `valid_until`: out of force, nothing is judged: an instance is `suppressed`, events that
  happened then are passed over. In force is from the beginning of a window until before its end. At the end an open
  violation, one that was told, is resolved with the reason `inactive` (`at_end: resolve`), or it stays judged until
  something resolves it, and is `suppressed` only then (`keep`); what was not told is dropped. At the next beginning an
  instance starts as after a first load, and what happened before isn't judged any more. While the machine's clock
  hasn't reached the year 2000 a calendar says nothing: all stays as it is.
- `suppressed_by` a contract: while that is violated (for the same subject, if it has that instance; else for any), an
  instance is `suppressed`: it is judged, and nothing is told. When that ends, what stands then is told.
- `suppressed_by: link`: while nothing can be heard an instance is `unknown`. That is told once for the contract (by an
  event without a subject, reason `link`), and so is the end of it; then what stands is told. No absence is judged: the
  silence until then doesn't count.
- `cooldown`: a violation that begins sooner than that after the last one was told to be resolved is `pending` until the
  cooldown is over, and then told if it still stands. One that ends exactly then has ended. What follows on `unknown` or
  `flapping` is told at once.
- `remind`: a violation is told again that long after it was told, and so on, with a growing `reminder`, while it stands
  and nothing holds it back. Reminders that nobody was there to tell are not made up for: of several that are over at
  one look, only the last is told, under its own number.
- `flapping`: changes are the verdicts of the kind (while it is in force and not suppressed), told or not. With the last
  of so many `changes`, the first of which isn't longer ago than `within`, the instance flaps: that is told instead of
  the verdict, and then nothing, the instance being `suppressed`, until there was no change for as long as `within`
  (one exactly then is a change). Then what stands is told, whatever was told before.

An episode that was told stays open until it is told to be resolved: whatever happens while something holds it back
belongs to it. What is told late is told with the time at which it was told as `at`, and with when the violation began
as `since`; of one that had ended before, `ended_at` says when. An instance of which `unknown` or `flapping` was told,
and no violation, is told to be resolved with the reason `known` or `steady`.

At one moment the calendar comes first, then the kind's deadline, then what is due here.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from ..clock import CLOCKLESS_BEFORE
from .contract import Contract
from .instance import Instance, Report, Step, Verdict
from .telling import NOTHING, Teller, begun_before, expanded


class Outcome(NamedTuple):
    """An instance, and what is told of it."""

    instance: Instance
    verdicts: tuple[Verdict, ...] = ()


class Reporter:
    """What the world is told of the instances of `contract`. `plain`: everything that its kind says, at once."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._calendar = contract.calendar
        self._resolves_at_end = contract.keys.active is not None and contract.keys.active.at_end == "resolve"
        self._teller = Teller(contract.keys)
        held = contract.suppressed_by or contract.suppressed_by_link or contract.calendar is not None
        self.plain = self._teller.plain and not held

    def begin(self, instance: Instance, at: int, *, suppressed: bool, unheard: int | None) -> Outcome:
        """A new instance as it stands at `at`, `suppressed` if it isn't in force then."""
        if self.plain:
            return Outcome(instance)
        report = replace(NOTHING, suppressed=suppressed, unheard=unheard)
        if self._calendar is not None and at >= CLOCKLESS_BEFORE:
            report = replace(report, calendar_at=self._calendar.next_change(at))
            if not self._calendar.is_active(at):
                return self._rest(instance, report, at)
        return self._done(instance, report)

    def takes(self, instance: Instance, at: int) -> bool:
        """Whether what happens to the instance at `at` is judged."""
        report = instance.report
        return report is None or not (report.inactive or (report.judged_from is not None and at < report.judged_from))

    def after(self, before: Instance, step: Step, at: int) -> Outcome:
        """What follows when the kind made `step` of an instance at `at`."""
        instance, verdict = step
        if self.plain and before.report is None and (verdict is None or verdict.what != "unknown"):
            return Outcome(instance, () if verdict is None else (verdict,))
        report = expanded(before)
        gap = instance.state == "unknown" and (report.gap or (verdict is not None and verdict.what == "unknown"))
        report = replace(report, gap=gap)
        told: tuple[Verdict, ...] = ()
        if verdict is not None:
            at = max(at, verdict.at)  # a late event may show what began, or ended, after it
            report, told = self._teller.note_change(report, verdict)
        report, more = self._teller.tell(instance, report, at, verdict)
        if report.overtime and instance.state != "violated":
            return self._rest(instance, report, at, (*told, *more))
        return self._done(instance, report, (*told, *more))

    def elapse(self, instance: Instance, until: int) -> Outcome | None:
        """What follows when time passes to just before `until`, for what comes first and was due by then; None when
        that is the deadline of the kind."""
        report = instance.report
        if report is None:
            return None
        deadline_at, calendar_at, wake_at = instance.deadline_at, report.calendar_at, report.wake_at
        if calendar_at is not None and calendar_at <= min(deadline_at or calendar_at, wake_at or calendar_at):
            return self._turn_page(instance, report, calendar_at)
        if wake_at is None or (deadline_at is not None and deadline_at <= wake_at):
            return None
        ends = [until] + [at for at in (deadline_at, calendar_at) if at is not None]
        return self._done(instance, *self._teller.wake(instance, report, wake_at, min(ends)))

    def suppress(self, instance: Instance, suppressed: bool, at: int) -> Outcome:
        """A contract in its `suppressed_by` has come to be violated, or ceased to be."""
        report = expanded(instance)
        if report.suppressed is suppressed:
            return Outcome(instance)
        return self._changed(instance, replace(report, suppressed=suppressed), at)

    def unhear(self, instance: Instance, since: int) -> Outcome:
        """Nothing can be heard any more."""
        return self._done(instance, replace(expanded(instance), unheard=since))

    def hear(self, instance: Instance, at: int) -> Outcome:
        """Everything can be heard again."""
        report = replace(expanded(instance), unheard=None)
        if not report.inactive:
            instance = self._contract.heard_again(instance, at)
        return self._changed(instance, report, at)

    def set_clock(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """The instance after the clock was set: see Contract.stepped. What the calendar says of it is asked by
        `reconsider`; what a step left out has not passed."""
        moved = self._contract.stepped(instance, now, step_microseconds)
        since = begun_before(instance.since, now, step_microseconds)
        if since != instance.since:
            moved = replace(moved, since=since)
        report = moved.report
        if report is None:
            return moved
        if report.inactive and moved.deadline_at is not None:  # it waits for nothing
            moved = replace(moved, deadline_at=None)
        became = self._teller.set_clock(report, now, step_microseconds)
        if step_microseconds:
            became = replace(became, calendar_at=None)
        became = replace(became, wake_at=self._teller.wake_at(moved, became))
        return moved if became == report else replace(moved, report=became)

    def reconsider(self, instance: Instance, now: int) -> Outcome:
        """What follows when the contract was loaded, perhaps with other keys, or the clock was set. Nothing, when
        neither the keys nor the clock have changed; what was due before `now` is still due."""
        report = self._teller.adopt(expanded(instance), now)
        if not self._contract.suppressed_by_link:
            report = replace(report, unheard=None)
        if self._calendar is None:
            if report.inactive:
                instance, report = self._resumed(instance, report, now)
            report = replace(report, overtime=False, calendar_at=None, judged_from=None)
        elif now >= CLOCKLESS_BEFORE and (report.calendar_at is None or report.calendar_at > now):
            if self._calendar.is_active(now) is (report.inactive or report.overtime):
                return self._turn_page(instance, report, now)
            report = replace(report, calendar_at=self._calendar.next_change(now))
        told: tuple[Verdict, ...] = ()
        if self._teller.wake_at(instance, report) is None:  # otherwise that time has yet to come, or to be caught up
            report, told = self._teller.tell(instance, report, now)
        return self._done(instance, report, told)

    # In force, and out of it

    def _turn_page(self, instance: Instance, report: Report, at: int) -> Outcome:
        """The calendar says something else from `at` on."""
        assert self._calendar is not None
        report = replace(report, calendar_at=self._calendar.next_change(at))
        if self._calendar.is_active(at):
            if report.inactive:
                instance, report = self._resumed(instance, report, at)
            return self._done(instance, replace(report, overtime=False))
        if report.inactive:
            return self._done(instance, report)
        if instance.state == "violated" and report.episode and not self._resolves_at_end:
            return self._done(instance, replace(report, overtime=True))
        return self._rest(instance, report, at)

    def _rest(self, instance: Instance, report: Report, at: int, told: tuple[Verdict, ...] = ()) -> Outcome:
        """The contract is out of force for the instance."""
        report, more = self._teller.close(instance, report, at)
        instance = replace(instance, state="unknown", since=at, deadline_at=None)
        report = replace(report, inactive=True, overtime=False, flapping=False, changes=(), gap=False, judged_from=None)
        return self._done(instance, report, (*told, *more))

    def _resumed(self, instance: Instance, report: Report, at: int) -> tuple[Instance, Report]:
        return self._contract.resume(instance, at), replace(report, inactive=False, judged_from=at)

    def _changed(self, instance: Instance, report: Report, at: int) -> Outcome:
        """Something that holds back has begun or ended."""
        report, told = self._teller.tell(instance, report, at)
        return self._done(instance, self._teller.freed(report, at), told)

    def _done(self, instance: Instance, report: Report, told: tuple[Verdict, ...] = ()) -> Outcome:
        """The instance with its report, if there is more to it than what anybody can see."""
        report = replace(report, wake_at=self._teller.wake_at(instance, report))
        kept = None if report == expanded(replace(instance, report=None)) else report
        if kept == instance.report:
            return Outcome(instance, told)
        return Outcome(replace(instance, report=kept), told)
