"""Dispatching: what of a job, and of what is said with it, comes to the store, and what is refused before."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgeq import Backoff, Context, Limit, Unique
from edgeq.context import DELAY_SECONDS_MAX, How, delay_seconds, new_job, when
from edgeq.jobs.dispatch import CALLBACK_LEVELS_MAX
from edgeq.jobs.job import ARGS_BYTES_MAX, Job, definition
from edgeq.jobs.keys import KEY_BYTES_MAX
from edgeq.store import jobs
from edgeq.store.jobs import FINISHED, INCOMPLETE, NewJob
from edgeq.testing import FakeClock

NOW = FakeClock().now()
HOUR = 3600 * 1_000_000


class Move(Job):
    """Without any limit of its own."""

    device: str
    distance: float = 1.0

    def handle(self, ctx: Any) -> None: ...


class Close(Job):
    """With everything that a class can say."""

    queue = "motors"
    priority = "low"
    max_attempts = 3
    backoff = Backoff(["1s", "5s"], jitter=0)
    unique = Unique(by=("device",), within="10m")
    expires = "1h"
    isolation = "process"
    limit = Limit(by="site", name="valves", concurrency=2, rate="1/10s", burst=3)
    needs = "plc"
    device: str
    site: str = "north"

    def handle(self, ctx: Any) -> None: ...


class Note(Job):
    """A callback."""

    queue = "notes"
    text: str = ""

    def handle(self, ctx: Any) -> None: ...


@dataclass
class Place:
    """An argument of several parts."""

    floor: int
    room: str = ""


class Keyed(Job):
    """One whose arguments can be written in several ways."""

    unique = True
    names: set[str] = field(default_factory=set)
    more: dict[Any, Any] = field(default_factory=dict)
    place: Place | None = None
    text: str = ""

    def handle(self, ctx: Any) -> None: ...


class NeedsMore(Job):
    """One that checks its arguments itself."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise KeyError("negative")

    def handle(self, ctx: Any) -> None: ...


def row(made: Job, **how: Any) -> NewJob:
    return made.new_job(now=NOW, **how)


# What stands on the class


def test_what_the_class_says_is_what_is_stored() -> None:
    new = row(Close(device="v1"))
    assert (new.queue, new.priority, new.max_attempts, new.needs, new.expires_us) == ("motors", -10, 3, "plc", HOUR)
    assert (new.unique_key, new.unique) == (
        '{"device":"v1"}',
        jobs.Unique((*INCOMPLETE, "completed"), 600_000_000),
    )
    assert new.limit == jobs.Limit('valves {"site":"north"}', 2, 10_000_000, 3)
    settings = definition(Close).settings
    assert (settings.isolation, settings.backoff.delay(1), settings.backoff.delay(9)) == ("process", 1, 5)


def test_a_class_that_says_nothing_leaves_its_jobs_alone() -> None:
    new = row(Move(device="m1"))
    assert (new.unique_key, new.limit, new.needs, new.expires_us) == (None, None, None, None)


@pytest.mark.parametrize(
    ("unique", "key", "rule"),
    [
        (True, '{"device":"m1","distance":1.0}', jobs.Unique()),
        ("device", '{"device":"m1"}', jobs.Unique()),
        (("distance", "device"), '{"device":"m1","distance":1.0}', jobs.Unique()),
        ((), "{}", jobs.Unique()),
        (Unique(states=("dead", "available")), '{"device":"m1","distance":1.0}', jobs.Unique(("dead", "available"))),
        (Unique(by="device", states=FINISHED, within="1s"), '{"device":"m1"}', jobs.Unique(FINISHED, 1_000_000)),
    ],
)
def test_each_way_to_be_unique(unique: Any, key: str, rule: jobs.Unique) -> None:
    new = row(Move(device="m1"), unique=unique)
    assert (new.unique_key, new.unique) == (key, rule)
    again = type("Again", (Move,), {"unique": unique})
    new = row(again(device="m1"))
    assert (new.unique_key, new.unique) == (key, rule)


def test_the_same_arguments_make_the_same_key() -> None:
    names = [f"n{number}" for number in range(10)]
    more = {2: {"b", "a"}, "x": {"q": 1, "p": 2}, 10: 0}
    one = row(Keyed(names=set(names), more=more, place=Place(1, "hall")))
    two = row(Keyed(names=set(names), more=dict(reversed(more.items())), place=Place(1, "hall")))
    assert one.unique_key == two.unique_key
    assert one.unique_key == (
        '{"more":{"10":0,"2":["a","b"],"x":{"p":2,"q":1}},'
        '"names":["n0","n1","n2","n3","n4","n5","n6","n7","n8","n9"],"place":{"floor":1,"room":"hall"},"text":""}'
    )


def test_a_long_key_made_of_arguments_is_a_hash() -> None:
    shortest = row(Keyed()).unique_key
    assert shortest is not None
    room = KEY_BYTES_MAX - len(shortest)
    assert row(Keyed(text="x" * room)).unique_key == shortest.replace('"text":""', f'"text":"{"x" * room}"')
    keys = [row(Keyed(text=text)).unique_key or "" for text in ("x" * (room + 1), "x" * (room + 2), "ü" * room)]
    assert len(set(keys)) == 3
    assert all(key.startswith("sha256:") and len(key) == 71 for key in keys)


def test_limits_count_by_class_name_and_arguments() -> None:
    class Other(Close):
        limit = Limit(concurrency=1)

        def handle(self, ctx: Any) -> None: ...

    assert row(Other(device="v1")).limit == jobs.Limit(definition(Other).kind, 1)
    long = row(Close(device="v1", site="s" * KEY_BYTES_MAX)).limit
    assert long is not None
    assert len(long.key.encode()) <= KEY_BYTES_MAX


# What is said with the dispatch


def test_a_dispatch_says_more_than_the_class() -> None:
    new = row(
        Close(device="v1"),
        queue="other",
        priority=7,
        max_attempts=9,
        expires="1m",
        unique_key="k",
        limit_key="l",
    )
    assert (new.queue, new.priority, new.max_attempts, new.expires_us) == ("other", 7, 9, 60_000_000)
    assert (new.unique_key, new.unique.within_us) == ("k", 600_000_000)
    assert new.limit == jobs.Limit("valves l", 2, 10_000_000, 3)
    assert row(Close(device="v1"), unique=False).unique_key is None
    new = row(Move(device="m1"), unique_key="k")
    assert (new.unique_key, new.unique) == ("k", jobs.Unique())


def test_nothing_said_is_as_the_class_says() -> None:
    assert row(Close(device="v1"), **dict.fromkeys(How.__annotations__)) == row(Close(device="v1"))


def test_a_job_can_be_configured_before_it_is_dispatched() -> None:
    plain = Move(device="m1")
    configured = plain.configure(queue="slow", priority="high").configure(priority=3)
    assert configured == plain
    assert row(plain).queue == "default"
    assert (row(configured).queue, row(configured).priority) == ("slow", 3)
    new = row(configured, queue="slower", priority=None)
    assert (new.queue, new.priority) == ("slower", 3)


def test_callbacks_are_rows_of_their_own() -> None:
    new = row(
        Move(device="m1"), on_success=Note(text="done"), on_failure=Note(text="broken").configure(priority="high")
    )
    assert new.on_success == row(Note(text="done"))
    assert new.on_failure is not None
    assert (new.on_failure.queue, new.on_failure.priority) == ("notes", 10)


def test_callbacks_of_callbacks_end() -> None:
    last = Note(text="last")
    for _ in range(CALLBACK_LEVELS_MAX - 1):
        last = Note(text="next").configure(on_success=last)
    assert row(Move(device="m1"), on_failure=last).on_failure is not None
    with pytest.raises(ValueError, match=r"^job Move: callbacks of callbacks go at most 3 levels"):
        row(Move(device="m1"), on_failure=Note().configure(on_success=last))


def test_a_job_and_its_callbacks_are_of_limited_size_together() -> None:
    half = Note(text="x" * (ARGS_BYTES_MAX // 2))
    assert row(Move(device="m1"), on_success=half).on_success is not None
    with pytest.raises(ValueError, match=r"^job Move: .*callbacks take more than 256 KiB"):
        row(Move(device="m1"), on_success=half, on_failure=half)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"queue": "a b"}, ["queue = 'a b'", "up to 64 letters"]),
        ({"queue": ""}, ["queue = ''"]),
        ({"queue": 5}, ["queue = 5"]),
        ({"queue": "q" * 65}, ["queue = "]),
        ({"priority": "urgent"}, ["priority = 'urgent'", "'high'"]),
        ({"priority": 1001}, ["priority = 1001", "to 1000"]),
        ({"priority": 1.5}, ["priority = 1.5"]),
        ({"priority": True}, ["priority = True"]),
        ({"max_attempts": 0}, ["max_attempts = 0", "from 1 to"]),
        ({"max_attempts": "3"}, ["max_attempts = '3'"]),
        ({"expires": 60}, ["expires = 60", "no unit"]),
        ({"expires": "0s"}, ["expires = '0s'"]),
        ({"expires": "367d"}, ["expires", "366d"]),
        ({"unique_key": "k" * 10_240}, ["unique_key", "at most 1024 bytes", "10240"]),
        ({"unique_key": "ü" * 513}, ["unique_key", "at most 1024 bytes", "1026"]),
        ({"unique_key": ""}, ["unique_key", "empty"]),
        ({"unique_key": 5}, ["unique_key", "text"]),
        ({"unique_key": "a\0b"}, ["unique_key", "null character"]),
        ({"unique_key": "\udcff"}, ["unique_key", "surrogate"]),
        ({"unique": ("colour",)}, ["unique", "no argument 'colour'", "device"]),
        ({"unique": 5}, ["unique = 5"]),
        ({"unique": ("device", 5)}, ["unique", "names"]),
        ({"limit_key": "x"}, ["limit_key", "no limit"]),
        ({"on_success": Note}, ["on_success", "must be a job"]),
        ({"on_failure": "Note"}, ["on_failure", "must be a job", "'Note'"]),
        ({"on_success": Note(text="x" * ARGS_BYTES_MAX)}, ["on_success", "Note", "256 KiB"]),
        ({"run_at": 1.5}, ["run_at", "1.5"]),
        ({"run_at": 10**18}, ["run_at"]),
    ],
)
def test_what_is_wrong_is_refused_and_names_job_and_word(how: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^job Move: ") as caught:
        row(Move(device="m1"), **how)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert len(text) < 400


def test_limit_keys_are_limited_too() -> None:
    with pytest.raises(ValueError, match=r"^job Close: limit_key must be at most 1024 bytes"):
        row(Close(device="v1"), limit_key="x" * 1025)


def test_a_word_that_no_dispatch_knows() -> None:
    with pytest.raises(TypeError, match=r"job Move: a dispatch knows no 'prioirty' \(did you mean 'priority'\?\)"):
        row(Move(device="m1"), prioirty="high")
    with pytest.raises(TypeError, match="'later'"):
        row(Move(device="m1").configure(later=1))  # type: ignore[call-arg]


# When


@pytest.mark.parametrize(
    ("delay", "run_at", "due"),
    [
        (None, None, None),
        ("1m30s", None, NOW + 90_000_000),
        (0.25, None, NOW + 250_000),
        (0, None, NOW),
        ("0", None, NOW),
        (None, NOW + 5, NOW + 5),
        (None, NOW - HOUR, NOW - HOUR),
        (None, 0, 0),
        (None, datetime.datetime(2026, 1, 1, 13, 0, 0, 250, tzinfo=datetime.UTC), NOW + HOUR + 250),
        (None, datetime.datetime.fromisoformat("2026-01-01T14:00:00+02:00"), NOW),
    ],
)
def test_when_a_job_is_due(delay: Any, run_at: Any, due: int | None) -> None:
    assert when(NOW, delay, run_at) == due


@pytest.mark.parametrize(
    ("delay", "run_at", "word"),
    [
        (-1, None, "negative"),
        ("-5s", None, "duration"),
        (float("nan"), None, "delay"),
        (float("inf"), None, "delay"),
        (DELAY_SECONDS_MAX * 2, None, "century"),
        ("soon", None, "duration"),
        ("", None, "duration"),
        (True, None, "delay"),
        (datetime.timedelta(1), None, "delay"),
        ([], None, "delay"),
        ("1s", NOW, "either delay or run_at"),
        (None, NOW + 0.5, "run_at"),
        (None, True, "run_at"),
        (None, "2026-01-01", "run_at"),
        (None, datetime.datetime(2026, 1, 1), "time zone"),
        (None, 2**63, "run_at"),
        (None, NOW // 1_000_000 + 60, "looks like seconds"),
        (None, NOW // 1_000 + 60, "looks like seconds"),
    ],
)
def test_a_time_of_another_form_is_refused_and_names_the_job(delay: Any, run_at: Any, word: str) -> None:
    ctx = Context(FakeClock())
    with pytest.raises(ValueError, match=r"^job Move: ") as caught:
        ctx.dispatch(Move(device="m1"), delay=delay, run_at=run_at)
    assert word in str(caught.value)
    assert ctx.decisions.jobs == []


def test_a_clock_that_was_never_set_is_no_reason_to_refuse() -> None:
    assert when(5_000_000, None, 60_000_000) == 60_000_000


@pytest.mark.parametrize(("delay", "seconds"), [("5m", 300), (300, 300), (0.5, 0.5), ("0", 0), ("1h30m", 5400)])
def test_delays(delay: Any, seconds: float) -> None:
    assert delay_seconds(delay) == seconds


@pytest.mark.parametrize("thing", [None, Move, "Move", {"device": "m1"}, lambda: None])
def test_only_jobs_are_dispatched(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"only a job can be dispatched, such as CloseValve"):
        Context(FakeClock()).dispatch(thing)


def test_a_dispatch_through_a_context_carries_its_cause_and_what_is_said() -> None:
    ctx = Context(FakeClock(), cause_id=7)
    ctx.dispatch(Move(device="m1"), delay="1s", queue="q", on_failure=Note())
    [new] = ctx.decisions.jobs
    assert (new.run_at, new.created_at, new.queue, new.cause_id) == (NOW + 1_000_000, NOW, "q", 7)
    assert new.on_failure is not None
    assert new.on_failure.cause_id == 7
    assert new_job(Move(device="m1"), now=NOW, cause_id=7, delay="1s", queue="q", on_failure=Note()) == new


# From a mapping


def test_arguments_from_a_mapping() -> None:
    assert Move.from_args({"device": "m1"}) == Move(device="m1")
    assert Keyed.from_args({"names": ["a", "b"], "place": {"floor": 1}}) == Keyed(names={"a", "b"}, place=Place(1))


@pytest.mark.parametrize(
    ("job_class", "given", "words"),
    [
        (Move, {"devise": "m1"}, ["no argument 'devise'", "did you mean 'device'"]),
        (Move, {"device": "m1", 5: 6}, ["no argument 5"]),
        (Move, {}, ["device: missing"]),
        (Move, {"device": 5}, ["device: ", "`str`, got `int`"]),
        (Move, {"device": "m1", "distance": "far"}, ["distance: "]),
        (Keyed, {"place": {"floor": "one"}}, ["place: ", "floor"]),
        (NeedsMore, {"number": -1}, ["negative"]),
        (Move, [("device", "m1")], ["must be a mapping"]),
        (Move, None, ["must be a mapping"]),
    ],
)
def test_arguments_that_do_not_fit_are_one_clear_error(job_class: Any, given: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match=rf"^job {job_class.__name__}: ") as caught:
        job_class.from_args(given)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.count("job ") == 1


# Unique and Limit themselves


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Unique(by=5), "by must be names"),
        (lambda: Unique(by=("a", 5)), "by must be names"),
        (lambda: Unique(states=("done",)), "no state 'done'"),
        (lambda: Unique(states=("availble",)), "did you mean 'available'"),
        (lambda: Unique(states=()), "no state ''"),
        (lambda: Unique(within=600), "within: 600 has no unit"),
        (lambda: Unique(within="0s"), "within must be longer"),
        (lambda: Unique(within="400d"), "366d"),
        (lambda: Limit(), "needs concurrency or rate"),
        (lambda: Limit(concurrency=0), "concurrency must be a whole number"),
        (lambda: Limit(concurrency=True), "concurrency"),
        (lambda: Limit(rate="often"), "rate must be a rate such as"),
        (lambda: Limit(rate=5), "rate must be a rate such as"),
        (lambda: Limit(rate="2000000/s"), "at most 1000000/s"),
        (lambda: Limit(rate="1/100w"), "at least 1/366d"),
        (lambda: Limit(rate="1/s", burst=0), "burst must be"),
        (lambda: Limit(concurrency=1, burst=2), "burst needs rate"),
        (lambda: Limit(concurrency=1, name="x" * 1025), "name must be at most 1024 bytes"),
        (lambda: Limit(concurrency=1, name=""), "name must be"),
        (lambda: Limit(concurrency=1, by=5), "by must be names"),
    ],
)
def test_rules_that_can_not_be_meant(make: Any, word: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert word in str(caught.value)
