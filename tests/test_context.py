"""What is recorded through a `ctx`, and what it refuses before the store would."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from edgeq import job
from edgeq.context import RECORDED_CHARACTERS_MAX, RECORDED_MAX, Context
from edgeq.errors import EdgeqError
from edgeq.events import from_json
from edgeq.jobs.context import PROGRESS_CHARACTERS_MAX, JobContext, JobInfo, ParentInfo
from edgeq.jobs.outcome import Dead, RetryAfter, Snoozed
from edgeq.store.jobs import NewJob, Options, Parent, StoredJob
from edgeq.testing import FakeClock


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
