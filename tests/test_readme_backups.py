"""docs/backups.md: every line in one folder and in its order; and its figures and the names of its events are true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.readme import PAGES, ROOT, Terminals, followed, steps

from edgeq.store import files
from edgeq.store.sqlite.store import RECOVERY_SECONDS

BACKUPS = followed(PAGES["docs/backups.md"])

# Every line that the reader types, and what it must show.
TYPED = [
    ("mkdir backups", []),
    ("edgeq run --once", []),
    ("edgeq emit door.opened --subject north", ["as event 1"]),
    ("edgeq db backup", ["backups/edgeq-barn-", "1 is its last event"]),
    ("edgeq db backup before.db", ["before.db: 1 is its last event"]),
    ("edgeq db check", ["nothing is wrong"]),
    ("edgeq db check --quick", ["nothing is wrong"]),
    ("edgeq db restore before.db", ["what was there: ", "edgeq.db.replaced-"]),
    ("edgeq run --once", []),
    ("edgeq emit bell.rung --subject gate", ["as event 3"]),
    ("edgeq run --once", []),
    ("edgeq db recover edgeq.db.replaced-*Z", ["recovered: 1 events"]),
    ("edgeq events list", ["door.opened", "door.closed", "bell.rung"]),
    ("edgeq db migrate", ["is up to date"]),
]


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    made = Terminals(tmp_path)
    yield made
    made.kill()


def test_it_works_as_it_is_written(terminals: Terminals) -> None:
    pytest.importorskip("amqtt", reason="the extra 'demo' is not installed")
    for (line, _), (expected, shown) in zip(steps(BACKUPS, terminals.folder), TYPED, strict=True):
        assert line == expected
        if line.startswith("edgeq db restore"):
            terminals.type("edgeq emit door.closed --subject south")  # came after the backup
        out = terminals.type(line)
        for text in shown:
            assert text in out, f"{line}\n{out}"


def test_the_figures_in_the_text_are_true() -> None:
    assert f"isn't larger than {files._QUICK_CHECK_BYTES_MAX // 2**20} MiB" in BACKUPS
    assert f"within {RECOVERY_SECONDS:.0f} seconds" in BACKUPS


def test_its_events_are_those_of_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "edgeq/upkeep").glob("*.py"))
    told = set(re.findall(r"`(edgeq\.(?:store|backup)_\w+)`", BACKUPS))
    assert told == set(re.findall(r'"(edgeq\.(?:store|backup)_\w+)"', source))
