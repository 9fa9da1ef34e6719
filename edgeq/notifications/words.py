"""What edgeq says by itself of an event, as people want to read it on a phone: what is wrong first, then the facts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ..clock import EARLIEST, is_time
from ..events import Event, to_json
from ..zones import machine_zone
from .functions import Length, Moment, Place, clock_time, text_of

log = logging.getLogger("edgeq.courier")

# What a contract's event says of the contract and is not said again as a fact.
_TOLD = ("severity", "title", "message")

Data = Mapping[str, Any]


def here(gateway: str = "") -> Place:
    """The place of this machine; where its time zone can't be found, which is logged once, times are in UTC."""
    try:
        return Place(gateway, machine_zone(os.environ)[0])
    except ValueError as error:
        _warn(str(error))
        return Place(gateway)


@cache
def _warn(fault: str) -> None:
    """Say it, unless it was said: every template asks where it is."""
    log.warning("notifications have times in UTC: %s", fault)


def is_of_contract(event: Event, data: Data) -> bool:
    """Whether it tells of a contract."""
    return event.type.startswith("contract.") and bool(word(data.get("contract")))


def word(value: object) -> str:
    """`value` as text if it is a text or a number, else nothing."""
    if isinstance(value, str):
        return value
    return text_of(value, Place()) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def first(texts: Iterable[str]) -> str:
    """The first that says something; nothing if none does."""
    return next((text for text in texts if text.strip()), "")


def title_of(event: Event, data: Data) -> str:
    """What it is, in a line."""
    message = word(data.get("message"))
    if is_of_contract(event, data):
        return _contract_title(event, data, message)
    return first((event.description, message, _name(event)))


def body_of(event: Event, data: Data, title: str, place: Place) -> str:
    """What else there is to say beside `title`."""
    if is_of_contract(event, data):
        return "\n".join(_contract_lines(event, data, title, place))
    said = (word(data.get("message")), event.description)
    more = first(text for text in said if text.strip() != title.strip())
    return more or "\n".join([_name(event), *_facts(event, data)])


def since(event: Event, data: Data) -> Moment | None:
    """When that began of which the event of a contract tells."""
    value: Any = data.get("since")
    return Moment(value) if is_of_contract(event, data) and is_time(value) else None


def duration(event: Event, data: Data) -> Length | None:
    """For how long that of which the event of a contract tells has lasted, or did last."""
    seconds = data.get("duration_seconds")
    begun = since(event, data)
    if is_of_contract(event, data) and isinstance(seconds, int | float) and 0 <= seconds < -EARLIEST:
        return Length(seconds)
    return None if begun is None else Length(max(0, event.occurred_at - begun) / 1e6)


def _contract_title(event: Event, data: Data, message: str) -> str:
    contract, subject = word(data["contract"]), event.subject.strip()
    lasted = duration(event, data)
    plainly = "duration_seconds" in data and "reason" not in data and "late_by_seconds" not in data
    if event.type == "contract.resolved" and plainly and lasted is not None:
        return f"Resolved after {text_of(lasted, Place())}: {', '.join(filter(None, (subject, contract)))}"
    if not message.strip():
        return f"{contract}: {' '.join(filter(None, (subject, event.type.removeprefix('contract.'))))}"
    if event.type == "contract.violated" or subject in message:
        return message
    return f"{subject} {message}"


def _contract_lines(event: Event, data: Data, title: str, place: Place) -> Iterable[str]:
    """The contract, since when, what was seen, and anything more that is said of it."""
    begun = since(event, data)
    told = f"Contract {word(data['contract'])}"
    if begun is not None and is_time(event.occurred_at):
        from_ = clock_time(begun, event.occurred_at, place)
        until = f" to {clock_time(event.occurred_at, event.occurred_at, place)}"
        told += f", {from_}{until}" if event.type == "contract.resolved" else f", since {from_}"
    yield told + "."
    seen = data.get("observed")
    if seen is not None and (said := _said(seen, place)) not in title:
        yield f"Observed: {said}."
    reason = word(data.get("reason"))
    if reason and reason not in title and event.type == "contract.resolved":
        yield f"Reason: {reason}."


def _said(value: Any, place: Place) -> str:
    if isinstance(value, dict) and not any(isinstance(each, dict | list) for each in value.values()):
        return ", ".join(f"{name} {text_of(each, place)}" for name, each in value.items())
    return text_of(value, place)


def _name(event: Event) -> str:
    return f"{event.type} {event.subject}".strip()


def _facts(event: Event, data: Data) -> list[str]:
    if not data:
        return [event.data_json] if event.data_json not in ("{}", "null", "") else []
    return [f"{key}: {word(value) or to_json(value)}" for key, value in data.items() if key not in _TOLD]
