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
  cooldown is over, and then told if it still stands. One that ends exactly then has ended.
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

from typing import Literal, NamedTuple

from msgspec.structs import replace

from .contract import Contract
from .instance import Instance, Report, Shown, Step, Verdict

CLOCKLESS_BEFORE = 946_684_800_000_000  # 2000-01-01: a machine that says less has no clock yet

_NOTHING = Report()


class Outcome(NamedTuple):
    """An instance, and what is told of it."""

    instance: Instance
    verdicts: tuple[Verdict, ...] = ()


def shown(instance: Instance) -> Shown:
    """The state of the instance as everybody sees it: in the table, in other contracts."""
    report = instance.report
    if report is None:
        return instance.state
    if report.inactive:
        return "suppressed"
    if report.unheard is not None:
        return "unknown"
    if report.suppressed or report.flapping:
        return "suppressed"
    if instance.state == "violated" and report.told != "violated":
        return "pending"
    return instance.state


def due_at(instance: Instance) -> int | None:
    """When something happens to the instance by itself, in microseconds since 1970 UTC."""
    report = instance.report
    if report is None:
        return instance.deadline_at
    dues = [at for at in (instance.deadline_at, report.calendar_at, report.wake_at) if at is not None]
    return min(dues, default=None)


def expanded(instance: Instance) -> Report:
    """The report of an instance: without one, everything that stands was told."""
    if instance.report is not None:
        return instance.report
    if instance.state != "violated":
        return _NOTHING
    return Report(told="violated", episode=instance.episode, since=instance.since)


class Reporter:
    """What the world is told of the instances of `contract`. `plain`: everything that its kind says, at once."""

    def __init__(self, contract: Contract) -> None:
        keys = contract.keys
        self._contract = contract
        self._calendar = contract.calendar
        self._resolves_at_end = keys.active is not None and keys.active.at_end == "resolve"
        self._cooldown = 0 if keys.cooldown is None else keys.cooldown.microseconds
        self._remind = 0 if keys.remind is None else keys.remind.microseconds
        self._changes = 0 if keys.flapping is None else keys.flapping.changes
        self._quiet = 0 if keys.flapping is None else keys.flapping.within.microseconds
        held = contract.suppressed_by or contract.suppressed_by_link or contract.calendar is not None
        self.plain = not (held or self._cooldown or self._remind or self._changes)

    # What happens to an instance

    def begin(self, instance: Instance, at: int, *, suppressed: bool, unheard: int | None) -> Outcome:
        """A new instance as it stands at `at`, `suppressed` if it isn't in force then."""
        if self.plain:
            return Outcome(instance)
        report = replace(_NOTHING, suppressed=suppressed, unheard=unheard)
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
        if verdict is not None and self._changes and not _held_outside(report):
            report, told = self._changed(instance, report, verdict)
        report, more = self._tell(instance, report, at, verdict)
        if report.overtime and instance.state != "violated":
            outcome = self._rest(instance, report, at)
            return Outcome(outcome.instance, (*told, *more, *outcome.verdicts))
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
        if report.flapping:
            report, told = self._tell(instance, replace(report, flapping=False, changes=()), wake_at)
        elif report.told == "violated":
            ends = [until] + [at for at in (deadline_at, calendar_at) if at is not None]
            report, told = self._reminded(instance, report, min(ends) - 1)
        else:
            report, told = self._tell(instance, report, wake_at)
        return self._done(instance, report, told)

    def suppress(self, instance: Instance, suppressed: bool, at: int) -> Outcome:
        """A contract in its `suppressed_by` has come to be violated, or ceased to be."""
        report = expanded(instance)
        if report.suppressed is suppressed:
            return Outcome(instance)
        return self._released(instance, replace(report, suppressed=suppressed), at)

    def unhear(self, instance: Instance, since: int) -> Outcome:
        """Nothing can be heard any more."""
        return self._done(instance, replace(expanded(instance), unheard=since))

    def hear(self, instance: Instance, at: int) -> Outcome:
        """Everything can be heard again."""
        report = replace(expanded(instance), unheard=None)
        if not report.inactive:
            instance = self._contract.heard_again(instance, at)
        return self._released(instance, report, at)

    def set_clock(self, instance: Instance, now: int, step_microseconds: int) -> Instance:
        """The instance after the clock was set: see Contract.stepped. What the calendar says of it is asked by
        `reconsider`."""
        moved = self._contract.stepped(instance, now, step_microseconds)
        report = moved.report
        if report is None:
            return moved

        def shifted(at: int | None) -> int | None:
            return None if at is None else min(at + step_microseconds, now)

        changes = tuple(min(at + step_microseconds, now) for at in report.changes)
        told_at = min(report.told_at + step_microseconds, now) if report.told_at else 0
        judged_from = None if report.judged_from is None else min(report.judged_from, now)
        became = replace(
            report, resolved_at=shifted(report.resolved_at), changes=changes, told_at=told_at, judged_from=judged_from
        )
        became = replace(became, wake_at=self._wake_at(moved, became))
        return moved if became == report else replace(moved, report=became)

    def reconsider(self, instance: Instance, now: int) -> Outcome:
        """What follows when the contract was loaded, perhaps with other keys, or the clock was set. Nothing, when
        neither the keys nor the clock have changed; what was due before `now` is still due."""
        report = expanded(instance)
        told: tuple[Verdict, ...] = ()
        if self._calendar is None:
            if report.inactive:
                instance, report = self._resumed(instance, report, now)
            report = replace(report, overtime=False, calendar_at=None, judged_from=None)
        elif now >= CLOCKLESS_BEFORE and (report.calendar_at is None or report.calendar_at > now):
            if self._calendar.is_active(now) is (report.inactive or report.overtime):
                return self._turn_page(instance, report, now)
            report = replace(report, calendar_at=self._calendar.next_change(now))
        report = replace(
            report,
            unheard=report.unheard if self._contract.suppressed_by_link else None,
            flapping=report.flapping and bool(self._changes),
            resolved_at=report.resolved_at if self._cooldown else None,
            told_at=now if self._remind and report.told == "violated" and not report.told_at else report.told_at,
        )
        if self._wake_at(instance, report) is None:  # otherwise its time has yet to come, or to be caught up with
            report, told = self._tell(instance, report, now)
        return self._done(instance, report, told)

    # What is told

    def _tell(
        self, instance: Instance, report: Report, at: int, verdict: Verdict | None = None
    ) -> tuple[Report, tuple[Verdict, ...]]:
        """Tell at `at` what stands, unless it was told or something holds it back. `verdict` is what the kind has just
        said."""
        if _held_outside(report) or report.flapping:
            return report, ()
        stands = "violated" if instance.state == "violated" else "unknown" if report.gap else "ok"
        if stands == report.told:
            return report, ()
        if stands == "violated":
            return self._tell_violated(instance, report, at, verdict)
        if stands == "ok":
            return self._tell_resolved(instance, report, at, verdict)
        if verdict is None or verdict.what != "unknown":
            verdict = _said("unknown", instance, at, since=instance.since, episode=instance.episode, reason="gap")
        return replace(report, told="unknown", told_at=at), (verdict,)

    def _tell_violated(
        self, instance: Instance, report: Report, at: int, verdict: Verdict | None
    ) -> tuple[Report, tuple[Verdict, ...]]:
        episode, since = report.episode, report.since
        if not episode:
            if report.resolved_at is not None and at < report.resolved_at + self._cooldown:
                return report, ()
            episode, since = instance.episode, instance.since
        if verdict is None or verdict.what != "violated" or report.episode:
            verdict = _said("violated", instance, at, since=since, episode=episode, cause_id=instance.memory.cause_id)
        told_at = at if self._remind else 0
        became = replace(report, told="violated", episode=episode, since=since, told_at=told_at, reminded=0)
        return became, (verdict,)

    def _tell_resolved(
        self, instance: Instance, report: Report, at: int, verdict: Verdict | None
    ) -> tuple[Report, tuple[Verdict, ...]]:
        if not report.episode:
            reason = "steady" if report.told == "flapping" else "known"
            said = _said("resolved", instance, at, since=report.told_at, episode=instance.episode, reason=reason)
        elif verdict is not None and verdict.what == "resolved":
            said = replace(verdict, since=report.since, episode=report.episode)
        else:
            said = _said("resolved", instance, at, since=report.since, episode=report.episode)
            if instance.state == "ok" and report.since <= instance.since < at:
                said = replace(said, ended_at=instance.since)
        return _closed(report, at), (said,)

    def _reminded(self, instance: Instance, report: Report, until: int) -> tuple[Report, tuple[Verdict, ...]]:
        number = (until - report.told_at) // self._remind if self._remind else 0
        if number <= report.reminded:
            return report, ()
        at = report.told_at + number * self._remind
        said = _said(
            "violated", instance, at, since=report.since, episode=report.episode, cause_id=instance.memory.cause_id
        )
        return replace(report, reminded=number), (replace(said, reminder=number),)

    def _changed(self, instance: Instance, report: Report, verdict: Verdict) -> tuple[Report, tuple[Verdict, ...]]:
        """Note a change; it may be the one by which the instance begins to flap."""
        at = max((verdict.at, *report.changes[-1:]))
        report = replace(report, changes=(*report.changes, at)[-self._changes :])
        first = report.changes[0]
        if report.flapping or len(report.changes) < self._changes or at - first > self._quiet:
            return report, ()
        said = replace(verdict, what="flapping", since=first, late_by_seconds=None, reason=None)
        return replace(report, flapping=True, told="flapping", told_at=at), (said,)

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

    def _rest(self, instance: Instance, report: Report, at: int) -> Outcome:
        """The contract is out of force for the instance."""
        told: tuple[Verdict, ...] = ()
        if report.told != "ok":
            since = report.since if report.episode else report.told_at
            episode = report.episode or instance.episode
            said = _said("resolved", instance, at, since=since, episode=episode, reason="inactive", cause_id=0)
            report, told = _closed(report, at), (said,)
        instance = replace(instance, state="unknown", since=at, deadline_at=None)
        report = replace(report, inactive=True, overtime=False, flapping=False, changes=(), gap=False, judged_from=None)
        return self._done(instance, report, told)

    def _resumed(self, instance: Instance, report: Report, at: int) -> tuple[Instance, Report]:
        return self._contract.resume(instance, at), replace(report, inactive=False, judged_from=at)

    def _released(self, instance: Instance, report: Report, at: int) -> Outcome:
        """Something that holds back has changed."""
        report, told = self._tell(instance, report, at)
        if report.told == "violated" and self._remind and report.told_at < at:
            report = replace(report, reminded=max(report.reminded, (at - report.told_at) // self._remind))
        return self._done(instance, report, told)

    def _done(self, instance: Instance, report: Report, told: tuple[Verdict, ...] = ()) -> Outcome:
        """The instance with its report, if there is more to it than what anybody can see."""
        report = replace(
            report,
            wake_at=self._wake_at(instance, report),
            resolved_at=report.resolved_at if self._cooldown else None,
        )
        kept = None if report == expanded(replace(instance, report=None)) else report
        if kept == instance.report:
            return Outcome(instance, told)
        return Outcome(replace(instance, report=kept), told)

    def _wake_at(self, instance: Instance, report: Report) -> int | None:
        if report.flapping:
            return report.changes[-1] + self._quiet
        if _held_outside(report):
            return None
        if instance.state == "violated" and report.told == "ok" and report.resolved_at is not None:
            return report.resolved_at + self._cooldown
        if report.told == "violated" and self._remind:
            return report.told_at + (report.reminded + 1) * self._remind
        return None


def _held_outside(report: Report) -> bool:
    return report.inactive or report.suppressed or report.unheard is not None


def _closed(report: Report, at: int) -> Report:
    """The report once everything is told to be resolved at `at`."""
    resolved_at = at if report.episode or report.told == "flapping" else report.resolved_at
    return replace(report, told="ok", episode=0, since=0, told_at=0, reminded=0, resolved_at=resolved_at)


def _said(
    what: Literal["violated", "resolved", "unknown"],
    instance: Instance,
    at: int,
    *,
    since: int,
    episode: int,
    reason: str | None = None,
    cause_id: int | None = None,
) -> Verdict:
    """A verdict that the kind itself hasn't just made."""
    memory = instance.memory
    cause_id = memory.event_id if cause_id is None else cause_id
    return Verdict(
        what=what, at=at, since=since, episode=episode, cause_id=cause_id, observed=memory.observed, reason=reason
    )
