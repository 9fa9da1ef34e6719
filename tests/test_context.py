"""What is recorded through a `ctx`, and what it refuses before the store would."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from edgeq import job
from edgeq.context import RECORDED_CHARACTERS_MAX, RECORDED_MAX, Context
from edgeq.errors import EdgeqError
from edgeq.events import Event, from_json, to_json
from edgeq.jobs.context import PROGRESS_CHARACTERS_MAX, JobContext, JobInfo, ParentInfo
from edgeq.jobs.outcome import Dead, RetryAfter, Snoozed
from edgeq.notifications.text import TITLE_CHARACTERS_MAX, render
from edgeq.store.jobs import NewJob, Options, Parent, StoredJob
from edgeq.testing import FakeClock, Notified
from edgeq.testing.notified import notified


@pytest.mark.parametrize("bad", ["a\0b", "a\udc80b"])
@pytest.mark.parametrize("key", ["type", "subject", "description", "idempotency_key", "tags"])
def test_texts_that_no_database_takes_are_refused_by_name(key: str, bad: str) -> None:
    ctx = Context(FakeClock())
    given: dict[str, Any] = {"type": "t", key: ("fine", bad) if key == "tags" else bad}
    with pytest.raises(ValueError, match=rf"^{key} of an event can't be stored") as caught:
        ctx.emit(**given)
    str(caught.value).encode("ascii")  # fit to be logged
    assert ctx.decisions.events == []


def test_a_title_of_a_notification_is_checked_too() -> None:
    with pytest.raises(ValueError, match="description"):
        Context(FakeClock()).notify("a\0b")


def test_a_notification_is_an_event_for_the_courier() -> None:
    ctx = Context(FakeClock())
    ctx.notify("Tank low")
    ctx.notify(
        "Pump", "dry", severity="critical", subject="pump-1", tags=["water"], channels=("phone", "mail", "phone")
    )
    plain, full = ctx.decisions.events
    assert (plain.type, plain.tags, plain.description, plain.subject) == (
        "notification", ("notification",), "Tank low", "",
    )  # fmt: skip
    assert from_json(plain.data_json) == {"title": "Tank low", "body": "", "severity": "info"}
    assert (full.subject, full.tags) == ("pump-1", ("notification", "water"))
    assert from_json(full.data_json) == {
        "title": "Pump", "body": "dry", "severity": "critical", "channels": ["phone", "mail"],
    }  # fmt: skip
    assert notified(ctx.decisions.events) == [
        Notified("Tank low"),
        Notified("Pump", "dry", "critical", "pump-1", ("water",), ("phone", "mail")),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"title": ""}, "a notification needs a title, a text such as 'The tank is low', not ''"),
        ({"title": " \n"}, "needs a title"),
        ({"title": None}, "needs a title, .* not None"),
        ({"title": 17}, "needs a title, .* not 17"),
        ({"body": None}, "the body of a notification must be a text, not None"),
        ({"body": {"a": 1}}, "must be a text"),
        ({"severity": "urgent"}, "is debug, info, warning, critical, not 'urgent'"),
        ({"severity": "CRITICAL"}, "not 'CRITICAL'"),
        ({"severity": None}, "not None"),
        ({"severity": ["info"]}, "not"),
        ({"channels": "phone"}, r"channels must be a list of channels' names, such as \['phone'\], not 'phone'"),
        ({"channels": b"phone"}, "must be a list"),
        ({"channels": []}, r"must be a list of channels' names, .* not \[\]"),
        ({"channels": ["phone", ""]}, "must be a list"),
        ({"channels": ["phone", 3]}, "must be a list"),
        ({"channels": {"phone": 1}}, "must be a list"),
        ({"channels": 3}, "must be a list"),
        ({"channels": ["a\udc80"]}, "can't be written as JSON"),
        ({"subject": "a\0"}, "subject of an event can't be stored"),
        ({"body": "x" * RECORDED_CHARACTERS_MAX}, "16 MiB of them"),
    ],
)
def test_what_is_no_notification_is_refused(given: dict[str, Any], message: str) -> None:
    ctx = Context(FakeClock())
    with pytest.raises(ValueError, match=message):
        ctx.notify(**{"title": "Tank low", **given})
    assert ctx.decisions.events == []


def test_a_long_notification_is_kept_whole_and_cut_when_it_is_told() -> None:
    ctx = Context(FakeClock())
    ctx.notify("t" * 300, "b" * 20_000)
    (event,) = ctx.decisions.events
    assert notified([event]) == [Notified("t" * 300, "b" * 20_000)]
    tags, now = to_json(event.tags), event.recorded_at
    stored_event = Event(1, event.type, "", None, event.data_json, tags, event.description, now, now, None, None)
    text = render(stored_event)
    assert text.title == "t" * (TITLE_CHARACTERS_MAX - 1) + "…"
    assert text.body.endswith("(cut; 20000 characters in all)")


def test_other_texts_stay_and_what_is_no_number_becomes_null() -> None:
    ctx = Context(FakeClock())
    ctx.emit("tür", subject="😀\n", tags=(each for each in "ab"), data=[float("nan"), float("-inf"), "\0"])
    (event,) = ctx.decisions.events
    assert (event.type, event.subject, event.tags) == ("tür", "😀\n", ("a", "b"))
    assert event.data_json == '[null,null,"\\u0000"]'


def stored(options: Options | None = None) -> StoredJob:
    text = None if options is None else msgspec.json.encode(options).decode()
    return StoredJob(
        7, "mail", "m:Work", "{}", 0, "executing", 2, 5, 1, "me", 3, 9, None, None, None, None, 5, 1, None, None, None,
        None, None, text,
    )  # fmt: skip


def test_a_job_knows_what_it_is() -> None:
    ctx = JobContext(FakeClock(), stored(), context={"pool": 1})
    assert ctx.job == JobInfo(id=7, queue="mail", kind="m:Work", attempt=2, max_attempts=5)
    assert (ctx.context, ctx.parent, ctx.snoozed, ctx.cause_id) == ({"pool": 1}, None, None, 5)


def test_a_delay_counts_from_the_call_and_not_from_the_beginning_of_a_long_job() -> None:
    clock = FakeClock()
    ctx = JobContext(clock, stored())
    clock.advance(3600)
    ctx.emit("late")
    (event,) = ctx.decisions.events
    assert event.occurred_at == event.recorded_at == ctx.now == clock.now()


@pytest.mark.parametrize("result", [None, "null", "0", '{"sent": false}'])
def test_a_callback_sees_its_parent(result: str | None) -> None:
    parent = Parent(id=3, kind="m:Parent", args='{"a": [1]}', result=result, error=None if result else "broke\nthere")
    ctx = JobContext(FakeClock(), stored(Options(parent=parent, on_success=NewJob(queue="q", kind="k", args="{}"))))
    decoded = None if result is None else from_json(result)
    assert ctx.parent == ParentInfo(3, "m:Parent", {"a": [1]}, decoded, None if result else "broke\nthere")
    assert ctx.parent is ctx.parent


def test_progress_is_reported_as_json_from_any_thread() -> None:
    said: list[Any] = []
    ctx = JobContext(FakeClock(), stored(), report=lambda text: said.append(from_json(text)))
    ctx.progress(0)
    thread = threading.Thread(target=ctx.progress, args=(0.4, "step"))
    thread.start()
    thread.join()
    ctx.progress(1, "ü" * 500)
    ctx.progress(0.5, "\udcff\0" * 500)
    assert said[:2] == [{"fraction": 0, "text": ""}, {"fraction": 0.4, "text": "step"}]
    assert said[2] == {"fraction": 1, "text": "ü" * PROGRESS_CHARACTERS_MAX}
    assert len(said[3]["text"]) == PROGRESS_CHARACTERS_MAX
    JobContext(FakeClock(), stored()).progress(0.5)  # nobody listens, and nothing happens


@pytest.mark.parametrize(
    "given", [(-0.1,), (1.01,), (float("nan"),), (float("inf"),), ("0.5",), (None,), (True,), (0.5, 5), (0.5, b"step")]
)
def test_what_is_no_progress_is_refused(given: Any) -> None:
    said: list[str] = []
    ctx = JobContext(FakeClock(), stored(), report=said.append)
    with pytest.raises(ValueError, match="progress"):
        ctx.progress(*given)
    assert said == []


def test_a_snooze_is_recorded_and_returned() -> None:
    ctx = JobContext(FakeClock(), stored())
    ctx.snooze("5m")
    assert ctx.snooze(90) is ctx.snoozed
    assert ctx.snoozed == Snoozed(90, ctx.decisions)


@pytest.mark.parametrize("delay", [-1, "-1s", "soon", None, True, float("nan"), "90000w"])
def test_a_snooze_or_retry_of_another_form_is_refused(delay: Any) -> None:
    ctx = JobContext(FakeClock(), stored())
    for refuse in (ctx.snooze, RetryAfter):
        with pytest.raises(ValueError, match=r"delay|duration|negative"):
            refuse(delay)
    assert ctx.snoozed is None


def test_outcomes_say_why() -> None:
    again, dead = RetryAfter("1m30s", "busy"), Dead("no such device")
    assert (again.seconds, str(again), str(RetryAfter(5))) == (90, "busy", "asked to be tried again after 5s")
    assert (str(dead), isinstance(dead, EdgeqError)) == ("no such device", True)


@job
def water(bed: str) -> None: ...


def test_what_is_held_in_memory_is_bounded() -> None:
    ctx = Context(FakeClock())
    for _ in range(RECORDED_MAX):
        ctx.emit("a")
    for again in (lambda: ctx.emit("a"), lambda: ctx.dispatch(water(bed="north"))):
        with pytest.raises(ValueError, match="more than 10000 events and jobs"):
            again()
    assert len(ctx.take().events) == RECORDED_MAX
    ctx.emit("a", data="x" * (RECORDED_CHARACTERS_MAX - 2))
    with pytest.raises(ValueError, match="16 MiB of them"):
        ctx.emit("a")
    assert len(ctx.take().events) == 1
