"""What is told of an instance once nothing from outside holds it back: now, later, again, or not at all. Pure.

See `reporting` for what each of the keys means.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from .instance import Instance, Report, Shown, Verdict
from .keys import LINK, Keys, listed

NOTHING = Report()

Told = tuple[Report, tuple[Verdict, ...]]


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
        return NOTHING
    return Report(told="violated", episode=instance.episode, since=instance.since)


class Teller:
    """Tells of the instances of a contract, as its `cooldown`, `remind` and `flapping` say. `plain`: it has none."""

    def __init__(self, keys: Keys) -> None:
        self._cooldown = 0 if keys.cooldown is None else keys.cooldown.microseconds
        self._remind = 0 if keys.remind is None else keys.remind.microseconds
        self._changes = 0 if keys.flapping is None else keys.flapping.changes
        self._quiet = 0 if keys.flapping is None else keys.flapping.within.microseconds
        self._suppressible = any(name != LINK for name in listed(keys.suppressed_by))
        self.plain = not (self._cooldown or self._remind or self._changes)

    def tell(self, instance: Instance, report: Report, at: int, verdict: Verdict | None = None) -> Told:
        """Tell at `at` what stands, unless it was told or something holds it back. `verdict` is what the kind has just
        said."""
        if held_outside(report) or report.flapping:
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

    def note_change(self, report: Report, verdict: Verdict) -> Told:
        """Note that the kind has said something; it may be that by which the instance begins to flap."""
        if not self._changes or held_outside(report):
            return report, ()
        at = max((verdict.at, *report.changes[-1:]))
        report = replace(report, changes=(*report.changes, at)[-self._changes :])
        first = report.changes[0]
        if report.flapping or len(report.changes) < self._changes or at - first > self._quiet:
            return report, ()
        said = replace(verdict, what="flapping", since=first, late_by_seconds=None, reason=None)
        return replace(report, flapping=True, told="flapping", told_at=at), (said,)

    def wake_at(self, instance: Instance, report: Report) -> int | None:
        """When there is something to tell by itself."""
        if report.flapping:
            return report.changes[-1] + self._quiet
        if held_outside(report):
            return None
        if instance.state == "violated" and report.told == "ok" and report.resolved_at is not None:
            return report.resolved_at + self._cooldown
        if report.told == "violated" and self._remind:
            return report.told_at + (report.reminded + 1) * self._remind
        return None

    def wake(self, instance: Instance, report: Report, at: int, until: int) -> Told:
        """Tell what was due at `at`, which is `wake_at`; of reminders, the last before `until`."""
        if report.flapping:
            return self.tell(instance, replace(report, flapping=False, changes=()), at)
        if report.told != "violated":
            return self.tell(instance, report, at)
        number = (until - 1 - report.told_at) // self._remind if self._remind else 0
        if number <= report.reminded:
            return report, ()
        if self._suppressible and number > report.reminded + 1:  # something may suppress it before that
            return replace(report, reminded=number - 1), ()
        at = report.told_at + number * self._remind
        cause_id = instance.memory.cause_id
        said = _said("violated", instance, at, since=report.since, episode=report.episode, cause_id=cause_id)
        return replace(report, reminded=number), (replace(said, reminder=number),)

    def close(self, instance: Instance, report: Report, at: int) -> Told:
        """Tell that it is over with whatever was told, because the contract is out of force."""
        if report.told == "ok":
            return report, ()
        since = report.since if report.episode else report.told_at
        episode = report.episode or instance.episode
        said = _said("resolved", instance, at, since=since, episode=episode, reason="inactive", cause_id=0)
        return self._closed(report, at), (said,)

    def freed(self, report: Report, at: int) -> Report:
        """The report when something ceases to hold back: the reminders of that time are over."""
        if report.told != "violated" or not self._remind or report.told_at >= at:
            return report
        return replace(report, reminded=max(report.reminded, (at - report.told_at) // self._remind))

    def adopt(self, report: Report, now: int) -> Report:
        """A report that was made under other keys, perhaps."""
        reminds_anew = self._remind and report.told == "violated" and not report.told_at
        return replace(
            report,
            flapping=report.flapping and bool(self._changes),
            resolved_at=report.resolved_at if self._cooldown else None,
            told_at=now if reminds_anew else report.told_at,
        )

    def set_clock(self, report: Report, now: int, step_microseconds: int) -> Report:
        """The report after the clock was set to `now`: what was left is left still."""

        def moved(at: int) -> int:
            return min(at + step_microseconds, now)

        return replace(
            report,
            since=begun_before(report.since, now, step_microseconds) if report.episode else 0,
            unheard=None if report.unheard is None else begun_before(report.unheard, now, step_microseconds),
            resolved_at=None if report.resolved_at is None else moved(report.resolved_at),
            changes=tuple(map(moved, report.changes)),
            told_at=moved(report.told_at) if report.told_at else 0,
            judged_from=None if report.judged_from is None else min(report.judged_from, now),
        )

    def _tell_violated(self, instance: Instance, report: Report, at: int, verdict: Verdict | None) -> Told:
        episode, since = report.episode, report.since
        if not episode:
            cooling = report.resolved_at is not None and at < report.resolved_at + self._cooldown
            if cooling and report.told == "ok":
                return report, ()
            episode, since = instance.episode, instance.since
        if verdict is None or verdict.what != "violated" or report.episode:
            cause_id = instance.memory.cause_id
            verdict = _said("violated", instance, at, since=since, episode=episode, cause_id=cause_id)
        told_at = at if self._remind else 0
        became = replace(report, told="violated", episode=episode, since=since, told_at=told_at, reminded=0)
        return became, (verdict,)

    def _tell_resolved(self, instance: Instance, report: Report, at: int, verdict: Verdict | None) -> Told:
        if not report.episode:
            reason = "steady" if report.told == "flapping" else "known"
            said = _said("resolved", instance, at, since=report.told_at, episode=instance.episode, reason=reason)
        elif verdict is not None and verdict.what == "resolved":
            said = replace(verdict, since=report.since, episode=report.episode)
        else:
            said = _said("resolved", instance, at, since=report.since, episode=report.episode)
            if instance.state == "ok" and report.since <= instance.since < at:
                said = replace(said, ended_at=instance.since)
        return self._closed(report, at), (said,)

    def _closed(self, report: Report, at: int) -> Report:
        """The report once everything is told to be resolved at `at`."""
        resolved_at = at if report.episode or report.told == "flapping" else report.resolved_at
        resolved_at = resolved_at if self._cooldown else None
        return replace(report, told="ok", episode=0, since=0, told_at=0, reminded=0, resolved_at=resolved_at)


def begun_before(since: int, now: int, step_microseconds: int) -> int:
    """When something began, by the clock as it is after it was set to `now`: it has lasted as long as before. What lay
    ahead then was told by another clock, and nobody knows how long ago it was."""
    return since + step_microseconds if since <= now - step_microseconds else since


def held_outside(report: Report) -> bool:
    """Whether the contract is out of force, suppressed, or can't be heard."""
    return report.inactive or report.suppressed or report.unheard is not None


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
