"""A message that can't be handled, as the dead letter that it becomes (G3)."""

from __future__ import annotations

import traceback
from typing import Any

from ..errors import EdgeqError, RejectedMessage
from ..mqtt.delivery import Delivery
from ..store.dead_letters import NewDeadLetter

SOURCE = "intake"

PAYLOAD_KEPT_BYTES = 2**20
"""How much of a payload a dead letter keeps."""

REASONS = (
    "undecodable", "missing_field", "bad_text", "bad_time", "bad_arguments", "unmapped", "too_large", "over_limit",
    "timeout", "failed", "not_its_own", "restored",
)  # fmt: skip
"""Why a message becomes a dead letter. Those that one's own controllers think of are counted as `rejected`."""

_ERROR_CHARACTERS = 8000
_LOG_CHARACTERS = 500


def dead_letter(delivery: Delivery, route: str, error: BaseException) -> NewDeadLetter:
    """The dead letter of a message that `route` (its label) couldn't handle because of `error`."""
    detail: dict[str, Any] = {"route": route, "qos": delivery.qos, "retain": delivery.retain}
    kept = delivery.payload[:PAYLOAD_KEPT_BYTES]
    if delivery.payload_size > len(kept):
        detail["payload_size"] = delivery.payload_size
    if isinstance(error, RejectedMessage):
        reason, text = one_line(str(error.reason)) or "rejected", sentence(error)
    else:
        reason, text = "failed", "".join(traceback.format_exception(error))[-_ERROR_CHARACTERS:]
    return NewDeadLetter(
        source=SOURCE,
        reason=reason,
        error=text,
        topic=delivery.topic,
        payload=kept,
        created_at=delivery.received_at,
        detail=detail,
    )


def label(letter: NewDeadLetter) -> str:
    """The reason as a label of a counter: one of a fixed set."""
    return letter.reason if letter.reason in REASONS else "rejected"


def sentence(error: BaseException) -> str:
    """What an error says."""
    text = str(error) if isinstance(error, EdgeqError) else "".join(traceback.format_exception_only(error)).strip()
    return text[-_ERROR_CHARACTERS:]


def one_line(text: str) -> str:
    """`text` for a log: what a stranger may have put into an error must not look like lines of our own."""
    return "".join([sign if sign.isprintable() else " " for sign in text[:_LOG_CHARACTERS]])
