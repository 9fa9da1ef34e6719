"""The event that tells of a verdict: what it says, and the key by which the store keeps it once."""

from __future__ import annotations

from typing import Any

from ..events import NewEvent, to_json
from .contract import Contract, say
from .instance import Instance, Verdict

TAGS = ("contract", "notification")


def verdict_event(contract: Contract, instance: Instance, verdict: Verdict, now: int) -> NewEvent:
    """The event for `verdict`, recorded at `now` (microseconds since 1970 UTC)."""
    message = contract.message(instance, verdict)
    return build(contract.name, contract.kind, contract.keys.severity, instance, verdict, message, now)


def build(
    contract: str, kind: str, severity: str, instance: Instance, verdict: Verdict, message: str, now: int
) -> NewEvent:
    """The event for a verdict on a contract that may be gone; `message` says what is wrong, or, if `verdict` has a
    reason, why that doesn't matter any more.

    The key holds the time at which the episode began beside its number: numbers begin again with 1 for a contract that
    was removed and comes back.
    """
    data: dict[str, Any] = {
        "contract": contract, "kind": kind, "severity": severity, "message": message, "episode": verdict.episode,
        "since": verdict.since, "cause": verdict.cause_id or None, "observed": verdict.observed,
    }  # fmt: skip
    text = message
    if verdict.what == "resolved":
        data["duration_seconds"] = (verdict.at - verdict.since) / 1e6
        if verdict.reason is not None:
            data["reason"] = verdict.reason
        elif verdict.late_by_seconds is not None:
            data["late_by_seconds"] = verdict.late_by_seconds
            text = f"{instance.subject} resolved, {spoken(verdict.late_by_seconds)} late".strip()
        else:
            text = f"{instance.subject} resolved after {spoken(data['duration_seconds'])}".strip()
            text += f" (observed {say(verdict.observed)})"
        data["message"] = text
    return NewEvent(
        f"contract.{verdict.what}",
        subject=instance.subject,
        data_json=to_json(data),
        tags=TAGS,
        description=f"{contract}: {text}",
        occurred_at=verdict.at,
        recorded_at=now,
        idempotency_key=f"contract:{contract}:{instance.subject}:{verdict.episode}:{verdict.what}:{verdict.since}",
        cause_id=verdict.cause_id or None,
    )


def spoken(seconds: float) -> str:
    """A length of time in at most two units: `12m34s`, `0.25s`, `3d4h`."""
    if seconds < 60:
        return f"{round(seconds, 3):g}s"
    rest = round(seconds)
    for unit, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if rest >= unit:
            count, left = divmod(rest, unit)
            return f"{count}{name}{left // smaller}{smaller_name}" if left >= smaller else f"{count}{name}"
    raise AssertionError(seconds)
