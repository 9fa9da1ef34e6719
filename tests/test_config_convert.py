"""Conversion of a section to a record: every mistake is noted, with its place, and secrets stay hidden."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from edgeq.backoff import Backoff
from edgeq.config.schema import Record
from edgeq.config.section import Section
from edgeq.errors import Problem
from edgeq.units import Duration, Size


def positive(value: float) -> None:
    if value <= 0:
        raise ValueError("must be positive")


def refuse(value: str) -> None:
    raise ValueError("must be something else")


class Clear(Record, frozen=True):
    below: float | None = None
    above: float | None = None


class Kind(Record, frozen=True):
    name: str
    sender: str = msgspec.field(name="from", default="")
    every: Duration = Duration(60)
    size: Size = Size(1)
    backoff: Backoff = Backoff(1, 2)
    limit: Annotated[int, positive] = 1
    above: float | None = None
    start: Literal["latest", "beginning"] | int = "latest"
    severity: str | list[str] = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    steps: list[Clear] = msgspec.field(default_factory=list)
    clear: Clear | None = None
    on: bool = False
    url: Annotated[str, len] = ""
    password: str | None = None

    @classmethod
    def faults(cls, given: dict[str, Any]) -> list[tuple[str, str]]:
        return [("password", "needs from as well")] if "password" in given and "from" not in given else []


def read(data: dict[str, Any], **more: Any) -> tuple[Kind | None, list[Problem]]:
    problems: list[Problem] = []
    return Section("channels.x", data, **more).read(Kind, problems), problems


def test_every_type_is_converted() -> None:
    record, problems = read(
        {
            "kind": "any",
            "name": "n", "from": "a", "every": "1h30m", "size": "64KiB", "backoff": "1s..10s", "limit": "7",
            "above": -15, "start": "12", "severity": ["a"], "headers": {"a": 1}, "extra": {"a": [1, None]},
            "steps": [{"below": 1}, None], "clear": {"above": 2.5}, "on": "yes", "password": None,
        }
    )  # fmt: skip
    assert problems == []
    assert record == Kind(
        name="n", sender="a", every=Duration(5400), size=Size(65536), backoff=Backoff(1, 10), limit=7, above=-15.0,
        start=12, severity=["a"], headers={"a": "1"}, extra={"a": [1, None]}, steps=[Clear(below=1.0), Clear()],
        clear=Clear(above=2.5), on=True,
    )  # fmt: skip
    assert isinstance(record, Kind)
    assert isinstance(record.above, float)


def test_text_is_the_text_as_written() -> None:
    record, problems = read({"name": 1.1, "headers": {"x.y": True}}, written={"name": "1.10", 'headers."x.y"': "TRUE"})
    assert problems == []
    assert record is not None
    assert (record.name, record.headers) == ("1.10", {"x.y": "TRUE"})


def test_all_problems_are_noted_with_place_and_path() -> None:
    places = {"": "f:1", "evry": "f:2", "steps[1].below": "f:9", "severity": "f:4", "limit": "f:5", "start": "f:6"}
    data = {
        "evry": "1s", "steps": [{}, {"below": "cold"}], "severity": 5, "limit": 0, "start": "latets", "password": "x",
        "every": 60, "clear": [1], "on": "perhaps", "headers": "h", "size": {"size": None},
    }  # fmt: skip
    record, problems = read(data, places=places)
    assert record is None
    assert [str(problem) for problem in problems] == [
        "f:2: channels.x.evry: unknown key (did you mean 'every'?)",
        "f:9: channels.x.steps[1].below: must be a number, not 'cold'",
        "f:5: channels.x.limit: must be positive, not 0",
        "f:6: channels.x.start: must be latest, beginning or a whole number, not 'latets'",
        "f:1: channels.x.every: 60 has no unit: write 60s, 60m or 60h",
        "f:1: channels.x.clear: must be a mapping, not a list",
        "f:1: channels.x.on: must be true or false, not 'perhaps'",
        "f:1: channels.x.headers: must be a mapping, not 'h'",
        'f:1: channels.x.size: must be a size, not a mapping (a value that begins with { needs quotes: "{size}")',
        "f:1: channels.x.name: is missing",
        "f:1: channels.x.password: needs from as well",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", None), ("name", []), ("every", -1), ("every", "9" * 400 + "d"), ("every", True),
        ("size", "9" * 400 + "TiB"),
        ("size", -1), ("above", 10**400), ("above", float("nan")), ("above", "1e999"), ("above", True), ("limit", 1.5),
        ("limit", True), ("limit", "1" * 5000), ("limit", None),
        ("backoff", 5), ("backoff", "10s..1s"), ("start", "first"),
        ("steps", {"a": 1}), ("steps", ["x"]), ("clear", "x"), ("on", 1), ("headers", {"a": None}), ("severity", {}),
    ],
)  # fmt: skip
def test_an_impossible_value_is_one_problem(key: str, value: Any) -> None:
    record, problems = read({"name": "n", key: value})
    assert record is None
    assert len(problems) == 1
    assert problems[0].path.startswith(f"channels.x.{key}")
    assert len(str(problems[0])) < 300


class Hushed(Record, frozen=True):
    password: Annotated[Duration, positive] = Duration(1)
    api_key: Literal["a", "b"] = "a"
    token: int = 1
    webhook: str = ""
    plain: Annotated[str, refuse] = ""


def refuse_loudly(value: str) -> None:
    raise ValueError(f"must not be {value!r}")


class Noisy(Record, frozen=True):
    noisy: Annotated[str, refuse_loudly] = ""


def test_secrets_are_never_repeated() -> None:
    section = Section(
        "channels.x",
        {
            "password": "hunter2",
            "api_key": "hunter3",
            "token": "hunter4",
            "plain": "https://me:hunter5@host/?token=hunter6",
        },
    )
    problems: list[Problem] = []
    assert section.read(Hushed, problems) is None
    assert len(problems) == 4
    text = "\n".join(map(str, problems)) + repr(section)
    assert "hunter" not in text
    assert text.count("<hidden>") == 5


def test_what_came_from_a_file_or_the_environment_is_shown_as_it_was_given() -> None:
    section = Section("c", {"plain": "hunter2"}, shown={"plain": "${MINE}"})
    problems: list[Problem] = []
    section.read(Hushed, problems)
    assert str(problems[0]) == ": c.plain: must be something else, not ${MINE}"
    Section("c", {"noisy": "hunter2"}, shown={"noisy": "${MINE}"}).read(Noisy, problems)
    assert str(problems[1]) == ": c.noisy: can't be used, not ${MINE}"
    assert section.problem("plain", "'hunter2' is no good").message == "'${MINE}' is no good"


def test_a_section_knows_the_nearest_place() -> None:
    section = Section("c", {}, {"": "f:1", "steps": "f:2", "steps[1]": "f:4"})
    assert [section.where(key) for key in ("", "x", "steps[0].of", "steps[1].of", "steps.a")] == [
        "f:1", "f:1", "f:2", "f:4", "f:2"
    ]  # fmt: skip


class Picky(Record, frozen=True):
    count: int = 1

    def __post_init__(self) -> None:
        if self.count > 2:
            raise ValueError("count must be at most 2")


def test_what_a_record_refuses_is_a_problem_of_the_section() -> None:
    problems: list[Problem] = []
    assert Section("p", {"count": 3}, {"": "f:1", "count": "f:2"}).read(Picky, problems) is None
    assert [str(problem) for problem in problems] == ["f:1: p: count must be at most 2"]
