"""The event that tells of a verdict: what it says, and the key by which the store keeps it once."""

from __future__ import annotations

from typing import Any

from ..events import NewEvent, to_json
from ..units import spoken
from .contract import Contract, say
from .instance import Instance, Verdict

TAGS = ("contract", "notification")

_ENDED = {
    "inactive": "no longer judged: the contract is not in force",
    "known": "known again",
    "steady": "steady again",
}


def verdict_event(contract: Contract, instance: Instance, verdict: Verdict, now: int) -> NewEvent:
    """The event for `verdict`, recorded at `now` (microseconds since 1970 UTC)."""
    message = _message(contract, instance, verdict)
    return build(contract.name, contract.kind, contract.keys.severity, instance.subject, verdict, message, now)


def build(contract: str, kind: str, severity: str, subject: str, verdict: Verdict, message: str, now: int) -> NewEvent:
    """The event for a verdict on a contract that may be gone.

    The key holds the time at which the episode began beside its number: numbers begin again with 1 for a contract that
    was removed and comes back. Of what can be told more than once in an episode it holds the time of that, too.
    """
    data: dict[str, Any] = {
        "contract": contract, "kind": kind, "severity": severity, "message": message, "episode": verdict.episode,
        "since": verdict.since, "cause": verdict.cause_id or None, "observed": verdict.observed,
    }  # fmt: skip
    if verdict.what == "resolved":
        data["duration_seconds"] = _duration_seconds(verdict)
        if verdict.late_by_seconds is not None:
            data["late_by_seconds"] = verdict.late_by_seconds
    if verdict.reason is not None:
        data["reason"] = verdict.reason
    if verdict.reminder:
        data["reminder"] = verdict.reminder
    key = f"{key_prefix(contract)}{subject}:{verdict.episode}:{verdict.what}:{verdict.since}"
    if verdict.what != "resolved" and verdict.at != verdict.since:
        key += f":{verdict.at}"
    return NewEvent(
        f"contract.{verdict.what}",
        subject=subject,
        data_json=to_json(data),
        tags=TAGS,
        description=f"{contract}: {message}",
        occurred_at=verdict.at,
        recorded_at=now,
        idempotency_key=key,
        cause_id=verdict.cause_id or None,
    )


def key_prefix(contract: str) -> str:
    """How the keys of the events of a contract begin, or, if it is empty, of all contracts. Others' may, too."""
    return f"contract:{contract}:" if contract else "contract:"


def _message(contract: Contract, instance: Instance, verdict: Verdict) -> str:
    if verdict.what == "violated":
        text = contract.message(instance, verdict)
        lasting = spoken((verdict.at - verdict.since) / 1e6)
        return f"{text} (reminder {verdict.reminder}, for {lasting})" if verdict.reminder else text
    if verdict.reason == "link":
        lost = verdict.what == "unknown"
        return (
            "unknown: there is no session to the broker" if lost else "judged again: there is a session to the broker"
        )
    if verdict.what == "unknown":
        text = "unknown: there is nothing to judge by"
    elif verdict.what == "flapping":
        flapping = contract.keys.flapping
        assert flapping is not None
        text = f"flapping: {flapping.changes} changes within {spoken((verdict.at - verdict.since) / 1e6)}"
    elif verdict.reason is not None:
        text = _ENDED.get(verdict.reason, f"resolved: {verdict.reason}")
    elif verdict.late_by_seconds is not None:
        text = f"resolved, {spoken(verdict.late_by_seconds)} late"
    else:
        text = f"resolved after {spoken(_duration_seconds(verdict))} (observed {say(verdict.observed)})"
    return f"{instance.subject} {text}".strip()


def _duration_seconds(verdict: Verdict) -> float:
    ended_at = verdict.at if verdict.ended_at is None else verdict.ended_at
    return (ended_at - verdict.since) / 1e6
