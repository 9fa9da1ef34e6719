"""The text of a notification: readable for usual events, bounded and harmless for whatever else they may be."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.clock import MICROSECONDS
from edgeq.events import Event, to_json
from edgeq.notifications.functions import Place
from edgeq.notifications.notification import SEVERITIES, delivered_now
from edgeq.notifications.text import BODY_BYTES_MAX, TITLE_CHARACTERS_MAX, Text, render
from edgeq.notifications.words import here
from edgeq.store.notifications import StoredNotification
from edgeq.testing.clock import NOON
from edgeq.zones import zone


def text_of(
    type: str = "door.opened",  # noqa: A002
    subject: str = "front-door",
    data: Any = None,
    *,
    data_json: str | None = None,
    description: str = "",
) -> Text:
    encoded = to_json({} if data is None else data) if data_json is None else data_json
    return render(Event(1, type, subject, None, encoded, '["notification"]', description, NOON, NOON, None, None))


def test_what_somebody_wrote_is_taken_as_it_is() -> None:
    text = text_of("notification", "", {"title": "Tank low", "body": "12 % left", "severity": "critical"})
    assert (text.severity, text.title, text.body) == ("critical", "Tank low", "12 % left")


def test_an_empty_body_stays_empty() -> None:
    text = text_of("notification", "", {"title": "Tank low", "body": "", "severity": "info"}, description="Tank low")
    assert (text.title, text.body) == ("Tank low", "")


def test_a_description_is_the_title_and_a_message_the_body() -> None:
    text = text_of(data={"message": "Close it"}, description="The front door is open")
    assert (text.title, text.body) == ("The front door is open", "Close it")


def contract(what: str, message: str, *, subject: str = "freezer-1", minutes: float = 0, **data: Any) -> Text:
    """Of the contract `freezer-cold`, so many minutes after it was first violated, at noon."""
    told = {"contract": "freezer-cold", "kind": "threshold", "severity": "critical", "message": message, "episode": 3}
    told |= {"since": NOON, "cause": 7, **data}
    at = NOON + round(minutes * 60 * MICROSECONDS)
    description = f"freezer-cold: {message}"
    return render(
        Event(1, f"contract.{what}", subject, None, to_json(told), '["contract"]', description, at, at, None, None),
        place=Place("barn", zone("Europe/Berlin")),
    )


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        (
            contract("violated", "freezer-1 is too warm: -10 °C", minutes=10, observed=-10.0),
            "freezer-1 is too warm: -10 °C",
            "Contract freezer-cold, since 13:00.",
        ),
        (
            contract("violated", "The freezer is warm", minutes=24 * 60, observed={"a": 1.5, "b": "x"}),
            "The freezer is warm",
            "Contract freezer-cold, since 2026-01-01 13:00.\nObserved: a 1.5, b x.",
        ),
        (
            contract("resolved", "freezer-1 resolved after 12m (observed -18)", minutes=12, duration_seconds=720.0,
                     observed=-18.0),
            "Resolved after 12m: freezer-1, freezer-cold",
            "Contract freezer-cold, 13:00 to 13:12.\nObserved: -18.",
        ),
        (
            contract("resolved", "resolved after 12m", subject="", minutes=12, duration_seconds=720.0),
            "Resolved after 12m: freezer-cold",
            "Contract freezer-cold, 13:00 to 13:12.",
        ),
        (
            contract("resolved", "door resolved, 5m late", subject="door", minutes=10, duration_seconds=600.0,
                     late_by_seconds=300.0),
            "door resolved, 5m late",
            "Contract freezer-cold, 13:00 to 13:10.",
        ),
        (
            contract("resolved", "freezer-1 known again", minutes=12, duration_seconds=720.0, reason="known"),
            "freezer-1 known again",
            "Contract freezer-cold, 13:00 to 13:12.",
        ),
        (
            contract("unknown", "unknown: there is no session to the broker", minutes=1, reason="link"),
            "freezer-1 unknown: there is no session to the broker",
            "Contract freezer-cold, since 13:00.",
        ),
        (
            contract("flapping", "freezer-1 flapping: 6 changes within 30m", minutes=30),
            "freezer-1 flapping: 6 changes within 30m",
            "Contract freezer-cold, since 13:00.",
        ),
        (
            contract("violated", "freezer-1 is warm (reminder 2, for 1h 15m)", minutes=75, reminder=2),
            "freezer-1 is warm (reminder 2, for 1h 15m)",
            "Contract freezer-cold, since 13:00.",
        ),
        (contract("violated", "", since="never"), "freezer-cold: freezer-1 violated", "Contract freezer-cold."),
    ],
)  # fmt: skip
def test_what_a_contract_tells_reads_well_on_a_phone(text: Text, title: str, body: str) -> None:
    assert (text.title, text.body) == (title, body)
    assert text.severity == "critical"


def test_what_the_title_says_already_is_no_fact_of_the_body() -> None:
    assert "-10" not in contract("violated", "freezer-1: -10 °C", observed=-10.0).body
    assert "-10" in contract("violated", "freezer-1", observed=-10.0).body


def test_an_event_that_says_nothing_is_named() -> None:
    text = text_of(data={"room": "B2", "since": 5})
    assert (text.severity, text.title) == ("info", "door.opened front-door")
    assert text.body == "door.opened front-door\nroom: B2\nsince: 5"
    assert text_of(subject="").title == "door.opened"


@pytest.mark.parametrize("severity", ["urgent", "CRITICAL", 3, None, ["critical"], {"a": 1}])
def test_an_unknown_severity_is_info(severity: object) -> None:
    assert text_of(data={"severity": severity}).severity == "info"


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize(
    "data_json",
    [
        "null", "17", '"text"', "[1, 2]", '{"title": {"a": 1}}', '{"title": ["x"], "body": null, "message": false}',
        '{"title": 17, "body": 3.5}', "not json", "", '{"title": "\\ud800"}', '{"title": "a\\u0000b"}',
        "[" * 5000 + "]" * 5000, '{"message": 1' + "0" * 6000 + "}", '{"title": "   "}', '{"title": "\\u0000"}',
    ],
)  # fmt: skip
def test_odd_data_makes_a_harmless_text(data_json: str) -> None:
    text = text_of(data_json=data_json)
    assert_harmless(text)
    assert text.title.strip()


def test_what_is_too_long_is_cut_and_says_so() -> None:
    text = text_of(data={"title": "t" * 1000, "body": "é" * 5_000_000})
    assert text.title == "t" * (TITLE_CHARACTERS_MAX - 1) + "…"
    assert text.body.endswith("\n… (cut; 5000000 characters in all)")
    assert BODY_BYTES_MAX - 2 <= len(text.body.encode()) <= BODY_BYTES_MAX
    exact = text_of(data={"title": "t" * TITLE_CHARACTERS_MAX, "body": "b" * BODY_BYTES_MAX})
    assert exact.title == "t" * TITLE_CHARACTERS_MAX
    assert exact.body == "b" * BODY_BYTES_MAX


def test_line_breaks_stay_in_the_body_and_go_from_the_title() -> None:
    text = text_of(data={"title": "one\r\ntwo\n\nthree\x85four\u2028five", "body": "one\r\ntwo\rthree\n\tfour"})
    assert text.title == "one two three four five"
    assert text.body == "one\ntwo\nthree\n\tfour"


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_any_text_is_made_harmless(kind: str, subject: str, description: str, title: str, body: str) -> None:
    event = Event(1, kind, subject, None, "{}", "[]", description, NOON, NOON, None, None)
    assert_harmless(render(event))
    try:
        encoded = to_json({"title": title, "body": body})
    except ValueError:
        return
    assert_harmless(text_of(data_json=encoded, description=description))


def assert_harmless(text: Text) -> None:
    assert text.severity in SEVERITIES
    assert len(text.title) <= TITLE_CHARACTERS_MAX
    assert len(text.body.encode()) <= BODY_BYTES_MAX
    assert text.title == " ".join(text.title.split())
    for sign in text.title + text.body:
        assert sign >= " " or sign in "\n\t"
        assert sign not in "\x7f\x85\u2028\u2029\u202e"


def test_the_events_of_an_episode_share_a_fingerprint() -> None:
    def print_of(type: str = "contract.violated", subject: str = "front", **data: object) -> str:  # noqa: A002
        return text_of(type, subject, {"contract": "door-closes", "episode": 3, **data}).fingerprint

    assert print_of() == print_of("contract.resolved", observed=5, message="closed again")
    assert print_of() != print_of(episode=4)
    assert print_of() != print_of(subject="back")
    assert print_of() != print_of(contract="door-stays-shut")


def test_other_events_share_one_with_those_of_their_type_and_subject() -> None:
    assert text_of(data={"n": 1}).fingerprint == text_of(data={"n": 2}, description="again").fingerprint
    assert text_of().fingerprint != text_of(subject="back-door").fingerprint
    assert text_of("a", "bc").fingerprint != text_of("ab", "c").fingerprint


@pytest.mark.parametrize(
    ("seconds", "note"),
    [
        (0, ""),
        (60, ""),
        (-3600, ""),
        (61, "raised at 2026-01-01 13:00"),
        (15 * 86400, "raised at 2026-01-01 13:00"),
    ],
)
@pytest.mark.parametrize("body", ["It is open", ""])
def test_what_comes_late_says_when_it_was_raised(seconds: int, note: str, body: str) -> None:
    row = StoredNotification(5, 1, "mail", "info", "Door", body, "f", "queued", 0, NOON, None, None, NOON)
    sent = delivered_now(
        row, store_id="5e7f", now=NOON + seconds * MICROSECONDS, place=Place(zone=zone("Europe/Berlin"))
    )
    assert sent.body == "\n\n".join(part for part in (body, note) if part)
    assert sent.title == "Door"
    assert sent.idempotency_key == "5e7f-5"


def test_a_wrong_time_zone_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TZ", "Mars/Olympus_Mons")
    places = [here("gw"), here(), here()]
    assert {place.zone for place in places} == {UTC}
    assert caplog.text.count("notifications have times in UTC: there is no time zone 'Mars/Olympus_Mons'") == 1
