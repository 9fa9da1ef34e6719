"""Configurations that were right, and are damaged: each can run, or is refused with all that is wrong and where."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import JSON, damaged, fuzz
from support.sample import FOLDER, uncommented_in

from edgeq.clock import Clock
from edgeq.config.load import load_to_plan, redacted
from edgeq.errors import ConfigError
from edgeq.plan import make_plan
from edgeq.telemetry.metrics import Metrics

EXAMPLES = sorted((FOLDER / "examples").glob("*.yaml"))
ODD = st.sampled_from(
    ["", " ", "~", "yes", "NaN", ".inf", "1e400", "-1", "0", "9" * 400, "0x10", "1_0", "1s..0s", "0s", "-5m", "1e9d",
     "999999999999d", "64KiB", "-1B", "9" * 30 + "GiB", "5/s", "0/s", "1/0s", "${NIX}", "${", "{", "{}", "{payload.}",
     "{a:int}", "{rest:#}", "a/#/b", "#", "+", "$share/g/a", "*", "**" * 50, "24:00-00:00", "mo-su", "0 0 31 2 *",
     "* * * * * *", "Europe/Nowhere", "../../etc/passwd", "/dev/zero", "/dev/stdin", "os:system", "builtins:eval",
     "http://[", "https://u:p@h:99999/", "sqlite://", "postgresql://", "mqtt://[::1", "::1:99999", "\x00", "\x1b[0m",
     "\ud800", "\u202e", "a" * 5000]
)  # fmt: skip
SCALARS = ODD | st.text(max_size=12) | st.integers() | st.floats() | st.booleans() | st.none()
Step = str | int
Places = list[tuple[Step, ...]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All that the sample names, for which it is the folder to work in."""
    uncommented_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "greenhouse":
            del sys.modules[name]


def originals(folder: Path) -> list[str]:
    return [(folder / "edgeq.yaml").read_text(), *(path.read_text() for path in EXAMPLES)]


async def nowhere(*_: Any, **__: Any) -> None:
    """Nobody hears it."""


def is_refused_well_or_runs(content: bytes, folder: Path) -> None:
    """See the module."""
    (folder / "fuzzed.yaml").write_bytes(content)
    where = re.compile(rf"{re.escape(str(folder))}/fuzzed\.yaml(:\d+)?")
    try:
        loaded = load_to_plan(str(folder / "fuzzed.yaml"), environ={})
        plan = make_plan(loaded, publish=nowhere, clock=Clock(), metrics=Metrics())
    except ConfigError as error:
        problems = error.problems
    else:
        plan.table.filters()
        str(redacted(loaded)).encode()
        return
    assert problems
    for problem in problems:
        assert where.fullmatch(problem.where), problem
        assert str(problem).encode()


def places(tree: Any, path: tuple[Step, ...] = ()) -> Places:
    """The path of every value."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in items for found in ((*path, key), *places(value, (*path, key)))]


def at(tree: Any, path: tuple[Step, ...]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with some of its values taken out, swapped for others of it, or replaced by anything."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        there = places(tree)
        if not there:
            break
        *above, last = draw(st.sampled_from(there))
        what = draw(st.sampled_from(["odd", "odd", "other", "gone", "name", "twice"]))
        inside = at(tree, tuple(above))
        if what == "odd":
            inside[last] = draw(SCALARS | JSON)
        elif what == "other":
            inside[last] = copy.deepcopy(at(tree, draw(st.sampled_from(there))))
        elif what == "gone":
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw(ODD | st.text(max_size=8))] = inside[last] if what == "twice" else inside.pop(last)
        else:
            inside.append(copy.deepcopy(inside[last]))
    return tree


@fuzz(150)
@given(data=st.data())
def test_values_that_were_changed(folder: Path, data: st.DataObject) -> None:
    tree = data.draw(changed(yaml.safe_load(data.draw(st.sampled_from(originals(folder))))))
    text = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=data.draw(st.booleans()))
    is_refused_well_or_runs(text.encode("utf-8", "surrogatepass"), folder)


@fuzz(80)
@given(data=st.data())
def test_text_that_was_changed(folder: Path, data: st.DataObject) -> None:
    text = st.sampled_from(originals(folder)).map(str.encode)
    is_refused_well_or_runs(data.draw(damaged(text)), folder)


@fuzz(80)
@given(data=st.data())
def test_lines_that_were_mixed_up(folder: Path, data: st.DataObject) -> None:
    lines = [line for text in originals(folder) for line in text.splitlines() if line.strip()[:1] not in ("", "#")]
    start = data.draw(st.integers(0, len(lines) - 1))
    taken = lines[start : start + data.draw(st.integers(1, 60))]
    for _ in range(data.draw(st.integers(1, 4))):
        taken.insert(data.draw(st.integers(0, len(taken))), data.draw(st.sampled_from(lines)))
    is_refused_well_or_runs("\n".join(taken).encode(), folder)
