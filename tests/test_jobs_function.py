"""`@job`: which functions become jobs, what their arguments are, and what runs in the end."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeq import Limit, Unique, job
from edgeq.jobs.context import JobContext
from edgeq.jobs.job import Job, definition, registry, resolve
from edgeq.store.jobs import StoredJob
from edgeq.testing import FakeClock

if TYPE_CHECKING:
    from nowhere import Context

NOW = 1_000_000


@job
def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@job(queue="mail", priority="high", max_attempts=3, unique=("to",), limit=Limit(by=("to",), rate="10/m"), needs="smtp")
async def send(to: str, date: date | None = None, *, tags: list[str] = [], ctx: Context) -> Any:  # noqa: B006
    tags.append("sent")
    return ctx, to, date, tags


@job
def loose(ctx, anything, other=None):  # type: ignore[no-untyped-def]
    return ctx, anything, other


@job
def collect(found=[]):  # type: ignore[no-untyped-def]  # noqa: B006 - what it is about
    return found


@job
def named(*, a: int) -> int:
    return a


def shouting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return str(function(*args, **kwargs)).upper()

    return wrapper


@job
@shouting
def greet(name: str) -> str:
    return f"hello {name}"


@job
def grow(tree: Tree) -> int:
    return tree.height


class Tree:
    height: int


def context(clock: FakeClock | None = None) -> JobContext:
    row = add(1).new_job(now=NOW)
    stored = StoredJob(
        1, row.queue, row.kind, row.args, 0, "executing", 1, 5, NOW, "me", 1, NOW, None, None, None, None, None, NOW,
        None, None, None, None, None, None,
    )  # fmt: skip
    return JobContext(clock or FakeClock(), stored)


def stored(made: Job) -> Job:
    """The job as a worker sees it."""
    return registry[definition(made).kind].decode(made.new_job(now=NOW).args)


def test_calling_it_makes_a_job_and_the_function_stays() -> None:
    assert (add(1), add(1, 3), add(b=3, a=1)) == (add(a=1, b=2), add(a=1, b=3), add(1, b=3))
    assert add.function(1, 5) == add(1).function(1, 5) == 6
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Adds.", __name__)
    row = add(1).new_job(now=NOW)
    assert (row.kind, row.args, row.queue) == (f"{__name__}:add", '{"a":1,"b":2}', "default")


def test_what_a_worker_decodes_runs_the_function() -> None:
    assert stored(add(1)).handle(context()) == 3
    assert stored(greet("ada")).handle(context()) == "HELLO ADA"


async def test_the_context_is_handed_in_by_name_wherever_it_stands() -> None:
    ctx = context()
    given = await stored(send("ops", date(2026, 1, 2), tags=["hot"])).handle(ctx)
    assert given == (ctx, "ops", date(2026, 1, 2), ["hot", "sent"])
    assert inspect.iscoroutinefunction(send.handle)
    assert not inspect.iscoroutinefunction(loose.handle)
    assert stored(loose({"x": [1]})).handle(ctx) == (ctx, {"x": [1]}, None)


def test_a_list_by_default_is_a_new_one_each_time() -> None:
    first, second = collect(), collect()
    first.handle(context()).append(1)
    assert (second.handle(context()), collect.function()) == ([], [])


def test_settings_are_those_of_a_class() -> None:
    row = send("ops").new_job(now=NOW)
    assert (row.queue, row.priority, row.max_attempts, row.needs) == ("mail", 10, 3, "smtp")
    assert row.unique_key == '{"to":"ops"}'
    assert row.limit is not None
    assert (row.limit.key, row.limit.interval_us) == (f'{__name__}:send {{"to":"ops"}}', 6_000_000)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: add("1"), "a: Expected `int`, got `str`"),
        (lambda: add(), "'a'"),
        (lambda: add(1, 2, 3), "positional"),
        (lambda: add(1, c=3), "'c'"),
        (lambda: send("ops", None, ["x"]), "positional"),
        (lambda: named(1), "positional"),
        (lambda: send("ops", "tomorrow"), "date: "),
        (lambda: send("ops", ctx=None), "'ctx'"),
        (lambda: grow(3), "tree"),
    ],
)
def test_arguments_are_checked_when_the_job_is_made(make: Callable[[], Any], word: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert word in str(caught.value)


class Things:
    def method(self) -> None: ...
    @staticmethod
    def static() -> None: ...
    @classmethod
    def of_class(cls) -> None: ...


def _star(*args: int) -> None: ...
def _stars(**more: int) -> None: ...
def _by_place(a: int, /) -> None: ...
def _ctx_by_place(ctx: Any, /) -> None: ...
def _ctxs(*ctx: Any) -> None: ...
def _taken(queue: str) -> None: ...
def _taken_method(handle: str) -> None: ...
def _private(_a: int) -> None: ...
def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


def _odd_type(a: int | list[int] | set[int]) -> None: ...
def _broken_type(a: int[3]) -> None: ...  # type: ignore[type-arg]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: None, ["lambda", "no name"]),
        (Things.method, ["Things.method", "methods can't be jobs"]),
        (Things.static, ["Things.static", "methods can't be jobs"]),
        (vars(Things)["static"], ["methods can't be jobs"]),
        (vars(Things)["of_class"], ["methods can't be jobs"]),
        (Things().method, ["only a function"]),
        (Things, ["Things", "subclass of Job"]),
        (shouting(lambda: None), ["lambda"]),
        (functools.partial(print, 1), ["only a function"]),
        (print, ["print", "only a function"]),
        ("text", ["'text'", "only a function"]),
        (_star, ["_star", "*args", "name of its own"]),
        (_stars, ["**more"]),
        (_ctxs, ["*ctx"]),
        (_by_place, ["'a'", "'/'"]),
        (_ctx_by_place, ["'ctx'", "'/'"]),
        (_taken, ["'queue'", "parameter"]),
        (_taken_method, ["'handle'"]),
        (_private, ["'_a'"]),
        (_generator, ["not yield"]),
        (_async_generator, ["not yield"]),
        (_odd_type, ["_odd_type", "list"]),
        (_broken_type, ["_broken_type", "not subscriptable"]),
    ],
)
def test_what_can_not_be_a_job_says_why(function: Any, words: list[str]) -> None:
    before = dict(registry)
    with pytest.raises(TypeError, match=r"^job ") as caught:
        job(function)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert dict(registry) == before


def test_a_function_inside_of_another_is_no_job() -> None:
    def inner() -> None: ...

    with pytest.raises(TypeError, match=r"inner: it stands inside of another function.*top of its module"):
        job(inner)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_attemps": 3}, ["'max_attemps'", "did you mean 'max_attempts'"]),
        ({"function": 3}, ["'function'"]),
        ({"priority": "urgent"}, ["priority = 'urgent'"]),
        ({"unique": ("c",)}, ["unique", "'c'"]),
        ({"limit": Limit(by="c", concurrency=1)}, ["limit", "'c'"]),
        ({"backoff": []}, ["backoff"]),
    ],
)
def test_settings_that_are_wrong_name_the_function(settings: Any, words: list[str]) -> None:
    with pytest.raises(TypeError, match=r"^job add: ") as caught:
        job(**settings)(add.function)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_configuration_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
    from __future__ import annotations
    import edgeq
    from edgeq import job
    @job(queue="plants")
    def water(bed: Bed): return bed.name
    def prune(bed: str): ...
    from dataclasses import dataclass
    @dataclass
    class Bed:
        name: str
    """
    (tmp_path / "plant_functions.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plant_functions", raising=False)
    water: Any = resolve("plant_functions:water")
    module = importlib.import_module("plant_functions")
    assert water is module.water
    assert stored(water(module.Bed("north"))).handle(context()) == "north"
    with pytest.raises(ValueError, match=r"plant_functions:prune isn't a job class; with @job on it"):
        resolve("plant_functions:prune")


def test_unique_with_more_to_say() -> None:
    again: Any = job(unique=Unique(by="a", within="10m"))(add.function)
    assert again(1, b=9).new_job(now=NOW).unique_key == '{"a":1}'
