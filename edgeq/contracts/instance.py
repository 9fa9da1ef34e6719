"""Where a contract stands for one subject, and the steps by which that changes.

The life of an instance, as its kind sees it: `ok`, `pending` (it will be violated at `deadline_at` unless something
comes), `violated`, and `ok` again; `unknown` until there was anything to judge by, and when what there was is too old
to judge by. Becoming violated begins a new episode. What the world is told of it, and when, is not the kind's business:
see `reporting`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

State = Literal["ok", "pending", "violated", "unknown"]
Shown = Literal["ok", "pending", "violated", "unknown", "suppressed"]


class Memory(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is remembered of an instance: the time of the newest event (microseconds since 1970 UTC), the id of the
    last event that was judged, the id of the event to blame for the state, and what was observed last. 0 where there
    is none. A kind that must remember more extends it; what it remembers is JSON, and bounded."""

    newest: int = 0
    event_id: int = 0
    cause_id: int = 0
    observed: Any = None


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the world was told of an instance, and why it isn't told more. Times are microseconds since 1970 UTC.

    `told` is what was said last. `episode` and `since` are those of the violation that was told and not yet resolved
    (0: there is none). See `reporting` for the rest.
    """

    told: Literal["ok", "violated", "unknown", "flapping"] = "ok"
    episode: int = 0
    since: int = 0
    told_at: int = 0
    reminded: int = 0
    resolved_at: int | None = None
    changes: tuple[int, ...] = ()
    flapping: bool = False
    inactive: bool = False
    overtime: bool = False
    suppressed: bool = False
    unheard: int | None = None
    gap: bool = False
    judged_from: int | None = None
    calendar_at: int | None = None
    wake_at: int | None = None


class Instance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a contract stands for one subject. Times are microseconds since 1970 UTC; `deadline_at` is None while
    nothing will happen by itself.

    `state`, `since`, `deadline_at`, `episode` and `memory` belong to the kind. `quotes` is what the message needs of
    the event to blame, `report` what the world was told (None: all that there was to tell); a kind leaves them alone:
    it makes a new instance of an old one with `replace`.
    """

    subject: str
    state: State
    since: int
    deadline_at: int | None = None
    episode: int = 0
    memory: Memory = Memory()
    quotes: tuple[str, ...] = ()
    report: Report | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A change that the world is told of.

    `at` is when it was decided, in the time of the events; `since` when the violation (or the silence of `unknown`, or
    the flapping) began, by the clock as it is now; `ended_at` when a violation was over, if that was before `at`.
    `cause_id` is, of a violation, the event to blame, of all else the last one that was judged (0: none, as when no
    event is behind it). Of a resolved violation `late_by_seconds` says how long after its deadline something came, and
    `reason` why it ended if it ended otherwise than by events; of `unknown`, why nothing is known. `reminder` counts
    the times that a violation was told again.
    """

    what: Literal["violated", "resolved", "unknown", "flapping"]
    at: int
    since: int
    episode: int = 0
    cause_id: int = 0
    observed: Any = None
    ended_at: int | None = None
    late_by_seconds: float | None = None
    reason: str | None = None
    reminder: int = 0


class Step(NamedTuple):
    """What becomes of an instance, and the verdict if there is one."""

    instance: Instance
    verdict: Verdict | None = None


class Skipped(NamedTuple):
    """The event can't be judged by this contract; `reason` is one short word from a fixed set."""

    reason: str


class Change(NamedTuple):
    """Another contract's instance has become `state` (as its row says it) at `at`. `cause_id` is as in `Verdict`."""

    contract: str
    subject: str
    state: Shown
    at: int
    cause_id: int


def violated(instance: Instance, at: int, memory: Memory) -> Step:
    """The step by which `instance` is violated from `at` on."""
    episode = instance.episode + 1
    became = replace(instance, state="violated", since=at, deadline_at=None, episode=episode, memory=memory)
    verdict = Verdict(
        what="violated", at=at, since=at, episode=episode, cause_id=memory.cause_id, observed=memory.observed
    )
    return Step(became, verdict)


def resolved(instance: Instance, at: int, memory: Memory, *, late_by_seconds: float | None = None) -> Step:
    """The step by which the violation of `instance` ends at `at`, or at its beginning if `at` lies before that."""
    at = max(at, instance.since)
    became = replace(instance, state="ok", since=at, deadline_at=None, memory=memory)
    verdict = Verdict(
        what="resolved", at=at, since=instance.since, episode=instance.episode, cause_id=memory.event_id,
        observed=memory.observed, late_by_seconds=late_by_seconds,
    )  # fmt: skip
    return Step(became, verdict)


def unknown(instance: Instance, at: int, memory: Memory, *, reason: str = "gap") -> Step:
    """The step by which nothing is known of `instance` from `at` on: it is told so, once. What comes next is a plain
    step to `ok` or `pending`, or `violated`; a violation that was open when it became unknown ends, or goes on, with
    it. (An instance that is `unknown` because nothing was ever there to judge by is not told of.)"""
    became = replace(instance, state="unknown", since=at, deadline_at=None, memory=memory)
    verdict = Verdict(
        what="unknown", at=at, since=at, episode=instance.episode, cause_id=memory.event_id, observed=memory.observed,
        reason=reason,
    )  # fmt: skip
    return Step(became, verdict)
