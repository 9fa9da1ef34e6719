"""Job classes: what is refused when the class is made, when a job is made, and when it is dispatched."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgeq.context import Context
from edgeq.jobs.job import ARGS_BYTES_MAX, Job, definition, registry, resolve
from edgeq.store.jobs import NewJob
from edgeq.testing import FakeClock

NOW = 1_000_000


class Move(Job):
    queue = "motors"
    priority = "high"
    max_attempts = 3
    LIMIT = 4
    device: str
    distance: float = 1.0
    steps: list[int] = dataclasses.field(default_factory=list)
    at: datetime.datetime | None = None
    picture: bytes = b""
    kind: str = "plain"

    def handle(self, ctx: Any) -> None: ...


class Loose(Job):
    anything: Any = None

    def handle(self, ctx: Any) -> None: ...


def stored(job: Job) -> Job:
    """The job as a worker sees it."""
    return definition(job).decode(job.new_job(now=NOW).args)


def test_a_job_comes_out_of_the_store_as_it_went_in() -> None:
    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    job = Move(device="m1", distance=2.5, steps=[1, 2], at=at, picture=b"\xff\x00", kind="odd")
    assert stored(job) == job


def test_the_row_says_how_the_class_is_run() -> None:
    assert Move(device="m1").new_job(now=NOW, cause_id=7) == NewJob(
        queue="motors",
        kind=f"{__name__}:Move",
        args='{"device":"m1","distance":1.0,"steps":[],"at":null,"picture":"","kind":"plain"}',
        run_at=NOW,
        created_at=NOW,
        priority=10,
        max_attempts=3,
        cause_id=7,
    )


def test_texts_from_json_become_what_the_field_says() -> None:
    job = Move(device="m1", at="2026-01-02T00:00:00Z", picture="/wA=")  # type: ignore[arg-type]
    assert job.at == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    assert job.picture == b"\xff\x00"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": 5}, ["Move", "device", "`str`, got `int`"]),
        ({"device": b"m1"}, ["Move", "device"]),
        ({"device": "m1", "distance": "far"}, ["Move", "distance"]),
        ({"device": "m1", "steps": [1, "two"]}, ["Move", "steps", "$[1]"]),
        ({}, ["Move", "device"]),
        ({"device": "m1", "colour": "red"}, ["Move", "colour"]),
    ],
)
def test_arguments_are_checked_when_the_job_is_made(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Move(**arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def loop() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    ("job", "word"),
    [
        (Move(device="m1", distance=float("nan")), "NaN"),
        (Loose(anything={"a": [1.0, (None, float("-inf"))]}), "NaN"),
        (Move(device="\udcff"), "surrogates"),
        (Loose(anything=object()), "JSON"),
        (Loose(anything={(1, 2): 3}), "JSON"),
        (Loose(anything=loop()), "JSON"),
        (Loose(anything="x" * ARGS_BYTES_MAX), "256 KiB"),
        (Loose(anything="ü" * (ARGS_BYTES_MAX // 2)), "256 KiB"),
    ],
)
def test_what_can_not_be_stored_is_refused_when_it_is_dispatched(job: Job, word: str) -> None:
    with pytest.raises(ValueError, match=type(job).__name__) as caught:
        job.new_job(now=NOW)
    assert word in str(caught.value)


def test_arguments_changed_after_the_check_are_checked_again() -> None:
    job = Move(device="m1")
    job.device = 5  # type: ignore[assignment]
    with pytest.raises(ValueError, match="device"):
        job.new_job(now=NOW)


def test_the_largest_arguments_that_are_allowed_pass() -> None:
    room = ARGS_BYTES_MAX - len('{"anything":""}')
    assert stored(Loose(anything="x" * room)) == Loose(anything="x" * room)


@pytest.mark.parametrize("run_at", [10**18, 2**63, 1.5, True, "soon"])
def test_run_at_must_be_a_time(run_at: Any) -> None:
    with pytest.raises(ValueError, match="run_at"):
        Move(device="m1").new_job(now=NOW, run_at=run_at)


def test_dispatch_with_a_delay() -> None:
    clock = FakeClock()
    ctx = Context(clock, cause_id=3)
    ctx.dispatch(Move(device="m1"), delay="1m30s")
    [row] = ctx.decisions.jobs
    assert (row.run_at - clock.now(), row.cause_id) == (90_000_000, 3)
    with pytest.raises(ValueError, match="delay"):
        ctx.dispatch(Move(device="m1"), delay=-1)


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize(
    ("args", "word"),
    [
        ('{"device": 5}', "device"),
        ("{}", "device"),
        ('["m1"]', "object"),
        ('{"device": "m1"', "truncated"),
        ("[" * 100_000, ""),
        ("", "truncated"),
    ],
)
def test_arguments_that_no_longer_fit_are_an_error_that_names_the_job(args: str, word: str) -> None:
    with pytest.raises(ValueError, match="Move") as caught:
        definition(Move).decode(args)
    assert word in str(caught.value)


def test_an_argument_that_the_class_no_longer_has_is_passed_over() -> None:
    assert definition(Move).decode('{"device": "m1", "colour": "red"}') == Move(device="m1")


def test_a_check_of_the_author_runs_at_both_ends() -> None:
    class Even(Job):
        number: int

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.number % 2:
                raise ValueError("odd")

        def handle(self, ctx: Any) -> None: ...

    with pytest.raises(ValueError, match="odd"):
        Even(number=1)
    with pytest.raises(ValueError, match=r"Even.*odd"):
        definition(Even).decode('{"number": 1}')


def test_the_arguments_are_checked_whether_or_not_the_authors_check_thinks_of_it() -> None:
    class Checks:
        def __post_init__(self) -> None:
            vars(self)["seen"] = type(vars(self)["at"])

    class Timed(Job):
        at: datetime.datetime

        def __post_init__(self) -> None:
            vars(self)["seen"] = type(self.at)

        def handle(self, ctx: Any) -> None: ...

    class Mixed(Checks, Job):
        at: datetime.datetime

        def handle(self, ctx: Any) -> None: ...

    class Later(Timed):
        more: int = 0

    for job_class in (Timed, Mixed, Later):
        with pytest.raises(ValueError, match=f"{job_class.__name__}: at: "):
            job_class(at="soon")  # type: ignore[arg-type]
        job = job_class(at="2026-01-02T00:00:00Z")  # type: ignore[arg-type]
        assert vars(job)["seen"] is datetime.datetime
    with pytest.raises(ValueError, match="Later: more: "):
        Later(at=datetime.datetime.now(datetime.UTC), more="x")  # type: ignore[arg-type]


def imported(name: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with that source."""
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("queue = ''", ["queue"]),
        ("queue = 'a b'", ["queue"]),
        ("queue = None", ["queue"]),
        ("queue: str = 'critical'", ["'queue'", "without a type"]),
        ("max_attempts: int", ["'max_attempts'", "without a type"]),
        ("priority = 'urgent'", ["priority", "'high'"]),
        ("priority = True", ["priority"]),
        ("priority = 10**9", ["priority"]),
        ("max_attempts = 0", ["max_attempts", "1 to"]),
        ("max_attempts = '5'", ["max_attempts"]),
        ("max_attempts = True", ["max_attempts"]),
        ("timeout = 30", ["timeout", "no unit"]),
        ("timeout = '5 parsecs'", ["timeout", "duration"]),
        ("timeout = '0s'", ["timeout"]),
        ("timeout = '9000000d'", ["timeout"]),
        ("timeout = None", ["timeout"]),
        ("backoff = '60s..1s'", ["backoff"]),
        ("backoff = 1.5", ["backoff"]),
        ("backoff = '1s..900000d'", ["backoff"]),
        ("backoff = []", ["backoff", "from 1 to"]),
        ("backoff = ['1s', 'x']", ["backoff", "duration"]),
        ("backoff = ['1s', '900000d']", ["backoff"]),
        ("unique = 5", ["unique = 5", "('device',)"]),
        ("unique = ('device',)", ["unique", "no argument 'device'"]),
        ("times: int = 1; unique = ('tims',)", ["unique", "did you mean 'times'"]),
        ("expires = 60", ["expires = 60", "no unit"]),
        ("expires = '0s'", ["expires", "longer than nothing"]),
        ("isolation = 'thread'", ["isolation", "'process'"]),
        ("limit = 5", ["limit = 5", "Limit("]),
        ("limit = {'concurrency': 1}", ["limit", "Limit("]),
        ("limit = Limit(by='device', concurrency=1)", ["limit", "no argument 'device'"]),
        ("needs = 'the crm'", ["needs", "up to 64 letters"]),
        ("needs = ['crm']", ["needs"]),
        ("limit: int", ["'limit'", "without a type"]),
        ("configure: str", ["'configure'", "taken"]),
        ("max_attemps = 3", ["'max_attemps'", "did you mean 'max_attempts'"]),
        ("colour = True", ["'colour'", "there is"]),
        ("device = 'm1'", ["'device'", "needs a type"]),
        ("handle = 5", ["handle(self, ctx)"]),
        ("def handle(self): ...", ["handle(self, ctx)"]),
        ("def handle(self, ctx, more): ...", ["handle(self, ctx)"]),
        ("async def handle(self, ctx): yield 1", ["not yield"]),
        ("def handle(self, ctx): yield 1", ["not yield"]),
        ("def failed(self, ctx): ...", ["failed(self, ctx, error)"]),
        ("def __init__(self, device): ...", ["__init__"]),
        ("_device: str", ["'_device'"]),
        ("handle: str", ["'handle'", "taken"]),
        ("new_job: str", ["'new_job'", "taken"]),
        ("names: list = []", ["names", "default_factory"]),
        ("device: InitVar[str]", ["argument"]),
        ("device: str = field(init=False, default='')", ["argument"]),
        ("number: int | list[int] | set[int]", ["list"]),
    ],
)
def test_a_class_that_can_not_work_is_refused_when_it_is_made(
    body: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"""
    from dataclasses import InitVar, field
    from edgeq import Limit
    from edgeq.jobs.job import Job
    class Wrong(Job):
        {body}
        {"" if "handle" in body else "def handle(self, ctx): ..."}
    """
    with pytest.raises(TypeError, match="job Wrong") as caught:
        imported("hostile", source, tmp_path, monkeypatch)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "hostile:Wrong" not in registry


def test_settings_and_constants_may_be_typed_as_what_they_are() -> None:
    class Typed(Job):
        queue: ClassVar[str] = "motors"
        speed: ClassVar[int] = 3

        def handle(self, ctx: Any) -> None: ...

    row = Typed().new_job(now=NOW)
    assert (row.queue, row.args) == ("motors", "{}")


def test_a_base_class_gives_its_settings_and_arguments_and_is_not_run_itself() -> None:
    class Base(Job):
        queue = "motors"
        device: str

    class Child(Base):
        times: int = 1

        def handle(self, ctx: Any) -> None: ...

    assert definition(Base).kind not in registry
    with pytest.raises(ValueError, match=r"Base has no handle\(\)"):
        Base(device="m1").new_job(now=NOW)
    row = Child(device="m1").new_job(now=NOW)
    assert (row.queue, row.args) == ("motors", '{"device":"m1","times":1}')


def test_of_two_classes_with_one_name_the_later_counts() -> None:
    def make() -> type[Job]:
        class Twice(Job):
            def handle(self, ctx: Any) -> None: ...

        return Twice

    _, later = make(), make()
    assert registry[definition(later).kind].job_class is later


def test_a_type_that_is_defined_later_is_found_when_the_first_job_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
    from __future__ import annotations
    from dataclasses import dataclass
    from edgeq.jobs.job import Job
    class Early(Job):
        place: Place
        def handle(self, ctx): ...
    class Never(Job):
        place: Nowhere
        def handle(self, ctx): ...
    @dataclass
    class Place:
        floor: int
    """
    module = imported("forward", source, tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="place"):
        module.Early(place="here")
    early = module.Early(place=module.Place(1))
    assert stored(early) == early
    with pytest.raises(TypeError, match=r"Never.*Nowhere"):
        module.Never(place=1)


def test_resolve_takes_what_the_configuration_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
    from edgeq.jobs.job import Job
    class Water(Job):
        def handle(self, ctx): ...
    class Base(Job):
        amount: int
    number = 5
    """
    imported("plant_jobs", source, tmp_path, monkeypatch)
    (tmp_path / "plant_broken.py").write_text("raise SystemExit(3)")
    water = resolve("plant_jobs:Water")
    assert registry["plant_jobs:Water"].job_class is water
    for reference, word in [
        ("plant_jobs", "module:"),
        (":Water", "module:"),
        ("plant_nothing:Water", "plant_nothing"),
        ("plant_broken:Water", "SystemExit"),
        ("plant_jobs:Wather", "Water"),
        ("plant_jobs:number", "isn't a job class"),
        ("plant_jobs:Job", "isn't a job class"),
        ("plant_jobs:Base", "no handle"),
    ]:
        with pytest.raises(ValueError, match=word):
            resolve(reference)
