"""Processors of the configuration: the kinds, classes of one's own with keys of their own, and what is refused."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.errors import Problem
from edgeq.notifications.policy import Policy
from edgeq.processors.courier import Courier
from edgeq.processors.kinds import Parts, PlannedProcessor, plan_processors
from edgeq.processors.sentinel import Sentinel
from edgeq.telemetry.metrics import Metrics


async def nowhere(topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
    raise AssertionError("nothing is published here")


OWN = """
from edgeq.config.schema import Record
from edgeq.processors.processor import QueueProcessor

class PumpSettings(Record, frozen=True):
    pumps: int
    label: str = "none"
    state_file: str = ""

class PumpLog(QueueProcessor):
    types = ["pump.*"]
    settings = PumpSettings

    def __init__(self):
        self.text = f"{self.settings.pumps} pumps, {self.settings.label}"
        self.state_file = self.settings.state_file

    async def process_item(self, event, ctx): ...

class Plain(QueueProcessor):
    async def process_batch(self, events, ctx): ...

class Nothing(QueueProcessor):
    pass

class Blocking(QueueProcessor):
    def process_item(self, event, ctx): ...

class Dreaming(Plain):
    async def filter_item(self, event): return False

class Text(Plain):
    types = "pump.*"

class Needy(Plain):
    def __init__(self, channel): ...

class Loose(Plain):
    settings = {"pumps": 3}

other = 5
"""

Plan = Callable[..., tuple[dict[str, PlannedProcessor], list[Problem]]]
_names = itertools.count()


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Plans the processors of a configuration; `OWN` in it stands for a module of one's own."""
    module = f"own_{next(_names)}"
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)

    def make(
        text: str, *, contracts: Any = (), channels: Any = ()
    ) -> tuple[dict[str, PlannedProcessor], list[Problem]]:
        path = tmp_path / "edgeq.yaml"
        path.write_text(text.replace("OWN", module))
        problems: list[Problem] = []
        loaded = load(str(path), environ={})
        parts = Parts(contracts, Policy((), channels), Metrics(), Clock(), nowhere)
        return plan_processors(loaded, parts, channels, problems), problems

    yield make
    sys.modules.pop(module, None)


def test_built_in_kinds_under_names_of_ones_own(plan: Plan) -> None:
    planned, problems = plan("processors: {mail: {kind: courier, batch_size: 7}, watch: {kind: sentinel}}")
    assert problems == []
    assert isinstance(planned["mail"].make(None), Courier)
    assert isinstance(planned["watch"].make(None), Sentinel)
    assert planned["mail"].settings.batch_size == 7


def test_sentinel_and_courier_are_added_when_they_are_needed(plan: Plan) -> None:
    assert plan("gateway: g")[0] == {}
    assert plan("gateway: g", channels=["mail"])[0].keys() == {"courier"}
    assert plan("processors: {mail: {kind: courier}}", channels=["mail"])[0].keys() == {"mail"}
    assert plan("gateway: g", contracts=["any"])[0].keys() == {"sentinel"}


@pytest.mark.parametrize(("kind", "why"), [("sentinel", "judge alike"), ("courier", "tell everything twice")])
def test_there_is_one_of_a_kind_that_would_do_all_twice(plan: Plan, kind: str, why: str) -> None:
    _, problems = plan(f"processors:\n  a: {{kind: {kind}}}\n  b: {{kind: {kind}}}")
    assert [(each.where.rpartition(":")[2], each.path, each.message) for each in problems] == [
        ("3", "processors.b.kind", f"there is a {kind} already; two would {why}")
    ]


def test_a_class_of_ones_own_with_keys_of_its_own(plan: Plan) -> None:
    planned, problems = plan(
        "processors:\n"
        "  p: {kind: 'OWN:PumpLog', pumps: 3, start: 17, on_error: {attempts: 2, then: halt}}\n"
        "  q: {kind: 'OWN:Plain'}"
    )
    assert problems == []
    first, second = planned["p"].make(None), planned["p"].make(None)
    assert first is not second
    assert first.text == "3 pumps, none"  # type: ignore[attr-defined]
    assert planned["p"].settings.start == 17
    assert planned["p"].settings.on_error.then == "halt"
    assert planned["q"].settings.start == "latest"


def test_a_key_of_ones_own_may_end_in_file_and_others_may_be_read_from_one(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "label").write_text("north\n")
    planned, problems = plan(
        "processors: {p: {kind: 'OWN:PumpLog', pumps: 3, label_file: label, state_file: /var/lib/pumps}}"
    )
    assert problems == []
    made = planned["p"].make(None)
    assert (made.text, made.state_file) == ("3 pumps, north", "/var/lib/pumps")  # type: ignore[attr-defined]


def test_a_kind_of_another_package(plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = next(tmp_path.glob("own_*.py")).stem
    entries = EntryPoints([EntryPoint("pump-log", f"{module}:Plain", "edgeq.processors")])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: entries.select(group=group))
    planned, problems = plan("processors: {p: {kind: pump-log}}")
    assert problems == []
    assert type(planned["p"].make(None)).__name__ == "Plain"


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("{}", "kind", "is missing"),
        ("{kind: [courier]}", "kind", "must be text"),
        ("{kind: curier}", "kind", "did you mean 'courier'?"),
        ("{kind: 'OWN:Nowhere'}", "kind", "has no 'Nowhere'"),
        ("{kind: 'nowhere:At'}", "kind", "there is no module 'nowhere'"),
        ("{kind: 'OWN:other'}", "kind", "is not a class made from QueueProcessor"),
        ("{kind: 'OWN:QueueProcessor'}", "kind", "is not a class made from QueueProcessor"),
        ("{kind: 'OWN:Nothing'}", "kind", "neither process_item nor process_batch"),
        ("{kind: 'OWN:Blocking'}", "kind", "process_item must be written async def"),
        ("{kind: 'OWN:Dreaming'}", "kind", "filter_item must be written def"),
        ("{kind: 'OWN:Text'}", "kind", "must be lists"),
        ("{kind: 'OWN:Needy'}", "kind", "must need no arguments"),
        ("{kind: 'OWN:Loose'}", "kind", "settings must be a record class"),
        ("{kind: 'OWN:PumpLog'}", "pumps", "is missing"),
        ("{kind: 'OWN:PumpLog', pumps: many}", "pumps", "whole number"),
        ("{kind: 'OWN:PumpLog', pumps: 1, batch: 3}", "batch", "unknown key"),
        ("{kind: 'OWN:Plain', pumps: 1}", "pumps", "unknown key"),
        ("{kind: courier, batch_size: 0}", "batch_size", "between 1 and 1000"),
        ("{kind: courier, batch_size: 1001}", "batch_size", "between 1 and 1000"),
        ("{kind: courier, start: earliest}", "start", "latest, beginning or a whole number"),
        ("{kind: courier, start: -1}", "start", "latest, beginning or a whole number"),
        ("{kind: courier, start: 9223372036854775808}", "start", "latest, beginning or a whole number"),
        ("{kind: courier, poll_interval: 5}", "poll_interval", "unit"),
        ("{kind: courier, poll_interval: 0s}", "poll_interval", "at least 100ms"),
        ("{kind: courier, on_error: {attempts: 0}}", "on_error.attempts", "between 1 and 1000"),
        ("{kind: courier, on_error: {then: cry}}", "on_error.then", "dead_letter"),
    ],
)
def test_mistakes_are_told_with_their_place(plan: Plan, section: str, key: str, message: str) -> None:
    planned, problems = plan(f"processors:\n  p: {section}\n")
    assert planned == {}
    (problem,) = problems
    assert problem.path == (f"processors.p.{key}" if key else "processors.p")
    assert message in str(problem)
    assert problem.where.endswith("edgeq.yaml:2")


def test_what_would_never_rest_is_refused_key_by_key(plan: Plan) -> None:
    planned, problems = plan(
        "processors:\n  p:\n    kind: courier\n    poll_interval: 1us\n    on_error:\n      attempts: 1001\n"
        "      backoff: 0s..1h\n  q: {kind: sentinel, poll_interval: 100ms, on_error: {backoff: 100ms, attempts: 1000}}"
    )
    assert [(each.where.rpartition(":")[2], each.path, each.message) for each in problems] == [
        ("4", "processors.p.poll_interval", "must be at least 100ms, not '1us'"),
        ("6", "processors.p.on_error.attempts", "must be between 1 and 1000, not 1001"),
        ("7", "processors.p.on_error.backoff", "must begin with at least 100ms, not '0s..1h'"),
    ]
    assert planned.keys() == {"q"}
